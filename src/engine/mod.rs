//! Settings, models and compute device of a program: opens embedders, rerankers and indexes.
//!
//! [`Engine`] makes the choices that every program needs: where a model is looked for, which
//! reranker is the best one present, whether a GPU is worth its start, and what happens if it
//! fails. The command line, the Python package and other programs open everything through it.

mod embedders;

pub use embedders::{ChunkOptions, ImportTarget, IndexEmbedder, manifest_for};

use crate::answer::{ChatClient, ChatOptions, DEFAULT_BASE_URL};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::models::open_reranker;
use crate::search::Searcher;
use crate::store::Index;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use warpseek_bert::reranker::Reranker;
use warpseek_compute::device::{ComputeOptions, Device, Precision};
use warpseek_hub::http::Secret;
use warpseek_hub::{FetchEvent, ModelFolder, ModelKind, ModelSpec, Models};
use warpseek_topk::scanner::{GpuOptions, HAS_CUDA, Scanner};

/// The default embedding model of new indexes.
pub const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// Messages of an [`Engine`] to the user.
pub trait EngineEvents: Send + Sync {
    /// Takes a remark, such as the reason why the CPU is used.
    fn note(&self, text: &str);

    /// Takes a warning, such as a damaged copy of a model.
    fn warn(&self, text: &str);

    /// Takes an event of the download of `model`, and may stop it.
    fn download(&self, model: &str, event: FetchEvent) -> ControlFlow<()>;
}

/// Passes no messages on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EngineEvents for Silent {
    fn note(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn download(&self, _: &str, _: FetchEvent) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Settings, models and compute device of a program. May be shared between threads.
pub struct Engine {
    /// The settings.
    pub settings: Settings,
    /// The models, present or not.
    pub models: Models,
    /// Device and precision that the settings ask for.
    requested: ComputeOptions,
    /// True if the program runs long enough to be worth the start of a GPU.
    is_long: bool,
    /// The GPU, or the reason why there is none. Empty until a GPU is first tried.
    gpu: OnceLock<Result<Scanner, String>>,
    events: Box<dyn EngineEvents>,
}

/// Models to open an index with.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions<'a> {
    /// Embedding model to use instead of the one that the index names.
    pub model: Option<&'a str>,
    /// True if a reranker is wanted.
    pub rerank: bool,
    /// Reranker to use instead of the default one.
    pub reranker: Option<&'a str>,
}

impl Engine {
    /// An engine with these settings. `is_long` tells if the program runs long enough to be worth
    /// the start of a GPU, most of a second. A requested GPU is opened now.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] if the GPU that the settings name cannot be used.
    pub fn new(settings: Settings, is_long: bool, events: Box<dyn EngineEvents>) -> Result<Self> {
        let requested = ComputeOptions {
            device: settings.device.unwrap_or_default(),
            precision: settings.precision.unwrap_or_default(),
            tier: settings.tier.unwrap_or_default(),
            encoder: settings.encoder.unwrap_or_default(),
            gpu_kernels: settings.gpu_kernels.unwrap_or_default(),
        };
        let mut models = Models::from_env()?;
        if let Some(dir) = &settings.models_dir {
            models.sources.model_dirs = vec![dir.clone()];
            models.sources.download_dir = Some(dir.clone());
        }
        models.sources.offline = settings.offline.unwrap_or(false);
        let engine = Self { settings, models, requested, is_long, gpu: OnceLock::new(), events };
        if let Device::Cuda(ordinal) = requested.device {
            let _ = engine.gpu.set(Ok(engine.open_gpu(ordinal)?));
        }
        Ok(engine)
    }

    /// Passes a remark to the user.
    pub fn note(&self, text: &str) {
        self.events.note(text);
    }

    fn open_gpu(&self, ordinal: u32) -> Result<Scanner> {
        let row_bytes = self.settings.gpu_memory.map(|mib| mib.saturating_mul(1 << 20));
        let kernels = self.requested.gpu_kernels;
        Scanner::cuda(ordinal, GpuOptions { row_bytes, kernels, ..GpuOptions::default() })
    }

