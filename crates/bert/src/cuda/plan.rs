//! Indices of packed sequences for the kernels.

use super::params::{ATTENTION_QUERIES, AttentionTile};
use crate::config::EncoderConfig;
use crate::tokenizer::Sequence;

/// Micro-batches whose indices go to the device in one copy.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The indices of all micro-batches, one after the other.
    pub(super) indices: Vec<u32>,
    pub(super) batches: Vec<MicroBatch>,
    /// Input numbers of the sequences, in the order in which they run.
    pub(super) order: Vec<usize>,
}

/// Sequences that go through all layers together. The offsets point into [`Plan::indices`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct MicroBatch {
    pub(super) n_tokens: usize,
    pub(super) n_sequences: usize,
    /// Token ids, `[n_tokens]`.
    pub(super) ids: usize,
    /// Position ids and token types, `[n_tokens]`.
    pub(super) position_ids: usize,
    /// The first token of each sequence, and the end, `[n_sequences + 1]`.
    pub(super) cu_seqlens: usize,
    /// Attention tiles for all queries, `[n_tiles]`.
    pub(super) tiles: usize,
    pub(super) n_tiles: usize,
    /// Attention tiles for the CLS queries, `[n_sequences]`.
    pub(super) cls_tiles: usize,
    /// Input numbers of the sequences, `[n_sequences]`.
    pub(super) order: usize,
}

impl Plan {
    /// Plans micro-batches, each a list of numbers of `sequences`.
    pub(super) fn new(
        sequences: &[Sequence],
        batches: &[Vec<usize>],
        config: &EncoderConfig,
    ) -> Self {
        let mut plan = Self { order: batches.concat(), ..Self::default() };
        for numbers in batches {
            let members: Vec<&Sequence> = numbers.iter().map(|&i| &sequences[i]).collect();
            plan.push(&members, config);
            plan.indices.extend(numbers.iter().map(|&i| i as u32));
        }
        plan
    }

    fn push(&mut self, members: &[&Sequence], config: &EncoderConfig) {
        let indices = &mut self.indices;
        let mut batch = MicroBatch { n_sequences: members.len(), ..MicroBatch::default() };
        batch.ids = indices.len();
        members.iter().for_each(|sequence| indices.extend(&sequence.ids));
        batch.position_ids = indices.len();
        batch.n_tokens = batch.position_ids - batch.ids;
        for sequence in members {
            let positions = config.positions(&sequence.ids).enumerate();
            indices.extend(positions.map(|(i, position)| {
                let second = usize::from(i >= sequence.second_from);
                (position | second.min(config.n_token_types.max(1) - 1) << 16) as u32
            }));
        }
        // First token and length of each sequence.
        let mut end = 0;
        let spans: Vec<(u32, u32)> = (members.iter())
            .map(|sequence| {
                let start = end;
                end += sequence.ids.len() as u32;
                (start, end - start)
            })
            .collect();
        batch.cu_seqlens = indices.len();
        indices.extend(spans.iter().map(|&(start, _)| start).chain([end]));
        batch.tiles = indices.len();
        for &(first_key, n_keys) in &spans {
            let end = first_key + n_keys;
            for first_query in (first_key..end).step_by(ATTENTION_QUERIES as usize) {
                let n_queries = ATTENTION_QUERIES.min(end - first_query);
                indices.extend([first_key, n_keys, first_query, n_queries, first_query]);
            }
        }
        batch.cls_tiles = indices.len();
        batch.n_tiles = (batch.cls_tiles - batch.tiles) / TILE_WORDS;
        for (i, &(first_key, n_keys)) in spans.iter().enumerate() {
            indices.extend([first_key, n_keys, first_key, 1, i as u32]);
        }
        batch.order = indices.len();
        self.batches.push(batch);
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.n_tokens).sum()
    }
}

/// Words of an [`AttentionTile`].
const TILE_WORDS: usize = size_of::<AttentionTile>() / size_of::<u32>();
