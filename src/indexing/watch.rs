//! Watching the recorded inputs of an index, by the file system's own notifications.

use super::base_of;
use super::inputs::recorded_inputs;
use crate::error::{Error, Result};
use crate::store::Index;
use notify::event::{CreateKind, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// Time without changes after which those before it are taken in.
const QUIET: Duration = Duration::from_millis(300);

/// Maximum time that changes wait while others go on.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Time between two looks at the stop of the program.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Time between two looks at the recorded inputs and at the folders that are watched.
const INPUT_CHECK: Duration = Duration::from_secs(1);

/// Time before the next try, while another process writes to the index.
const RETRY: Duration = Duration::from_secs(1);

/// Files whose names begin with a dot and that say what is read.
const IGNORE_FILES: [&str; 3] = [".gitignore", ".ignore", ".warpseekignore"];

/// The program around [`watch`].
pub trait WatchEvents {
    /// True once watching is to end.
    fn is_stopped(&self) -> bool;

    /// Brings the index up to date, by [`sync`](super::sync). Returns the errors about inputs.
    ///
    /// # Errors
    ///
    /// Those of `sync`. After [`Error::Locked`] it is called again, after [`Error::Interrupted`]
    /// watching ends.
    fn sync(&mut self) -> Result<Vec<Error>>;

    /// Takes an error after which watching goes on, once while it lasts.
    fn warn(&mut self, error: &Error);
}

/// Calls [`WatchEvents::sync`] now, and whenever something below the recorded inputs of the index
/// in `dir` has changed: once it has been quiet for 0.3 seconds, at the latest after three. Returns
/// once it is stopped.
///
/// An input that is gone is waited for, while the others are watched. So are inputs that are
/// recorded in the meantime.
///
/// # Errors
///
/// [`Error::Io`] if the system cannot watch a folder; those of `sync` that a change of an input
/// cannot mend: [`Error::Usage`], [`Error::NoIndex`], [`Error::Corrupt`],
/// [`Error::ModelUnavailable`], [`Error::DeviceUnavailable`], [`Error::DeviceFailed`].
pub fn watch(dir: &Path, events: &mut dyn WatchEvents) -> Result<()> {
    let mut told: Vec<String> = Vec::new();
    while !events.is_stopped() {
        let roots = roots_of(dir)?;
        // The watch begins before the first look at the files, so that no change is missed.
        let watcher = ChangeWatcher::new(&roots, dir)?;
        loop {
            let is_due = match take_in(events)? {
                Outcome::Stopped => return Ok(()),
                Outcome::Retry => true,
                Outcome::Done(errors) => {
                    for error in errors.iter().filter(|e| !told.contains(&e.to_string())) {
                        events.warn(error);
                    }
                    told = errors.iter().map(Error::to_string).collect();
                    false
                }
            };
            let change = match is_due {
                true => pause(&|| events.is_stopped()),
                false => watcher.wait(&|| events.is_stopped(), dir),
            };
            match change {
                WaitEnd::Stopped => return Ok(()),
                WaitEnd::Files if roots_of(dir)? == roots => {}
                WaitEnd::Files | WaitEnd::Inputs => break,
            }
        }
    }
    Ok(())
}

/// The absolute paths of the recorded inputs.
fn roots_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let base = base_of(dir)?;
    let inputs = recorded_inputs(&Index::open(dir)?)?;
    Ok(inputs.iter().map(|input| input.path(&base)).collect())
}

/// The end of one call of `sync`.
enum Outcome {
    /// With the errors after which watching goes on.
    Done(Vec<Error>),
    Retry,
    Stopped,
}

fn take_in(events: &mut dyn WatchEvents) -> Result<Outcome> {
    match events.sync() {
        Ok(errors) => Ok(Outcome::Done(errors)),
        Err(Error::Locked { .. }) => Ok(Outcome::Retry),
        Err(Error::Interrupted(_)) => Ok(Outcome::Stopped),
        Err(
            e @ (Error::Usage(_)
            | Error::NoIndex { .. }
            | Error::Corrupt { .. }
            | Error::ModelUnavailable { .. }
            | Error::DeviceUnavailable { .. }
            | Error::DeviceFailed { .. }),
        ) => Err(e),
        Err(e) => Ok(Outcome::Done(vec![e])),
    }
}

