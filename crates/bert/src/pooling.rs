//! Pooling: from the hidden states of a sequence to its output.

use crate::error::{Error, Result};
use crate::head::ClassifierHead;
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

/// The pooling of token states into one text vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// The modes whose results are joined end to end; at least one.
    pub modes: Vec<PoolingMode>,
    /// False to leave out the tokens of the prompt, and the special tokens in front of it.
    pub include_prompt: bool,
}

/// A pooling of token states, with the name that sentence-transformers gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolingMode {
    /// The first token's state.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The mean of all tokens.
    Mean,
    /// The sum of all tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean with weights 1, 2, 3, ... (Muennighoff 2022).
    WeightedMean,
    /// The last token's state.
    LastToken,
}

/// The hidden states that an output needs from the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeededStates {
    /// Those of all tokens.
    All,
    /// That of the first token.
    First,
}

impl Pooling {
    /// Pooling by one mode, prompts included.
    pub fn of(mode: PoolingMode) -> Self {
        Self { modes: vec![mode], include_prompt: true }
    }

    /// Returns the names of the modes, joined by `+`.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.modes.iter().map(|mode| mode.name()).collect();
        names.join("+")
    }

    /// Returns the encoder's output that is this pooling, if there is one.
    pub(crate) fn output(&self, n_skipped: usize) -> Option<Output> {
        match self.modes[..] {
            [PoolingMode::Mean] if n_skipped == 0 => Some(Output::Mean),
            [PoolingMode::Cls] if n_skipped == 0 => Some(Output::Cls),
            _ => None,
        }
    }
}

impl PoolingMode {
    /// All modes, in the order in which older folders join their results.
    pub const ALL: [Self; 6] =
        [Self::Cls, Self::Max, Self::Mean, Self::MeanSqrtLen, Self::WeightedMean, Self::LastToken];

    /// Returns the name of sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }

    /// Returns the key of older files that switches the mode on.
    pub(crate) fn older_key(self) -> &'static str {
        match self {
            Self::Cls => "pooling_mode_cls_token",
            Self::Max => "pooling_mode_max_tokens",
            Self::Mean => "pooling_mode_mean_tokens",
            Self::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
            Self::WeightedMean => "pooling_mode_weightedmean_tokens",
            Self::LastToken => "pooling_mode_lasttoken",
        }
    }

    /// Pools states, `[tokens, out.len()]`, without the first `n_skipped`.
    fn apply(self, states: &[f32], n_skipped: usize, out: &mut [f32]) {
        let width = out.len();
        let n = states.len() / width;
        // The last token is a special one, which no prompt contains.
        let skipped = n_skipped.min(n - 1);
        let rows = states[skipped * width..].chunks_exact(width);
        let sum = |out: &mut [f32]| {
            for row in rows.clone() {
                out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
            }
        };
        let mut scaled = |scale: f32| {
            sum(out);
            out.iter_mut().for_each(|o| *o *= scale);
        };
        let counted = (n - skipped) as f32;
        match self {
            Self::Cls => out.copy_from_slice(&states[skipped * width..][..width]),
            Self::LastToken => out.copy_from_slice(&states[(n - 1) * width..][..width]),
            Self::Mean => scaled(1.0 / counted),
            Self::MeanSqrtLen => scaled(1.0 / counted.sqrt()),
            Self::Max => {
                out.fill(f32::NEG_INFINITY);
                for row in rows {
                    out.iter_mut().zip(row).for_each(|(o, v)| *o = o.max(*v));
                }
            }
            Self::WeightedMean => {
                let (mut total, weights) = (0.0, (skipped + 1..).map(|i| i as f32));
                for (row, weight) in rows.zip(weights) {
                    total += weight;
                    out.iter_mut().zip(row).for_each(|(o, v)| *o += weight * v);
                }
                out.iter_mut().for_each(|o| *o /= total);
            }
        }
    }
}

/// Scales a vector to unit length; a zero vector stays zero.
///
/// The squares are summed in float64 in 16 lanes, then lanes 8, 4, 2 and 1 apart are added, as
/// `kernels/encoder.cu` does: a vector has the same bits on every device.
pub fn normalize(vector: &mut [f32]) {
    let mut sums = [0f64; 16];
    for values in vector.chunks(16) {
        sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += f64::from(v).powi(2));
    }
    for apart in [8, 4, 2, 1] {
        (0..apart).for_each(|i| sums[i] += sums[i + apart]);
    }
    let norm = sums[0].sqrt();
    if norm > 0.0 {
        let scale = 1.0 / norm;
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
}

