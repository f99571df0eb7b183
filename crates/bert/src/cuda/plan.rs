//! Which sequences run together, and what the kernels are told of them.

use super::params::ATTENTION_QUERIES;
use crate::tokenizer::Sequence;

/// Groups of sequences whose numbers go to the device in one copy.
#[derive(Debug)]
pub(super) struct Round {
    /// The numbers of all groups, which know where theirs begin.
    pub(super) numbers: Vec<u32>,
    pub(super) groups: Vec<Group>,
    /// The input's numbers of the sequences, in the order in which they run.
    pub(super) order: Vec<usize>,
}

/// Sequences that go through all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) n_tokens: usize,
    pub(super) n_sequences: usize,
    /// Places among the round's numbers. A token's id, `[n_tokens]`.
    pub(super) ids: usize,
    /// A token's position and type, `[n_tokens]`.
    pub(super) places: usize,
    /// The first token of each sequence, and the end, `[n_sequences + 1]`.
    pub(super) starts: usize,
    /// What attention computes, for every query of every layer, `[n_spans, 5]`.
    pub(super) spans: usize,
    pub(super) n_spans: usize,
    /// The same for first tokens alone, `[n_sequences, 5]`.
    pub(super) first_spans: usize,
    /// The input's numbers of the sequences, `[n_sequences]`.
    pub(super) order: usize,
}

impl Round {
    pub(super) fn new(sequences: &[Sequence], groups: &[Vec<usize>], n_types: usize) -> Self {
        let mut round = Self { numbers: Vec::new(), groups: Vec::new(), order: groups.concat() };
        for group in groups {
            let members: Vec<&Sequence> = group.iter().map(|&i| &sequences[i]).collect();
            let planned = round.plan(&members, n_types);
            round.numbers.extend(group.iter().map(|&i| i as u32));
            round.groups.push(planned);
        }
        round
    }

    fn plan(&mut self, members: &[&Sequence], n_types: usize) -> Group {
        let numbers = &mut self.numbers;
        let ids = numbers.len();
        members.iter().for_each(|s| numbers.extend(&s.ids));
        let places = numbers.len();
        for sequence in members {
            let types = (0..sequence.ids.len()).map(|position| {
                let second = usize::from(position >= sequence.second_from);
                (position | second.min(n_types - 1) << 16) as u32
            });
            numbers.extend(types);
        }
        let starts = numbers.len();
        let mut n_tokens = 0;
        for sequence in members {
            numbers.push(n_tokens as u32);
            n_tokens += sequence.ids.len();
        }
        numbers.push(n_tokens as u32);
        let spans = numbers.len();
        let mut start = 0;
        for sequence in members {
            let n = sequence.ids.len();
            for first in (start..start + n).step_by(ATTENTION_QUERIES) {
                let queries = ATTENTION_QUERIES.min(start + n - first);
                numbers.extend([start, n, first, queries, first].map(|v| v as u32));
            }
            start += n;
        }
        let first_spans = numbers.len();
        let mut start = 0;
        for (i, sequence) in members.iter().enumerate() {
            let n = sequence.ids.len();
            numbers.extend([start, n, start, 1, i].map(|v| v as u32));
            start += n;
        }
        Group {
            n_tokens,
            n_sequences: members.len(),
            ids,
            places,
            starts,
            spans,
            n_spans: (first_spans - spans) / 5,
            first_spans,
            order: numbers.len(),
        }
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.groups.iter().map(|group| group.n_tokens).sum()
    }
}
