//! Modules of a sentence-transformers folder: the encoder's own folder, pooling, and the steps from
//! a pooled state to the vector; prompts and the similarity.

use crate::activation::Activation;
use crate::config::EncoderConfig;
use crate::error::Result;
use crate::head::layer_norm;
use crate::keys;
use crate::model_files::{MISSING, ModelFiles, unusable};
use crate::pooling::{Pooling, PoolingMode, normalize};
use crate::settings::{ModelSettings, read_json};
use crate::weights::{Affine, Weights, is_plain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The modules of a folder.
#[derive(Debug, Clone)]
pub(crate) struct Modules {
    /// The encoder's folder.
    pub(crate) encoder: ModelFiles,
    /// The modules behind the encoder.
    behind: Vec<Module>,
    /// True if the folder has `modules.json`.
    is_listed: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The configuration of an embedder, as sentence-transformers stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedConfig {
    /// Pooling of token vectors.
    pub pooling: Pooling,
    /// Steps from the pooled state to the vector, before normalization.
    pub steps: Vec<Step>,
    /// True to scale vectors to unit length.
    pub normalize: bool,
    /// Dimensions that are kept of a vector, its first ones; none for all.
    pub truncate_dim: Option<usize>,
    /// The longest text in tokens, special tokens included.
    pub max_tokens: usize,
    /// Prompt in front of a query.
    pub query_prompt: String,
    /// Prompt in front of a passage.
    pub passage_prompt: String,
    /// All prompts of the model, by their names.
    pub prompts: BTreeMap<String, String>,
    /// The similarity of two vectors.
    pub similarity: Similarity,
}

/// The similarity of vectors that a model was trained for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// The cosine.
    #[default]
    Cosine,
    /// The inner product of vectors that are not normalized.
    Dot,
}

/// A step from the pooled state to the vector.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A linear layer with an activation.
    Dense(Dense),
    /// Layer norm, with the epsilon 1e-5.
    LayerNorm(Affine),
    /// Scaling to unit length.
    Normalize,
}

/// A linear layer: `activation(W x + b)`, plus `x` or `R x` with a residual.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    linear: Affine,
    activation: Activation,
    residual: Option<Residual>,
}

#[derive(Debug, Clone, PartialEq)]
enum Residual {
    Identity,
    /// `[out, in]`.
    Linear(Vec<f32>),
}

impl Modules {
    /// Reads `modules.json`; a folder without it is an encoder, with mean pooling behind it.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::ModelUnavailable`] if the file cannot be understood.
    pub(crate) fn read(files: &ModelFiles) -> Result<Self> {
        const FILE: &str = "modules.json";
        let modules: Option<Vec<Module>> = read_json(files, FILE)?;
        let is_listed = modules.is_some();
        let mut modules = modules.unwrap_or_default();
        let fail = |reason: String| unusable(files.path(FILE).display(), reason);
        for module in &mut modules {
            module.path.truncate(module.path.trim_end_matches('/').len());
            if !module.kind.starts_with("sentence_transformers.") {
                let reason = format!(
                    "the module type '{}' is not one of sentence-transformers; code of a model \
                     folder is never run",
                    module.kind
                );
                return Err(fail(reason));
            }
            if !module.path.is_empty() && !module.path.split('/').all(is_plain) {
                let reason = format!("the module path '{}' leads out of the folder", module.path);
                return Err(fail(reason));
            }
        }
        let encoder = match modules.first() {
            None => files.clone(),
            Some(first) if first.name() == "Transformer" => files.within(&first.path),
            Some(first) => {
                let reason = format!("a module of type '{}' is not supported", first.name());
                return Err(fail(reason));
            }
        };
        let behind = modules.split_off(modules.len().min(1));
        Ok(Self { encoder, behind, is_listed })
    }

    /// True if the folder lists pooling: it is an embedder, whatever its weights hold beside.
    pub(crate) fn has_pooling(&self) -> bool {
        self.behind.iter().any(|module| module.name() == "Pooling")
    }

    /// Checks that nothing stands between a cross-encoder and its logit.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::ModelUnavailable`] that names the module.
    pub(crate) fn check_cross_encoder(&self, files: &ModelFiles) -> Result<()> {
        let settings = ModelSettings::checked(
            files,
            "config_sentence_transformers.json",
            keys::SENTENCE_TRANSFORMERS,
        )?;
        let prompts: BTreeMap<String, Option<String>> = settings.or("prompts", BTreeMap::new())?;
        let default: Option<String> = settings.get("default_prompt_name")?;
        if let Some(name) = default
            && prompts
                .get(&name)
                .is_some_and(|prompt| prompt.as_ref().is_some_and(|p| !p.is_empty()))
        {
            let defect = format!("is '{name}': prompts of cross-encoders are not supported");
            return Err(settings.fail("default_prompt_name", &defect));
        }
        match self.behind.iter().find(|module| module.name() != "Dropout") {
            None => Ok(()),
            Some(module) => Err(module.refused(files)),
        }
    }
}