/// Waits before the next try.
fn pause(is_stopped: &dyn Fn() -> bool) -> WaitEnd {
    let started = Instant::now();
    while started.elapsed() < RETRY {
        if is_stopped() {
            return WaitEnd::Stopped;
        }
        std::thread::sleep(STOP_CHECK);
    }
    WaitEnd::Files
}

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitEnd {
    /// Files have changed.
    Files,
    /// An input itself was moved, removed or replaced: it has to be watched anew.
    Inputs,
    Stopped,
}

/// Waits for changes of files.
struct ChangeWatcher {
    /// Ends the notifications when it is dropped.
    _watcher: RecommendedWatcher,
    files: Receiver<()>,
    inputs: Receiver<()>,
    roots: Vec<PathBuf>,
    /// The folder that is watched for each root, if it was there, and where a root leads that is
    /// reached through links. The system watches a folder on after it, or one above it, was moved.
    watched: Vec<(Option<Identity>, Option<PathBuf>)>,
    /// The index's database when its recorded inputs were last compared with the roots.
    database: Cell<DatabaseState>,
}

/// Device and number of a file or folder.
type Identity = (u64, u64);

/// Size and time of the last change of each file of a database.
type DatabaseState = [Option<(u64, SystemTime)>; 2];

/// Returns the folder that is watched for a root: itself, or that of a file.
fn identity(root: &Path) -> Option<Identity> {
    let watched = if root.is_dir() { root } else { root.parent()? };
    let metadata = std::fs::metadata(watched).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    Some((0, u64::from(metadata.is_dir())))
}

/// The path that a root leads to, if it is reached through links.
fn target(root: impl AsRef<Path>) -> Option<PathBuf> {
    std::fs::canonicalize(&root).ok().filter(|target| target != root.as_ref())
}

