//! Lookup of a model on this machine: places of its copies, and the first that verifies.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use crate::cache::RepoCache;
use crate::checksum::ChecksumCache;
use crate::embedded::EmbeddedModel;
use crate::folder::{ModelCopy, ModelFolder, ModelOrigin};
use crate::layout::{MODULES, WEIGHTS_INDEX};
use crate::manifest::{ModelSpec, REQUIRED, is_hub_id};
use crate::models::{Lookup, Models, Target};
use crate::names::{Correction, did_you_mean};

impl Models {
    /// Meaning of `name`.
    pub(crate) fn target(&self, name: &str) -> Target<'_> {
        let path = Path::new(name);
        if let Some(correction) = Correction::of(name).filter(|_| !path.is_dir()) {
            return Target::WrongForm(correction);
        }
        let is_path = path.is_absolute()
            || name.starts_with('.')
            || name.ends_with('/')
            || name.contains(['/', MAIN_SEPARATOR]) && !is_hub_id(name);
        if is_path {
            return Target::Folder;
        }
        if let Some(spec) = self.manifest.get(name) {
            return Target::Listed(spec);
        }
        let files = REQUIRED.iter().chain(&[MODULES, WEIGHTS_INDEX]);
        let has_model = || files.clone().any(|file| path.join(file).exists());
        match is_hub_id(name) {
            true if path.is_dir() && has_model() => Target::Folder,
            true => Target::Unlisted,
            false if path.exists() => Target::Folder,
            false => Target::Unknown,
        }
    }

    /// Looks for `name` on this machine.
    pub(crate) fn lookup(&self, name: &str, checksums: &ChecksumCache) -> Lookup {
        match self.target(name) {
            Target::Listed(spec) => self.lookup_listed(spec, Some(name), checksums),
            Target::Unlisted => self.lookup_unlisted(name, checksums),
            Target::WrongForm(correction) => Lookup::failed([correction.reason]),
            Target::Folder => {
                let copy = ModelCopy { path: name.into(), origin: ModelOrigin::Explicit };
                match copy.open_unlisted(None, &self.manifest, checksums) {
                    Ok(found) => Lookup { found: Some(found), ..Lookup::default() },
                    Err(reason) => Lookup::failed([format!("{name}: {reason}")]),
                }
            }
            Target::Unknown => {
                let known = match self.manifest.similar(name).as_slice() {
                    [] => {
                        let all = self.manifest.models.iter().map(|spec| spec.name.as_str());
                        format!("one of {}", all.collect::<Vec<_>>().join(", "))
                    }
                    similar => format!("a listed name; {}", did_you_mean(similar)),
                };
                Lookup::failed([format!(
                    "neither a folder, nor a hub id (organisation/name), nor {known}"
                )])
            }
        }
    }

    /// Looks for a copy of a listed model. `name` is the requested name, which may be a folder too.
    pub(crate) fn lookup_listed(
        &self,
        spec: &ModelSpec,
        name: Option<&str>,
        checksums: &ChecksumCache,
    ) -> Lookup {
        let mut lookup = Lookup::default();
        for (copy, is_pinned) in self.copies(spec, name) {
            match copy.check(spec, checksums) {
                Ok(found) => {
                    let warnings = lookup.damage.clone();
                    lookup.found = Some(ModelFolder { warnings, ..found });
                    break;
                }
                Err(flaws) if flaws.is_empty() => {
                    let is_unclear = copy.path.ends_with("snapshots") && copy.path.is_dir();
                    let why =
                        if is_unclear { "no refs/main names one of them" } else { "nothing there" };
                    lookup.tried.push(format!("{}: {why}", copy.path.display()));
                }
                Err(flaws) => {
                    lookup.tried.extend(flaws.iter().cloned());
                    if is_pinned {
                        lookup.damage.extend(flaws);
                    }
                }
            }
        }
        lookup
    }

    /// Places for copies of a listed model, in the order of preference; true if a copy there should
    /// be the pinned revision, so that a difference is damage.
    pub(crate) fn copies(&self, spec: &ModelSpec, name: Option<&str>) -> Vec<(ModelCopy, bool)> {
        let copy = |path, origin| ModelCopy { path, origin };
        let named = name.map(PathBuf::from).filter(|path| path.is_dir());
        let named = named.map(|path| (copy(path, ModelOrigin::Explicit), true));
        let in_dir = |dir: &PathBuf| (copy(dir.join(&spec.name), ModelOrigin::ModelsDir), true);
        let mut all: Vec<_> =
            named.into_iter().chain(self.sources.model_dirs.iter().map(in_dir)).collect();
        for (index, repo) in spec.repos().enumerate() {
            let Some(cache_dir) = &self.sources.cache_dir else { break };
            let cache = RepoCache::new(cache_dir, repo);
            if !spec.is_pinned() {
                let path = match cache.current().as_slice() {
                    [(_, path)] => path.clone(),
                    _ => cache.snapshots_dir(),
                };
                all.push((copy(path, ModelOrigin::HubCache), true));
                continue;
            }
            let (pinned, others): (Vec<_>, Vec<_>) = cache
                .snapshots()
                .into_iter()
                .partition(|(commit, _)| Some(commit) == spec.revision.as_ref());
            // The pinned snapshot of the current hub id is named even if it does not exist.
            if let Some(revision) = spec.revision.as_ref()
                && (index == 0 || !pinned.is_empty())
            {
                all.push((copy(cache.snapshot(revision), ModelOrigin::HubCache), true));
            }
            let others = others.into_iter();
            all.extend(others.map(|(_, path)| (copy(path, ModelOrigin::HubCache), false)));
        }
        let embedded = EmbeddedModel::named(&spec.name).filter(|_| self.sources.builtin);
        all.extend(embedded.map(|model| (copy(model.path(), ModelOrigin::Embedded), true)));
        all
    }

    /// Looks for an unlisted hub id in the Hugging Face cache: the snapshot of its main branch,
    /// else the only snapshot.
    fn lookup_unlisted(&self, repo: &str, checksums: &ChecksumCache) -> Lookup {
        let no_folder = format!("{repo}: no such folder");
        let Some(cache_dir) = &self.sources.cache_dir else { return Lookup::failed([no_folder]) };
        let snapshots = RepoCache::new(cache_dir, repo).current();
        let place = format!("{}: {repo}", cache_dir.display());
        match snapshots.as_slice() {
            [] => Lookup::failed([no_folder, format!("{place} is not there")]),
            [(commit, path)] => {
                let copy = ModelCopy { path: path.clone(), origin: ModelOrigin::HubCache };
                match copy.open_unlisted(Some(repo), &self.manifest, checksums) {
                    Ok(found) => {
                        let revision = Some(commit.clone());
                        let found = Some(ModelFolder { revision, ..found });
                        Lookup { found, ..Lookup::default() }
                    }
                    Err(reason) => Lookup::failed([format!("{}: {reason}", path.display())]),
                }
            }
            several => Lookup::failed([format!(
                "{place} has {} snapshots and no refs/main: pass the folder of one of them",
                several.len()
            )]),
        }
    }
}
