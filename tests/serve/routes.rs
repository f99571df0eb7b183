//! Every route: what it gives equals what the command line gives, and what it refuses.

use crate::cli::{ids, indexed, search};
use crate::support::chat::{Chat, Reply};
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::{Server, exchange};
use serde_json::{Value, json};

fn served(n: usize) -> (Workplace, Server) {
    let place = indexed(n);
    let server = Server::start(&place, &["idx", "--reranker", &small_reranker()]);
    (place, server)
}

/// Hits with what differs between two ways of asking taken out.
fn plain(result: &Value) -> Value {
    let mut result = result.clone();
    result.as_object_mut().unwrap().remove("took_ms");
    result
}

#[test]
fn searches_over_http_equal_those_of_the_command_line() {
    let (place, server) = served(120);
    let reranker = small_reranker();
    for (body, args) in [
        (json!({}), vec![]),
        (json!({"k": 3, "rerank_depth": 0}), vec!["-k", "3", "--no-rerank"]),
        (json!({"k": 30, "rerank_depth": 7}), vec!["-k", "30", "--rerank-depth", "7"]),
        (json!({"hybrid": true, "rerank_depth": 0}), vec!["--hybrid", "--no-rerank"]),
        (
            json!({"mmr": 0.3, "rerank_depth": 0}),
            vec!["--mmr", "--mmr-lambda", "0.3", "--no-rerank"],
        ),
        (
            json!({"filter": "id < 'd5'", "retriever_weight": 0.4}),
            vec!["--filter", "id < 'd5'", "--retriever-weight", "0.4"],
        ),
    ] {
        let mut body = body;
        body["query"] = json!("storm bread clock");
        let here = server.post("/v1/search", &body).ok();
        let there =
            search(&place, "storm bread clock", &[&args[..], &["--reranker", &reranker]].concat());
        assert_eq!(plain(&here), plain(&there), "{body}");
    }
    let many = json!([{"query": "river"}, {"query": "bread", "k": 2}]);
    let many = server.post("/v1/search/batch", &many).ok();
    for (one, query) in many.as_array().unwrap().iter().zip(["river", "bread"]) {
        let alone = server
            .post(
                "/v1/search",
                &json!({"query": query, "k": one["hits"].as_array().unwrap().len()}),
            )
            .ok();
        assert_eq!(plain(one), plain(&alone));
    }
    let compared = server.post("/v1/compare", &json!({"query": "river"})).ok();
    let there =
        place.run(&["compare", "idx", "river", "--reranker", &reranker, "--json"]).ok().json();
    assert_eq!(plain(&compared), plain(&there));
}

