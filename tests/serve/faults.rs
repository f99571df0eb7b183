//! Clients that misbehave, limits, and shutting down.

use crate::cli::indexed;
use crate::support::chat::{Chat, Reply};
use crate::support::server::{JSON, Server, read_reply};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn bad_bodies_are_refused_and_the_server_goes_on() {
    let place = indexed(5);
    let server = Server::start(&place, &["idx", "--max-body-bytes", "100000"]);
    let deep = format!("{{\"query\": \"a\", \"x\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for (body, status, part) in [
        (&b""[..], 400, "body is empty"),
        (b"{\"query\": ", 400, "does not fit: EOF while parsing a value at line 1"),
        (b"{\"query\": \"\xff\xfe\"}", 400, "not valid UTF-8 (byte 11)"),
        (&b"[".repeat(50_000), 400, "does not fit"),
        (deep.as_bytes(), 400, "recursion"),
        (b"{\"query\": \"a\", \"query\": \"b\"}", 400, "duplicate field"),
        (&vec![b' '; 100_001], 413, "longer than 100000 bytes"),
    ] {
        server.send("POST", "/v1/search", &JSON, body).fails(status, &[part]);
    }
    // A body without a length is counted as it arrives.
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
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
fn bad_heads_are_refused() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let names: Vec<String> = (0..500).map(|i| format!("x-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let long = "v".repeat(200_000);
    for headers in [&many[..], &[("x-long", &long)]] {
        assert_eq!(server.send("GET", "/health", headers, b"").status, 431);
    }
    for (path, status) in [
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/page.js/../../Cargo.toml", 404),
        ("//etc/passwd", 404),
        ("/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/models/%ff%fe", 400),
    ] {
        server.get(path).fails(status, &["invalid_request_error"]);
    }
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 400);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn slow_and_half_open_connections_are_closed() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx", "--stall-timeout", "0.5", "--timeout", "1"]);
    let closes = |sent: &[u8], shut: bool| {
        let mut stream = server.connect();
        stream.write_all(sent).unwrap();
        if shut {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let started = Instant::now();
        let status = read_reply(&mut stream).map_or(0, |reply| reply.status);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", String::from_utf8_lossy(sent));
        status
    };
    closes(b"", false);
    closes(b"GET /health HT", false);
    closes(b"GET /health HTTP/1.1\r\nhost: localh", true);
    let head = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\n\
        content-type: application/json\r\ncontent-length: 50\r\n\r\n{\"query\"";
    assert_eq!(closes(head, false), 408);
    closes(head, true);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn thousands_of_connections_leave_room_for_a_request() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let wanted = 10_000.min(max_open_files().saturating_sub(500));
    let open: Vec<_> = (0..wanted).map(|_| server.connect()).collect();
    server.post("/v1/search", &json!({"query": "river"})).ok();
    #[cfg(target_os = "linux")]
    assert!(server.memory() < 1 << 20, "{} KiB for {wanted} idle connections", server.memory());
    drop(open);
    assert_eq!(server.get("/health").status, 200);
}

/// The number of files that this process may have open, raised as far as possible.
fn max_open_files() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        maximum.map_or(20_000, |n| n as usize)
    }
    #[cfg(not(unix))]
    2_000
}

#[test]
fn too_much_work_is_refused_with_a_time_to_come_back() {
    let place = indexed(3);
    let args = ["idx", "--max-concurrent-requests", "2", "--max-waiting-tokens", "2000"];
    let server = Server::start(&place, &args);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(30); 300]});
    let replies: Vec<_> = std::thread::scope(|scope| {
        let ask = || server.post("/embed", &body);
        let all: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (fine, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r.status == 200);
    assert!(!fine.is_empty() && !refused.is_empty(), "{replies:?}");
    for reply in refused {
        reply.fails(429, &["\"error_type\":\"overloaded\""]);
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    server.post("/embed", &json!({"inputs": "a"})).ok();
}

#[test]
fn a_short_request_overtakes_a_long_one() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(80); 2000]});
    let _long = server.begin_post("/embed", &body);
    while waiting_tokens(&server) == 0 {}
    server.post("/embed", &json!({"inputs": "a"})).ok();
    assert!(waiting_tokens(&server) > 0);
}

fn waiting_tokens(server: &Server) -> u64 {
    server.get("/health").ok()["waiting_tokens"].as_u64().unwrap()
}

