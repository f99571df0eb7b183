//! Stand-in for a chat service on a loopback port. It answers in the order of a script and records
//! the requests. It speaks the protocol of Groq. A test checks it with the client of the package
//! `groq`.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running service. It stops with the process.
pub(crate) struct Chat {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<Asked>>,
}

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Parts of the body, sent separately.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Pause before each part.
    pub(crate) pause: Duration,
    /// Cuts the connection before the end of the body.
    pub(crate) cut: bool,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, pieces: vec![body.to_string().into_bytes()], ..Self::default() }
    }

    /// An answer in one JSON object.
    pub(crate) fn text(text: &str) -> Self {
        Self::json(
            200,
            &json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000,
                "model": "stand-in-8b", "system_fingerprint": "fp_1", "x_groq": {"id": "req_1"},
                "choices": [{
                    "index": 0, "finish_reason": "stop", "logprobs": null,
                    "message": {"role": "assistant", "content": text}
                }],
                "usage": {
                    "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
                    "queue_time": 0.01, "prompt_time": 0.01, "completion_time": 0.02,
                    "total_time": 0.03
                }
            }),
        )
    }

    /// The bytes of a streamed answer, with `n` characters per event.
    pub(crate) fn events(text: &str, n: usize) -> Vec<u8> {
        let event = |delta: Value, end: Option<&str>, x_groq: Option<Value>| {
            let value = json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "stand-in-8b", "system_fingerprint": "fp_1", "x_groq": x_groq,
                "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": end}]
            });
            format!("data: {value}\n\n")
        };
        let role = json!({"role": "assistant", "content": ""});
        let mut all = event(role, None, Some(json!({"id": "req_1"})));
        let characters: Vec<char> = text.chars().collect();
        for part in characters.chunks(n.max(1)) {
            all += &event(json!({"content": part.iter().collect::<String>()}), None, None);
        }
        let usage = json!({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18});
        all += &event(json!({}), Some("stop"), Some(json!({"id": "req_1", "usage": usage})));
        (all + "data: [DONE]\n\n").into_bytes()
    }

    /// A streamed answer, sent in these parts.
    pub(crate) fn stream(pieces: Vec<Vec<u8>>) -> Self {
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        Self { status: 200, headers, pieces, ..Self::default() }
    }

    /// An error in Groq's format.
    pub(crate) fn error(status: u16, message: &str, code: &str) -> Self {
        let error = json!({"message": message, "type": "invalid_request_error", "code": code});
        Self::json(status, &json!({ "error": error }))
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Chat {
    /// Starts a service on a free port.
    pub(crate) fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("the port's address");
        let shared = Arc::new(Shared::default());
        shared.script.lock().unwrap().extend(script);
        let accept = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accept);
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Adds answers to the script.
    pub(crate) fn add(&self, more: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().unwrap().extend(more);
    }

    /// `http://127.0.0.1:PORT/openai/v1`, with Groq's path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/openai/v1", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The chat requests, without those for the list of models.
    pub(crate) fn questions(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|a| a.path.ends_with("/chat/completions")).collect()
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    while let Some(asked) = read(&mut reader)? {
        let models = asked.path.ends_with("/models");
        shared.asked.lock().unwrap().push(asked);
        let reply = if models {
            let model =
                |id: &str| json!({"id": id, "object": "model", "created": 1, "owned_by": "us"});
            let list =
                json!({"object": "list", "data": [model("stand-in-8b"), model("stand-in-70b")]});
            Reply::json(200, &list)
        } else {
            let next = shared.script.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Reply::error(400, "the script is over", "over"))
        };
        let mut head =
            format!("HTTP/1.1 {} Answer\r\ntransfer-encoding: chunked\r\n", reply.status);
        reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        out.write_all((head + "\r\n").as_bytes())?;
        for piece in reply.pieces.iter().filter(|piece| !piece.is_empty()) {
            std::thread::sleep(reply.pause);
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            out.write_all(&chunk)?;
            out.flush()?;
        }
        if reply.cut {
            return out.shutdown(std::net::Shutdown::Both);
        }
        out.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization: None,
        body: Value::Null,
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    asked.body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(asked))
}
