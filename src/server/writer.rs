//! The writer of an index: one thread that takes changes from all requests and commits them
//! together. It replies when they are durable and visible to later requests.

use super::error::{ApiError, ApiResult};
use super::served::Served;
use crate::error::{Error, Result};
use crate::store::{IndexWriter, content_hash};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use warpseek_ingest::Document;
use warpseek_ingest::chunk::Chunk;

/// The number of requests that may wait for the writer.
const MAX_WAITING: usize = 256;

/// The number of requests whose changes are committed together.
const MAX_TOGETHER: usize = 64;

/// Time for another process to finish writing.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without changes after which the index is closed, so that other processes may write to it.
const IDLE: Duration = Duration::from_millis(100);

/// Time after which the index is closed under endless changes, so that other processes get their
/// turn.
const MAX_TURN: Duration = Duration::from_millis(500);

/// Time for another process to begin its turn; it tries the lock more often than that.
const PAUSE: Duration = Duration::from_millis(25);

/// Length of the write-ahead log with which changes wait until searches that began before the last
/// commit are done; in bytes.
const WAIT_LOG: u64 = 8 << 20;

/// Time between two looks at the searches that use the log.
const LOG_POLL: Duration = Duration::from_millis(2);

/// The longest time for which changes wait for those searches.
const MAX_LOG_WAIT: Duration = Duration::from_secs(5);

/// Deleted rows from which the index is compacted, once they are as many as the live ones.
const COMPACT_ROWS: u64 = 1024;

/// A change of an index.
pub(super) enum Change {
    /// A new document, or a new version of one, with its chunks and their vectors.
    Put { document: Box<Document>, chunks: Vec<Chunk>, vectors: Vec<f32> },
    /// The documents of this id, or else of this `doc_id`.
    Delete(String),
}

impl Change {
    /// The id of the changed document.
    fn id(&self) -> String {
        match self {
            Self::Put { document, .. } => document.id.clone(),
            Self::Delete(id) => id.clone(),
        }
    }
}

/// The effect of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct Written {
    /// New documents.
    pub(super) added: u64,
    /// Documents that replaced an older version.
    pub(super) updated: u64,
    /// Documents that were there already with the same content.
    pub(super) unchanged: u64,
    /// Deleted documents.
    pub(super) deleted: u64,
}

/// Passes changes to the writer's thread, which ends when this is dropped.
pub(super) struct Writer(SyncSender<WriteRequest>);

/// The changes of one request: all are made or none.
struct WriteRequest {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<Written>>,
}

impl Writer {
    /// Starts the writer's thread.
    pub(super) fn start(served: Arc<Served>) -> Self {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        std::thread::spawn(move || run(&served, &receiver));
        Self(sender)
    }

    /// Makes all changes or none. Replies when they are durable and visible.
    pub(super) async fn write(&self, changes: Vec<Change>) -> ApiResult<Written> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(WriteRequest { changes, reply }).map_err(|e| match e {
            TrySendError::Full(_) => ApiError::overloaded(
                format!("{MAX_WAITING} requests wait to be written"),
                Duration::from_secs(1),
            ),
            TrySendError::Disconnected(_) => ApiError::internal("the writer has ended"),
        })?;
        let written = answer.await;
        Ok(written.map_err(|_| ApiError::internal("the writer ended without a result"))??)
    }
}

/// The writer's thread.
fn run(served: &Served, receiver: &Receiver<WriteRequest>) {
    let mut writer: Option<IndexWriter> = None;
    let mut opened = Instant::now();
    let mut compact_from = COMPACT_ROWS;
    loop {
        if writer.is_some() && opened.elapsed() >= MAX_TURN {
            close(served, &mut writer, &mut compact_from);
            std::thread::sleep(PAUSE);
        }
        let first = receiver.recv_timeout(IDLE).or_else(|_| {
            close(served, &mut writer, &mut compact_from);
            receiver.recv()
        });
        let Ok(first) = first else { return };
        if writer.is_none() {
            opened = Instant::now();
        }
        let waiting = std::iter::once(first).chain(receiver.try_iter());
        let mut waiting: Vec<WriteRequest> = waiting.take(MAX_TOGETHER).collect();
        while !waiting.is_empty() {
            // One commit may change a document only once.
            let mut touched = HashSet::new();
            let is_new = |request: &WriteRequest| {
                let ids: HashSet<String> = request.changes.iter().map(Change::id).collect();
                let is_new = touched.is_disjoint(&ids);
                touched.extend(ids);
                is_new
            };
            let n = waiting.iter().map(is_new).take_while(|is_new| *is_new).count();
            let later = waiting.split_off(n);
            write_together(served, &mut writer, std::mem::replace(&mut waiting, later));
            if writer.as_ref().is_some_and(|open| shorten_log(served, open)) {
                // Other processes may write meanwhile.
                drop(writer.take());
                wait_for_searches(served);
                // Closed again when nothing follows, which empties the log.
                writer = IndexWriter::open(served.searcher().index.dir()).ok();
                opened = Instant::now();
            }
        }
    }
}

