//! Pooling: from the hidden states of a sequence to its output.

use crate::config::BertConfig;
use crate::error::Result;
use crate::weights::{Affine, Weights};
use std::sync::atomic::{AtomicBool, Ordering};

/// The output of an encoder for one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// The hidden states of all tokens, `[longest, hidden_size]`, zero-padded for shorter
    /// sequences.
    Tokens,
    /// Mean pooling, `[hidden_size]`.
    Mean,
    /// CLS pooling: the state of the first token, `[hidden_size]`. Saves most of the last layer.
    Cls,
    /// A cross-encoder's logit, one number.
    Logit,
}

/// The hidden states that an output needs from the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeededStates {
    /// Those of all tokens.
    All,
    /// That of the CLS token.
    Cls,
}

/// A cross-encoder's pooler and the classifier's one output.
#[derive(Debug)]
pub(crate) struct ClassifierHead {
    /// `[hidden, hidden]`.
    pub(crate) pooler: Affine,
    pub(crate) classifier: Vec<f32>,
    pub(crate) classifier_bias: f32,
}

impl ClassifierHead {
    /// Reads the head of a cross-encoder; none for other models.
    pub(crate) fn read(weights: &Weights, config: &BertConfig) -> Result<Option<Self>> {
        if !weights.has("classifier.weight") {
            return Ok(None);
        }
        let hidden = config.hidden_size;
        Ok(Some(Self {
            pooler: Affine {
                weight: weights.get("bert.pooler.dense.weight", &[hidden, hidden])?,
                bias: weights.get("bert.pooler.dense.bias", &[hidden])?,
            },
            classifier: weights.get("classifier.weight", &[1, hidden])?,
            classifier_bias: weights.get("classifier.bias", &[1])?[0],
        }))
    }

    /// Returns `classifier(tanh(pooler(CLS)))`, as in BertForSequenceClassification.
    fn logit(&self, cls: &[f32]) -> f32 {
        let mut logit = self.classifier_bias;
        let Affine { weight, bias } = &self.pooler;
        let rows = weight.chunks_exact(self.classifier.len());
        for ((row, bias), weight) in rows.zip(bias).zip(&self.classifier) {
            let sum: f32 = row.iter().zip(cls).map(|(a, b)| a * b).sum();
            logit += weight * (sum + bias).tanh();
        }
        logit
    }
}

impl Output {
    /// Returns the hidden states that the output needs.
    pub(crate) fn needs(self) -> NeededStates {
        match self {
            Self::Tokens | Self::Mean => NeededStates::All,
            Self::Cls | Self::Logit => NeededStates::Cls,
        }
    }
}

/// The step from hidden states to an output.
#[derive(Clone, Copy)]
pub(crate) struct Pooler<'a> {
    pub(crate) output: Output,
    /// Values of one sequence.
    pub(crate) n_out: usize,
    pub(crate) head: Option<&'a ClassifierHead>,
    /// True as soon as the output is no longer wanted.
    pub(crate) stop: Option<&'a AtomicBool>,
}

impl Pooler<'_> {
    /// True if the output is no longer wanted.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Pools the needed hidden states of one sequence into `out`, `[n_out]`.
    pub(crate) fn apply(&self, states: &[f32], out: &mut [f32]) {
        match self.output {
            Output::Tokens | Output::Cls => out[..states.len()].copy_from_slice(states),
            Output::Mean => mean_rows(states, out),
            Output::Logit => out[0] = self.head.map_or(f32::NAN, |head| head.logit(states)),
        }
    }
}

fn mean_rows(states: &[f32], out: &mut [f32]) {
    let n = states.len() / out.len();
    for row in states.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
    }
    let scale = 1.0 / n as f32;
    out.iter_mut().for_each(|o| *o *= scale);
}
