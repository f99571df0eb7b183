//! What every way of fetching a model shares: where to, what is told meanwhile, how to stop.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::checksum::Stamps;
use super::sources::Sources;

/// What happens while a model is fetched, for progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// A file's transfer starts, or starts anew from its beginning.
    Started {
        /// The file's path inside the model folder, or the package's name.
        file: String,
        /// Its size in bytes, if it is known.
        size: Option<u64>,
        /// Bytes that are there from an earlier try.
        resumed: u64,
    },
    /// More of the file arrived.
    Advanced {
        /// How many bytes more.
        bytes: u64,
    },
    /// The file is complete and its checksum is right.
    Finished {
        /// The file of the last [`FetchEvent::Started`].
        file: String,
    },
    /// Something worth a line in the log: a retry, a source passed over.
    Note(String),
    /// Nothing new: sent several times a second while waiting, so that the receiver may stop.
    Waiting,
}

/// Receives events; answering [`ControlFlow::Break`] stops the fetch with
/// [`Error::Interrupted`]. What arrived so far is kept, and the next fetch takes it up.
pub type OnEvent<'a> = &'a dyn Fn(FetchEvent) -> ControlFlow<()>;

/// An [`OnEvent`] that ignores every event.
pub fn quietly(_: FetchEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// One fetch: where from, who is told.
#[derive(Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) stamps: &'a Stamps,
    pub(crate) on_event: OnEvent<'a>,
}

impl Fetch<'_> {
    /// Passes an event on.
    pub(crate) fn tell(&self, event: FetchEvent) -> Result<()> {
        match (self.on_event)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted(
                "the model is not complete; what arrived is kept, and the next try goes on there"
                    .into(),
            )),
        }
    }

    pub(crate) fn note(&self, text: impl Into<String>) -> Result<()> {
        self.tell(FetchEvent::Note(text.into()))
    }

    /// Sleeps for `time`, and stops early if the receiver wants to stop.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        const TICK: Duration = Duration::from_millis(100);
        let end = Instant::now() + time;
        loop {
            self.tell(FetchEvent::Waiting)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}
