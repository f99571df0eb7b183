//! Reading safetensors.

use super::config::unusable;
use crate::error::{Error, Result};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use std::path::{Path, PathBuf};

/// The weights of a model folder.
pub(crate) struct Weights {
    path: PathBuf,
    builder: VarBuilder<'static>,
}

impl Weights {
    /// Opens `model.safetensors` of a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("model.safetensors");
        if !path.exists() {
            let pickle = folder.join("pytorch_model.bin").exists();
            return Err(unusable(
                &path,
                if pickle {
                    "the folder holds only pytorch_model.bin, and warpseek loads no pickles: save the \
                     model with safe_serialization=True"
                        .to_owned()
                } else {
                    "the file is missing; a model folder needs it".to_owned()
                },
            ));
        }
        // SAFETY: the file was checked to exist and is only read; model files are replaced by rename,
        // never written in place, by everything that warpseek does with them.
        let builder = unsafe {
            VarBuilder::from_mmaped_safetensors(
                std::slice::from_ref(&path),
                DType::F32,
                &Device::Cpu,
            )
        }
        .map_err(|e| unusable(&path, format!("no valid safetensors file ({e}); fetch it again")))?;
        Ok(Self { path, builder })
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.builder.contains_tensor(name)
    }

    /// A tensor's values in float32, row-major; its shape must be `shape`.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if !self.has(name) {
            return Err(unusable(
                &self.path,
                format!("the tensor '{name}' is missing: not a BERT model of the expected layout"),
            ));
        }
        let tensor = self.builder.get_unchecked(name).map_err(|e| self.failed(name, &e))?;
        if tensor.dims() != shape {
            return Err(unusable(
                &self.path,
                format!(
                    "the tensor '{name}' has shape {:?}, config.json says {shape:?}",
                    tensor.dims()
                ),
            ));
        }
        let values: Vec<f32> =
            tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(|e| self.failed(name, &e))?;
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(unusable(&self.path, format!("the tensor '{name}' holds NaN or infinity")))
    }

    /// Candle's own reader of the weights.
    pub(super) fn builder(&self) -> VarBuilder<'static> {
        self.builder.clone()
    }

    /// The prefix of the encoder's tensors: cross-encoders have `bert.`, embedders none.
    pub(super) fn prefix(&self) -> &'static str {
        if self.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" }
    }

    fn failed(&self, name: &str, e: &candle_core::Error) -> Error {
        unusable(&self.path, format!("the tensor '{name}' cannot be read ({e})"))
    }
}
