//! Lookup of a model on this machine: places of its copies, and the first that verifies.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use crate::cache::RepoCache;
use crate::checksum::ChecksumCache;
use crate::embedded::EmbeddedModel;
use crate::folder::{ModelCopy, ModelFolder, ModelOrigin};
use crate::manifest::{ModelSpec, REQUIRED, is_hub_id};
use crate::models::{Lookup, Models, Target};

impl Models {
    /// Meaning of `name`.
    pub(crate) fn target(&self, name: &str) -> Target<'_> {
        let path = Path::new(name);
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
        let has_model = || REQUIRED.iter().any(|file| path.join(file).exists());
        match is_hub_id(name) {
            true if path.is_dir() && has_model() => Target::Folder,
            true => Target::Unlisted,
            false if path.is_dir() => Target::Folder,
            false => Target::Unknown,
        }
    }

    /// Looks for `name` on this machine.
    pub(crate) fn lookup(&self, name: &str, checksums: &ChecksumCache) -> Lookup {
        match self.target(name) {
            Target::Listed(spec) => self.lookup_listed(spec, Some(name), checksums),
            Target::Unlisted => self.lookup_unlisted(name, checksums),
            Target::Folder => {
                let copy = ModelCopy { path: name.into(), origin: ModelOrigin::Explicit };
                match copy.open_unlisted(&self.manifest, checksums) {
                    Ok(found) => Lookup { found: Some(found), ..Lookup::default() },
                    Err(reason) => Lookup::failed([format!("{name}: {reason}")]),
                }
            }
            Target::Unknown => {
                let known: Vec<_> =
                    self.manifest.models.iter().map(|spec| spec.name.as_str()).collect();
                let similar = self.manifest.closest(name);
                let hint = similar.map(|similar| format!("; did you mean '{similar}'?"));
                Lookup::failed([format!(
                    "neither a folder, nor a hub id (organisation/name), nor one of {}{}",
                    known.join(", "),
                    hint.unwrap_or_default()
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
                    lookup.tried.push(format!("{}: nothing there", copy.path.display()));
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
        let cache = RepoCache::new(cache_dir, repo);
        let mut snapshots = cache.snapshots();
        if let Some(main) = cache.main() {
            snapshots.retain(|(commit, _)| *commit == main);
        }
        let place = format!("{}: {repo}", cache_dir.display());
        match snapshots.as_slice() {
            [] => Lookup::failed([no_folder, format!("{place} is not there")]),
            [(commit, path)] => {
                let copy = ModelCopy { path: path.clone(), origin: ModelOrigin::HubCache };
                match copy.open_unlisted(&self.manifest, checksums) {
                    Ok(found) => {
                        let (name, revision) = (repo.into(), Some(commit.clone()));
                        let found = Some(ModelFolder { name, revision, ..found });
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
