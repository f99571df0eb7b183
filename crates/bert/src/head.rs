//! The head of a cross-encoder: from a hidden state to its logit.

use crate::activation::Activation;
use crate::config::EncoderConfig;
use crate::encoder_weights::EncoderWeights;
use crate::error::Result;
use crate::weights::Affine;

/// A cross-encoder's head, with one output.
#[derive(Debug)]
pub(crate) struct ClassifierHead {
    /// `[hidden, hidden]`.
    pub(crate) dense: Affine,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<(Affine, f32)>,
    pub(crate) out: Vec<f32>,
    pub(crate) out_bias: f32,
    /// True if it reads the mean of all tokens instead of the first one.
    pub(crate) mean: bool,
}

impl ClassifierHead {
    /// Reads the head of a cross-encoder; none for other models.
    pub(crate) fn read(
        weights: &EncoderWeights<'_>,
        config: &EncoderConfig,
    ) -> Result<Option<Self>> {
        let names = &config.family.names().head;
        if !weights.has_head() {
            return Ok(None);
        }
        let hidden = config.hidden_size;
        let (out, bias) = (format!("{}.weight", names.out), format!("{}.bias", names.out));
        let norm = match names.norm {
            Some(name) => {
                let has_bias = config.has_norm_bias;
                Some((weights.raw(name, &[hidden], has_bias)?, config.layer_norm_eps))
            }
            None => None,
        };
        // ModernBERT's configuration states the bias of its head.
        let has_bias = weights.file().has(&format!("{}.bias", names.dense));
        Ok(Some(Self {
            dense: weights.raw(names.dense, &[hidden, hidden], has_bias || norm.is_none())?,
            activation: config.head_activation,
            norm,
            out: weights.file().get(&out, &[1, hidden])?,
            out_bias: weights.file().get(&bias, &[1])?[0],
            mean: config.head_mean,
        }))
    }

    /// Returns the width of the state that it reads.
    pub(crate) fn width(&self) -> usize {
        self.out.len()
    }

    /// Returns `out(norm(activation(dense(pooled))))`.
    pub(crate) fn logit(&self, pooled: &[f32]) -> f32 {
        let Affine { weight, bias } = &self.dense;
        let rows = weight.chunks_exact(pooled.len()).zip(bias);
        let mut inner: Vec<f32> = rows
            .map(|(row, bias)| {
                let sum: f32 = row.iter().zip(pooled).map(|(a, b)| a * b).sum();
                self.activation.apply(sum + bias)
            })
            .collect();
        if let Some((norm, epsilon)) = &self.norm {
            layer_norm(&mut inner, norm, *epsilon);
        }
        self.out.iter().zip(&inner).fold(self.out_bias, |sum, (a, b)| sum + a * b)
    }
}

/// The layer norm of one vector (Ba et al. 2016).
pub(crate) fn layer_norm(x: &mut [f32], norm: &Affine, epsilon: f32) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((v, weight), bias) in x.iter_mut().zip(&norm.weight).zip(&norm.bias) {
        *v = (*v - mean) * scale * weight + bias;
    }
}