#[test]
fn a_row_found_by_its_own_vector_has_the_score_one() {
    let (_place, server) = served(30);
    let body = json!({"query": "river", "k": 1, "rerank_depth": 0, "with_vector": true, "with_text": false});
    let hit = server.post("/v1/search", &body).ok()["hits"][0].clone();
    assert!(hit.get("text").is_none());
    let again = server.post("/v1/search", &json!({"vector": hit["vector"], "k": 1})).ok();
    assert_eq!(again["hits"][0]["id"], hit["id"]);
    assert!((again["hits"][0]["score"].as_f64().unwrap() - 1.0).abs() < 2e-3);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_the_field_at_fault() {
    let (_place, server) = served(10);
    for (body, param, part) in [
        (json!({}), "query", "empty"),
        (json!({"query": "  "}), "query", "empty"),
        (json!({"query": "a", "k": 0}), "k", "1 to 1000"),
        (json!({"query": "a", "k": 1_000_000}), "k", "1 to 1000"),
        (json!({"query": "a", "filter": "nope = 1"}), "filter", "no field is called 'nope'"),
        (json!({"query": "a", "filter": "id ="}), "filter", "filter"),
        (json!({"query": "a", "mmr": 2}), "mmr", "0 to 1"),
        (json!({"query": "a", "retriever_weight": -1}), "retriever_weight", "0 to 1"),
        (json!({"query": "a", "max_per_doc": 0}), "max_per_doc", "at least 1"),
        (json!({"query": "a", "vector": [1.0]}), "vector", "has 1 values"),
        (json!({"vector": [1.0], "hybrid": true}), "query", "beside `vector`"),
    ] {
        let reply = server.post("/v1/search", &body);
        reply.fails(400, &[part]);
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
    server
        .post("/v1/search", &json!({"query": "a", "index": "other"}))
        .fails(404, &["'other'", "idx"]);
    server
        .post("/v1/search", &json!({"query": 5}))
        .fails(400, &["does not fit", "expected a string"]);
    server.post("/v1/search/batch", &json!([{"query": "a"}, {}])).fails(400, &["request 1"]);
    server.post("/v1/search/batch", &json!([])).fails(400, &["empty"]);
    server.post("/v1/answer", &json!({"query": "a"})).fails(424, &["no chat service"]);
    server.get("/nope").fails(404, &["/api-docs/openapi.json"]);
    server.get("/v1/search").fails(405, &["GET"]);
}

#[test]
fn embeddings_in_all_three_dialects_are_the_same() {
    let (place, server) = served(5);
    let texts = ["the quick river", "bread"];
    let run = place.pipe(&["embed"], texts.join("\n")).ok();
    let expected: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["vector"].clone())
        .collect();
    let openai = server.post("/v1/embeddings", &json!({"input": texts, "model": "e5-like"})).ok();
    let tei = server.post("/embed", &json!({"inputs": texts})).ok();
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(&openai["data"][i]["embedding"], expected);
        assert_eq!(&tei[i], expected);
    }
    // Token ids of this model's own are taken, others never.
    let tokens = server.post("/tokenize", &json!({"inputs": texts[0]})).ok();
    let own: Vec<u64> =
        tokens[0].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()).collect();
    let by_ids = server.post("/v1/embeddings", &json!({"input": own}));
    // A model with a prompt embeds the text behind it; ids say nothing of a prompt.
    assert_eq!(by_ids.ok()["usage"]["prompt_tokens"], own.len());
    for foreign in [json!([9906, 1917]), json!([[9906, 1917]]), json!([own[0]]), json!([])] {
        let reply = server.post("/v1/embeddings", &json!({"input": foreign}));
        assert_eq!(reply.status, 400, "{reply:?}");
    }
    server
        .post("/v1/embeddings", &json!({"input": [9906, 1917]}))
        .fails(400, &["check_embedding_ctx_length=False"]);
    server
        .post("/v1/embeddings", &json!({"input": "a", "dimensions": 7}))
        .fails(400, &["`dimensions`"]);
    let other =
        server.post("/v1/embeddings", &json!({"input": "a", "model": "text-embedding-3-small"}));
    assert!(other.header("warning").unwrap().contains("text-embedding-3-small"));
    let many = vec!["word"; 1500];
    assert_eq!(
        server.post("/v1/embeddings", &json!({"input": many})).ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        1500
    );
    server
        .post("/v1/embeddings", &json!({"input": vec!["word"; 2049]}))
        .fails(400, &["2048 are allowed"]);
    let long = "river ".repeat(2000);
    let cut = server.post("/v1/embeddings", &json!({"input": long}));
    assert!(cut.header("warning").unwrap().contains("tokens were left out"));
    server
        .post("/embed", &json!({"inputs": long, "truncate": false}))
        .fails(422, &["tokens", "validation"]);
    let left = server.post("/embed", &json!({"inputs": long, "truncation_direction": "Left"}));
    assert_eq!(left.ok()[0].as_array().unwrap().len(), expected[0].as_array().unwrap().len());
    let states = server.post("/embed_all", &json!({"inputs": texts[0]})).ok();
    assert!(states[0].as_array().unwrap().len() >= own.len());
    let alike = server
        .post(
            "/similarity",
            &json!({"inputs": {"source_sentence": "bread", "sentences": ["bread", "river"]}}),
        )
        .ok();
    assert!(
        (alike[0].as_f64().unwrap() - 1.0).abs() < 1e-5 && alike[1].as_f64() < alike[0].as_f64()
    );
}

