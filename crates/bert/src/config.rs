//! Configuration of an encoder, from `config.json` of its folder.

use crate::activation::Activation;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::family::Family;
use crate::keys;
use crate::model_files::{MISSING, ModelFiles, unusable};
use crate::settings::ModelSettings;
use serde_json::{Map, Value};

/// The shape of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// The family, which names the tensors and orders the blocks.
    pub family: Family,
    /// Entries of the word embedding.
    pub vocab_size: usize,
    /// Width of a token's embedding; [`EncoderConfig::hidden_size`] but in small ELECTRA models.
    pub embedding_size: usize,
    /// Width of a token's hidden state.
    pub hidden_size: usize,
    /// Encoder layers.
    pub n_layers: usize,
    /// Attention heads; each is `hidden_size / n_heads` wide.
    pub n_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// True if the feed-forward block multiplies its activation by a gate (GLU).
    pub is_gated: bool,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// The longest sequence, special tokens included.
    pub max_tokens: usize,
    /// Entries of the position embedding; 0 with rotary positions.
    pub n_positions: usize,
    /// The token in whose place positions start to count: RoBERTa's padding token.
    pub pad_token: Option<u32>,
    /// Entries of the token type embedding; 0 without token types.
    pub n_token_types: usize,
    /// Epsilon of the layer norms, added to the variance.
    pub layer_norm_eps: f32,
    /// True if layer norms have a bias.
    pub has_norm_bias: bool,
    /// True if the linear layers of attention have a bias.
    pub has_attention_bias: bool,
    /// True if the linear layers of feed-forward blocks have a bias.
    pub has_feed_forward_bias: bool,
    /// Entries of the relative attention bias per head; 0 without one.
    pub n_relative_buckets: usize,
    /// Rotary positions and windows of each layer; empty for other families.
    pub rotary: Vec<RotaryLayer>,
    /// Outputs of a cross-encoder's classifier.
    pub n_labels: usize,
    /// The activation of a cross-encoder's head.
    pub head_activation: Activation,
    /// True if a cross-encoder's head reads the mean of all tokens instead of the first one.
    pub head_mean: bool,
}

/// The rotary position embedding of a layer (Su et al. 2021), and the window of its attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryLayer {
    /// The base of the wavelengths.
    pub theta: f64,
    /// The largest distance between a query and its keys; none for all keys.
    pub window: Option<usize>,
}

/// Buckets of the distances of MPNet's relative positions, for a table of any size.
pub(crate) const RELATIVE_BUCKETS: usize = 32;

impl EncoderConfig {
    /// Reads `config.json` of a folder. Settings that are absent have the defaults of transformers.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the file is missing, or describes an encoder that is not
    /// supported; the message names the setting.
    pub fn read(files: impl Into<ModelFiles>) -> Result<Self> {
        let files = files.into();
        let settings = ModelSettings::checked(&files, "config.json", keys::CONFIG)?;
        if settings.is_empty() {
            return Err(unusable(files.path("config.json").display(), MISSING));
        }
        let kind: String = settings.or("model_type", "bert".to_owned())?;
        let Some(family) = Family::of(&kind) else {
            let known: Vec<&str> = Family::ALL.iter().map(|family| family.model_type()).collect();
            let reason = format!(
                "model type '{kind}' is not supported; models of type {} are",
                known.join(", ")
            );
            return Err(unusable(files.path("config.json").display(), reason));
        };
        Reader { settings: &settings, family }.config()
    }

    /// Returns the position ids of a sequence of token ids.
    pub(crate) fn positions<'a>(&self, ids: &'a [u32]) -> impl Iterator<Item = usize> + use<'a> {
        let pad = self.pad_token;
        let mut next = pad.map_or(0, |pad| pad as usize + 1);
        ids.iter().map(move |&id| {
            if Some(id) == pad {
                return id as usize;
            }
            next += 1;
            next - 1
        })
    }

    /// Returns the outputs of the first linear layer of a feed-forward block.
    pub(crate) fn up_width(&self) -> usize {
        self.intermediate_size * if self.is_gated { 2 } else { 1 }
    }

    /// Returns the width of a head.
    pub(crate) fn head_width(&self) -> usize {
        self.hidden_size / self.n_heads
    }
}

/// Reader of the settings of a family.
struct Reader<'a> {
    settings: &'a ModelSettings,
    family: Family,
}

