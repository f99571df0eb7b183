//! The one writer of an index: takes changes from all requests, commits them together, and answers when
//! they are durable and later requests see them.

use super::error::ApiError;
use super::state::Served;
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::ingest::Document;
use crate::store::{IndexWriter, content_hash};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Requests that may wait for the writer.
const MAX_WAITING: usize = 256;

/// Requests whose changes are committed together.
const MAX_TOGETHER: usize = 64;

/// How long another process's writing is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long the index stays open for writing with nothing to write; then other processes may.
const IDLE: Duration = Duration::from_millis(100);

/// A change of an index.
#[derive(Debug)]
pub(super) enum Change {
    /// A new document, or a new version of one, with its chunks and their vectors.
    Put { document: Box<Document>, chunks: Vec<Chunk>, vectors: Vec<f32> },
    /// The documents of this id, or else of this `doc_id`.
    Delete(String),
}

/// What became of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct Written {
    /// Documents that are new.
    pub(super) added: u64,
    /// Documents that replaced an older version.
    pub(super) updated: u64,
    /// Documents that were there already with the same content.
    pub(super) unchanged: u64,
    /// Documents that were deleted.
    pub(super) deleted: u64,
}

/// Takes changes in.
#[derive(Debug)]
pub(super) struct Writer(SyncSender<Job>);

struct Job {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<Written>>,
}

impl Writer {
    /// Starts the writer's thread, which ends with the index it writes.
    pub(super) fn start(served: Weak<Served>) -> Self {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        std::thread::spawn(move || run(&served, &receiver));
        Self(sender)
    }

    /// Makes changes, all or none of them; replies when they are durable and visible.
    ///
    /// # Errors
    ///
    /// An overload, or the store's errors.
    pub(super) async fn write(&self, changes: Vec<Change>) -> Result<Written, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Job { changes, reply }).map_err(|e| match e {
            TrySendError::Full(_) => ApiError::overloaded(
                format!("{MAX_WAITING} requests wait to be written"),
                Duration::from_secs(1),
            ),
            TrySendError::Disconnected(_) => ApiError::internal("the writer has ended"),
        })?;
        answer
            .await
            .map_err(|_| ApiError::internal("the writer ended without a result"))?
            .map_err(ApiError::from)
    }
}

fn run(served: &Weak<Served>, receiver: &Receiver<Job>) {
    let mut writer: Option<IndexWriter> = None;
    let mut left: Option<Job> = None;
    loop {
        let first = match left.take() {
            Some(job) => job,
            None => match receiver.recv_timeout(IDLE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    writer = None;
                    match receiver.recv() {
                        Ok(job) => job,
                        Err(_) => return,
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
        let mut touched: HashSet<String> = first.ids();
        let mut jobs = vec![first];
        while jobs.len() < MAX_TOGETHER {
            let Ok(job) = receiver.try_recv() else { break };
            // A document changes once a commit.
            if job.ids().iter().any(|id| touched.contains(id)) {
                left = Some(job);
                break;
            }
            touched.extend(job.ids());
            jobs.push(job);
        }
        let Some(served) = served.upgrade() else { return };
        write_together(&served, &mut writer, jobs);
    }
}

impl Job {
    fn ids(&self) -> HashSet<String> {
        let id = |change: &Change| match change {
            Change::Put { document, .. } => document.id.clone(),
            Change::Delete(id) => id.clone(),
        };
        self.changes.iter().map(id).collect()
    }
}

/// Commits the changes of several requests at once; where one of them fails, each by itself.
fn write_together(served: &Served, writer: &mut Option<IndexWriter>, jobs: Vec<Job>) {
    let changes: Vec<&[Change]> = jobs.iter().map(|job| &job.changes[..]).collect();
    match commit(served, writer, &changes) {
        Ok(outcomes) => {
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                let _ = job.reply.send(Ok(outcome));
            }
        }
        Err(first) => {
            // What a failed commit left behind is unknown; the next one opens the index again.
            *writer = None;
            if jobs.len() == 1 {
                jobs.into_iter().zip([first]).for_each(|(job, e)| drop(job.reply.send(Err(e))));
                return;
            }
            for job in jobs {
                let outcome = commit(served, writer, &[&job.changes[..]]);
                if outcome.is_err() {
                    *writer = None;
                }
                let _ = job.reply.send(outcome.map(|o| o.first().copied().unwrap_or_default()));
            }
        }
    }
}

fn commit(
    served: &Served,
    writer: &mut Option<IndexWriter>,
    jobs: &[&[Change]],
) -> Result<Vec<Written>> {
    if writer.is_none() {
        *writer = Some(open(served)?);
    }
    let Some(writer) = writer.as_mut() else { return Ok(Vec::new()) };
    let mut outcomes = Vec::with_capacity(jobs.len());
    for changes in jobs {
        let mut written = Written::default();
        for change in *changes {
            apply(writer, change, &mut written)?;
        }
        outcomes.push(written);
    }
    writer.commit()?;
    // It is durable now. Where it cannot be shown, that is the next look's business, and no failure of the writing.
    if let Err(e) = served.reload() {
        tracing::warn!("index '{}' could not be opened again: {e}", served.name);
    }
    Ok(outcomes)
}

fn apply(writer: &mut IndexWriter, change: &Change, written: &mut Written) -> Result<()> {
    match change {
        Change::Put { document, chunks, vectors } => match writer.find(&document.id)? {
            Some(existing) if existing.hash == content_hash(document) => written.unchanged += 1,
            existing => {
                writer.put(Document::clone(document), chunks.clone(), vectors)?;
                *if existing.is_some() { &mut written.updated } else { &mut written.added } += 1;
            }
        },
        Change::Delete(name) => {
            for seq in writer.find_all(name)? {
                writer.delete(seq);
                written.deleted += 1;
            }
        }
    }
    Ok(())
}

/// Opens the index for writing, once another process is done with it.
fn open(served: &Served) -> Result<IndexWriter> {
    let started = Instant::now();
    let searcher = served.searcher();
    loop {
        match IndexWriter::open(searcher.index.dir()) {
            Err(Error::Locked { .. }) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}
