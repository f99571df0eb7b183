//! What a batch needs on the device beside the rows, and on its way there and back.

use super::params::PrepareParams;
use warpseek_compute::gpu::{Buffer, Outcome, Pinned, Recordings};
use cudarc::driver::sys::CUdeviceptr;

/// Room for a batch, kept between batches.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The most candidates a query is given room for.
    pub(super) room: usize,
    /// Vectors on their way to the device.
    pub(super) sent: Pinned<f32>,
    pub(super) values: Buffer<f32>,
    pub(super) halves: Buffer<u16>,
    pub(super) planes: Buffer<i8>,
    pub(super) steps: Buffer<f32>,
    pub(super) powers: Buffer<i32>,
    pub(super) errors: Buffer<f32>,
    pub(super) thresholds: Buffer<f32>,
    pub(super) counts: Buffer<u32>,
    pub(super) candidates: Buffer<u64>,
    /// What comes back: see [`Fetched`].
    pub(super) found: Buffer<u64>,
    pub(super) fetched: Pinned<u64>,
    pub(super) mask: Buffer<u32>,
    pub(super) mask_of: Buffer<u32>,
    pub(super) list: Buffer<u32>,
    pub(super) n_listed: Buffer<u32>,
    pub(super) keys: Buffer<u64>,
    pub(super) recordings: Recordings<Call>,
}

/// All that the launches of a batch depend on, which has no padding: [`PrepareParams`].
pub(super) type Call = [u64; size_of::<PrepareParams>() / 8];

/// Where the vectors of a batch are, `[n, stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Vectors<'a> {
    Here(&'a [f32]),
    There(CUdeviceptr),
}

impl Workspace {
    pub(super) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// Gives its memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::with_room(self.room);
    }
}

/// What came back of a batch.
pub(super) struct Fetched<'a> {
    /// `[n, k]`, of which each query has the first.
    pub(super) keys: &'a [u64],
    /// How many these are, `[n]`, and whether there were too many candidates, `[n]`; two numbers a word.
    numbers: &'a [u64],
}

impl<'a> Fetched<'a> {
    pub(super) fn of(space: &'a Workspace, n: usize, k: usize) -> Outcome<Self> {
        let words = space.fetched.get(found_words(n, k))?;
        let (keys, numbers) = words.split_at(n * k);
        Ok(Self { keys, numbers })
    }

    pub(super) fn number(&self, i: usize) -> u32 {
        (self.numbers[i / 2] >> (i % 2 * 32)) as u32
    }
}

/// Words of what comes back of `n` queries: keys, then how many these are and the flags.
pub(super) fn found_words(n: usize, k: usize) -> usize {
    n * k + n
}
