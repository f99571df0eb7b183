//! Where a model's copies may be on this machine, and which is the first that verifies.

use std::path::{Path, PathBuf};

use super::builtin;
use super::checksum::Stamps;
use super::folder::{self, ModelFolder, Origin, Verdict};
use super::hub_cache::RepoCache;
use super::locate::Models;
use super::manifest::{ModelSpec, REQUIRED, is_hub_id};

/// What an asked-for name means.
pub(crate) enum Target<'a> {
    Listed(&'a ModelSpec),
    /// A hub id that the manifest does not know.
    Unlisted,
    Folder,
    Unknown,
}

/// A place where a copy of a listed model may be.
pub(crate) struct CopyPlace {
    pub(crate) path: PathBuf,
    pub(crate) origin: Origin,
    /// Whether it claims to be the pinned revision, so that a difference is damage.
    pub(crate) pinned: bool,
}

/// How a local search ended.
#[derive(Default)]
pub(crate) struct Search {
    pub(crate) found: Option<ModelFolder>,
    /// A line for each place.
    pub(crate) tried: Vec<String>,
    /// The lines among them that speak of damage.
    pub(crate) flawed: Vec<String>,
}

impl Search {
    pub(crate) fn of(path: &Path, opened: Result<ModelFolder, String>) -> Self {
        match opened {
            Ok(folder) => Self { found: Some(folder), ..Self::default() },
            Err(reason) => {
                Self { tried: vec![format!("{}: {reason}", path.display())], ..Self::default() }
            }
        }
    }
}

impl Models {
    /// What `name` means.
    pub(crate) fn target(&self, name: &str) -> Target<'_> {
        let path = Path::new(name);
        let is_path = path.is_absolute()
            || name.starts_with('.')
            || name.ends_with('/')
            || name.contains(['/', std::path::MAIN_SEPARATOR]) && !is_hub_id(name);
        if is_path {
            return Target::Folder;
        }
        if let Some(spec) = self.manifest.get(name) {
            return Target::Listed(spec);
        }
        let holds_model = |path: &Path| REQUIRED.iter().any(|file| path.join(file).exists());
        if path.is_dir() && (!is_hub_id(name) || holds_model(path)) {
            Target::Folder
        } else if is_hub_id(name) {
            Target::Unlisted
        } else {
            Target::Unknown
        }
    }

    pub(crate) fn search(&self, name: &str, stamps: &Stamps) -> Search {
        match self.target(name) {
            Target::Listed(spec) => self.search_listed(spec, Some(name), stamps),
            Target::Unlisted => self.search_unlisted(name, stamps),
            Target::Folder => {
                let path = Path::new(name);
                Search::of(
                    path,
                    folder::open_unlisted(path, Origin::Explicit, &self.manifest, stamps),
                )
            }
            Target::Unknown => {
                let near = self.manifest.closest(name);
                let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                let known: Vec<_> =
                    self.manifest.models.iter().map(|spec| spec.name.as_str()).collect();
                let reason = format!(
                    "neither a folder, nor a hub id (organisation/name), nor one of {}{near}",
                    known.join(", ")
                );
                Search { tried: vec![reason], ..Search::default() }
            }
        }
    }

    pub(crate) fn search_listed(
        &self,
        spec: &ModelSpec,
        name: Option<&str>,
        stamps: &Stamps,
    ) -> Search {
        let mut search = Search::default();
        for place in self.places(spec, name) {
            match folder::check(&place.path, spec, stamps) {
                Verdict::Sound => {
                    let warnings = std::mem::take(&mut search.flawed);
                    search.found = Some(listed(place.path, place.origin, spec, warnings));
                    return search;
                }
                Verdict::Absent => {
                    search.tried.push(format!("{}: nothing there", place.path.display()))
                }
                Verdict::Flawed(flaws) => {
                    search.tried.extend(flaws.iter().cloned());
                    if place.pinned {
                        search.flawed.extend(flaws);
                    }
                }
            }
        }
        if let Some(path) = self.builtin(spec) {
            let warnings = std::mem::take(&mut search.flawed);
            search.found = Some(listed(path, Origin::Builtin, spec, warnings));
        }
        search
    }

    /// Where a listed model's compiled-in copy is, if there is one and it may be used.
    pub(crate) fn builtin(&self, spec: &ModelSpec) -> Option<PathBuf> {
        builtin::folder(&spec.name).filter(|_| self.sources.builtin)
    }

    /// Where a copy of a listed model may be, best first.
    pub(crate) fn places(&self, spec: &ModelSpec, name: Option<&str>) -> Vec<CopyPlace> {
        let place = |origin, path, pinned| CopyPlace { path, origin, pinned };
        let given = name.map(PathBuf::from).filter(|path| path.is_dir());
        let given = given.map(|path| place(Origin::Explicit, path, true));
        let folders = self.sources.model_dirs.iter();
        let mut all: Vec<_> = given
            .into_iter()
            .chain(folders.map(|dir| place(Origin::ModelsDir, dir.join(&spec.name), true)))
            .collect();
        let Some(cache_dir) = &self.sources.cache_dir else { return all };
        let pinned = spec.revision.as_deref();
        for (index, repo) in spec.repos().enumerate() {
            let cache = RepoCache::new(cache_dir, repo);
            let snapshots = cache.snapshots();
            let (this, others): (Vec<_>, Vec<_>) =
                snapshots.into_iter().partition(|(commit, _)| Some(commit.as_str()) == pinned);
            // The pinned place of the current hub id is named even if there is nothing.
            if let Some(revision) = pinned.filter(|_| index == 0 || !this.is_empty()) {
                all.push(place(Origin::HubCache, cache.snapshot(revision), true));
            }
            all.extend(others.into_iter().map(|(_, path)| place(Origin::HubCache, path, false)));
        }
        all
    }

    fn search_unlisted(&self, repo: &str, stamps: &Stamps) -> Search {
        let here = format!("{repo}: no such folder");
        let Some(cache_dir) = &self.sources.cache_dir else {
            return Search { tried: vec![here], ..Search::default() };
        };
        let cache = RepoCache::new(cache_dir, repo);
        let mut snapshots = cache.snapshots();
        if let Some(main) = cache.main() {
            snapshots.retain(|(commit, _)| *commit == main);
        }
        let place = format!("{}: {repo}", cache_dir.display());
        match snapshots.as_slice() {
            [] => {
                Search { tried: vec![here, format!("{place} is not there")], ..Search::default() }
            }
            [(commit, path)] => {
                let opened = folder::open_unlisted(path, Origin::HubCache, &self.manifest, stamps);
                let named = opened.map(|folder| ModelFolder {
                    name: repo.to_string(),
                    revision: Some(commit.clone()),
                    ..folder
                });
                Search::of(path, named)
            }
            several => {
                let reason = format!(
                    "{place} has {} snapshots and no refs/main: pass the folder of one of them",
                    several.len()
                );
                Search { tried: vec![reason], ..Search::default() }
            }
        }
    }
}

/// A sound copy of a listed model.
pub(crate) fn listed(
    path: PathBuf,
    origin: Origin,
    spec: &ModelSpec,
    warnings: Vec<String>,
) -> ModelFolder {
    ModelFolder {
        path,
        name: spec.name.clone(),
        revision: spec.revision.clone(),
        sha256: spec.weights_sha256().to_string(),
        origin,
        spec: Some(spec.clone()),
        warnings,
    }
}
