//! Micro-batches of sequences, and the overlap of tokenization with computing.

use crate::error::Result;
use crate::tokenizer::Sequence;
use std::panic::resume_unwind;

/// Runs `run` over the results of `make`. With `overlap` the next result is made while one runs:
/// double buffering for work that runs on a GPU.
///
/// # Errors
///
/// The first error of `make` or `run`, after which nothing more runs.
pub(crate) fn overlapped<P: Send, T: Send>(
    mut parts: impl Iterator<Item = P>,
    overlap: bool,
    make: impl Fn(P) -> Result<T> + Sync,
    mut run: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    if !overlap {
        return parts.try_for_each(|part| run(make(part)?));
    }
    let mut made = parts.next().map(&make).transpose()?;
    while let Some(now) = made {
        let next = parts.next();
        made = std::thread::scope(|scope| {
            let next = next.map(|part| scope.spawn(|| make(part)));
            run(now)?;
            let next = next.map(|made| made.join().unwrap_or_else(|e| resume_unwind(e)));
            next.transpose()
        })?;
    }
    Ok(())
}

/// Returns the tokens of the longest sequence.
pub(crate) fn longest(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0)
}

/// Divides `sequences` into micro-batches of about `max_tokens`, longest first. Returns their
/// numbers.
pub(crate) fn micro_batches(sequences: &[Sequence], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].ids.len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let len = sequences[i].ids.len();
        match batches.last_mut() {
            Some(batch) if tokens + len <= max_tokens => batch.push(i),
            _ => {
                batches.push(vec![i]);
                tokens = 0;
            }
        }
        tokens += len;
    }
    batches
}
