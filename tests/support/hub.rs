//! A stand-in for the Hugging Face hub on a loopback port: files by path, ranges, redirects, and
//! every fault a network has.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A running server; it stops when dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A request as it arrived, and what was sent for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// First and last byte of the `Range` header.
    pub(crate) range: Option<(u64, Option<u64>)>,
    pub(crate) authorization: Option<String>,
    pub(crate) status: u16,
    /// Offset of the first body byte that was sent, and how many were.
    pub(crate) sent: (u64, u64),
}

/// A file at a path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: String,
    pub(crate) commit: String,
    /// Where a GET is redirected to instead of being answered.
    pub(crate) moved: Option<String>,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Body bytes after which successive GET answers are cut; when used up, answers are whole.
    pub(crate) cuts: VecDeque<usize>,
    /// Statuses that successive GETs are answered with, before all else.
    pub(crate) statuses: VecDeque<u16>,
    /// Whether a `Range` is answered with the whole file.
    pub(crate) ignore_range: bool,
    /// Whether HEAD is answered with 405.
    pub(crate) no_head: bool,
    /// Whether `x-repo-commit` and etags are left out.
    pub(crate) plain: bool,
    /// Answer everything with this status and `x-error-code`.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// Say nothing at all after accepting a connection.
    pub(crate) silent: bool,
    /// Send this many body bytes of a GET, then say nothing more.
    pub(crate) stall_after: Option<usize>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, Served>>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<Asked>>,
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

    /// Serves `bytes` as `file` of `repo`, at `revision` and at its commit.
    pub(crate) fn publish(&self, repo: &str, revision: &str, file: &str, served: Served) {
        let mut files = lock(&self.shared.files);
        for name in [revision, served.commit.as_str()] {
            files.insert(format!("/{repo}/resolve/{name}/{file}"), served.clone());
        }
    }

    /// Serves `bytes` at `path`, as a content network does.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let served = Served { bytes: bytes.to_vec(), ..Served::default() };
        lock(&self.shared.files).insert(path.to_string(), served);
    }

    /// What goes wrong from now on.
    pub(crate) fn faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Every request so far.
    pub(crate) fn log(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    /// The GET requests for files whose path ends like this.
    pub(crate) fn gets(&self, end: &str) -> Vec<Asked> {
        let wanted = |asked: &Asked| asked.method == "GET" && asked.path.ends_with(end);
        self.log().into_iter().filter(wanted).collect()
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

/// What a request is answered with.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Offset of the body in the file.
    start: u64,
    cut: Cut,
}

/// What happens after the body was sent.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    No,
    Close,
    Stall,
}

/// Answers one connection's requests until it closes or is to be cut.
fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(mut asked) = read_request(&mut reader) {
        let mut faults = lock(&shared.faults);
        if faults.silent {
            drop(faults);
            lock(&shared.log).push(asked);
            return wait_for_the_end(stream, shared);
        }
        let mut answer = answer(&asked, &lock(&shared.files), &mut faults);
        let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status);
        head += &format!("content-length: {}\r\n", answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        if asked.method == "HEAD" {
            answer.body.clear();
        } else if let Some(after) = faults.stall_after {
            answer.body.truncate(after);
            answer.cut = Cut::Stall;
        } else if answer.status < 300
            && let Some(after) = faults.cuts.pop_front()
        {
            answer.body.truncate(after);
            answer.cut = Cut::Close;
        }
        drop(faults);
        asked.status = answer.status;
        asked.sent = (answer.start, answer.body.len() as u64);
        lock(&shared.log).push(asked);
        let mut output = stream;
        if output.write_all(&[head.as_bytes(), &answer.body].concat()).is_err() {
            return;
        }
        match answer.cut {
            Cut::No => {}
            Cut::Close => {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Cut::Stall => return wait_for_the_end(stream, shared),
        }
    }
}

fn answer(asked: &Asked, files: &HashMap<String, Served>, faults: &mut Faults) -> Answer {
    let plain = |status, headers, body: &[u8]| Answer {
        status,
        headers,
        body: body.to_vec(),
        start: 0,
        cut: Cut::No,
    };
    let get = asked.method == "GET";
    if let Some((status, code)) = faults.refuse {
        return plain(status, vec![("x-error-code", code.to_string())], b"refused");
    }
    if get && let Some(status) = faults.statuses.pop_front() {
        return plain(status, vec![], b"in trouble");
    }
    if !get && faults.no_head {
        return plain(405, vec![], b"");
    }
    let Some(file) = files.get(&asked.path) else {
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
    match asked.range.filter(|_| get && !faults.ignore_range) {
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

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let mut asked = Asked {
        method: words.next()?.to_string(),
        path: words.next()?.to_string(),
        ..Asked::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(asked) };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
                asked.range =
                    range.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok())));
            }
            "authorization" => asked.authorization = Some(value.to_string()),
            _ => {}
        }
    }
}

/// Keeps the connection open and silent until the client or the test is gone.
fn wait_for_the_end(stream: &TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let mut stream = stream;
    let mut byte = [0];
    while !shared.stop.load(Ordering::Relaxed) {
        if matches!(stream.read(&mut byte), Ok(0)) {
            return;
        }
    }
}