    /// The GPU that would be used.
    ///
    /// # Errors
    ///
    /// The reason why none is.
    pub fn gpu(&self) -> Result<&Scanner, &str> {
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
                    self.events.note(&format!("using the CPU: {reason}"));
                }
            })
            .ok()
    }

    /// The requested scanner, or the best one for the program.
    pub fn scanner(&self) -> Scanner {
        self.wanted_gpu().cloned().unwrap_or(Scanner::Cpu(self.requested.tier))
    }

    /// Device and precision of the models.
    pub fn compute(&self) -> ComputeOptions {
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
                self.events.note(&format!("using the CPU for a model: {e}"));
                open(ComputeOptions { device: Device::Cpu, precision: Precision::Auto, ..compute })
            }
            opened => opened,
        }
    }

    /// Client of the chat service at `base_url`, else that of the settings, with `key` or the key
    /// of the settings. `None` if the service would be Groq and there is no key for it.
    ///
    /// # Errors
    ///
    /// As [`ChatClient::new`].
    pub fn chat_client(
        &self,
        base_url: Option<&str>,
        key: Option<Secret>,
    ) -> Result<Option<ChatClient>> {
        let base = base_url.or(self.settings.base_url.as_deref());
        let key = key.or_else(|| self.settings.chat_key.clone());
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
    pub fn model_name<'a>(&'a self, requested: Option<&'a str>) -> &'a str {
        requested.or(self.settings.model.as_deref()).unwrap_or(DEFAULT_MODEL)
    }

    /// The model's folder, downloaded if it is not present.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] with the places that were searched.
    pub fn get_or_download(&self, name: &str) -> Result<ModelFolder> {
        let folder =
            self.models.get_or_download(name, &|event| self.events.download(name, event))?;
        folder.warnings.iter().for_each(|w| self.events.warn(w));
        Ok(folder)
    }

    /// The model's folder, with every file that the hub has of it; see [`Models::pull`].
    ///
    /// # Errors
    ///
    /// As [`Engine::get_or_download`].
    pub fn pull(&self, name: &str) -> Result<ModelFolder> {
        let folder = self.models.pull(name, &|event| self.events.download(name, event))?;
        folder.warnings.iter().for_each(|w| self.events.warn(w));
        Ok(folder)
    }

    /// The requested reranker, else that of the settings, else the best one present. `None` for
    /// `none`, or if none is present.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the named one is not present, or unusable.
    pub fn reranker(&self, requested: Option<&str>) -> Result<Option<(String, Arc<Reranker>)>> {
        let folder = match requested.or(self.settings.reranker.as_deref()) {
            Some("none") => None,
            Some(name) => {
                self.check_kind(name, ModelKind::Reranker)?;
                Some(self.models.find(name)?)
            }
            None => self.present_rerankers().next(),
        };
        folder.map(|folder| self.open_reranker(folder)).transpose()
    }

    /// The reranker of the settings, else all listed ones that are present, best first.
    ///
    /// # Errors
    ///
    /// As [`Engine::reranker`].
    pub fn rerankers(&self) -> Result<Vec<(String, Arc<Reranker>)>> {
        if self.settings.reranker.is_some() {
            return Ok(self.reranker(None)?.into_iter().collect());
        }
        self.present_rerankers().map(|folder| self.open_reranker(folder)).collect()
    }

    /// The sha256 of the weights of a reranker of this name, lower-case hex, if it is present.
    pub fn reranker_sha256(&self, name: &str) -> Option<String> {
        self.models.find(name).ok().map(|folder| folder.sha256)
    }

    /// Refuses a listed model of another kind, so that it is not downloaded in vain.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] with the names of models of the wanted kind.
    pub fn check_kind(&self, name: &str, wanted: ModelKind) -> Result<()> {
        match self.models.manifest.get(name) {
            Some(spec) if spec.kind != wanted => Err(self.wrong_kind(name, wanted)),
            _ => Ok(()),
        }
    }

    /// The error for a model that is not of the wanted kind, with some that are.
    fn wrong_kind(&self, name: &str, wanted: ModelKind) -> Error {
        let (is, needed, option) = match wanted {
            ModelKind::Embedder => ("a reranker", "an embedder", "--reranker"),
            ModelKind::Reranker => ("an embedder", "a reranker", "--model"),
        };
        let listed = self.models.manifest.models.iter().filter(|spec| spec.kind == wanted);
        let names: Vec<&str> = listed.map(|spec| spec.name.as_str()).take(3).collect();
        let reason = format!(
            "it is {is}, not {needed}: name it with {option}, and here one such as {} (`warpseek \
             models list` lists all)",
            names.join(", ")
        );
        Error::ModelUnavailable { model: name.to_owned(), reason }
    }

    /// The pinned rerankers that are present, best first. One that is not pinned is used only if it
    /// is named: other programs put large ones into the shared cache.
    fn present_rerankers(&self) -> impl Iterator<Item = ModelFolder> {
        let is_wanted = |spec: &ModelSpec| spec.kind == ModelKind::Reranker && spec.is_pinned();
        self.models.status_of_some(is_wanted).filter_map(|status| {
            status.problems.iter().for_each(|p| self.events.warn(p));
            status.folder
        })
    }

    fn open_reranker(&self, folder: ModelFolder) -> Result<(String, Arc<Reranker>)> {
        folder.warnings.iter().for_each(|w| self.events.warn(w));
        let reranker = self.model(|compute| open_reranker(&folder, compute))?;
        Ok((folder.name, Arc::new(reranker)))
    }

    /// Opens an index with its embedder and, if `options` ask for it, a reranker.
    ///
    /// # Errors
    ///
    /// As [`Index::open`], [`Engine::embedder_of`] and [`Engine::reranker`].
    pub fn searcher(&self, dir: &Path, options: &OpenOptions<'_>) -> Result<Searcher> {
        self.searcher_of(Arc::new(Index::open(dir)?), options)
    }

    /// A searcher of an open index, with its embedder and, if `options` ask for it, a reranker.
    ///
    /// # Errors
    ///
    /// As [`Engine::embedder_of`] and [`Engine::reranker`].
    pub fn searcher_of(&self, index: Arc<Index>, options: &OpenOptions<'_>) -> Result<Searcher> {
        let embedder = self.embedder_of(&index, options.model)?.map(Arc::new);
        let reranker = if options.rerank { self.reranker(options.reranker)? } else { None };
        let scanner = self.scanner();
        Ok(Searcher { index, embedder, reranker, scanner, stop: None })
    }
}
