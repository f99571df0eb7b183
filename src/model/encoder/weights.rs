//! Reading safetensors: float32 and half precision as they are, int8 with a scale a row.

use super::config::unusable;
use crate::error::{Error, Result};
use crate::model::builtin;
use candle_core::safetensors::{Load, MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is added to the name of an int8 matrix for that of its scales: float32, one a row. A value
/// is the integer times the scale of its row.
const SCALE_SUFFIX: &str = ".scale";

/// The weights of a model folder.
pub(crate) struct Weights {
    path: PathBuf,
    tensors: Tensors,
}

enum Tensors {
    Mapped(MmapedSafetensors),
    Builtin(SliceSafetensors<'static>),
}

impl Tensors {
    fn get(&self, name: &str) -> candle_core::Result<TensorView<'_>> {
        match self {
            Self::Mapped(tensors) => tensors.get(name),
            Self::Builtin(tensors) => tensors.get(name),
        }
    }

    fn names(&self) -> Vec<String> {
        let all = match self {
            Self::Mapped(tensors) => tensors.tensors(),
            Self::Builtin(tensors) => tensors.tensors(),
        };
        all.into_iter().map(|(name, _)| name).collect()
    }
}

impl Weights {
    /// Opens `model.safetensors` of a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("model.safetensors");
        let invalid = |e: candle_core::Error| {
            unusable(&path, format!("no valid safetensors file ({e}); fetch it again"))
        };
        if let Some(bytes) = builtin::content(&path) {
            let tensors = Tensors::Builtin(SliceSafetensors::new(bytes).map_err(invalid)?);
            return Ok(Self { path, tensors });
        }
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
        let mapped = unsafe { MmapedSafetensors::new(&path) };
        let tensors = Tensors::Mapped(mapped.map_err(invalid)?);
        Ok(Self { path, tensors })
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.get(name).is_ok()
    }

    /// A tensor's values in float32, row-major; its shape must be `shape`.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Ok(view) = self.tensors.get(name) else {
            return Err(unusable(
                &self.path,
                format!("the tensor '{name}' is missing: not a BERT model of the expected layout"),
            ));
        };
        if view.shape() != shape {
            return Err(unusable(
                &self.path,
                format!(
                    "the tensor '{name}' has shape {:?}, config.json says {shape:?}",
                    view.shape()
                ),
            ));
        }
        let values = self.values(name, &view)?;
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(unusable(&self.path, format!("the tensor '{name}' holds NaN or infinity")))
    }

    /// Candle's own reader of the weights.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where a tensor cannot be read.
    pub(super) fn builder(&self) -> Result<VarBuilder<'static>> {
        let mut tensors = HashMap::new();
        for name in self.tensors.names() {
            let view = self.tensors.get(&name).map_err(|e| self.failed(&name, &e))?;
            if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8) {
                // Position numbers that some files carry along.
                continue;
            }
            let values = self.values(&name, &view)?;
            let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)
                .map_err(|e| self.failed(&name, &e))?;
            tensors.insert(name, tensor);
        }
        Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }

    /// The prefix of the encoder's tensors: cross-encoders have `bert.`, embedders none.
    pub(super) fn prefix(&self) -> &'static str {
        if self.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" }
    }

    fn values(&self, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
        if view.dtype() == Dtype::I8 {
            return self.dequantised(name, view);
        }
        view.load(&Device::Cpu)
            .and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1())
            .map_err(|e| self.failed(name, &e))
    }

    fn dequantised(&self, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
        let &[rows, columns] = view.shape() else {
            return Err(unusable(
                &self.path,
                format!("the int8 tensor '{name}' is no matrix: matrices alone may be int8"),
            ));
        };
        let scales = self.get(&format!("{name}{SCALE_SUFFIX}"), &[rows])?;
        Ok(view
            .data()
            .chunks_exact(columns.max(1))
            .zip(scales)
            .flat_map(|(row, scale)| row.iter().map(move |&b| f32::from(b.cast_signed()) * scale))
            .collect())
    }

    fn failed(&self, name: &str, e: &candle_core::Error) -> Error {
        unusable(&self.path, format!("the tensor '{name}' cannot be read ({e})"))
    }
}
