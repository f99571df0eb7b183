//! Agents: the Model Context Protocol over stdin and stdout, and over HTTP. The official clients
//! are in `clients`.

use crate::cli::{ids, indexed, search};
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::{Answered, Server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

/// A `warpseek mcp` that an agent has started.
struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    asked: u64,
}

impl Agent {
    fn start(place: &Workplace, args: &[&str]) -> Self {
        let mut command = place.command(&[&["mcp"], args].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Self { child, stdin, stdout, asked: 0 };
        let greeting = agent.ask("initialize", &hello());
        assert_eq!(greeting["result"]["serverInfo"]["name"], "warpseek", "{greeting}");
        assert!(greeting["result"]["instructions"].as_str().unwrap().contains("`search`"));
        agent.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        agent
    }

    fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    /// The next line of stdout, which must be a message.
    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0");
        message
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        self.write(&message(self.asked, method, params).to_string());
        let reply = self.read();
        assert_eq!(reply["id"], self.asked, "{reply}");
        reply
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        result(&self.ask("tools/call", &json!({"name": tool, "arguments": arguments})))
    }

    fn fails(&mut self, tool: &str, arguments: &Value, parts: &[&str]) {
        let reply = self.ask("tools/call", &json!({"name": tool, "arguments": arguments}));
        assert_eq!(reply["result"]["isError"], true, "{arguments}: {reply}");
        let text = reply["result"]["content"][0]["text"].as_str().unwrap();
        parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
    }

    /// Waits for the end. Returns the status and what else came on stdout.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        for _ in 0..500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), rest);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().unwrap();
        panic!("the command does not end");
    }
}

