//! Configuration of a BERT-family model, from the files of its folder.

use crate::error::{Error, Result};
use crate::model_files::ModelFiles;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::path::Path;

/// The shape of a BERT encoder, from `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Entries of the word embedding.
    pub vocab_size: usize,
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Encoder layers.
    pub n_layers: usize,
    /// Attention heads; each is `hidden_size / n_heads` wide.
    pub n_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// The longest sequence, special tokens included.
    pub max_positions: usize,
    /// Entries of the token type embedding.
    pub n_token_types: usize,
    /// Epsilon of the layer norms, added to the variance.
    pub layer_norm_eps: f32,
    /// Outputs of a cross-encoder's classifier.
    pub n_labels: usize,
}

/// The activation of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU with the error function: `x * Phi(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// The pooling of token vectors into one text vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token's vector.
    Cls,
}

/// The configuration of an embedder, as sentence-transformers stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedConfig {
    /// Pooling of token vectors.
    pub pooling: Pooling,
    /// True to scale vectors to unit length.
    pub normalize: bool,
    /// The longest text in tokens, special tokens included.
    pub max_tokens: usize,
    /// Prompt in front of a query.
    pub query_prompt: String,
    /// Prompt in front of a passage.
    pub passage_prompt: String,
}

/// The reason if a file that every model has is not there.
pub(crate) const MISSING: &str = "the file is missing; a model folder needs it";

#[derive(Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    position_embedding_type: Option<String>,
    num_labels: Option<usize>,
    id2label: Option<serde_json::Map<String, serde_json::Value>>,
}

impl BertConfig {
    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the file is missing, or describes another architecture.
    pub fn read(files: impl Into<ModelFiles>) -> Result<Self> {
        let files = files.into();
        let path = files.path("config.json");
        let fail = |reason: String| unusable(path.display(), reason);
        let file: ConfigFile =
            read_json(&files, "config.json")?.ok_or_else(|| unusable(path.display(), MISSING))?;
        let kind = file.model_type.as_deref().unwrap_or("bert");
        if kind != "bert" {
            return Err(fail(format!(
                "model type '{kind}' is not supported; models of type 'bert' are (MiniLM, bge, e5, \
                 TinyBERT)"
            )));
        }
        if let Some(kind) = file.position_embedding_type.as_deref()
            && kind != "absolute"
        {
            return Err(fail(format!("position embeddings of type '{kind}' are not supported")));
        }
        let activation = match file.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return Err(fail(format!("the activation '{other}' is not supported"))),
        };
        let (hidden, heads) = (file.hidden_size, file.num_attention_heads);
        if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) || file.vocab_size == 0 {
            return Err(fail(format!("{heads} heads do not divide a hidden size of {hidden}")));
        }
        if [file.num_hidden_layers, file.intermediate_size, file.type_vocab_size].contains(&0) {
            return Err(unusable(
                path.display(),
                "num_hidden_layers, intermediate_size and type_vocab_size must not be 0",
            ));
        }
        if file.max_position_embeddings < 3 {
            return Err(fail("fewer than 3 positions leave no room for a text".to_owned()));
        }
        Ok(Self {
            vocab_size: file.vocab_size,
            hidden_size: hidden,
            n_layers: file.num_hidden_layers,
            n_heads: heads,
            intermediate_size: file.intermediate_size,
            activation,
            max_positions: file.max_position_embeddings,
            n_token_types: file.type_vocab_size,
            layer_norm_eps: file.layer_norm_eps,
            n_labels: file.num_labels.or(file.id2label.map(|l| l.len())).unwrap_or(2),
        })
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolingFile {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: Option<bool>,
}

#[derive(Deserialize, Default)]
struct SentenceFile {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize, Default)]
struct TokenizerFile {
    model_max_length: Option<f64>,
}

#[derive(Deserialize, Default)]
struct PromptsFile {
    prompts: Option<std::collections::BTreeMap<String, String>>,
}

impl EmbedConfig {
    /// Reads pooling, normalization, limit and prompts of a folder in the layout of
    /// sentence-transformers. Defaults: mean pooling, no normalization, the number of positions, no
    /// prompts.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the folder requires something that is not supported, such as
    /// a dense layer or another pooling.
    pub fn read(files: &ModelFiles, bert: &BertConfig) -> Result<Self> {
        let modules: Vec<Module> = read_json(files, "modules.json")?.unwrap_or_default();
        let mut pooling = Pooling::Mean;
        let mut normalize = false;
        for module in &modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    let file = Path::new(&module.path).join("config.json");
                    pooling = read_pooling(files, &file.to_string_lossy())?
                }
                "Normalize" => normalize = true,
                other => {
                    let path = files.path("modules.json");
                    let reason = format!("a module of type '{other}' is not supported");
                    return Err(unusable(path.display(), reason));
                }
            }
        }
        let sentence: SentenceFile =
            read_json(files, "sentence_bert_config.json")?.unwrap_or_default();
        let tokenizer: TokenizerFile =
            read_json(files, "tokenizer_config.json")?.unwrap_or_default();
        let max_tokens = sentence
            .max_seq_length
            .or(tokenizer.model_max_length.map(|n| n.clamp(0.0, 1e9) as usize))
            .unwrap_or(bert.max_positions)
            .min(bert.max_positions);
        let prompts: PromptsFile =
            read_json(files, "config_sentence_transformers.json")?.unwrap_or_default();
        let mut prompts = prompts.prompts.unwrap_or_default();
        let mut prompt = |names: &[&str]| -> String {
            let mut found = names.iter().filter_map(|name| prompts.remove(*name));
            found.find(|prompt| !prompt.is_empty()).unwrap_or_default()
        };
        Ok(Self {
            pooling,
            normalize,
            max_tokens,
            query_prompt: prompt(&["query"]),
            passage_prompt: prompt(&["passage", "document"]),
        })
    }
}

fn read_pooling(files: &ModelFiles, file: &str) -> Result<Pooling> {
    let fail = |reason: &str| unusable(files.path(file).display(), reason);
    let file: PoolingFile = read_json(files, file)?
        .ok_or_else(|| fail("the file is missing, and modules.json names it"))?;
    if file.include_prompt == Some(false) {
        return Err(fail("pooling that leaves out the prompt is not supported"));
    }
    let flags = [
        ("cls", file.pooling_mode_cls_token),
        ("mean", file.pooling_mode_mean_tokens),
        ("max", file.pooling_mode_max_tokens),
        ("mean_sqrt_len_tokens", file.pooling_mode_mean_sqrt_len_tokens),
        ("weightedmean", file.pooling_mode_weightedmean_tokens),
        ("lasttoken", file.pooling_mode_lasttoken),
    ];
    let modes: Vec<&str> = match &file.pooling_mode {
        Some(mode) => vec![mode.as_str()],
        None => flags.iter().filter(|f| f.1).map(|f| f.0).collect(),
    };
    match modes[..] {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::Cls),
        _ => Err(fail(&format!(
            "pooling '{}' is not supported; 'mean' and 'cls' are",
            modes.join(" + ")
        ))),
    }
}

/// Returns the parsed content of a file, or none if the file does not exist.
fn read_json<T: DeserializeOwned>(files: &ModelFiles, file: &str) -> Result<Option<T>> {
    let path = &files.path(file);
    let bytes = match files.read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| unusable(path.display(), format!("the file cannot be understood ({e})")))
}

/// Returns the error for a model, or one of its files, that cannot be used.
pub(crate) fn unusable(model: impl Display, reason: impl Into<String>) -> Error {
    Error::ModelUnavailable { model: model.to_string(), reason: reason.into() }
}
