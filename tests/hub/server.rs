//! Stand-in for the Hugging Face hub on a loopback port: files by path, ranges, redirects, faults.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A running server. It stops when it is dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A request, and what was sent for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// First and last byte of the `Range` header.
    pub(crate) range: Option<(u64, Option<u64>)>,
    pub(crate) authorization: Option<String>,
    pub(crate) status: u16,
    /// Offset of the first body byte that was sent, and the number of bytes.
    pub(crate) sent: (u64, u64),
}

/// A file at a path.
#[derive(Debug, Clone, Default)]
pub(crate) struct HubFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: String,
    pub(crate) commit: String,
    /// Address that requests are redirected to.
    pub(crate) moved: Option<String>,
}

impl HubFile {
    pub(crate) fn new(bytes: &[u8], etag: &str, commit: &str) -> Self {
        Self { bytes: bytes.to_vec(), etag: etag.into(), commit: commit.into(), moved: None }
    }
}

/// Faults of the hub.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Body bytes after which successive GET answers are cut. Later answers are complete.
    pub(crate) cuts: VecDeque<usize>,
    /// Statuses of successive GET answers. They take precedence over the other faults.
    pub(crate) statuses: VecDeque<u16>,
    /// Answers a `Range` with the whole file.
    pub(crate) ignore_range: bool,
    /// Answers HEAD with 405.
    pub(crate) no_head: bool,
    /// Omits `x-repo-commit` and etags.
    pub(crate) plain: bool,
    /// Answers every request with this status and `x-error-code`.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// Never answers.
    pub(crate) silent: bool,
    /// Sends this many body bytes of a GET answer, then nothing more.
    pub(crate) stall_after: Option<usize>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, HubFile>>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<Request>>,
    stop: AtomicBool,
}

impl Hub {
    /// Starts an empty hub on a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("the port's address");
        let shared = Arc::new(Shared::default());
        let accept = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accept.stop.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&accept);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves `file` of `repo`, at revision `main` and at its commit.
    pub(crate) fn publish(&self, repo: &str, file: &str, served: HubFile) {
        let mut files = lock(&self.shared.files);
        for name in ["main", served.commit.as_str()] {
            files.insert(format!("/{repo}/resolve/{name}/{file}"), served.clone());
        }
    }

    /// Serves `bytes` at `path`, as a content network does.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        lock(&self.shared.files).insert(path.to_string(), HubFile::new(bytes, "", ""));
    }

    /// Sets the faults from now on.
    pub(crate) fn faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// All requests so far.
    pub(crate) fn log(&self) -> Vec<Request> {
        lock(&self.shared.log).clone()
    }

    /// The GET requests for paths that end with `end`.
    pub(crate) fn gets(&self, end: &str) -> Vec<Request> {
        let mut all = self.log();
        all.retain(|request| request.method == "GET" && request.path.ends_with(end));
        all
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the lock is held")
}

/// An answer.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Offset of the body in the file.
    start: u64,
}

/// End of a connection after an answer.
enum End {
    Close,
    Stall,
}

/// Answers a connection's requests until it closes or is cut.
fn serve(mut stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader) {
        let mut faults = lock(&shared.faults);
        if faults.silent {
            drop(faults);
            lock(&shared.log).push(request);
            return wait_for_the_end(stream, shared);
        }
        let mut answer = answer(&request, &lock(&shared.files), &mut faults);
        let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status);
        head += &format!("content-length: {}\r\n", answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut end = None;
        if request.method == "HEAD" {
            answer.body.clear();
        } else if let Some(after) = faults.stall_after {
            answer.body.truncate(after);
            end = Some(End::Stall);
        } else if answer.status < 300
            && let Some(after) = faults.cuts.pop_front()
        {
            answer.body.truncate(after);
            end = Some(End::Close);
        }
        drop(faults);
        request.status = answer.status;
        request.sent = (answer.start, answer.body.len() as u64);
        lock(&shared.log).push(request);
        if stream.write_all(&[head.as_bytes(), &answer.body].concat()).is_err() {
            return;
        }
        match end {
            None => {}
            Some(End::Close) => return drop(stream.shutdown(Shutdown::Both)),
            Some(End::Stall) => return wait_for_the_end(stream, shared),
        }
    }
}

fn answer(request: &Request, files: &HashMap<String, HubFile>, faults: &mut Faults) -> Answer {
    let plain =
        |status, headers, body: &[u8]| Answer { status, headers, body: body.to_vec(), start: 0 };
    let get = request.method == "GET";
    if let Some((status, code)) = faults.refuse {
        return plain(status, vec![("x-error-code", code.to_string())], b"refused");
    }
    if get && let Some(status) = faults.statuses.pop_front() {
        return plain(status, vec![], b"in trouble");
    }
    if !get && faults.no_head {
        return plain(405, vec![], b"");
    }
    let Some(file) = files.get(&request.path) else {
        return plain(404, vec![("x-error-code", "EntryNotFound".to_string())], b"not here");
    };
    let mut headers = vec![("accept-ranges", "bytes".to_string())];
    if !faults.plain && !file.commit.is_empty() {
        headers.push(("x-repo-commit", file.commit.clone()));
        headers.push(("etag", format!("\"{}\"", file.etag)));
    }
    if let Some(moved) = &file.moved {
        headers.push(("x-linked-etag", format!("\"{}\"", file.etag)));
        headers.push(("x-linked-size", file.bytes.len().to_string()));
        headers.push(("location", moved.clone()));
        return plain(302, headers, b"over there");
    }
    let whole = file.bytes.len() as u64;
    match request.range.filter(|_| get && !faults.ignore_range) {
        None => plain(200, headers, &file.bytes),
        Some((from, _)) if from >= whole => {
            headers.push(("content-range", format!("bytes */{whole}")));
            plain(416, headers, b"")
        }
        Some((from, to)) => {
            let last = to.unwrap_or(whole - 1).min(whole - 1);
            headers.push(("content-range", format!("bytes {from}-{last}/{whole}")));
            let body = &file.bytes[from as usize..=last as usize];
            Answer { start: from, ..plain(206, headers, body) }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = reader.lines().map_while(std::io::Result::ok);
    let first = lines.next()?;
    let mut words = first.split_whitespace().map(str::to_string);
    let (method, path) = (words.next()?, words.next()?);
    let mut request = Request { method, path, ..Request::default() };
    loop {
        let line = lines.next()?;
        let Some((name, value)) = line.split_once(": ") else { return Some(request) };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
                request.range =
                    range.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok())));
            }
            "authorization" => request.authorization = Some(value.to_string()),
            _ => {}
        }
    }
}

/// Keeps the connection open and silent until the client or the test is gone.
fn wait_for_the_end(mut stream: &TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    while !shared.stop.load(Ordering::Relaxed) {
        if matches!(stream.read(&mut [0]), Ok(0)) {
            return;
        }
    }
}
