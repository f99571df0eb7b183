//! Candle's BERT over padded batches: the reference of the tests. It computes the family BERT only.

use crate::activation::Activation;
use crate::batching::micro_batches;
use crate::config::EncoderConfig;
use crate::encoder_weights::EncoderWeights;
use crate::error::{Error, Result};
use crate::family::Family;
use crate::pooling::{NeededStates, Pooler};
use crate::tokenizer::Sequence;
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};

/// Tokens of a padded batch.
const BATCH_TOKENS: usize = 2048;

pub(crate) struct ReferenceBert {
    config: EncoderConfig,
    model: BertModel,
}

impl std::fmt::Debug for ReferenceBert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReferenceBert").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ReferenceBert {
    pub(crate) fn new(weights: &Weights, config: &EncoderConfig) -> Result<Self> {
        let refuse = |defect: String| {
            Error::unavailable("reference", format!("the reference encoder has no {defect}"))
        };
        if config.family != Family::Bert {
            return Err(refuse(format!("models of type {}", config.family.model_type())));
        }
        let prefix = EncoderWeights::new(weights, config).prefix();
        let candle_config = Config {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            num_hidden_layers: config.n_layers,
            num_attention_heads: config.n_heads,
            intermediate_size: config.intermediate_size,
            hidden_act: match config.activation {
                Activation::Gelu => HiddenAct::Gelu,
                Activation::GeluTanh => HiddenAct::GeluApproximate,
                Activation::Relu => HiddenAct::Relu,
                other => return Err(refuse(format!("activation {other:?}"))),
            },
            max_position_embeddings: config.n_positions,
            type_vocab_size: config.n_token_types,
            layer_norm_eps: f64::from(config.layer_norm_eps),
            position_embedding_type: PositionEmbeddingType::Absolute,
            ..Config::default()
        };
        let builder = weights.builder()?.pp(prefix.trim_end_matches('.'));
        let model =
            BertModel::load(builder, &candle_config).map_err(Error::compute("the weights"))?;
        Ok(Self { config: config.clone(), model })
    }

    /// See [`crate::encoder::Encoder::forward`], which checks the sequences.
    pub(crate) fn forward(&self, sequences: &[Sequence], pool: Pooler<'_>) -> Result<Vec<f32>> {
        let n_out = pool.n_out;
        let mut out = vec![0f32; sequences.len() * n_out];
        for numbers in micro_batches(sequences, BATCH_TOKENS) {
            let batch: Vec<&Sequence> = numbers.iter().map(|&i| &sequences[i]).collect();
            let hidden = self.hidden_states(&batch).map_err(Error::compute("a forward pass"))?;
            for (i, states) in numbers.into_iter().zip(hidden) {
                let states = match pool.needs() {
                    NeededStates::All => &states[..],
                    NeededStates::First => &states[..self.config.hidden_size],
                };
                pool.apply(states, &mut out[i * n_out..(i + 1) * n_out]);
            }
        }
        Ok(out)
    }

    /// Returns the hidden states of each sequence, without padding.
    fn hidden_states(&self, batch: &[&Sequence]) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = batch.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        let shape = (batch.len(), longest);
        let mut ids = vec![0u32; batch.len() * longest];
        let mut types = ids.clone();
        let mut mask = ids.clone();
        for (row, sequence) in batch.iter().enumerate() {
            let start = row * longest;
            ids[start..start + sequence.ids.len()].copy_from_slice(&sequence.ids);
            mask[start..start + sequence.ids.len()].fill(1);
            types[start + sequence.second_from..start + sequence.ids.len()].fill(1);
        }
        let tensor = |values: Vec<u32>| Tensor::from_vec(values, shape, &Device::Cpu);
        let states = self.model.forward(&tensor(ids)?, &tensor(types)?, Some(&tensor(mask)?))?;
        batch
            .iter()
            .enumerate()
            .map(|(row, s)| states.get(row)?.narrow(0, 0, s.ids.len())?.flatten_all()?.to_vec1())
            .collect()
    }
}
