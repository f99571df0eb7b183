//! Shared state of a command: the engine, and how it reports.

use super::settings::GlobalArgs;
use super::{interrupt, term};
use crate::answer::ChatClient;
use crate::engine::{Engine, EngineEvents};
use crate::error::Result;
use crate::hub::FetchEvent;
use crate::hub::http::Secret;
use indicatif::ProgressBar;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The end of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    NoHits,
}

/// Everything a command needs besides its own arguments.
pub(super) struct Context {
    pub(super) engine: Engine,
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Context {
    /// Resolves the settings and starts the thread pool.
    pub(super) fn new(args: &GlobalArgs, is_long: bool) -> Result<Self> {
        let settings = args.settings()?;
        if let Some(threads) = settings.threads {
            // Fails only if the pool is already running, and nothing has started it yet.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        let (json, quiet) = (args.json, args.quiet);
        let events = Box::new(TerminalEvents { quiet, bar: Mutex::default() });
        Ok(Self { engine: Engine::new(settings, is_long, events)?, json, quiet })
    }

    /// Notes that no reranker is present and what happens instead, unless reranking was declined.
    pub(super) fn note_missing_reranker(&self, requested: Option<&str>, instead: &str) {
        if requested.or(self.engine.settings.reranker.as_deref()) != Some("none") {
            self.note(&format!(
                "{instead}: no reranker is present; get one with `warpseek models pull \
                 ms-marco-MiniLM-L6-v2`, or name a folder with --reranker"
            ));
        }
    }

    /// Writes a note to stderr, unless `--quiet` is set.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            term::note(text);
        }
    }

    /// A progress bar over `total` units, hidden with `--quiet`.
    pub(super) fn bar(&self, total: Option<u64>, template: &str) -> ProgressBar {
        term::bar(total, template, self.quiet)
    }

    /// Prints `value` as JSON with `--json`, else the text that `print` writes.
    pub(super) fn report(
        &self,
        value: &impl Serialize,
        print: impl FnOnce() -> Result<()>,
    ) -> Result<Status> {
        if self.json {
            term::print_json(value)?
        } else {
            print()?
        }
        Ok(Status::Success)
    }

    /// Client of the chat service, with the key from `key_file` or the settings. None if the
    /// service would be Groq and there is no key for it.
    pub(super) fn chat_client(
        &self,
        base_url: Option<&str>,
        key_file: Option<&Path>,
    ) -> Result<Option<ChatClient>> {
        let read = |path| Ok(Secret::new(term::read_text(path)?.trim()));
        self.engine.chat_client(base_url, key_file.map(read).transpose()?)
    }
}

/// Messages of the engine on the terminal, with a bar for downloads.
struct TerminalEvents {
    quiet: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl EngineEvents for TerminalEvents {
    fn note(&self, text: &str) {
        if !self.quiet {
            term::note(text);
        }
    }

    fn warn(&self, text: &str) {
        term::warn(text);
    }

    fn download(&self, model: &str, event: FetchEvent) -> ControlFlow<()> {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FetchEvent::Started { file, size, resumed } => {
                interrupt::install();
                self.note(&format!("downloading {file} of {model}"));
                let template = "{bytes}/{total_bytes} [{bar:40}] {eta}";
                let new = term::bar(size, template, self.quiet);
                new.set_position(resumed);
                if let Some(old) = bar.replace(new) {
                    old.finish_and_clear();
                }
            }
            FetchEvent::Advanced { bytes } => bar.iter().for_each(|bar| bar.inc(bytes)),
            FetchEvent::Finished { .. } => {
                bar.take().iter().for_each(ProgressBar::finish_and_clear);
            }
            FetchEvent::Note(text) => self.note(&text),
            FetchEvent::Waiting => {}
        }
        interrupt::flow()
    }
}
