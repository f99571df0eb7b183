//! The properties of an embedder on which its vectors depend, beside the weights.

use crate::config::EncoderConfig;
use crate::embedder::{Embedder, Role};
use crate::modules::{Similarity, Step};

impl Embedder {
    /// Returns the name and the value of every property on which vectors depend, beside the
    /// weights and the number format ([`Embedder::precision_family`]).
    ///
    /// A property has the same name in every version, and a value in every model: an index stores
    /// them, and compares those that it has by name with those of the model that it is opened with.
    pub fn fingerprint(&self) -> Vec<(String, String)> {
        let similarity = match self.similarity() {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot",
        };
        let config = self.config();
        let prompt = if self.skips_prompt() { " without the prompt" } else { "" };
        let pooling = format!("{}{prompt}", self.pooling());
        let steps: Vec<String> = config.steps.iter().map(Step::name).collect();
        let (dim, all) = (self.dim(), config.dim_before(self.encoder_config.hidden_size));
        let dimensions = if dim == all { dim.to_string() } else { format!("{dim} of {all}") };
        let pairs = [
            ("encoder", encoder(&self.encoder_config)),
            ("tokenizer", format!("sha256 {}", self.tokenizer().sha256())),
            ("token limit", self.max_tokens().to_string()),
            ("query prompt", self.prompt(Role::Query).to_owned()),
            ("passage prompt", self.prompt(Role::Passage).to_owned()),
            ("pooling", pooling),
            ("steps behind pooling", steps.join(", ")),
            ("dimensions", dimensions),
            ("normalization", if self.is_normalized() { "on" } else { "off" }.to_owned()),
            ("similarity", similarity.to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Returns the number format that passages are computed in: `int8`, `bfloat16`, `float16` or
    /// `float32`. Vectors of two formats differ in their last digits.
    pub fn precision_family(&self) -> &'static str {
        let precision = self.precision();
        // Attention has a format of its own, which stands behind that of the other layers.
        let first = precision.split(',').next().unwrap_or_default();
        let families = ["int8", "bfloat16", "float16", "float32"];
        families.into_iter().find(|family| first.contains(family)).unwrap_or("float32")
    }
}

/// Returns the settings of an encoder that its weights do not show.
fn encoder(config: &EncoderConfig) -> String {
    let EncoderConfig { family, n_heads, activation, layer_norm_eps, .. } = config;
    let mut text = format!(
        "{}, {n_heads} heads, {activation:?}, epsilon {layer_norm_eps:e}",
        family.model_type()
    );
    for (i, layer) in config.rotary.iter().enumerate() {
        let window = layer.window.map_or("all keys".to_owned(), |n| format!("window {n}"));
        text.push_str(&format!("; layer {i}: base {}, {window}", layer.theta));
    }
    text
}