impl Module {
    /// The last part of the type: `Pooling`.
    fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }

    fn file(&self, name: &str) -> String {
        Path::new(&self.path).join(name).to_string_lossy().into_owned()
    }

    fn refused(&self, files: &ModelFiles) -> crate::error::Error {
        let reason = format!("a module of type '{}' is not supported", self.name());
        unusable(files.path("modules.json").display(), reason)
    }
}

impl EmbedConfig {
    /// Reads pooling, steps, prompts and similarity of a folder. `limit` is the limit that the
    /// tokenizer's files state. Defaults: mean pooling, no normalization, as many tokens as the
    /// encoder takes, no prompts, the cosine.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::ModelUnavailable`] if the folder requires something that is not
    /// supported; the message names it.
    pub(crate) fn read(
        files: &ModelFiles,
        modules: &Modules,
        encoder: &EncoderConfig,
        limit: Option<usize>,
    ) -> Result<Self> {
        let mut pooling = None;
        let mut steps = Vec::new();
        let mut width = encoder.hidden_size;
        for module in &modules.behind {
            let config = |keys| ModelSettings::checked(files, &module.file("config.json"), keys);
            let weights = || Weights::open(&files.within(&module.path));
            match module.name() {
                "Pooling" if pooling.is_none() && steps.is_empty() => {
                    let read = read_pooling(&config(keys::POOLING)?, width)?;
                    width *= read.modes.len();
                    pooling = Some(read);
                }
                "Dense" if pooling.is_some() => {
                    let (dense, n_out) = Dense::read(&config(keys::DENSE)?, width, &weights()?)?;
                    width = n_out;
                    steps.push(Step::Dense(dense));
                }
                "LayerNorm" if pooling.is_some() => {
                    config(keys::LAYER_NORM)?.expect("dimension", width)?;
                    steps.push(Step::LayerNorm(weights()?.affine("norm", &[width], true)?));
                }
                "Normalize" if pooling.is_some() => {
                    config(keys::NORMALIZE)?;
                    steps.push(Step::Normalize);
                }
                "Dropout" => {}
                _ => return Err(module.refused(files)),
            }
        }
        if modules.is_listed && pooling.is_none() {
            let reason = "it lists no Pooling, without which a text has no vector";
            return Err(unusable(files.path("modules.json").display(), reason));
        }
        let normalize = steps.last() == Some(&Step::Normalize);
        if normalize {
            steps.pop();
        }
        let file = "config_sentence_transformers.json";
        let settings = ModelSettings::checked(files, file, keys::SENTENCE_TRANSFORMERS)?;
        let truncate_dim: Option<usize> = settings.get("truncate_dim")?;
        if let Some(kept) = truncate_dim
            && !(1..=width).contains(&kept)
        {
            let defect = format!("is {kept}; vectors have {width} dimensions");
            return Err(settings.fail("truncate_dim", &defect));
        }
        let prompts = prompts(&settings)?;
        let prompt = |names: &[&str]| {
            let found = names.iter().find_map(|name| prompts.get(*name).cloned());
            found.unwrap_or_default()
        };
        Ok(Self {
            pooling: pooling.unwrap_or_else(|| Pooling::of(PoolingMode::Mean)),
            steps,
            normalize,
            truncate_dim: truncate_dim.filter(|&kept| kept < width),
            max_tokens: limit.unwrap_or(usize::MAX),
            query_prompt: prompt(&["query"]),
            passage_prompt: prompt(&["document", "passage", "corpus"]),
            prompts,
            similarity: similarity(&settings)?,
        })
    }

    /// Returns the dimensions of a vector.
    pub(crate) fn dim(&self, hidden_size: usize) -> usize {
        let width = self.dim_before(hidden_size);
        self.truncate_dim.unwrap_or(width).min(width)
    }

    /// Returns the dimensions of a vector before it is shortened.
    pub(crate) fn dim_before(&self, hidden_size: usize) -> usize {
        let mut widths = self.steps.iter().filter_map(|step| match step {
            Step::Dense(dense) => Some(dense.linear.bias.len()),
            _ => None,
        });
        widths.next_back().unwrap_or(self.pooling.modes.len() * hidden_size)
    }
}

fn similarity(settings: &ModelSettings) -> Result<Similarity> {
    const KEY: &str = "similarity_fn_name";
    match settings.or(KEY, "cosine".to_owned())?.as_str() {
        "cosine" => Ok(Similarity::Cosine),
        "dot" => Ok(Similarity::Dot),
        other => {
            let defect = format!("is '{other}', which is not supported; cosine and dot are");
            Err(settings.fail(KEY, &defect))
        }
    }
}

