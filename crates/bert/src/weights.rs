//! Weights from safetensors: float32, half precision, and int8 with one scale per row.

use crate::error::{Error, Result};
use crate::model_files::{MISSING, ModelFiles, unusable};
use crate::settings::ModelSettings;
use candle_core::safetensors::{Load, MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The weights file.
const FILE: &str = "model.safetensors";

/// Suffix of the tensor with the scales of an int8 matrix: float32, one per row. A value is the
/// integer times the scale of its row.
const SCALE_SUFFIX: &str = ".scale";

/// The weights of a model, memory-mapped or compiled in.
pub(crate) struct Weights {
    path: PathBuf,
    tensors: Tensors,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("path", &self.path).finish_non_exhaustive()
    }
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

    fn all(&self) -> Vec<(String, TensorView<'_>)> {
        match self {
            Self::Mapped(tensors) => tensors.tensors(),
            Self::Builtin(tensors) => tensors.tensors(),
        }
    }
}

/// Weight and bias of a linear layer, `[n_out, n_in]` and `[n_out]`, or of a layer norm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Affine {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// A matrix of a weights file, read row by row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightTable<'a> {
    data: &'a [u8],
    dtype: Dtype,
    /// Float32 scales of an int8 matrix, one per row.
    scales: Option<&'a [u8]>,
    columns: usize,
}

impl WeightTable<'_> {
    /// Reads a row, which must exist, into `out`, `[columns]`.
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = value(*bytes);
            }
        }
        let bytes = |width: usize| &self.data[row * self.columns * width..][..self.columns * width];
        match self.dtype {
            Dtype::F32 => each(bytes(4), out, f32::from_le_bytes),
            Dtype::F16 => each(bytes(2), out, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(bytes(2), out, |b| half::bf16::from_le_bytes(b).to_f32()),
            // `Weights::table` allows only int8 besides.
            _ => {
                let scale = self.scales.and_then(|s| s.as_chunks().0.get(row).copied());
                let scale = scale.map_or(0.0, f32::from_le_bytes);
                each(bytes(1), out, |[b]| f32::from(b.cast_signed()) * scale);
            }
        }
    }
}

impl Weights {
    /// Opens `model.safetensors` of a folder, or the files that `model.safetensors.index.json`
    /// names.
    pub(crate) fn open(files: &ModelFiles) -> Result<Self> {
        const INDEX: &str = "model.safetensors.index.json";
        let path = files.path(FILE);
        let invalid = |path: &Path, e: &dyn Display| {
            let reason = format!("not a valid safetensors file ({e}); download it again");
            unusable(path.display(), reason)
        };
        if let Some(bytes) = files.embedded(FILE) {
            let tensors = SliceSafetensors::new(bytes).map_err(|e| invalid(&path, &e))?;
            return Ok(Self { path, tensors: Tensors::Builtin(tensors) });
        }
        if !files.exists(FILE) && files.exists(INDEX) {
            let paths = shards(files, INDEX)?;
            // SAFETY: as below.
            let mapped = unsafe { MmapedSafetensors::multi(&paths) };
            let path = files.path(INDEX);
            let tensors = Tensors::Mapped(mapped.map_err(|e| invalid(&path, &e))?);
            return Ok(Self { path, tensors });
        }
        if !files.exists(FILE) {
            let reason = match files.exists("pytorch_model.bin") {
                true => {
                    "the folder holds only pytorch_model.bin, and warpseek loads no pickles: save \
                     the model with safe_serialization=True"
                }
                false => MISSING,
            };
            return Err(unusable(path.display(), reason));
        }
        // SAFETY: the file was checked to exist and is only read; model files are replaced by
        // rename, never written in place, by everything that warpseek does with them.
        let mapped = unsafe { MmapedSafetensors::new(&path) };
        let tensors = Tensors::Mapped(mapped.map_err(|e| invalid(&path, &e))?);
        Ok(Self { path, tensors })
    }

