//! What commands share: settings, models, and how to open an index with them.

use super::{GlobalArgs, interrupt, term};
use indicatif::ProgressBar;
use std::cell::{OnceCell, RefCell};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use warpseek::answer::{ChatClient, ChatOptions, DEFAULT_BASE_URL};
use warpseek::config::Settings;
use warpseek::cpu::Tier;
use warpseek::device::{ComputeOptions, Device, EncoderKind, GpuKernels, Precision};
use warpseek::embed::{Embedder, Normalize};
use warpseek::error::{Error, Result};
use warpseek::hub::http::Secret;
use warpseek::hub::{FetchEvent, ModelFolder, ModelKind, Models};
use warpseek::models::{open_embedder, open_reranker};
use warpseek::rerank::Reranker;
use warpseek::scan::{GpuOptions, HAS_CUDA, Scanner};
use warpseek::search::Searcher;
use warpseek::store::{Index, ModelStamp};

/// The embedding model of new indexes.
pub(super) const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// Everything a command needs beside its own arguments.
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) models: Models,
    /// What was asked for.
    compute: ComputeOptions,
    /// Whether the command has so much to do that a GPU is worth its start.
    much: bool,
    /// The GPU, once it was tried to open it, or why there is none.
    gpu: OnceCell<std::result::Result<Scanner, String>>,
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Context {
    /// Resolves settings (command line, then environment, then file) and starts the thread pool.
    pub(super) fn new(args: &GlobalArgs, much: bool) -> Result<Self> {
        let flags = Settings {
            device: args.device.clone(),
            precision: args.precision.clone(),
            threads: args.threads,
            offline: args.offline.then_some(true),
            models_dir: args.models_dir.clone(),
            ..Settings::default()
        };
        let file = Settings::from_file()?;
        let settings = flags.or(Settings::from_vars(|name| std::env::var(name).ok())?).or(file);
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = |name| var(name).unwrap_or_else(|| "auto".to_owned());
        let compute = ComputeOptions {
            device: Device::named(settings.device.as_deref().unwrap_or("auto"))?,
            precision: Precision::named(settings.precision.as_deref().unwrap_or("auto"))?,
            tier: Tier::named(&named("WARPSEEK_TIER"))?,
            encoder: EncoderKind::named(&named("WARPSEEK_ENCODER"))?,
            gpu_kernels: GpuKernels::named(&named("WARPSEEK_GPU_KERNELS"))?,
        };
        if let Some(threads) = settings.threads {
            if threads == 0 || threads > 1024 {
                return Err(Error::usage(format!("{threads} threads: use 1 to 1024")));
            }
            // The pool can only be started once, and nothing has started it yet.
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
        let context = Self { settings, models, compute, much, gpu, json, quiet };
        if let Device::Cuda(ordinal) = compute.device {
            let _ = context.gpu.set(Ok(context.open_gpu(ordinal)?));
        }
        Ok(context)
    }

    fn open_gpu(&self, ordinal: u32) -> Result<Scanner> {
        let row_bytes = self.settings.gpu_memory.map(|mib| mib.saturating_mul(1 << 20));
        let kernels = self.compute.gpu_kernels;
        Scanner::cuda(ordinal, GpuOptions { row_bytes, kernels, ..GpuOptions::default() })
    }

    /// The GPU that would be used, or why there is none.
    pub(super) fn gpu(&self) -> std::result::Result<&Scanner, &str> {
        let open = || self.open_gpu(0).map_err(|e| e.to_string());
        match self.compute.device {
            Device::Cpu => Err("told to use the CPU"),
            _ => self.gpu.get_or_init(open).as_ref().map_err(String::as_str),
        }
    }

    /// The GPU, where one is asked for or worth its start; what cannot be opened then is noted once.
    fn wanted_gpu(&self) -> Option<&Scanner> {
        let is_wanted = match self.compute.device {
            Device::Cuda(_) => true,
            Device::Auto => (self.much || self.compute.precision == Precision::F16) && HAS_CUDA,
            Device::Cpu => false,
        };
        if !is_wanted {
            return None;
        }
        let is_news = self.gpu.get().is_none();
        match self.gpu() {
            Ok(gpu) => Some(gpu),
            Err(reason) => {
                if is_news {
                    self.note(&format!("using the CPU: {reason}"));
                }
                None
            }
        }
    }

    /// The scanner that is asked for, or that is best for the command.
    pub(super) fn scanner(&self) -> Result<Scanner> {
        Ok(self.wanted_gpu().cloned().unwrap_or(Scanner::Cpu(self.compute.tier)))
    }

    /// How models compute.
    pub(super) fn compute(&self) -> ComputeOptions {
        match (self.compute.device, self.compute.precision) {
            (Device::Auto, Precision::Auto | Precision::F16) if self.wanted_gpu().is_some() => {
                ComputeOptions { device: Device::Cuda(0), ..self.compute }
            }
            _ => self.compute,
        }
    }

    /// Opens a model; on the CPU where a GPU was not asked for and turns out to be of no use.
    fn model<T>(&self, open: impl Fn(ComputeOptions) -> Result<T>) -> Result<T> {
        let compute = self.compute();
        match open(compute) {
            Err(e @ (Error::DeviceUnavailable { .. } | Error::DeviceFailed { .. }))
                if compute.device != self.compute.device =>
            {
                self.note(&format!("using the CPU for a model: {e}"));
                open(ComputeOptions { device: Device::Cpu, precision: Precision::Auto, ..compute })
            }
            opened => opened,
        }
    }

    /// Notes what is done instead where no reranker is present and none was declined.
    pub(super) fn note_missing_reranker(&self, asked: Option<&str>, instead: &str) {
        if asked.or(self.settings.reranker.as_deref()) != Some("none") {
            self.note(&format!(
                "{instead}: no reranker is present; get one with `warpseek models pull \
                 ms-marco-MiniLM-L6-v2`, or name a folder with --reranker"
            ));
        }
    }

    /// Writes a note to stderr, unless told to be quiet.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            term::note(text);
        }
    }

    /// A client of the chat service that is asked for or set, with the key from `key_file` or GROQ_API_KEY;
    /// none where the service would be Groq and there is no key for it.
    pub(super) fn chat_client(
        &self,
        base_url: Option<&str>,
        key_file: Option<&Path>,
    ) -> Result<Option<ChatClient>> {
        let base = base_url.or(self.settings.base_url.as_deref());
        let key = match key_file {
            Some(path) => Some(term::read_text(path)?),
            None => std::env::var("GROQ_API_KEY").ok(),
        };
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if base.is_none() && key.is_none() {
            return Ok(None);
        }
        let offline = self.settings.offline.unwrap_or(false);
        let base = base.unwrap_or(DEFAULT_BASE_URL);
        let options = ChatOptions { offline, ..ChatOptions::default() };
        ChatClient::new(base, key.map(Secret::new), options).map(Some)
    }

    /// The model's folder; fetched where it is not here yet.
    pub(super) fn obtain(&self, name: &str) -> Result<ModelFolder> {
        let bar: RefCell<Option<ProgressBar>> = RefCell::new(None);
        let folder = self.models.get_or_download(name, &|event| {
            match event {
                FetchEvent::Started { file, size, resumed } => {
                    interrupt::install();
                    self.note(&format!("fetching {file} of {name}"));
                    let new = term::bar(size, "{bytes}/{total_bytes} [{bar:40}] {eta}", self.quiet);
                    new.set_position(resumed);
                    if let Some(old) = bar.replace(Some(new)) {
                        old.finish_and_clear();
                    }
                }
                FetchEvent::Advanced { bytes } => {
                    if let Some(bar) = bar.borrow().as_ref() {
                        bar.inc(bytes);
                    }
                }
                FetchEvent::Finished { .. } => {
                    if let Some(bar) = bar.take() {
                        bar.finish_and_clear();
                    }
                }
                FetchEvent::Note(text) => self.note(&text),
                FetchEvent::Waiting => {}
            }
            if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        folder.warnings.iter().for_each(|w| term::warn(w));
        Ok(folder)
    }

    /// The embedder of this name, with the stamp that an index made with it carries.
    pub(super) fn embedder(
        &self,
        name: &str,
        normalize: Normalize,
    ) -> Result<(Embedder, ModelStamp)> {
        let folder = self.obtain(name)?;
        let embedder = self.model(|compute| open_embedder(&folder, normalize, compute))?;
        let stamp = ModelStamp {
            name: folder.name.clone(),
            revision: folder.revision.clone(),
            sha256: folder.sha256.clone(),
            max_tokens: embedder.max_tokens(),
        };
        Ok((embedder, stamp))
    }

    /// The embedder that an index was made with; `other` names another place to take it from.
    pub(super) fn embedder_of(&self, stamp: &ModelStamp, other: Option<&str>) -> Result<Embedder> {
        let name = other.unwrap_or(&stamp.name);
        let (embedder, here) = self.embedder(name, Normalize::Always)?;
        if here.sha256 == stamp.sha256 {
            return Ok(embedder);
        }
        Err(Error::ModelUnavailable {
            model: name.to_owned(),
            reason: format!(
                "the index was made with a model whose weights have the sha256 {}, and the ones here have \
                 {}; name the right folder with --model",
                stamp.sha256, here.sha256
            ),
        })
    }

    /// The reranker to use: the one that is asked for, else the best that is present; none for
    /// `none`, or where none is present.
    pub(super) fn reranker(&self, asked: Option<&str>) -> Result<Option<(String, Arc<Reranker>)>> {
        let asked = asked.or(self.settings.reranker.as_deref());
        let folder = match asked {
            Some("none") => return Ok(None),
            Some(name) => self.models.find(name)?,
            None => match self.present_rerankers().into_iter().next() {
                Some(folder) => folder,
                None => return Ok(None),
            },
        };
        self.open_reranker(folder).map(Some)
    }

    /// The reranker that the settings name, else all listed ones that are present, best first.
    pub(super) fn rerankers(&self) -> Result<Vec<(String, Arc<Reranker>)>> {
        if self.settings.reranker.is_some() {
            return Ok(self.reranker(None)?.into_iter().collect());
        }
        self.present_rerankers().into_iter().map(|folder| self.open_reranker(folder)).collect()
    }

    fn present_rerankers(&self) -> Vec<ModelFolder> {
        let mut found = Vec::new();
        for status in self.models.status() {
            if status.spec.kind == ModelKind::Reranker {
                status.problems.iter().for_each(|p| term::warn(p));
                found.extend(status.folder);
            }
        }
        found
    }

    fn open_reranker(&self, folder: ModelFolder) -> Result<(String, Arc<Reranker>)> {
        folder.warnings.iter().for_each(|w| term::warn(w));
        let reranker = self.model(|compute| open_reranker(&folder, compute))?;
        Ok((folder.name, Arc::new(reranker)))
    }

    /// Opens an index with its embedder and, where wanted, a reranker.
    pub(super) fn searcher(&self, dir: &Path, options: &OpenOptions<'_>) -> Result<Searcher> {
        let index = Index::open(dir)?;
        let embedder = match (&index.manifest().model, options.model) {
            (Some(stamp), other) => Some(Arc::new(self.embedder_of(stamp, other)?)),
            // Imported vectors without a model: the user's word that they come from this one.
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

/// How to open an index.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenOptions<'a> {
    /// Where to take the embedder from, other than by the index's own word.
    pub(super) model: Option<&'a str>,
    /// Whether a reranker is wanted.
    pub(super) rerank: bool,
    /// Which one.
    pub(super) reranker: Option<&'a str>,
}