/// Returns the prompts by their names.
fn prompts(settings: &ModelSettings) -> Result<BTreeMap<String, String>> {
    const DEFAULT: &str = "default_prompt_name";
    let prompts: BTreeMap<String, Option<String>> = settings.or("prompts", BTreeMap::new())?;
    if let Some(name) = settings.get::<String>(DEFAULT)?
        && !prompts.contains_key(&name)
    {
        return Err(settings.fail(DEFAULT, &format!("is '{name}', which has no prompt")));
    }
    Ok(prompts.into_iter().filter_map(|(name, prompt)| Some((name, prompt?))).collect())
}

fn read_pooling(settings: &ModelSettings, width: usize) -> Result<Pooling> {
    const MODE: &str = "pooling_mode";
    if settings.is_empty() {
        return Err(unusable(settings.path().display(), MISSING));
    }
    for key in ["embedding_dimension", "word_embedding_dimension"] {
        settings.expect(key, width)?;
    }
    let include_prompt = settings.or("include_prompt", true)?;
    let named: Option<serde_json::Value> = settings.get(MODE)?;
    let names: Vec<String> = match named {
        Some(serde_json::Value::String(name)) => vec![name],
        Some(_) => settings.or(MODE, Vec::new())?,
        None => {
            let mut names = Vec::new();
            for mode in PoolingMode::ALL {
                if settings.or(mode.older_key(), false)? {
                    names.push(mode.name().to_owned());
                }
            }
            if names.is_empty() { vec!["mean".to_owned()] } else { names }
        }
    };
    let modes: Result<Vec<PoolingMode>> = names
        .iter()
        .map(|name| {
            let known = PoolingMode::ALL.into_iter().find(|mode| mode.name() == name);
            known.ok_or_else(|| {
                let known: Vec<&str> = PoolingMode::ALL.iter().map(|mode| mode.name()).collect();
                let defect =
                    format!("is '{name}', which is not supported; {} are", known.join(", "));
                settings.fail(MODE, &defect)
            })
        })
        .collect();
    let modes = modes?;
    if modes.is_empty() {
        return Err(settings.fail(MODE, "names no mode"));
    }
    Ok(Pooling { modes, include_prompt })
}

impl Dense {
    /// Reads the layer; returns it and the number of its outputs.
    fn read(settings: &ModelSettings, width: usize, weights: &Weights) -> Result<(Self, usize)> {
        const ACTIVATION: &str = "activation_function";
        settings.expect("in_features", width)?;
        let Some(n_out): Option<usize> = settings.get("out_features")?.filter(|&n| n > 0) else {
            return Err(settings.fail("out_features", "is missing"));
        };
        let name: String =
            settings.or(ACTIVATION, "torch.nn.modules.activation.Tanh".to_owned())?;
        let Some(activation) = Activation::of_torch(&name) else {
            let defect = format!("is '{name}', which is not supported");
            return Err(settings.fail(ACTIVATION, &defect));
        };
        let has_bias = settings.or("bias", true)?;
        if !has_bias && weights.has("linear.bias") {
            return Err(settings.fail("bias", "is false, and the weights have a linear.bias"));
        }
        let linear = weights.affine("linear", &[n_out, width], has_bias)?;
        let residual = match settings.or("use_residual", false)? {
            false => None,
            true if n_out == width => Some(Residual::Identity),
            true => Some(Residual::Linear(weights.get("residual.weight", &[n_out, width])?)),
        };
        Ok((Self { linear, activation, residual }, n_out))
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let product = |weight: &[f32]| -> Vec<f32> {
            let rows = weight.chunks_exact(x.len());
            rows.map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
        };
        let mut out = product(&self.linear.weight);
        for (v, bias) in out.iter_mut().zip(&self.linear.bias) {
            *v = self.activation.apply(*v + bias);
        }
        let residual = match &self.residual {
            None => return out,
            Some(Residual::Identity) => x.to_vec(),
            Some(Residual::Linear(weight)) => product(weight),
        };
        out.iter_mut().zip(residual).for_each(|(v, r)| *v += r);
        out
    }
}

impl Step {
    /// Returns a description: `dense 768 to 256, Tanh`.
    pub fn name(&self) -> String {
        match self {
            Self::Dense(Dense { linear, activation, residual }) => {
                let n_out = linear.bias.len();
                let plus = if residual.is_some() { ", with a residual" } else { "" };
                format!("dense {} to {n_out}, {activation:?}{plus}", linear.weight.len() / n_out)
            }
            Self::LayerNorm(_) => "layer norm".to_owned(),
            Self::Normalize => "unit length".to_owned(),
        }
    }

    /// Applies the step to a vector.
    pub(crate) fn apply(&self, mut x: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Dense(dense) => dense.apply(&x),
            Self::LayerNorm(norm) => {
                layer_norm(&mut x, norm, 1e-5);
                x
            }
            Self::Normalize => {
                normalize(&mut x);
                x
            }
        }
    }
}
