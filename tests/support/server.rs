//! A running `warpseek serve`, and a plain client for it.

use super::cli::Workplace;
use serde_json::Value;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The header of a JSON body.
pub(crate) const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A server at an address of its own; killed on drop.
pub(crate) struct Server {
    child: Child,
    address: String,
}

/// A reply.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Headers in their order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answered {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body, after checking the status.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Checks the status, and that the body holds each of `parts`.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for part in parts {
            assert!(self.body.contains(part), "no '{part}' in {self:?}");
        }
    }

    /// The server-sent events of the body, with their data.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 200, "{self:?}");
        let blocks = self.body.split("\n\n").filter(|block| !block.trim().is_empty());
        let event = |block: &str| {
            let field = |name| block.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
            (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap())
        };
        blocks.map(event).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str())
    }
}

impl Server {
    /// Starts the program in `place`; `args` follow `serve --port 0`.
    pub(crate) fn start(place: &Workplace, args: &[&str]) -> Self {
        Self::from_command(place.command(&[&["serve", "--port", "0"], args].concat()))
    }

    pub(crate) fn from_command(command: Command) -> Self {
        Self::logging_to(command, Stdio::null())
    }

    /// Starts a command whose log goes to `log`.
    pub(crate) fn logging_to(mut command: Command, log: Stdio) -> Self {
        command.env_remove("WARPSEEK_API_KEY").stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening at ");
        let address = address.unwrap_or_else(|| panic!("no address in '{line}'"));
        let bare = address.strip_prefix("http://").or(address.strip_prefix("unix:"));
        Self { child, address: bare.unwrap().to_owned() }
    }

    /// `127.0.0.1:port`, or the path of the socket.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answered {
        self.send("GET", path, &[], b"")
    }

    /// Posts JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answered {
        self.send("POST", path, &JSON, body.to_string().as_bytes())
    }

    /// Posts JSON, and leaves the reply to be read.
    pub(crate) fn begin_post(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = self.connect();
        let body = body.to_string();
        write_request(&mut stream, &self.address, "POST", path, &JSON, body.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answered {
        exchange(&mut self.connect(), &self.address, method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Sends a signal to the process.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Waits for the end of the process, and returns its status.
    pub(crate) fn wait(mut self) -> Option<i32> {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not end");
    }

    /// A path as the server sees it, which may have mounts of its own.
    #[cfg(target_os = "linux")]
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.child.id(), path.display()))
    }

    /// Resident memory in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        rss.trim_end_matches("kB").trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request and its reply over an open connection, which is then closed.
pub(crate) fn exchange<S: Read + Write>(
    stream: &mut S,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answered> {
    write_request(stream, host, method, path, headers, body)?;
    read_reply(stream)
}

fn write_request(
    stream: &mut impl Write,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<()> {
    let length = body.len().to_string();
    let own = [("host", host), ("content-length", &length)];
    let own = own.iter().filter(|own| headers.iter().all(|h| h.0 != own.0));
    let lines = own.chain(headers).map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines: String = lines.collect();
    let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes())?;
    // A server that has read enough may close before all of the body is sent.
    let _ = stream.write_all(body);
    Ok(())
}

/// A reply, up to the end of the connection.
pub(crate) fn read_reply<S: Read>(stream: &mut S) -> Result<Answered> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // The part of a body that the server did not read makes the system reset the connection.
    if let Err(e) = read
        && (e.kind() != ErrorKind::ConnectionReset || bytes.is_empty())
    {
        return Err(e);
    }
    let bad = |what: &str| Error::other(format!("{what}: {}", String::from_utf8_lossy(&bytes)));
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| bad("no head"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok());
    let fields = lines.filter_map(|l| l.split_once(':'));
    let headers: Vec<(String, String)> =
        fields.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.iter().any(|h| h.0 == "transfer-encoding" && h.1 == "chunked") {
        body = unchunk(&body).ok_or_else(|| bad("broken chunks"))?;
    }
    let body = String::from_utf8(body).map_err(Error::other)?;
    Ok(Answered { status: status.ok_or_else(|| bad("no status"))?, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let n = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        if n == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + n)?);
        rest = rest.get(end + 4 + n..)?;
    }
}
