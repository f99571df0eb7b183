//! Events of a fetch, and the way to stop it. The hub and the package index share them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use warpseek_error::{Error, Result};

use crate::checksum::ChecksumCache;
use crate::sources::Sources;

/// An event of a fetch, for progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// The transfer of a file starts, or starts again from its beginning.
    Started {
        /// The file's path inside the model folder, or the package's name.
        file: String,
        /// Its size in bytes, if known.
        size: Option<u64>,
        /// Bytes that an earlier attempt left.
        resumed: u64,
    },
    /// More of the file arrived.
    Advanced {
        /// The number of new bytes.
        bytes: u64,
    },
    /// The file is complete and its checksum matches.
    Finished {
        /// The file of the last [`FetchEvent::Started`].
        file: String,
    },
    /// A message for the log: a retry, a copy that was skipped.
    Note(String),
    /// No news. Sent several times per second while waiting, so that the receiver may stop.
    Waiting,
}

/// Receiver of events. [`ControlFlow::Break`] stops the fetch with [`Error::Interrupted`]. Bytes
/// that arrived are kept, and the next fetch resumes there.
pub type OnEvent<'a> = &'a dyn Fn(FetchEvent) -> ControlFlow<()>;

/// An [`OnEvent`] that ignores every event.
pub fn no_progress(_: FetchEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Context of one fetch.
#[derive(Clone, Copy)]
pub(crate) struct FetchContext<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) checksums: &'a ChecksumCache,
    pub(crate) on_event: OnEvent<'a>,
}

impl FetchContext<'_> {
    /// Sends an event.
    pub(crate) fn tell(&self, event: FetchEvent) -> Result<()> {
        match (self.on_event)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted(
                "the model is incomplete; the bytes that arrived are kept, and the next attempt \
                 resumes there"
                    .into(),
            )),
        }
    }

    /// Sends a [`FetchEvent::Note`].
    pub(crate) fn note(&self, text: impl Into<String>) -> Result<()> {
        self.tell(FetchEvent::Note(text.into()))
    }

    /// Sleeps for `time`. Stops early if the receiver asks to stop.
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