#[test]
fn reranking_in_all_dialects_equals_the_command() {
    let (place, server) = served(5);
    let reranker = small_reranker();
    let texts = ["the quick river", "bread and clock", "storm"];
    let args = [&["rerank", "a storm"][..], &texts, &["--reranker", &reranker, "--json"]].concat();
    let expected = place.run(&args).ok().json();
    let expected: Vec<(u64, f64)> = expected["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["index"].as_u64().unwrap(), r["rerank_score"].as_f64().unwrap()))
        .collect();
    let pairs = |results: &Value, score: &str| -> Vec<(u64, f64)> {
        let pair = |r: &Value| (r["index"].as_u64().unwrap(), r[score].as_f64().unwrap());
        results.as_array().unwrap().iter().map(pair).collect()
    };
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let reply =
            server.post(path, &json!({"query": "a storm", "documents": texts, "model": "x"})).ok();
        assert_eq!(pairs(&reply["results"], "relevance_score"), expected, "{path}");
    }
    let tei = server
        .post("/rerank", &json!({"query": "a storm", "texts": texts, "return_text": true}))
        .ok();
    assert_eq!(pairs(&tei, "score"), expected);
    assert_eq!(tei[0]["text"], texts[expected[0].0 as usize]);
    let objects = json!([{"text": texts[0]}, {"text": texts[1]}, {"text": texts[2]}]);
    let body =
        json!({"query": "a storm", "documents": objects, "top_n": 2, "return_documents": true});
    let reply = server.post("/v1/rerank", &body).ok();
    assert_eq!(pairs(&reply["results"], "relevance_score"), expected[..2]);
    assert_eq!(reply["results"][0]["document"]["text"], texts[expected[0].0 as usize]);
    let fields =
        json!({"query": "a", "documents": [{"a": "x", "b": 1}], "rank_fields": ["a", "b"]});
    assert_eq!(server.post("/v1/rerank", &fields).status, 200);
    let cut = json!({"query": "a", "documents": ["river ".repeat(50)], "max_tokens_per_doc": 5});
    let reply = server.post("/v2/rerank", &cut).ok();
    assert!(reply["meta"]["warnings"][0].as_str().unwrap().contains("were left out"), "{reply}");
    server
        .post("/v2/rerank", &json!({"query": "a", "documents": [], "model": "m"}))
        .fails(400, &["{\"message\":\"invalid request: list of documents must not be empty\"}"]);
    server
        .post("/v1/rerank", &json!({"query": "a", "documents": [{"b": 1}]}))
        .fails(400, &["no field 'text'"]);
    server
        .post("/rerank", &json!({"query": "a", "texts": []}))
        .fails(400, &["\"error_type\":\"empty\""]);
    server.post("/rerank", &json!({"query": "a"})).fails(422, &["texts"]);
    let many = vec!["a"; 10_001];
    server
        .post("/v1/rerank", &json!({"query": "a", "documents": many}))
        .fails(400, &["10000 are allowed"]);
}

#[test]
fn answers_come_whole_and_as_events_with_their_quotes_checked() {
    let place = indexed(20);
    let text =
        search(&place, "river", &["-k", "1"])["hits"][0]["text"].as_str().unwrap().to_owned();
    let written = format!("It is so: \"{text}\" [1].");
    let chat = Chat::start([
        Reply::text(&written),
        Reply::stream(vec![Reply::events(&written, 4)]),
        Reply::error(401, "who are you", "invalid_api_key"),
        Reply::error(401, "who are you", "invalid_api_key"),
    ]);
    let url = chat.url();
    let server = Server::start(&place, &["idx", "--base-url", &url, "--chat-model", "stand-in-8b"]);
    let whole = server.post("/v1/answer", &json!({"query": "river", "k": 1})).ok();
    assert_eq!(whole["answer"], written);
    assert_eq!(whole["citations"][0]["status"], "found");
    assert_eq!(whole["citations"][0]["passage_id"], whole["hits"][0]["id"]);
    let stream = server.post("/v1/answer", &json!({"question": "river", "k": 1, "stream": true}));
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let events: Vec<(String, Value)> = stream
        .body
        .split("\n\n")
        .filter(|block| !block.trim().is_empty())
        .map(|block| {
            let field =
                |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
            (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap())
        })
        .collect();
    assert_eq!(events[0].0, "hits");
    let said: String =
        events.iter().filter(|e| e.0 == "text").map(|e| e.1["text"].as_str().unwrap()).collect();
    assert_eq!(said, written);
    let (name, done) = events.last().unwrap();
    assert_eq!((name.as_str(), &done["citations"]), ("done", &whole["citations"]));
    server.post("/v1/answer", &json!({"query": "river"})).fails(502, &["who are you"]);
    let stream = server.post("/v1/answer", &json!({"query": "river", "stream": true}));
    assert!(
        stream.body.contains("event: error") && stream.body.contains("who are you"),
        "{stream:?}"
    );
}