#[cfg(feature = "cuda")]
impl Output {
    /// Returns the hidden states that the output needs.
    pub(crate) fn needs(self) -> NeededStates {
        match self {
            Self::Tokens | Self::Mean => NeededStates::All,
            Self::Cls | Self::Logit => NeededStates::First,
        }
    }
}

/// The step from hidden states to an output.
#[derive(Clone, Copy)]
pub(crate) struct Pooler<'a> {
    pub(crate) kind: PoolerKind<'a>,
    /// Values of one sequence.
    pub(crate) n_out: usize,
    /// True as soon as the output is no longer wanted.
    pub(crate) stop: Option<&'a AtomicBool>,
}

/// The output of a [`Pooler`].
#[derive(Clone, Copy)]
pub(crate) enum PoolerKind<'a> {
    Tokens,
    /// The modes, and the first tokens that they leave out.
    Pooled(&'a [PoolingMode], usize),
    Logit(&'a ClassifierHead),
}

impl Pooler<'_> {
    /// True if the output is no longer wanted.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Returns the output, unless it is no longer wanted.
    pub(crate) fn finished(&self, out: Result<Vec<f32>>) -> Result<Vec<f32>> {
        match self.is_stopped() {
            true => Err(Error::Interrupted("the model did not finish".to_owned())),
            false => out,
        }
    }

    /// Returns the hidden states that the output needs.
    pub(crate) fn needs(&self) -> NeededStates {
        match self.kind {
            PoolerKind::Pooled([PoolingMode::Cls], 0) => NeededStates::First,
            PoolerKind::Logit(head) if !head.mean => NeededStates::First,
            _ => NeededStates::All,
        }
    }

    /// Pools the needed hidden states of one sequence into `out`, `[n_out]`.
    pub(crate) fn apply(&self, states: &[f32], out: &mut [f32]) {
        match self.kind {
            PoolerKind::Tokens => out[..states.len()].copy_from_slice(states),
            PoolerKind::Pooled(modes, n_skipped) => {
                let width = out.len() / modes.len();
                for (mode, out) in modes.iter().zip(out.chunks_exact_mut(width)) {
                    mode.apply(states, n_skipped, out);
                }
            }
            PoolerKind::Logit(head) if head.mean => {
                let mut mean = vec![0.0; head.width()];
                PoolingMode::Mean.apply(states, 0, &mut mean);
                out[0] = head.logit(&mean);
            }
            PoolerKind::Logit(head) => out[0] = head.logit(states),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_pool_what_their_names_say() {
        // Three tokens of two dimensions.
        let states = [1.0, 8.0, 3.0, -2.0, 2.0, 6.0];
        let pooled = |mode: PoolingMode, skipped| {
            let mut out = [0f32; 2];
            mode.apply(&states, skipped, &mut out);
            out
        };
        assert_eq!(pooled(PoolingMode::Cls, 0), [1.0, 8.0]);
        assert_eq!(pooled(PoolingMode::Cls, 1), [3.0, -2.0]);
        assert_eq!(pooled(PoolingMode::LastToken, 1), [2.0, 6.0]);
        assert_eq!(pooled(PoolingMode::Max, 0), [3.0, 8.0]);
        assert_eq!(pooled(PoolingMode::Max, 1), [3.0, 6.0]);
        assert_eq!(pooled(PoolingMode::Mean, 0), [2.0, 4.0]);
        assert_eq!(pooled(PoolingMode::Mean, 1), [2.5, 2.0]);
        let [x, y] = pooled(PoolingMode::MeanSqrtLen, 0);
        assert!((x - 6.0 / 3f32.sqrt()).abs() < 1e-6 && (y - 12.0 / 3f32.sqrt()).abs() < 1e-6);
        let weighted = [(1.0 + 6.0 + 6.0) / 6.0, (8.0 - 4.0 + 18.0) / 6.0];
        assert_eq!(pooled(PoolingMode::WeightedMean, 0), weighted);
        // Without the first token the others keep their weights, 2 and 3.
        assert_eq!(pooled(PoolingMode::WeightedMean, 1), [12.0 / 5.0, 14.0 / 5.0]);
    }
}