fn database_state(dir: &Path) -> DatabaseState {
    ["documents.db", "documents.db-wal"].map(|name| {
        let metadata = std::fs::metadata(dir.join(name)).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

impl ChangeWatcher {
    /// Watches the files and folders that are there, with everything below; not what is below
    /// `index`. Of a file that is a link, the target is watched too.
    fn new(roots: &[PathBuf], index: &Path) -> Result<Self> {
        let watched = roots.iter().map(|root| (identity(root), target(root))).collect();
        let with_targets = |of: fn(&&PathBuf) -> bool| -> Vec<PathBuf> {
            let targets = roots.iter().filter(of).filter_map(target);
            roots.iter().cloned().chain(targets).collect()
        };
        let filter = EventFilter {
            // Some systems tell about the targets of links.
            roots: with_targets(|_| true),
            index: std::fs::canonicalize(index).map_err(Error::io("read", index))?,
        };
        // One waiting notice says it all.
        let (files_changed, files) = sync_channel(1);
        let (inputs_changed, inputs) = sync_channel(1);
        let tell = |sender: &SyncSender<()>| {
            let _ = sender.try_send(());
        };
        let handle = move |event: notify::Result<Event>| match event {
            Ok(event) if filter.is_about_input(&event) => {
                tell(&inputs_changed);
                tell(&files_changed);
            }
            Ok(event) if filter.is_change(&event) => tell(&files_changed),
            Ok(_) => {}
            // Notifications may have been lost.
            Err(_) => tell(&files_changed),
        };
        let mut watcher = notify::recommended_watcher(handle).map_err(|e| failed(&e, index))?;
        for root in &with_targets(|root| root.is_file()) {
            let (path, mode) = match root.is_dir() {
                true => (root.as_path(), RecursiveMode::Recursive),
                // Programs replace a file that they save.
                false => (root.parent().unwrap_or(root), RecursiveMode::NonRecursive),
            };
            match watcher.watch(path, mode) {
                // It comes, or comes back: `is_outdated` looks for it.
                Err(_) if !root.exists() => {}
                done => done.map_err(|e| failed(&e, root))?,
            }
        }
        let roots = roots.to_vec();
        Ok(Self { _watcher: watcher, files, inputs, roots, watched, database: Cell::default() })
    }

    /// True if something else stands where a root was, or if other inputs are recorded.
    fn is_outdated(&self, dir: &Path) -> bool {
        let mut watched = self.roots.iter().zip(&self.watched);
        if watched.any(|(root, watched)| (identity(root), target(root)) != *watched) {
            return true;
        }
        let database = database_state(dir);
        self.database.replace(database) != database
            && roots_of(dir).is_ok_and(|roots| roots != self.roots)
    }

    /// Waits for a change, and then until it is quiet.
    fn wait(&self, is_stopped: &dyn Fn() -> bool, dir: &Path) -> WaitEnd {
        let mut checked = Instant::now();
        loop {
            match self.files.recv_timeout(STOP_CHECK) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) if !is_stopped() => {}
                Err(_) => return WaitEnd::Stopped,
            }
            if checked.elapsed() >= INPUT_CHECK {
                if self.is_outdated(dir) {
                    return WaitEnd::Inputs;
                }
                checked = Instant::now();
            }
        }
        let started = Instant::now();
        while started.elapsed() < MAX_WAIT && self.files.recv_timeout(QUIET).is_ok() {}
        match self.inputs.try_recv() {
            _ if is_stopped() => WaitEnd::Stopped,
            Ok(()) => WaitEnd::Inputs,
            Err(_) => WaitEnd::Files,
        }
    }
}

/// The error for a folder that cannot be watched.
fn failed(error: &notify::Error, path: &Path) -> Error {
    let reason = match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "too many folders for the system's limit: raise it with `sysctl \
             fs.inotify.max_user_watches=1048576`, or run `warpseek sync` from time to time instead"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Error::io("watch", path)(std::io::Error::other(reason))
}

/// Tells which events are changes of what is read.
struct EventFilter {
    roots: Vec<PathBuf>,
    /// The index folder, which the program itself changes.
    index: PathBuf,
}

impl EventFilter {
    fn is_change(&self, event: &Event) -> bool {
        if event.need_rescan() {
            return true;
        }
        let is_write = match event.kind {
            EventKind::Access(_) => false,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) => true,
            EventKind::Remove(_) | EventKind::Other => true,
        };
        is_write && event.paths.iter().any(|path| self.is_read(path))
    }

    /// True if the event is about an input itself: it was moved or removed, or its folder is back.
    fn is_about_input(&self, event: &Event) -> bool {
        let is_other = matches!(event.kind, EventKind::Remove(_))
            || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)))
            || matches!(event.kind, EventKind::Create(CreateKind::Folder));
        is_other && event.paths.iter().any(|path| self.roots.contains(path))
    }

    /// True if a file at this path may be read.
    fn is_read(&self, path: &Path) -> bool {
        if path.starts_with(&self.index) {
            return false;
        }
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        self.roots.iter().filter_map(|root| path.strip_prefix(root).ok()).any(|below| {
            let last = below.file_name().and_then(|name| name.to_str());
            let is_ignore_file = last.is_some_and(|name| IGNORE_FILES.contains(&name));
            let names: Vec<&std::ffi::OsStr> = below.iter().collect();
            let folders = &names[..names.len().saturating_sub(usize::from(is_ignore_file))];
            !folders.iter().any(|name| is_hidden(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, DataChange, RemoveKind};

    fn filter() -> EventFilter {
        EventFilter {
            roots: vec!["/n/notes".into(), "/n/a.csv".into()],
            index: "/n/notes/idx".into(),
        }
    }

    #[test]
    fn changes_are_those_of_files_that_are_read() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for (kind, path, expected) in [
            (written, "/n/notes/a.txt", true),
            (written, "/n/notes", true),
            (written, "/n/a.csv", true),
            (written, "/n/b.csv", false),
            (written, "/n/notes/idx/documents.db-wal", false),
            (written, "/n/notes/.git/index.lock", false),
            (written, "/n/notes/.hidden.txt", false),
            (written, "/n/notes/sub/.gitignore", true),
            (written, "/n/notes/.git/.gitignore", false),
            (EventKind::Create(CreateKind::Folder), "/n/notes/new", true),
            (EventKind::Remove(RemoveKind::File), "/n/notes/a.txt", true),
            (EventKind::Access(AccessKind::Any), "/n/notes/a.txt", false),
        ] {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(filter().is_change(&event), expected, "{kind:?} {path}");
        }
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(filter().is_change(&lost));
    }

    #[test]
    fn inputs_that_go_are_told() {
        for (kind, path, expected) in [
            (EventKind::Remove(RemoveKind::Folder), "/n/notes", true),
            (
                EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::From)),
                "/n/notes",
                true,
            ),
            (EventKind::Remove(RemoveKind::Folder), "/n/notes/sub", false),
            (EventKind::Create(CreateKind::File), "/n/a.csv", false),
            (EventKind::Create(CreateKind::Folder), "/n/notes", true),
            (EventKind::Create(CreateKind::Folder), "/n/notes/sub", false),
        ] {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(filter().is_about_input(&event), expected, "{kind:?} {path}");
        }
    }
}