#[test]
fn keys_hosts_and_origins_are_checked() {
    let place = indexed(5);
    let keys = place.file("keys", "first\nsecond\n");
    let server = Server::start(&place, &["idx", "--api-key-file", &keys]);
    for path in ["/health", "/", "/api-docs/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    server.get("/info").fails(401, &["Bearer"]);
    server.get("/metrics").fails(401, &["a key is needed"]);
    server
        .send("GET", "/info", &[("authorization", "Bearer nope")], b"")
        .fails(401, &["not one of"]);
    for key in ["Bearer first", "bearer second"] {
        assert_eq!(server.send("GET", "/info", &[("authorization", key)], b"").status, 200);
    }
    let open = Server::start(
        &place,
        &["idx", "--allow-host", "search.lab", "--cors-origin", "https://a.example"],
    );
    let with = |headers: &[(&str, &str)]| open.send("GET", "/info", headers, b"").status;
    assert_eq!(with(&[("host", "evil.example")]), 403);
    assert_eq!(with(&[("host", "search.lab:80")]), 200);
    assert_eq!(with(&[("host", "localhost:1")]), 200);
    assert_eq!(with(&[("origin", "https://evil.example")]), 403);
    assert_eq!(with(&[("origin", &open.url())]), 200);
    let allowed = open.send("GET", "/info", &[("origin", "https://a.example")], b"");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
    // A page of another origin can send no JSON without asking, and all else is refused.
    open.send("POST", "/v1/search", &[("content-type", "text/plain")], b"{}")
        .fails(415, &["application/json"]);
    place
        .run(&["serve", "idx", "--host", "0.0.0.0", "--port", "0"])
        .fails(2, &["0.0.0.0 can be reached from other machines", "--no-auth"]);
}

#[test]
fn server_tells_what_it_is_and_counts() {
    let (_place, server) = served(12);
    let info = server.get("/info").ok();
    assert_eq!(info["indexes"][0]["name"], "idx");
    assert_eq!(info["indexes"][0]["rows"], 12);
    assert_eq!(info["limits"]["max_inputs"], 2048);
    assert_eq!(info["answers"], false);
    let models = server.get("/v1/models").ok();
    let id = models["data"][0]["id"].as_str().unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/v1/models/nope").status, 404);
    assert!(!id.is_empty());
    server.post("/v1/search", &json!({"query": "river"})).ok();
    let metrics = server.get("/metrics").body;
    assert!(
        metrics.contains("warpseek_requests_total{route=\"/v1/search\",status=\"200\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("warpseek_batches_total{lane=\"pairs\"}"), "{metrics}");
    assert_eq!(
        server.send("GET", "/health", &[("x-request-id", "my-1")], b"").header("x-request-id"),
        Some("my-1")
    );
    let page = server.get("/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn several_indexes_are_asked_by_name() {
    let place = indexed(8);
    place.file("b.jsonl", "{\"id\": \"only\", \"text\": \"one river\"}\n");
    place.run(&["index", "b.jsonl", "--into", "second"]).ok();
    let server = Server::start(&place, &["idx", "other=second"]);
    server.post("/v1/search", &json!({"query": "river"})).fails(400, &["idx, other"]);
    let found = server.post("/v1/search", &json!({"query": "river", "index": "other"})).ok();
    assert_eq!(ids(&found), ["only"]);
    let both =
        json!([{"query": "river", "index": "other"}, {"query": "river", "index": "idx", "k": 1}]);
    assert_eq!(server.post("/v1/search/batch", &both).ok().as_array().unwrap().len(), 2);
    place.run(&["serve", "idx", "idx", "--port", "0"]).fails(2, &["two indexes are called 'idx'"]);
    place.run(&["serve", "nowhere", "--port", "0"]).fails(8, &["nowhere"]);
}

#[test]
fn models_alone_are_served_too() {
    let place = indexed(3);
    let reranker = small_reranker();
    let server = Server::start(&place, &["--embed-only"]);
    assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 200);
    server.post("/v1/search", &json!({"query": "a"})).fails(424, &["no index"]);
    server.post("/rerank", &json!({"query": "a", "texts": ["b"]})).fails(424, &["no reranker"]);
    let server = Server::start(&place, &["--rerank-only", "--reranker", &reranker]);
    assert_eq!(server.post("/rerank", &json!({"query": "a", "texts": ["b"]})).status, 200);
    server.post("/embed", &json!({"inputs": "a"})).fails(424, &["no embedding model", "backend"]);
    place.run(&["serve", "--rerank-only", "--port", "0"]).fails(3, &["reranker"]);
}

#[cfg(unix)]
#[test]
fn a_unix_socket_serves_and_goes_with_the_server() {
    use std::os::unix::net::UnixStream;
    let place = indexed(4);
    let path = place.path("s.sock");
    let mut child = place
        .command(&["serve", "idx", "--unix", "s.sock"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    assert!(line.contains("unix:s.sock"), "{line}");
    let mut stream = UnixStream::connect(&path).unwrap();
    let body = br#"{"query": "river"}"#;
    let headers = [("content-type", "application/json")];
    let reply = exchange(&mut stream, "whatever", "POST", "/v1/search", &headers, body).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    place.run(&["serve", "idx", "--unix", "s.sock"]).fails(2, &["another server listens here"]);
    place.file("plain", "");
    place.run(&["serve", "idx", "--unix", "plain"]).fails(2, &["not a socket"]);
    assert!(
        std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success()
    );
    assert!(child.wait().unwrap().success());
    assert!(!path.exists());
}