/// Closes the index, so that other processes may write to it. Compacts it first if half of its rows
/// are deleted, at least `compact_from` of them: the cost of a compaction is then that of as many
/// changes. After a failure the next one waits for twice as many.
fn close(served: &Served, writer: &mut Option<IndexWriter>, compact_from: &mut u64) {
    let Some(open) = writer.take() else { return };
    let is_due = |&(live, deleted): &(u64, u64)| deleted >= *compact_from && deleted >= live;
    if let Some((_, deleted)) = open.live_and_deleted_rows().ok().filter(is_due) {
        *compact_from = COMPACT_ROWS;
        let started = Instant::now();
        match open.compact() {
            Ok(done) => tracing::info!(
                "index '{}' was compacted: {} rows of {}, {} ms",
                served.name,
                done.rows_after,
                done.rows_before,
                started.elapsed().as_millis()
            ),
            Err(e) => {
                *compact_from = deleted.saturating_mul(2);
                tracing::warn!("index '{}' could not be compacted: {e}", served.name);
            }
        }
        follow(served, served.reload());
        // The log holds the whole database now.
        if let Ok(open) = IndexWriter::open(served.searcher().index.dir()) {
            release_log(served, &open);
        }
        return;
    }
    release_log(served, &open);
}

/// Moves the pages of the write-ahead log to the database, and opens a snapshot that reads them
/// there. Returns false if earlier snapshots do not allow it.
fn release_log(served: &Served, writer: &IndexWriter) -> bool {
    let is_moved = writer.move_log();
    if is_moved {
        follow(served, served.reload());
    }
    is_moved
}

/// Keeps the write-ahead log short: moves its pages to the database, and opens a snapshot that does
/// not use it. The next commit starts it anew if no earlier snapshot is in use. Returns true if the
/// log is so long that changes should wait for the searches that use such snapshots; other
/// processes may keep the log for as long as they like, and nobody waits for them.
fn shorten_log(served: &Served, writer: &IndexWriter) -> bool {
    let Some(len) = writer.long_log() else { return false };
    release_log(served, writer);
    len >= WAIT_LOG && served.has_earlier_snapshots()
}

/// Waits for the searches that use earlier snapshots.
fn wait_for_searches(served: &Served) {
    let started = Instant::now();
    while served.has_earlier_snapshots() && started.elapsed() < MAX_LOG_WAIT {
        std::thread::sleep(LOG_POLL);
    }
}

/// Logs that the newest snapshot could not be opened; the next look at the files tries again.
fn follow(served: &Served, reloaded: Result<()>) {
    if let Err(e) = reloaded {
        tracing::warn!("index '{}' could not be opened again: {e}", served.name);
    }
}

/// Commits the changes of several requests at once. If that fails, commits each request by itself.
fn write_together(served: &Served, writer: &mut Option<IndexWriter>, requests: Vec<WriteRequest>) {
    let changes: Vec<&[Change]> = requests.iter().map(|request| &request.changes[..]).collect();
    let together = commit(served, writer, &changes);
    let n = requests.len();
    for (i, request) in requests.into_iter().enumerate() {
        let written = match &together {
            Ok(written) => Ok(written[i]),
            Err(error) if n == 1 => Err(error.clone()),
            Err(_) => commit(served, writer, &[&request.changes]).map(|written| written[0]),
        };
        // The client may be gone.
        let _ = request.reply.send(written);
    }
}

/// Commits the changes of requests. After an error the index must be opened again, because the
/// pending rows are unknown.
fn commit(
    served: &Served,
    writer: &mut Option<IndexWriter>,
    requests: &[&[Change]],
) -> Result<Vec<Written>> {
    let mut open = match writer.take() {
        Some(writer) => writer,
        None => open(served)?,
    };
    let mut outcomes = Vec::with_capacity(requests.len());
    for changes in requests {
        let mut written = Written::default();
        for change in *changes {
            apply(&mut open, change, &mut written)?;
        }
        outcomes.push(written);
    }
    open.commit()?;
    // The commit is durable.
    follow(served, served.reload());
    *writer = Some(open);
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

/// Opens the index for writing. Waits while another process writes.
fn open(served: &Served) -> Result<IndexWriter> {
    let started = Instant::now();
    // The snapshot is not kept: another server may wait for the end of its use.
    let dir = served.searcher().index.dir().to_path_buf();
    loop {
        match IndexWriter::open(&dir) {
            Err(Error::Locked { .. }) if started.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}
