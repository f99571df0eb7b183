//! Starts the extraction of one file: in a process of its own, or on a thread.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use warpseek_error::{Error, Result};

use super::limits::{ExtractLimits, ExtractOptions, StopFlag};
use super::request::ExtractRequest;
use crate::format::FileFormat;
use crate::message::{shortened, size};

/// Stack of the thread of an extraction.
const STACK: usize = 64 << 20;

/// Maximum time between two polls of a process.
const PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of bytes of a process's stderr that are read.
const STDERR_BYTES: u64 = 16 << 10;

/// The lines of an extraction that has ended.
pub(super) struct Extracted {
    pub(super) lines: BufReader<File>,
    /// The reason why the lines may be cut off.
    pub(super) error: Option<String>,
}

/// Reads a file in a process or on a thread, and returns when that has ended or exceeded a limit.
///
/// # Errors
///
/// [`Error::Io`] if the lines cannot be stored, or the process cannot be started.
pub(super) fn extract(
    file: File,
    format: FileFormat,
    options: &ExtractOptions,
) -> Result<Extracted> {
    let limits = options.limits.clone();
    let request = ExtractRequest { format: format.name().to_owned(), limits };
    match &options.command {
        Some(command) => in_process(file, &request, command, options.stop),
        None => on_thread(file, request, options.stop),
    }
}

/// A file without a name.
pub(super) fn temporary() -> Result<File> {
    tempfile::tempfile().map_err(Error::io("create a file in", std::env::temp_dir()))
}

fn in_process(
    file: File,
    request: &ExtractRequest,
    command: &[OsString],
    stop: StopFlag,
) -> Result<Extracted> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::usage("no program to extract text with"));
    };
    let (mut output, mut errors) = (temporary()?, temporary()?);
    let copy = |file: &File| file.try_clone().map_err(Error::io("open", std::env::temp_dir()));
    let argument = serde_json::to_string(request)
        .map_err(|e| Error::usage(format!("the limits cannot be written as JSON: {e}")))?;
    let mut command = Command::new(program);
    command.args(arguments).arg(argument);
    command.stdin(file).stdout(copy(&output)?).stderr(copy(&errors)?);
    // Ctrl+C reaches the waiting program alone, which ends this one.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(Error::io("start", program))?;
    let error = match wait(&mut child, &output, &request.limits, stop) {
        Ok(status) if status.success() => None,
        Ok(status) => {
            let mut words = Vec::new();
            let read =
                errors.rewind().and_then(|()| errors.take(STDERR_BYTES).read_to_end(&mut words));
            let words = read.map(|_| String::from_utf8_lossy(&words).into_owned());
            Some(end_of(status, &words.unwrap_or_default(), request))
        }
        Err(_) if stop.is_set() => return Err(stopped()),
        Err(reason) => Some(reason),
    };
    output.rewind().map_err(Error::io("read", std::env::temp_dir()))?;
    Ok(Extracted { lines: BufReader::new(output), error })
}

/// Waits for the end of a process, and kills it if it exceeds a limit.
fn wait(
    child: &mut Child,
    output: &File,
    limits: &ExtractLimits,
    stop: StopFlag,
) -> Result<ExitStatus, String> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    // The lines are JSON, which is longer than the text, but not many times.
    let max_output = limits.text_bytes.saturating_mul(8).saturating_add(64 << 20);
    let reason = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(e) => break format!("the process that reads it cannot be watched: {e}"),
        }
        if stop.is_set() {
            break "the extraction was stopped".to_owned();
        }
        if started.elapsed() > limits.time {
            break too_slow(limits);
        }
        if output.metadata().is_ok_and(|metadata| metadata.len() > max_output) {
            break "the process that reads it writes too much: convert the file to text".to_owned();
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE);
    };
    // Fails if the process has ended in between.
    let _ = child.kill();
    let _ = child.wait();
    Err(reason)
}

/// The error after an interrupt.
fn stopped() -> Error {
    Error::Interrupted(
        "the documents indexed so far are committed; run the same command again to continue"
            .to_owned(),
    )
}

fn too_slow(limits: &ExtractLimits) -> String {
    let time = limits.time;
    format!(
        "reading it takes longer than {time:?}: split the file, convert it to text, or allow more \
         time with --extract-seconds"
    )
}

/// The reason for the end of a process, by its status and its stderr.
fn end_of(status: ExitStatus, words: &str, request: &ExtractRequest) -> String {
    let ExtractRequest { format, limits } = request;
    let cause = if words.contains("memory allocation of") {
        format!("needs more than {} of memory", size(limits.memory))
    } else if words.contains("overflowed its stack") {
        "overflowed its stack".to_owned()
    } else {
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let last = shortened(last.trim(), 200);
        let separator = if last.is_empty() { "" } else { ": " };
        format!("ended with {status}{separator}{last}")
    };
    format!("the reader of {format} files {cause}: save the file anew, or convert it to text")
}

/// The output of a thread, until it is taken.
#[derive(Clone)]
struct SharedFile(Arc<Mutex<Option<File>>>);

impl SharedFile {
    fn with<T>(&self, work: impl FnOnce(&mut Option<File>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|file| match file {
            Some(file) => file.write(bytes),
            None => Err(io::Error::other("the time for reading is over")),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn on_thread(file: File, request: ExtractRequest, stop: StopFlag) -> Result<Extracted> {
    let output = SharedFile(Arc::new(Mutex::new(Some(temporary()?))));
    let (sender, receiver) = mpsc::channel();
    let limits = request.limits.clone();
    let mut lines = io::BufWriter::new(output.clone());
    let work = move || {
        let outcome = request.run(file, &mut lines);
        drop(lines);
        // Fails if the receiver has timed out.
        let _ = sender.send(outcome);
    };
    let thread = thread::Builder::new().name("extract".into()).stack_size(STACK);
    thread.spawn(work).map_err(Error::io("start a thread for", "the extraction of text"))?;
    let started = Instant::now();
    let error = loop {
        match receiver.recv_timeout(PAUSE) {
            Ok(outcome) => break outcome.err().map(|error| error.to_string()),
            Err(mpsc::RecvTimeoutError::Timeout) if stop.is_set() => return Err(stopped()),
            Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() <= limits.time => {}
            Err(mpsc::RecvTimeoutError::Timeout) => break Some(too_slow(&limits)),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                break Some("the thread that reads it ended".into());
            }
        }
    };
    let Some(mut output) = output.with(Option::take) else {
        return Err(Error::io("read", std::env::temp_dir())(io::Error::other("no output")));
    };
    output.rewind().map_err(Error::io("read", std::env::temp_dir()))?;
    Ok(Extracted { lines: BufReader::new(output), error })
}
