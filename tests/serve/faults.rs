//! Clients that misbehave, limits, and shutting down.

use crate::cli::indexed;
use crate::support::server::{Server, read_reply};
use serde_json::json;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[test]
fn bodies_that_are_no_good_are_refused_and_the_server_goes_on() {
    let place = indexed(5);
    let server = Server::start(&place, &["idx", "--max-body-bytes", "100000"]);
    let post = |body: &[u8]| server.send("POST", "/v1/search", &JSON, body);
    post(b"").fails(400, &["body is empty"]);
    post(b"{\"query\": ").fails(400, &["does not fit", "line 1"]);
    post(b"{\"query\": \"\xff\xfe\"}").fails(400, &["not valid UTF-8 (byte 11)"]);
    post(&b"[".repeat(50_000)).fails(400, &["does not fit"]);
    let deep = format!("{{\"query\": \"a\", \"x\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    post(deep.as_bytes()).fails(400, &["recursion"]);
    post(b"{\"query\": \"a\", \"query\": \"b\"}").fails(400, &["duplicate field"]);
    post(&vec![b' '; 100_001]).fails(413, &["longer than 100000 bytes"]);
    // Without a length the body is counted as it comes.
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        server.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..20 {
        let chunk = format!("{:x}\r\n{}\r\n", 10_000, " ".repeat(10_000));
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn heads_that_are_no_good_are_refused() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let many: Vec<(String, String)> =
        (0..500).map(|i| (format!("x-{i}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(server.send("GET", "/health", &many, b"").status, 431);
    let long = "v".repeat(200_000);
    assert_eq!(server.send("GET", "/health", &[("x-long", &long)], b"").status, 431);
    for (path, status) in [
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/page.js/../../Cargo.toml", 404),
        ("//etc/passwd", 404),
        ("/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/models/%ff%fe", 400),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    server.get("/v1/models/%ff%fe").fails(400, &["invalid_request_error"]);
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 400);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn slow_and_half_open_connections_are_let_go() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx", "--stall-timeout", "0.5", "--timeout", "1"]);
    let closes = |sent: &[u8], shut: bool| {
        let mut stream = server.connect();
        stream.write_all(sent).unwrap();
        if shut {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let started = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", String::from_utf8_lossy(sent));
        String::from_utf8_lossy(&rest).into_owned()
    };
    closes(b"", false);
    closes(b"GET /health HT", false);
    closes(b"GET /health HTTP/1.1\r\nhost: localh", true);
    let head = "POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"query\"";
    assert!(closes(head.as_bytes(), false).starts_with("HTTP/1.1 408"));
    closes(head.as_bytes(), true);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn thousands_of_connections_leave_room_for_a_request() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let allowed = rustix_limit();
    let wanted = 10_000.min(allowed.saturating_sub(500));
    let mut open = Vec::new();
    for _ in 0..wanted {
        open.push(server.connect());
    }
    assert_eq!(server.post("/v1/search", &json!({"query": "river"})).status, 200);
    #[cfg(target_os = "linux")]
    assert!(server.memory() < 1 << 20, "{} KiB for {wanted} idle connections", server.memory());
    drop(open);
    assert_eq!(server.get("/health").status, 200);
}

/// How many files this process may have open, after asking for as many as there can be.
fn rustix_limit() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        limit.maximum.map_or(20_000, |n| n as usize)
    }
    #[cfg(not(unix))]
    2_000
}

#[test]
fn too_much_at_once_is_refused_with_a_time_to_come_back() {
    let place = indexed(3);
    let args = ["idx", "--max-concurrent-requests", "2", "--max-waiting-tokens", "2000"];
    let server = Server::start(&place, &args);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(30); 300]});
    let replies: Vec<_> = std::thread::scope(|scope| {
        let ask = || server.post("/embed", &body);
        let all: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let refused: Vec<_> = replies.iter().filter(|r| r.status == 429).collect();
    assert!(replies.iter().any(|r| r.status == 200) && !refused.is_empty(), "{replies:?}");
    for reply in &refused {
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        assert_eq!(reply.json()["error_type"], "overloaded");
    }
    assert_eq!(replies.len(), refused.len() + replies.iter().filter(|r| r.status == 200).count());
    assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 200);
}

#[test]
fn what_a_client_gave_up_on_is_not_computed() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(80); 2000]}).to_string();
    for _ in 0..4 {
        let mut stream = server.connect();
        let head = format!(
            "POST /embed HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            server.address(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    // All four are gone: a small request need not wait for eight thousand texts, nor does anything stay.
    let started = Instant::now();
    loop {
        let waiting = server.get("/health").ok()["waiting_tokens"].as_u64().unwrap();
        if waiting == 0 {
            break;
        }
        server.post("/embed", &json!({"inputs": "a"})).ok();
        assert!(started.elapsed() < Duration::from_secs(30), "{waiting} tokens still wait");
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("route=\"/embed\",status=\"499\""), "{metrics}");
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_stop_ends_what_it_began() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(60); 800]}).to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /embed HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        server.address(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(150));
    server.signal("TERM");
    let reply = read_reply(&mut stream).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json().as_array().unwrap().len(), 800);
    assert_eq!(server.wait(), Some(0));
}