impl Reader<'_> {
    fn config(&self) -> Result<EncoderConfig> {
        let Self { settings, family } = *self;
        let modern = family == Family::ModernBert;
        let hidden_size = settings.first(&["hidden_size", "dim"], self.by_electra(768, 256))?;
        let n_heads =
            settings.first(&["num_attention_heads", "n_heads"], self.by_electra(12, 4))?;
        let wide = if modern { 1152 } else { self.by_electra(3072, 1024) };
        let layers = if modern { 22 } else { 12 };
        let layers = if family == Family::DistilBert { 6 } else { layers };
        let n_layers = settings.first(&["num_hidden_layers", "n_layers"], layers)?;
        let names = family.names();
        let epsilon = match family {
            Family::ModernBert => settings.or("norm_eps", 1e-5)?,
            // Its code states it, its configuration does not.
            Family::DistilBert => 1e-12,
            _ => settings.or("layer_norm_eps", 1e-12)?,
        };
        let rotary = if modern { self.rotary(n_layers)? } else { Vec::new() };
        let most: usize =
            settings.or("max_position_embeddings", if modern { 8192 } else { 512 })?;
        let pad_token = match family {
            Family::Roberta | Family::XlmRoberta => Some(settings.or("pad_token_id", 1u32)?),
            Family::Mpnet => Some(1),
            _ => None,
        };
        let config = EncoderConfig {
            family,
            vocab_size: settings.or("vocab_size", self.vocabulary())?,
            embedding_size: match family {
                Family::Electra => settings.or("embedding_size", 128)?,
                _ => hidden_size,
            },
            hidden_size,
            n_layers,
            n_heads,
            intermediate_size: settings.first(&["intermediate_size", "hidden_dim"], wide)?,
            is_gated: modern,
            activation: self.activation()?,
            max_tokens: most.saturating_sub(pad_token.map_or(0, |pad| pad as usize + 1)),
            n_positions: if modern { 0 } else { most },
            pad_token,
            n_token_types: match names.token_types {
                Some(_) => settings.or("type_vocab_size", 2)?,
                None => 0,
            },
            layer_norm_eps: epsilon,
            has_norm_bias: !modern || settings.or("norm_bias", false)?,
            has_attention_bias: !modern || settings.or("attention_bias", false)?,
            has_feed_forward_bias: !modern || settings.or("mlp_bias", false)?,
            n_relative_buckets: match names.relative_bias {
                Some(_) => settings.or("relative_attention_num_buckets", RELATIVE_BUCKETS)?,
                None => 0,
            },
            rotary,
            n_labels: self.labels()?,
            head_activation: self.head_activation()?,
            head_mean: self.head_mean()?,
        };
        self.check(&config)?;
        Ok(config)
    }

    fn by_electra(&self, others: usize, electra: usize) -> usize {
        if self.family == Family::Electra { electra } else { others }
    }

    fn vocabulary(&self) -> usize {
        match self.family {
            Family::Bert | Family::DistilBert | Family::Electra => 30_522,
            Family::Roberta | Family::XlmRoberta => 50_265,
            Family::Mpnet => 30_527,
            Family::ModernBert => 50_368,
        }
    }

    fn activation(&self) -> Result<Activation> {
        let key = match self.family {
            Family::DistilBert => "activation",
            Family::ModernBert => "hidden_activation",
            _ => "hidden_act",
        };
        self.activation_of(key)
    }

    fn activation_of(&self, key: &str) -> Result<Activation> {
        let name: String = self.settings.or(key, "gelu".to_owned())?;
        Activation::of_transformers(&name).ok_or_else(|| {
            self.settings.fail(key, &format!("is '{name}': this activation is not supported"))
        })
    }

    fn head_activation(&self) -> Result<Activation> {
        const KEY: &str = "classifier_activation";
        if self.family != Family::ModernBert {
            return Ok(self.family.names().head.activation);
        }
        self.activation_of(KEY)
    }

    fn head_mean(&self) -> Result<bool> {
        const KEY: &str = "classifier_pooling";
        if self.family != Family::ModernBert {
            return Ok(false);
        }
        match self.settings.or(KEY, "cls".to_owned())?.as_str() {
            "cls" => Ok(false),
            "mean" => Ok(true),
            other => Err(self.settings.fail(KEY, &format!("is '{other}'; it may be cls or mean"))),
        }
    }

    fn labels(&self) -> Result<usize> {
        if let Some(n) = self.settings.get("num_labels")? {
            return Ok(n);
        }
        let labels: Option<Map<String, Value>> = self.settings.get("id2label")?;
        Ok(labels.map_or(2, |labels| labels.len()))
    }

    /// Reads the rotary positions of each layer, in the forms of transformers 4 and 5.
    fn rotary(&self, n_layers: usize) -> Result<Vec<RotaryLayer>> {
        const TYPES: &str = "layer_types";
        let settings = self.settings;
        let every: usize = settings.or("global_attn_every_n_layers", 3)?;
        if every == 0 {
            return Err(settings.fail("global_attn_every_n_layers", "must not be 0"));
        }
        let (full, sliding) = ("full_attention", "sliding_attention");
        let by_number = |i: usize| if i.is_multiple_of(every) { full } else { sliding };
        let types: Vec<String> =
            settings.or(TYPES, (0..n_layers).map(|i| by_number(i).to_owned()).collect())?;
        if types.len() != n_layers {
            let defect = format!("names {} layers, the encoder has {n_layers}", types.len());
            return Err(settings.fail(TYPES, &defect));
        }
        let window = settings.or("local_attention", 128usize)? / 2;
        let window = settings.or("sliding_window", window)?;
        let layers = [
            (full, None, "global_rope_theta", 160_000.0),
            (sliding, Some(window), "local_rope_theta", 10_000.0),
        ];
        let layers = layers
            .into_iter()
            .map(|(name, window, key, default)| {
                let theta = self.theta(name, key, default)?;
                Ok((name, RotaryLayer { theta, window }))
            })
            .collect::<Result<Vec<_>>>()?;
        types
            .iter()
            .map(|name| {
                let known = layers.iter().find(|(known, _)| known == name);
                known.map(|(_, layer)| *layer).ok_or_else(|| {
                    settings.fail(TYPES, &format!("names '{name}', which is not supported"))
                })
            })
            .collect()
    }

    /// Reads the base of the wavelengths of a kind of layer.
    fn theta(&self, layer: &str, key: &str, default: f64) -> Result<f64> {
        const PARAMETERS: &str = "rope_parameters";
        let settings = self.settings;
        let all = settings.inner(PARAMETERS)?;
        let these = all.inner(layer)?;
        for (name, accepted) in [("rope_type", "default"), ("type", "default")] {
            let kind: Option<String> = these.get(name)?;
            if let Some(kind) = kind.filter(|kind| kind != accepted) {
                return Err(settings.fail(
                    PARAMETERS,
                    &format!("is of type '{kind}' for {layer}, which is not supported"),
                ));
            }
        }
        if these.or("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(settings.fail(PARAMETERS, "has a partial_rotary_factor: not supported"));
        }
        let theta = match these.get("rope_theta")? {
            Some(theta) => theta,
            None => settings.or(key, default)?,
        };
        match theta > 1.0 {
            true => Ok(theta),
            false => Err(settings.fail(PARAMETERS, &format!("has a rope_theta of {theta}"))),
        }
    }

    /// Checks what later steps rely on.
    fn check(&self, config: &EncoderConfig) -> Result<()> {
        let fail = |key: &str, defect: String| Err(self.settings.fail(key, &defect));
        let EncoderConfig { hidden_size: hidden, n_heads: heads, .. } = *config;
        if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
            let defect = format!("is {heads}, which does not divide a hidden size of {hidden}");
            return fail("num_attention_heads", defect);
        }
        for (key, size) in [
            ("num_hidden_layers", config.n_layers),
            ("intermediate_size", config.intermediate_size),
            ("vocab_size", config.vocab_size),
            ("embedding_size", config.embedding_size),
        ] {
            if size == 0 {
                return fail(key, "must not be 0".to_owned());
            }
        }
        if self.family.names().token_types.is_some() && config.n_token_types == 0 {
            return fail("type_vocab_size", "must not be 0".to_owned());
        }
        if config.max_tokens < 3 {
            let defect = "leaves room for fewer than 3 positions, too few for a text";
            return fail("max_position_embeddings", defect.to_owned());
        }
        if !config.rotary.is_empty() && !config.head_width().is_multiple_of(2) {
            let defect = format!("gives heads of {}: rotary needs pairs", config.head_width());
            return fail("num_attention_heads", defect);
        }
        if (1..RELATIVE_BUCKETS).contains(&config.n_relative_buckets) {
            let defect = format!("is below the {RELATIVE_BUCKETS} that the encoder uses");
            return fail("relative_attention_num_buckets", defect);
        }
        Ok(())
    }
}