    /// True if there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns a tensor, also if its file calls the weight and bias of layer norms gamma and beta,
    /// as TensorFlow does.
    fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).ok().or_else(|| {
            let (norm, part) = name.rsplit_once("LayerNorm.")?;
            let older = match part {
                "weight" => "gamma",
                "bias" => "beta",
                _ => return None,
            };
            self.tensors.get(&format!("{norm}LayerNorm.{older}")).ok()
        })
    }

    /// Returns the values of a tensor of this shape in float32, row-major.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let view = self.view(name, shape)?;
        let values = self.values(name, &view)?;
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(self.failed(name, "holds NaN or infinity"))
    }

    /// Returns a linear layer or a layer norm with a weight of this shape. Without `has_bias` its
    /// bias is zeros.
    pub(crate) fn affine(&self, name: &str, shape: &[usize], has_bias: bool) -> Result<Affine> {
        let weight = self.get(&format!("{name}.weight"), shape)?;
        let bias = match has_bias {
            true => self.get(&format!("{name}.bias"), &shape[..1])?,
            false => vec![0.0; shape[0]],
        };
        Ok(Affine { weight, bias })
    }

    /// Returns a tensor of this shape.
    pub(crate) fn view(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let Some(view) = self.find(name) else {
            return Err(self.failed(name, "is missing: not a model of the type in config.json"));
        };
        if view.shape() != shape {
            let defect = format!("has shape {:?}, config.json says {shape:?}", view.shape());
            return Err(self.failed(name, &defect));
        }
        Ok(view)
    }

    /// Returns a matrix of shape `[rows, columns]` for reading row by row.
    ///
    /// # Errors
    ///
    /// As [`Weights::get`].
    pub(crate) fn table(&self, name: &str, shape: [usize; 2]) -> Result<WeightTable<'_>> {
        let view = self.view(name, &shape)?;
        let [_, columns] = shape;
        let scales = match view.dtype() {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => None,
            Dtype::I8 => Some(self.view(&format!("{name}{SCALE_SUFFIX}"), &shape[..1])?.data()),
            other => {
                let defect = format!("is of type {other:?}, which is not supported");
                return Err(self.failed(name, &defect));
            }
        };
        Ok(WeightTable { data: view.data(), dtype: view.dtype(), scales, columns })
    }

    /// Returns Candle's builder over the weights.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if a tensor cannot be read.
    pub(crate) fn builder(&self) -> Result<VarBuilder<'static>> {
        let mut tensors = HashMap::new();
        for (name, view) in self.tensors.all() {
            if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8) {
                // Position numbers that some files carry along.
                continue;
            }
            let values = self.values(&name, &view)?;
            let name = name.replace("LayerNorm.gamma", "LayerNorm.weight");
            let name = name.replace("LayerNorm.beta", "LayerNorm.bias");
            let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)
                .map_err(self.unreadable(&name))?;
            tensors.insert(name, tensor);
        }
        Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }

    fn values(&self, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
        if view.dtype() == Dtype::I8 {
            return self.dequantised(name, view);
        }
        view.load(&Device::Cpu)
            .and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1())
            .map_err(self.unreadable(name))
    }

    fn dequantised(&self, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
        let &[rows, columns] = view.shape() else {
            let reason =
                format!("the int8 tensor '{name}' is not a matrix: only matrices may be int8");
            return Err(unusable(self.path.display(), reason));
        };
        let scales = self.get(&format!("{name}{SCALE_SUFFIX}"), &[rows])?;
        Ok(view
            .data()
            .chunks_exact(columns.max(1))
            .zip(scales)
            .flat_map(|(row, scale)| row.iter().map(move |&b| f32::from(b.cast_signed()) * scale))
            .collect())
    }

    fn unreadable(&self, name: &str) -> impl Fn(candle_core::Error) -> Error {
        move |e| self.failed(name, &format!("cannot be read ({e})"))
    }

    fn failed(&self, name: &str, defect: &str) -> Error {
        unusable(self.path.display(), format!("the tensor '{name}' {defect}"))
    }
}

/// Returns the files that the index of sharded weights names.
fn shards(files: &ModelFiles, index: &str) -> Result<Vec<PathBuf>> {
    const MAP: &str = "weight_map";
    let settings = ModelSettings::read(files, index)?.unwrap_or_default();
    let map: HashMap<String, String> = settings.or(MAP, HashMap::new())?;
    let names: BTreeSet<String> = map.into_values().collect();
    if names.is_empty() {
        return Err(settings.fail(MAP, "names no file"));
    }
    for name in &names {
        if !is_plain(name) || !name.ends_with(".safetensors") {
            let defect = format!("names '{name}', which is no safetensors file of the folder");
            return Err(settings.fail(MAP, &defect));
        }
        if !files.exists(name) {
            return Err(unusable(files.path(name).display(), MISSING));
        }
    }
    Ok(names.iter().map(|name| files.path(name)).collect())
}

/// True for the name of a file in the folder itself.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':'])
}
