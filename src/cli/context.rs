//! Shared state of a command: settings, compute device, models, and how to open an index.

use super::settings::GlobalArgs;
use super::{interrupt, term};
use indicatif::ProgressBar;
use serde::Serialize;
use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::sync::Arc;
use warpseek::answer::{ChatClient, ChatOptions, DEFAULT_BASE_URL};
use warpseek::bert::embedder::{Embedder, Normalize};
use warpseek::bert::reranker::Reranker;
use warpseek::compute::device::{ComputeOptions, Device, Precision};
use warpseek::config::Settings;
use warpseek::error::{Error, Result};
use warpseek::hub::http::Secret;
use warpseek::hub::{FetchEvent, ModelFolder, ModelKind, Models};
use warpseek::models::{open_embedder, open_reranker};
use warpseek::search::Searcher;
use warpseek::store::{Index, ModelStamp};
use warpseek::topk::scanner::{GpuOptions, HAS_CUDA, Scanner};

/// The default embedding model of new indexes.
pub(super) const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// The end of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    NoHits,
}

/// Everything a command needs besides its own arguments.
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) models: Models,
    /// Device and precision that the settings ask for.
    requested: ComputeOptions,
    /// True if the command runs long enough to be worth the start of a GPU.
    is_long: bool,
    /// The GPU, or the reason why there is none. Empty until a GPU is first tried.
    gpu: OnceCell<std::result::Result<Scanner, String>>,
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Context {
    /// Resolves the settings and starts the thread pool.
    pub(super) fn new(args: &GlobalArgs, is_long: bool) -> Result<Self> {
        let settings = args.settings()?;
        let requested = ComputeOptions {
            device: settings.device.unwrap_or_default(),
            precision: settings.precision.unwrap_or_default(),
            tier: settings.tier.unwrap_or_default(),
            encoder: settings.encoder.unwrap_or_default(),
            gpu_kernels: settings.gpu_kernels.unwrap_or_default(),
        };
        if let Some(threads) = settings.threads {
            // Fails only if the pool is already running, and nothing has started it yet.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        let mut models = Models::from_env()?;
        if let Some(dir) = &settings.models_dir {
            models.sources.model_dirs = vec![dir.clone()];
            models.sources.download_dir = Some(dir.clone());
        }
        models.sources.offline = settings.offline.unwrap_or(false);
        let gpu = OnceCell::new();
        let (json, quiet) = (args.json, args.quiet);
        let context = Self { settings, models, requested, is_long, gpu, json, quiet };
        if let Device::Cuda(ordinal) = requested.device {
            let _ = context.gpu.set(Ok(context.open_gpu(ordinal)?));
        }
        Ok(context)
    }

    fn open_gpu(&self, ordinal: u32) -> Result<Scanner> {
        let row_bytes = self.settings.gpu_memory.map(|mib| mib.saturating_mul(1 << 20));
        let kernels = self.requested.gpu_kernels;
        Scanner::cuda(ordinal, GpuOptions { row_bytes, kernels, ..GpuOptions::default() })
    }

    /// The GPU that would be used, or the reason why none is.
    pub(super) fn gpu(&self) -> std::result::Result<&Scanner, &str> {
        let open = || self.open_gpu(0).map_err(|e| e.to_string());
        match self.requested.device {
            Device::Cpu => Err("the CPU was requested"),
            _ => self.gpu.get_or_init(open).as_ref().map_err(String::as_str),
        }
    }

    /// The GPU, if one was requested or is worth its start. Notes once if it cannot be opened.
    fn wanted_gpu(&self) -> Option<&Scanner> {
        let is_wanted = match self.requested.device {
            Device::Cuda(_) => true,
            Device::Auto => {
                (self.is_long || self.requested.precision == Precision::F16) && HAS_CUDA
            }
            Device::Cpu => false,
        };
        if !is_wanted {
            return None;
        }
        let is_first_try = self.gpu.get().is_none();
        self.gpu()
            .inspect_err(|reason| {
                if is_first_try {
                    self.note(&format!("using the CPU: {reason}"));
                }
            })
            .ok()
    }

    /// The requested scanner, or the best one for the command.
    pub(super) fn scanner(&self) -> Result<Scanner> {
        Ok(self.wanted_gpu().cloned().unwrap_or(Scanner::Cpu(self.requested.tier)))
    }

    /// Device and precision of the models.
    pub(super) fn compute(&self) -> ComputeOptions {
        match (self.requested.device, self.requested.precision) {
            (Device::Auto, Precision::Auto | Precision::F16) if self.wanted_gpu().is_some() => {
                ComputeOptions { device: Device::Cuda(0), ..self.requested }
            }
            _ => self.requested,
        }
    }

    /// Opens a model. Falls back to the CPU if the GPU fails and was not requested.
    fn model<T>(&self, open: impl Fn(ComputeOptions) -> Result<T>) -> Result<T> {
        let compute = self.compute();
        match open(compute) {
            Err(e @ (Error::DeviceUnavailable { .. } | Error::DeviceFailed { .. }))
                if compute.device != self.requested.device =>
            {
                self.note(&format!("using the CPU for a model: {e}"));
                open(ComputeOptions { device: Device::Cpu, precision: Precision::Auto, ..compute })
            }
            opened => opened,
        }
    }

    /// Notes that no reranker is present and what happens instead, unless reranking was declined.
    pub(super) fn note_missing_reranker(&self, requested: Option<&str>, instead: &str) {
        if requested.or(self.settings.reranker.as_deref()) != Some("none") {
            self.note(&format!(
                "{instead}: no reranker is present; get one with `warpseek models pull \
                 ms-marco-MiniLM-L6-v2`, or name a folder with --reranker"
            ));
        }
    }

    /// Writes a note to stderr, unless `--quiet` is set.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            term::note(text);
        }
    }

    /// A progress bar over `total` units, hidden with `--quiet`.
    pub(super) fn bar(&self, total: Option<u64>, template: &str) -> ProgressBar {
        term::bar(total, template, self.quiet)
    }

    /// Prints `value` as JSON with `--json`, else the text that `print` writes.
    pub(super) fn report(
        &self,
        value: &impl Serialize,
        print: impl FnOnce() -> Result<()>,
    ) -> Result<Status> {
        if self.json {
            term::print_json(value)?
        } else {
            print()?
        }
        Ok(Status::Success)
    }

    /// Client of the chat service, with the key from `key_file` or the settings. None if the
    /// service would be Groq and there is no key for it.
    pub(super) fn chat_client(
        &self,
        base_url: Option<&str>,
        key_file: Option<&Path>,
    ) -> Result<Option<ChatClient>> {
        let base = base_url.or(self.settings.base_url.as_deref());
        let key = match key_file {
            Some(path) => Some(Secret::new(term::read_text(path)?.trim())),
            None => self.settings.chat_key.clone(),
        };
        let key = key.filter(|key| !key.reveal().is_empty());
        if base.is_none() && key.is_none() {
            return Ok(None);
        }
        let offline = self.settings.offline.unwrap_or(false);
        let base = base.unwrap_or(DEFAULT_BASE_URL);
        let options = ChatOptions { offline, ..ChatOptions::default() };
        ChatClient::new(base, key, options).map(Some)
    }

    /// The embedding model of new indexes: the requested one, else that of the settings.
    pub(super) fn model_name<'a>(&'a self, requested: Option<&'a str>) -> &'a str {
        requested.or(self.settings.model.as_deref()).unwrap_or(DEFAULT_MODEL)
    }

    /// The model's folder, downloaded if it is not present.
    pub(super) fn get_or_download(&self, name: &str) -> Result<ModelFolder> {
        let bar: RefCell<Option<ProgressBar>> = RefCell::new(None);
        let folder = self.models.get_or_download(name, &|event| {
            match event {
                FetchEvent::Started { file, size, resumed } => {
                    interrupt::install();
                    self.note(&format!("downloading {file} of {name}"));
                    let new = self.bar(size, "{bytes}/{total_bytes} [{bar:40}] {eta}");
                    new.set_position(resumed);
                    if let Some(old) = bar.replace(Some(new)) {
                        old.finish_and_clear();
                    }
                }
                FetchEvent::Advanced { bytes } => {
                    bar.borrow().iter().for_each(|bar| bar.inc(bytes));
                }
                FetchEvent::Finished { .. } => {
                    bar.take().iter().for_each(ProgressBar::finish_and_clear);
                }
                FetchEvent::Note(text) => self.note(&text),
                FetchEvent::Waiting => {}
            }
            interrupt::flow()
        })?;
        folder.warnings.iter().for_each(|w| term::warn(w));
        Ok(folder)
    }

    /// The embedder of this name, and the stamp of indexes made with it.
    pub(super) fn embedder(
        &self,
        name: &str,
        normalize: Normalize,
    ) -> Result<(Embedder, ModelStamp)> {
        let folder = self.get_or_download(name)?;
        let embedder = self.model(|compute| open_embedder(&folder, normalize, compute))?;
        let stamp = ModelStamp {
            name: folder.name.clone(),
            revision: folder.revision.clone(),
            sha256: folder.sha256.clone(),
            max_tokens: embedder.max_tokens(),
        };
        Ok((embedder, stamp))
    }

    /// The embedder that an index was made with; `other` names another copy of it.
    fn embedder_of(&self, stamp: &ModelStamp, other: Option<&str>) -> Result<Embedder> {
        let name = other.unwrap_or(&stamp.name);
        let (embedder, here) = self.embedder(name, Normalize::Always)?;
        if here.sha256 == stamp.sha256 {
            return Ok(embedder);
        }
        Err(Error::ModelUnavailable {
            model: name.to_owned(),
            reason: format!(
                "the index was made with weights of sha256 {}, and this model has {}: name the \
                 right folder with --model",
                stamp.sha256, here.sha256
            ),
        })
    }

    /// The requested reranker, else that of the settings, else the best one present. None for
    /// `none`, or if none is present.
    pub(super) fn reranker(
        &self,
        requested: Option<&str>,
    ) -> Result<Option<(String, Arc<Reranker>)>> {
        let folder = match requested.or(self.settings.reranker.as_deref()) {
            Some("none") => None,
            Some(name) => Some(self.models.find(name)?),
            None => self.present_rerankers().into_iter().next(),
        };
        folder.map(|folder| self.open_reranker(folder)).transpose()
    }

    /// The reranker of the settings, else all listed ones that are present, best first.
    pub(super) fn rerankers(&self) -> Result<Vec<(String, Arc<Reranker>)>> {
        if self.settings.reranker.is_some() {
            return Ok(self.reranker(None)?.into_iter().collect());
        }
        self.present_rerankers().into_iter().map(|folder| self.open_reranker(folder)).collect()
    }

    fn present_rerankers(&self) -> Vec<ModelFolder> {
        let mut listed = self.models.status();
        listed.retain(|status| status.spec.kind == ModelKind::Reranker);
        listed.iter().flat_map(|status| &status.problems).for_each(|p| term::warn(p));
        listed.into_iter().filter_map(|status| status.folder).collect()
    }

    fn open_reranker(&self, folder: ModelFolder) -> Result<(String, Arc<Reranker>)> {
        folder.warnings.iter().for_each(|w| term::warn(w));
        let reranker = self.model(|compute| open_reranker(&folder, compute))?;
        Ok((folder.name, Arc::new(reranker)))
    }

    /// Opens an index with its embedder and, if `options` ask for it, a reranker.
    pub(super) fn searcher(&self, dir: &Path, options: &OpenOptions<'_>) -> Result<Searcher> {
        let index = Index::open(dir)?;
        let embedder = match (&index.manifest().model, options.model) {
            (Some(stamp), other) => Some(Arc::new(self.embedder_of(stamp, other)?)),
            // The index has imported vectors; the user states that they come from this model.
            (None, Some(name)) => Some(Arc::new(self.embedder(name, Normalize::Always)?.0)),
            (None, None) => None,
        };
        if let Some(embedder) = &embedder
            && embedder.dim() != index.manifest().dim
        {
            return Err(Error::usage(format!(
                "the index has {} dimensions, the model makes {}",
                index.manifest().dim,
                embedder.dim()
            )));
        }
        let reranker = if options.rerank { self.reranker(options.reranker)? } else { None };
        Ok(Searcher { index, embedder, reranker, scanner: self.scanner()? })
    }
}

/// Models to open an index with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenOptions<'a> {
    /// Embedding model to use instead of the one that the index names.
    pub(super) model: Option<&'a str>,
    /// True if a reranker is wanted.
    pub(super) rerank: bool,
    /// Reranker to use instead of the default one.
    pub(super) reranker: Option<&'a str>,
}