#[test]
fn work_of_clients_that_disconnected_is_not_computed() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(80); 2000]});
    for _ in 0..4 {
        let stream = server.begin_post("/embed", &body);
        std::thread::sleep(Duration::from_millis(100));
        drop(stream);
    }
    // A small request waits for none of the eight thousand texts, and all of them are dropped.
    let started = Instant::now();
    while waiting_tokens(&server) > 0 {
        server.post("/embed", &json!({"inputs": "a"})).ok();
        assert!(started.elapsed() < Duration::from_secs(30), "tokens still wait");
    }
    server.get("/metrics").fails(200, &["route=\"/embed\",status=\"499\""]);
}

#[test]
fn streamed_replies_are_logged_and_counted_when_they_end() {
    let place = indexed(6);
    let events = Reply::events("It is so.", 3);
    let pieces = events.chunks(events.len().div_ceil(4)).map(<[u8]>::to_vec).collect();
    let reply = Reply { pause: Duration::from_millis(250), ..Reply::stream(pieces) };
    let chat = Chat::start(std::iter::repeat_n(reply, 6));
    let url = chat.url();
    let options = ["--log-format", "json", "--chat-model", "stand-in-8b", "--base-url", &url];
    let command = place.command(&[&["serve", "idx", "--port", "0"][..], &options].concat());
    let log = std::fs::File::create(place.path("log")).unwrap();
    let server = Server::logging_to(command, log.into());
    let metric = |name: &str| {
        let text = server.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    };
    let counted = |status: u16| {
        metric(&format!("warpseek_requests_total{{route=\"/v1/answer\",status=\"{status}\"}}"))
    };
    let body = json!({"query": "river", "k": 1, "stream": true});
    let started = Instant::now();
    let mut stream = server.begin_post("/v1/answer", &body);
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // This stream, and the request for the metrics.
    assert_eq!((metric("warpseek_requests_in_flight"), counted(200)), (2.0, 0.0));
    stream.read_to_end(&mut Vec::new()).unwrap();
    let took = started.elapsed().as_secs_f64();
    assert_eq!((metric("warpseek_requests_in_flight"), counted(200)), (1.0, 1.0));
    let sum = metric("warpseek_request_duration_seconds_sum{route=\"/v1/answer\"}");
    assert!(sum > 0.7 && sum <= took, "{sum} s of {took} s");
    // A client that leaves in the middle of the stream.
    let mut stream = server.begin_post("/v1/answer", &body);
    stream.read_exact(&mut head).unwrap();
    drop(stream);
    while counted(499) == 0.0 {
        assert!(started.elapsed() < Duration::from_secs(30), "the request never ends");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((metric("warpseek_requests_in_flight"), counted(200)), (1.0, 1.0));
    assert_eq!(server.send("HEAD", "/health", &[], b"").status, 200);
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let all: Vec<Value> = lines.filter(|line| line["message"] == "request").collect();
    let of_path = |path: &str| all.iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    let answers = of_path("/v1/answer");
    let statuses: Vec<_> = answers.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 499]);
    assert!(answers[0]["ms"].as_f64().unwrap() > 700.0, "{}", answers[0]);
    assert_eq!(of_path("/health")[0]["status"], 200);
}

#[test]
fn a_request_that_takes_too_long_is_not_to_be_repeated() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx", "--timeout", "0.5"]);
    let texts = vec!["river lamp garden ".repeat(80); 2000];
    for (path, body) in [
        ("/embed", json!({"inputs": texts})),
        ("/", json!({"inputs": texts})),
        ("/v1/embeddings", json!({"input": texts})),
        ("/v2/embed", json!({"texts": texts})),
        ("/api/embed", json!({"input": texts})),
    ] {
        let reply = server.post(path, &body);
        reply.fails(504, &["no reply within 0.5 s"]);
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{path}");
        assert_eq!(reply.header("retry-after"), None, "{path}");
    }
}

#[cfg(unix)]
#[test]
fn a_server_that_shuts_down_refuses_new_work_with_a_time_to_come_back() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": ["a"]}).to_string();
    let mut streams = ["/embed", "/v1/embeddings", "/"].map(|path| {
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{{",
            server.address(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    });
    std::thread::sleep(Duration::from_millis(300));
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(std::net::TcpStream::connect(server.address()).is_err());
    for stream in &mut streams {
        stream.write_all(&body.as_bytes()[1..]).unwrap();
        let reply = read_reply(stream).unwrap();
        reply.fails(429, &["shutting down"]);
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(server.wait(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_stop_completes_its_requests() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx"]);
    let body = json!({"inputs": vec!["river lamp garden ".repeat(60); 800]});
    let mut stream = server.begin_post("/embed", &body);
    std::thread::sleep(Duration::from_millis(150));
    server.signal("TERM");
    let reply = read_reply(&mut stream).unwrap().ok();
    assert_eq!(reply.as_array().unwrap().len(), 800);
    assert_eq!(server.wait(), Some(0));
}