fn message(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn hello() -> Value {
    let client = json!({"name": "test", "version": "1"});
    json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
}

/// The JSON that a tool returned.
fn result(reply: &Value) -> Value {
    assert_ne!(reply["result"]["isError"], true, "{reply}");
    serde_json::from_str(reply["result"]["content"][0]["text"].as_str().unwrap()).unwrap()
}

/// A place with an index of some records and of one long text.
fn with_long_text() -> (Workplace, String) {
    let place = indexed(40);
    let sentence =
        |i: usize| format!("Sentence {i} of the long text speaks of caf\u{e9} number {i}. ");
    let long: String = (0..600).map(sentence).collect();
    place.file("long.txt", &long);
    place.call("index long.txt --into idx").ok();
    (place, long)
}

#[test]
fn agents_find_what_the_command_line_finds_and_read_on() {
    let (place, long) = with_long_text();
    let reranker = small_reranker();
    let mut agent = Agent::start(&place, &["idx", "--reranker", &reranker]);
    let tools = agent.ask("tools/list", &json!({}));
    let names: Vec<&Value> =
        tools["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["search", "get", "list_indexes"]);
    for (arguments, args) in [
        (json!({"k": 7}), "-k 7"),
        (json!({"k": 4, "rerank": false}), "-k 4 --no-rerank"),
        (json!({"k": 4, "rerank": true, "filter": "year >= 2010"}), "-k 4 --filter year>=2010"),
        (json!({"hybrid": true, "rerank": false, "filter": null}), "-k 5 --hybrid --no-rerank"),
    ] {
        let mut arguments = arguments;
        arguments["query"] = json!("long caf\u{e9} storm");
        let found = agent.call("search", &arguments);
        let args: Vec<&str> = args.split_whitespace().chain(["--reranker", &reranker]).collect();
        let expected = search(&place, "long caf\u{e9} storm", &args);
        assert_eq!(ids(&found), ids(&expected), "{arguments}");
        for (hit, expected) in
            found["hits"].as_array().unwrap().iter().zip(expected["hits"].as_array().unwrap())
        {
            let off = hit["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap();
            assert!(off.abs() < 6e-5, "{hit} {expected}");
            let range = [&hit["span"][0], &hit["span"][1]].map(|v| v.as_u64().unwrap() as usize);
            let excerpt = hit["excerpt"].as_str().unwrap();
            if hit["id"].as_str().unwrap().starts_with("long.txt") {
                assert_eq!(excerpt, &long[range[0]..range[1]]);
            } else {
                assert_eq!(excerpt, &expected["text"].as_str().unwrap()[range[0]..range[1]]);
            }
        }
    }
    // Whole documents, part by part.
    let first = agent.call("get", &json!({"ids": ["long.txt"], "max_chars": 5000}));
    let mut read = first["texts"][0]["text"].as_str().unwrap().to_owned();
    let mut next = first["texts"][0]["next_offset"].clone();
    while !next.is_null() {
        let arguments = json!({"ids": "long.txt", "offset": next, "max_chars": 9000});
        let more = agent.call("get", &arguments)["texts"][0].clone();
        read += more["text"].as_str().unwrap();
        next = more["next_offset"].clone();
    }
    assert_eq!(
        read.split_whitespace().collect::<Vec<_>>(),
        long.split_whitespace().collect::<Vec<_>>()
    );
    let two = agent.call("get", &json!({"ids": ["d3", "long.txt#2", "nope"]}));
    assert_eq!(two["missing"], json!(["nope"]));
    assert_eq!(
        (&two["texts"][0]["id"], &two["texts"][1]["id"]),
        (&json!("d3"), &json!("long.txt#2"))
    );
    let span = [0, 1].map(|i| two["texts"][1]["span"][i].as_u64().unwrap() as usize);
    assert_eq!(two["texts"][1]["text"], long[span[0]..span[1]]);
    let indexes = agent.call("list_indexes", &json!({}));
    assert_eq!(
        (&indexes["indexes"][0]["name"], &indexes["writable"]),
        (&json!("idx"), &json!(false))
    );
    assert_eq!(indexes["indexes"][0]["fields"]["year"], "number");
    assert_eq!(indexes["indexes"][0]["fields"]["tags"], "list");
    // A mistake in a call is a result that says what to do.
    for (tool, arguments, parts) in [
        ("search", json!({}), &["`query` is missing"][..]),
        ("search", json!({"query": " "}), &["empty"]),
        ("search", json!({"query": 5}), &["`query` must be a text, not 5"]),
        ("search", json!({"query": "a", "k": "3"}), &["`k` must be a whole number from 0"]),
        ("search", json!({"query": "a", "k": 0}), &["1 to 1000"]),
        ("search", json!({"query": "a", "top_k": 3}), &["did you mean `k`"]),
        ("search", json!({"query": "a", "filter": "yeer = 3"}), &["yeer", "year"]),
        ("search", json!({"query": "a", "index": "b"}), &["'b'", "idx"]),
        ("search", json!({"query": "a", "excerpt_chars": 100_000}), &["0 to 4000"]),
        ("get", json!({"ids": []}), &["1 to 100"]),
        ("get", json!({"ids": ["x", "y"]}), &["no x, y"]),
        ("get", json!({"ids": ["d1", "d2"], "offset": 5}), &["single id"]),
        ("get", json!({"ids": [1]}), &["`ids` must be a list of texts"]),
    ] {
        agent.fails(tool, &arguments, parts);
    }
    let refused = agent.ask("tools/call", &json!({"name": "upsert", "arguments": {}}));
    assert!(refused["error"]["message"].as_str().unwrap().contains("no tool 'upsert'"));
    drop(agent.stdin.take());
    assert_eq!(agent.end(), (Some(0), String::new()));
}

#[test]
fn results_fit_into_a_context_window() {
    let place = indexed(3);
    let fields: Vec<String> =
        (0..40).map(|i| format!("\"field{i}\": \"{}\"", "long value ".repeat(30))).collect();
    let record = |i: usize| {
        let text = "storm bread clock ".repeat(300);
        format!("{{\"_id\": \"b{i}\", \"text\": \"{text}\", {}}}\n", fields.join(","))
    };
    place.file("big.jsonl", (0..120).map(record).collect::<String>());
    place.call("index big.jsonl --into idx").ok();
    let mut agent = Agent::start(&place, &["idx"]);
    let usual = agent.call("search", &json!({"query": "storm", "filter": "id LIKE 'b%'"}));
    assert!(usual.to_string().len() < 12_000, "{}", usual.to_string().len());
    assert_eq!(usual["hits"][0]["metadata_cut"], true);
    let arguments = json!({"query": "storm", "k": 100, "excerpt_chars": 4000});
    let many = agent.call("search", &arguments);
    assert!(many.to_string().len() < 34_000, "{}", many.to_string().len());
    assert!(many["notes"][0].as_str().unwrap().contains("do not fit"), "{}", many["notes"]);
    let none = agent.call("search", &json!({"query": "storm", "filter": "id = 'no such'"}));
    assert!(none["notes"][0].as_str().unwrap().contains("no document passes the filter"));
    let texts =
        agent.call("get", &json!({"ids": (0..100).map(|i| format!("b{i}")).collect::<Vec<_>>()}));
    let all: usize =
        texts["texts"].as_array().unwrap().iter().map(|t| t["text"].as_str().unwrap().len()).sum();
    assert_eq!(all, 8000);
}

#[test]
fn agents_change_documents_where_they_may() {
    let place = indexed(5);
    let mut agent = Agent::start(&place, &["mine=idx", "--allow-writes"]);
    let document = json!({"id": "z", "text": "a zebra", "year": 1999});
    let written = agent.call("upsert", &json!({"documents": [document], "index": "mine"}));
    assert_eq!(written["added"], 1);
    let found = agent.call("search", &json!({"query": "zebra", "filter": "year = 1999"}));
    assert_eq!(ids(&found), ["z"]);
    agent.fails("upsert", &json!({"documents": [{"text": "no id"}]}), &["id"]);
    agent.fails("upsert", &json!({"documents": "z"}), &["`documents` must be a list"]);
    agent.fails("delete", &json!({"ids": ["z"], "index": "other"}), &["other"]);
    agent.fails("delete", &json!({"ids": [""]}), &["`ids` has an empty text"]);
    let gone = agent.call("delete", &json!({"ids": ["z", "nope", "z"]}));
    assert_eq!(gone, json!({"deleted": 1, "missing": ["nope"]}));
    agent.fails("delete", &json!({"ids": ["z"]}), &["no z"]);
    drop(agent.stdin.take());
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn lines_that_are_no_message_are_survived() {
    let place = indexed(3);
    let mut agent = Agent::start(&place, &["idx"]);
    agent.write("this is no JSON");
    agent.write("");
    agent.write("{\"jsonrpc\": \"2.0\", \"method\": \"notifications/unheard_of\"}");
    // An answer to it may come before that to the question.
    agent.write(&message(77, "tools/list", &json!({})).to_string());
    let reply = (0..4).map(|_| agent.read()).find(|reply| reply["id"] == 77);
    assert_eq!(reply.unwrap()["result"]["tools"][0]["name"], "search");
    let unknown = agent.ask("no/such/method", &json!({}));
    assert!(unknown["error"]["code"].is_number(), "{unknown}");
    drop(agent.stdin.take());
    assert_eq!(agent.end().0, Some(0));
}

#[cfg(unix)]
#[test]
fn signals_and_closed_streams_end_it() {
    let place = indexed(3);
    for signal in ["INT", "TERM"] {
        let agent = Agent::start(&place, &["idx"]);
        let pid = agent.child.id().to_string();
        std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert_eq!(agent.end(), (Some(0), String::new()), "{signal}");
    }
    let run = place.run(&["mcp", "idx"]).ok();
    assert_eq!(run.stdout, "", "without a client");
    place.run(&["mcp", "nowhere"]).fails(8, &["nowhere"]);
    place.run(&["mcp", "idx", "--default-index", "b"]).fails(2, &["no index is called 'b'", "idx"]);
}

const ACCEPT: (&str, &str) = ("accept", "application/json, text/event-stream");
const KIND: (&str, &str) = ("content-type", "application/json");

fn post(server: &Server, headers: &[(&str, &str)], message: &Value) -> Answered {
    let headers = [&[ACCEPT, KIND], headers].concat();
    server.send("POST", "/mcp", &headers, message.to_string().as_bytes())
}

#[test]
fn agents_reach_a_server_within_its_limits() {
    let place = indexed(20);
    let args = ["idx", "--max-body-bytes", "5000", "--allow-writes"];
    let server = Server::start(&place, &args);
    let greeting = post(&server, &[], &message(1, "initialize", &hello())).ok();
    assert_eq!(greeting["result"]["serverInfo"]["name"], "warpseek", "{greeting}");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(&server, &[], &ready).status, 202);
    let version = ("mcp-protocol-version", "2025-06-18");
    let call = |tool: &str, arguments: Value| {
        let call = message(2, "tools/call", &json!({"name": tool, "arguments": arguments}));
        result(&post(&server, &[version], &call).ok())
    };
    let found = call("search", json!({"query": "river", "k": 3}));
    assert_eq!(ids(&found), ids(&search(&place, "river", &["-k", "3"])));
    let new = json!({"id": "z", "text": "a zebra"});
    assert_eq!(call("upsert", json!({"documents": [new]}))["added"], 1);
    assert_eq!(
        ids(&server.post("/v1/search", &json!({"query": "zebra", "filter": "id = 'z'"})).ok()),
        ["z"]
    );
    let list = message(3, "tools/list", &json!({}));
    for (header, status) in [
        (("host", "evil.example"), 403),
        (("origin", "https://evil.example"), 403),
        (("content-type", "text/plain"), 415),
    ] {
        let headers = [ACCEPT, KIND].into_iter().filter(|own| own.0 != header.0);
        let headers: Vec<_> = headers.chain([header]).collect();
        let reply = server.send("POST", "/mcp", &headers, list.to_string().as_bytes());
        assert_eq!(reply.status, status, "{header:?}: {}", reply.body);
    }
    assert_eq!(post(&server, &[], &json!({"x": "a".repeat(6000)})).status, 413);
    assert_eq!(server.send("GET", "/mcp", &[ACCEPT], b"").status, 405);
    assert_eq!(server.send("DELETE", "/mcp", &[ACCEPT], b"").status, 405);
    for body in ["", "{", "[]", "5", "{\"jsonrpc\": \"2.0\"}"] {
        let reply = server.send("POST", "/mcp", &[ACCEPT, KIND], body.as_bytes());
        assert!((400..500).contains(&reply.status), "{body}: {} {}", reply.status, reply.body);
    }
    let metrics = server.get("/metrics");
    metrics.fails(200, &["warpseek_requests_total{route=\"/mcp\",status=\"200\"}"]);
    let keys = place.file("keys", "first\n");
    let closed = Server::start(&place, &["idx", "--api-key-file", &keys]);
    assert_eq!(post(&closed, &[], &list).status, 401);
    let open = post(&closed, &[("authorization", "Bearer first"), version], &list).ok();
    let names: Vec<&Value> =
        open["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["search", "get", "list_indexes"], "writes are offered on request alone");
}
