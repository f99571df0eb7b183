//! Every route: its replies equal those of the command line, and its refusals.

use crate::cli::{ids, indexed, search};
use crate::support::chat::{Chat, Reply};
use crate::support::cli::{Workplace, small_model, small_reranker};
use crate::support::server::{JSON, Server, exchange};
use serde_json::{Value, json};
use std::path::Path;

fn served(n: usize) -> (Workplace, Server) {
    let place = indexed(n);
    let server = Server::start(&place, &["idx", "--reranker", &small_reranker()]);
    (place, server)
}

/// A result without the times that it took, and without the folder of the reranker, which a server
/// does not show.
fn plain(result: &Value) -> Value {
    let mut result = result.clone();
    result.as_object_mut().unwrap().remove("took_ms");
    if let Some(Value::String(name)) = result.get_mut("reranker") {
        *name = name.rsplit('/').next().unwrap().to_owned();
    }
    result
}

#[test]
fn searches_over_http_equal_those_of_the_command_line() {
    let (place, server) = served(120);
    let reranker = small_reranker();
    for (mut body, args) in [
        (json!({}), ""),
        (json!({"k": 3, "rerank_depth": 0}), "-k 3 --no-rerank"),
        (json!({"k": 30, "rerank_depth": 7}), "-k 30 --rerank-depth 7"),
        (json!({"hybrid": true, "rerank_depth": 0}), "--hybrid --no-rerank"),
        (json!({"mmr": 0.3, "rerank_depth": 0}), "--mmr --mmr-lambda 0.3 --no-rerank"),
        (json!({"filter": "id<'d5'"}), "--filter id<'d5'"),
        (json!({"retriever_weight": 0.4}), "--retriever-weight 0.4"),
    ] {
        body["query"] = json!("storm bread clock");
        let here = server.post("/v1/search", &body).ok();
        let args: Vec<&str> = args.split_whitespace().chain(["--reranker", &reranker]).collect();
        let there = search(&place, "storm bread clock", &args);
        assert_eq!(plain(&here), plain(&there), "{body}");
    }
    let many = json!([{"query": "river"}, {"query": "bread", "k": 2}]);
    let many = server.post("/v1/search/batch", &many).ok();
    for (one, query) in many.as_array().unwrap().iter().zip(["river", "bread"]) {
        let alone = json!({"query": query, "k": ids(one).len()});
        assert_eq!(plain(one), plain(&server.post("/v1/search", &alone).ok()));
    }
    let compared = server.post("/v1/compare", &json!({"query": "river"})).ok();
    let args = ["compare", "idx", "river", "--reranker", &reranker, "--json"];
    assert_eq!(plain(&compared), plain(&place.run(&args).ok().json()));
}

#[test]
fn least_scores_and_budgets_of_searches_are_obeyed_and_counted() {
    let (_place, server) = served(60);
    let plain = server.post("/v1/search", &json!({"query": "storm bread clock"})).ok();
    assert_eq!(plain["ordered_by"], "rerank");
    let least = plain["hits"][4]["final_score"].clone();
    let mut body = json!({"query": "storm bread clock", "min_score": least});
    let some = server.post("/v1/search", &body).ok();
    let n = ids(&some).len();
    assert_eq!(ids(&some), ids(&plain)[..n]);
    assert!((5..10).contains(&n) && some["below_min_score"] == 10 - n, "{some}");
    body["rerank_budget_ms"] = json!(3_600_000);
    let all = server.post("/v1/search", &body).ok();
    assert_eq!((&all["hits"], &all["reranked_rows"]), (&some["hits"], &json!(50)));
    let path = format!("/v1/search?q=storm+bread+clock&rerank_budget_ms=0&min_score={least}");
    let short = server.get(&path).ok();
    assert_eq!(short["reranked_rows"], 4);
    assert!(short["warnings"].as_array().unwrap().is_empty(), "{short}");
    let api = server.get("/api-docs/openapi.json").ok();
    for name in ["min_score", "rerank_budget_ms"] {
        assert!(api["components"]["schemas"]["SearchRequest"].to_string().contains(name));
        let parameters = api["paths"]["/v1/search"]["get"]["parameters"].to_string();
        assert!(parameters.contains(name), "{parameters}");
    }
}

#[test]
fn a_streamed_search_sends_the_hits_before_and_after_they_are_reranked() {
    let (_place, server) = served(60);
    let mut body = json!({"query": "storm bread clock", "k": 5, "rerank_depth": 20});
    let reranked = plain(&server.post("/v1/search", &body).ok());
    body["rerank_depth"] = json!(0);
    let retrieved = plain(&server.post("/v1/search", &body).ok());
    body["stream"] = json!(true);
    let alone = server.post("/v1/search", &body);
    assert_eq!(alone.header("content-type"), Some("text/event-stream"));
    let [(name, done)] = &alone.events()[..] else { panic!("{alone:?}") };
    assert_eq!((name.as_str(), plain(done)), ("done", retrieved.clone()));
    body["rerank_depth"] = json!(20);
    let both = server.post("/v1/search?strict=true", &body).events();
    let [(first, before), (second, after)] = &both[..] else { panic!("{both:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("retrieved", "done"));
    assert_eq!((plain(before), plain(after)), (retrieved, reranked.clone()));
    let by_get = "/v1/search?q=storm+bread+clock&k=5&rerank_depth=20&stream=true";
    assert_eq!(plain(&server.get(by_get).events()[1].1), reranked);
    // What can be checked before the search is an error of the request, not an event.
    server.post("/v1/search", &json!({"query": " ", "stream": true})).fails(400, &["is empty"]);
    let filter = json!({"query": "a", "filter": "nope = 1", "stream": true});
    server.post("/v1/search", &filter).fails(400, &["no field is called 'nope'"]);
    let many = json!([{"query": "a"}, {"query": "a", "stream": true}]);
    server.post("/v1/search/batch", &many).fails(400, &["request 1: `stream`"]);
}

#[test]
fn an_overview_tells_fields_frequent_values_and_titles() {
    let place = Workplace::new();
    let record = |i: usize| {
        let tags = if i % 2 == 0 { json!(["red", "red", "blue"]) } else { json!(["blue"]) };
        json!({"id": format!("d{i}"), "title": format!("Title {i}"), "text": "a river", "n": i,
            "kind": if i % 3 == 0 { "letter" } else { "note" }, "tags": tags,
            "long": "x".repeat(50)})
    };
    let lines: Vec<String> = (0..12).map(|i| record(i).to_string()).collect();
    place.file("corpus.jsonl", lines.join("\n"));
    let model = small_model().display().to_string();
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--model", &model]).ok();
    let server = Server::start(&place, &["idx", "--model", &model]);
    let overview = server.get("/v1/overview").ok();
    let values = |name: &str| {
        let fields = overview["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap()["values"].clone()
    };
    assert_eq!(
        values("kind"),
        json!([{"value": "note", "rows": 8}, {"value": "letter", "rows": 4}])
    );
    assert_eq!(values("tags"), json!([{"value": "blue", "rows": 12}, {"value": "red", "rows": 6}]));
    assert_eq!((values("n"), values("long")), (json!([]), json!([])));
    assert_eq!((&overview["rows"], &overview["sampled_rows"]), (&json!(12), &json!(12)));
    let titles = ["Title 0", "Title 2", "Title 4", "Title 6", "Title 8", "Title 10"];
    assert_eq!(overview["titles"], json!(titles));
    assert_eq!(server.get("/v1/overview?index=idx").ok(), overview);
    server.get("/v1/overview?index=no").fails(404, &["'no'", "idx"]);
}

#[test]
fn a_row_found_by_its_own_vector_has_the_score_one() {
    let (_place, server) = served(30);
    let mut body = json!({"query": "river", "k": 1, "rerank_depth": 0});
    body["with_vector"] = json!(true);
    body["with_text"] = json!(false);
    let hit = server.post("/v1/search", &body).ok()["hits"][0].clone();
    assert!(hit.get("text").is_none());
    let again = server.post("/v1/search", &json!({"vector": hit["vector"], "k": 1})).ok();
    assert_eq!(again["hits"][0]["id"], hit["id"]);
    assert!((again["hits"][0]["score"].as_f64().unwrap() - 1.0).abs() < 2e-3);
}

#[test]
fn invalid_requests_are_refused_with_the_invalid_field() {
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
        (json!({"query": "a", "rerank_budget_ms": -1}), "rerank_budget_ms", "0 to 3600000"),
        (json!({"query": "a", "vector": [1.0]}), "vector", "has 1 values"),
        (json!({"vector": [1.0], "hybrid": true}), "query", "beside `vector`"),
    ] {
        let reply = server.post("/v1/search", &body);
        reply.fails(400, &[part]);
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
    for (path, body, status, parts) in [
        ("/v1/search", json!({"query": "a", "index": "other"}), 404, ["'other'", "idx"]),
        ("/v1/search", json!({"query": 5}), 400, ["does not fit", "`query` must be a text, not 5"]),
        ("/v1/search/batch", json!([{"query": "a"}, {}]), 400, ["request 1", "empty"]),
        ("/v1/search/batch", json!([]), 400, ["searches is empty", "send at least one"]),
        ("/v1/answer", json!({"query": "a"}), 424, ["no chat service", "--base-url"]),
    ] {
        server.post(path, &body).fails(status, &parts);
    }
    server.get("/nope").fails(404, &["/api-docs/openapi.json"]);
    server.get("/v1/answer").fails(405, &["GET"]);
}

/// A copy of a model whose tokenizer knows a word, `zzyzx`, that the model does not.
fn with_unknown_word(place: &Workplace, model: &Path, name: &str) -> String {
    for entry in walkdir::WalkDir::new(model).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let inside = entry.path().strip_prefix(model).unwrap().to_str().unwrap();
            place.file(&format!("{name}/{inside}"), std::fs::read(entry.path()).unwrap());
        }
    }
    let path = place.path(name).join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.insert("zzyzx".to_owned(), json!(vocabulary.len()));
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    place.path(name).display().to_string()
}

#[test]
fn texts_that_a_model_refuses_are_errors_of_their_requests_alone() {
    let place = indexed(6);
    let model = with_unknown_word(&place, &small_model(), "model");
    let reranker = with_unknown_word(&place, small_reranker().as_ref(), "reranker");
    place.run(&["index", "corpus.jsonl", "--into", "own", "--model", &model]).ok();
    let base = ["--base-url", "http://127.0.0.1:9", "--chat-model", "none"];
    let args = ["own", "--model", &model, "--reranker", &reranker];
    let server = Server::start(&place, &[&args[..], &base].concat());
    let tokens = server.post("/tokenize", &json!({"inputs": "a zzyzx"})).ok();
    let ids: Vec<&Value> = tokens[0].as_array().unwrap().iter().map(|t| &t["id"]).collect();
    let (document, texts) = (json!({"id": "z", "text": "zzyzx"}), ["river", "zzyzx"]);
    let pair = json!({"source_sentence": "river", "sentences": ["zzyzx"]});
    let cases = [
        ("/v1/embeddings", json!({"input": "zzyzx"}), 400),
        ("/v1/embeddings", json!({"input": ids}), 400),
        ("/embed", json!({"inputs": texts}), 422),
        ("/embed", json!({"inputs": texts, "prompt_name": "query"}), 422),
        ("/embed_all", json!({"inputs": "zzyzx"}), 422),
        ("/similarity", json!({"inputs": pair}), 422),
        ("/v1/rerank", json!({"query": "a", "documents": texts}), 400),
        ("/v2/rerank", json!({"query": "zzyzx", "documents": texts}), 400),
        ("/rerank", json!({"query": "a", "texts": texts}), 422),
        ("/v1/search", json!({"query": "zzyzx"}), 400),
        ("/v1/search/batch", json!([{"query": "river"}, {"query": "zzyzx"}]), 400),
        ("/v1/compare", json!({"query": "zzyzx"}), 400),
        ("/v1/answer", json!({"query": "zzyzx"}), 400),
        ("/v1/documents", json!({"documents": [document]}), 400),
    ];
    std::thread::scope(|scope| {
        for (path, body, status) in &cases {
            let refused = || server.post(path, body).fails(*status, &["vocabulary"]);
            let fine = || server.post("/embed", &json!({"inputs": "river"})).ok();
            (0..3).for_each(|_| drop((scope.spawn(refused), scope.spawn(fine))));
        }
    });
}

#[test]
fn answers_come_whole_and_as_events_with_their_quotes_checked() {
    let place = indexed(20);
    let found = search(&place, "river", &["-k", "1"]);
    let written = format!("It is so: {} [1].", found["hits"][0]["text"]);
    let refusal = || Reply::error(401, "who are you", "invalid_api_key");
    let events = Reply::stream(vec![Reply::events(&written, 4)]);
    let chat = Chat::start([Reply::text(&written), events, refusal(), refusal()]);
    let service = ["idx", "--base-url", &chat.url(), "--chat-model", "stand-in-8b"];
    let server = Server::start(&place, &service);
    // Clients write null for what is not set.
    let names = ["index", "mmr", "hybrid", "model", "max_tokens", "passage_tokens", "temperature"];
    let mut body: Value = names.iter().map(|name| (*name, Value::Null)).collect();
    (body["query"], body["k"], body["stream"]) = (json!("river"), json!(1), Value::Null);
    let whole = server.post("/v1/answer", &body).ok();
    assert_eq!(whole["answer"], written);
    assert_eq!(whole["citations"][0]["status"], "found");
    assert_eq!(whole["citations"][0]["passage_id"], whole["hits"][0]["id"]);
    let stream = server.post("/v1/answer", &json!({"question": "river", "k": 1, "stream": true}));
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let events = stream.events();
    assert_eq!(events[0].0, "hits");
    let texts = events.iter().filter(|e| e.0 == "text");
    let said: String = texts.map(|e| e.1["text"].as_str().unwrap()).collect();
    assert_eq!(said, written);
    let (name, done) = events.last().unwrap();
    assert_eq!((name.as_str(), &done["citations"]), ("done", &whole["citations"]));
    server.post("/v1/answer", &json!({"query": "river"})).fails(502, &["who are you"]);
    let stream = server.post("/v1/answer", &json!({"query": "river", "stream": true}));
    stream.fails(200, &["event: error", "who are you"]);
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
    assert_eq!(server.get("/info").header("www-authenticate"), Some("Bearer"));
    server.get("/metrics").fails(401, &["a key is needed"]);
    let with_key = |key| server.send("GET", "/info", &[("authorization", key)], b"");
    with_key("Bearer nope").fails(401, &["not one of"]);
    assert_eq!(with_key("Bearer first").ok(), with_key("bearer second").ok());
    let args = ["idx", "--allow-host", "search.lab", "--cors-origin", "https://a.example"];
    let open = Server::start(&place, &args);
    let own = open.url();
    let with = |name, value| open.send("GET", "/info", &[(name, value)], b"");
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("host", "search.lab:80", 200),
        ("host", "localhost:1", 200),
        ("origin", "https://evil.example", 403),
        ("origin", &own, 200),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        assert_eq!(with(name, value).status, status, "{name}: {value}");
    }
    let any = Server::start(&place, &["idx", "--cors-origin", "*"]);
    for (name, value) in [("origin", "https://b.example"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(any.send("GET", "/info", &[(name, value)], b"").status, 200, "{name}");
    }
    let allowed = with("origin", "https://a.example");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
    // A page of another origin cannot send JSON without a preflight; other types are refused.
    open.send("POST", "/v1/search", &[("content-type", "text/plain")], b"{}")
        .fails(415, &["application/json"]);
    let everywhere = place.run(&["serve", "idx", "--host", "0.0.0.0", "--port", "0"]);
    everywhere.fails(2, &["0.0.0.0 can be reached from other machines", "--no-auth"]);
    let origin = place.run(&["serve", "idx", "--port", "0", "--cors-origin", "https://a\u{7f}b"]);
    origin.fails(2, &["--cors-origin: invalid origin"]);
}

#[test]
fn server_describes_itself_and_counts() {
    let (_place, server) = served(12);
    let info = server.get("/info").ok();
    assert_eq!(info["indexes"][0]["name"], "idx");
    assert_eq!(info["indexes"][0]["rows"], 12);
    assert_eq!(info["indexes"][0]["metric"], "cosine");
    assert_eq!(info["limits"]["max_inputs"], 2048);
    assert_eq!(info["answers"], false);
    assert!(info["dialects"].as_array().unwrap().contains(&json!("ollama")), "{info}");
    let models = server.get("/v1/models").ok()["data"].clone();
    assert!(models.as_array().unwrap().len() == 2 && models[0]["id"].as_str() > Some(""));
    assert_eq!(server.get("/v1/models/nope").status, 404);
    server.post("/v1/search", &json!({"query": "river"})).ok();
    let search = "warpseek_requests_total{route=\"/v1/search\",status=\"200\"} 1";
    server.get("/metrics").fails(200, &[search, "warpseek_batches_total{lane=\"pairs\"}"]);
    let health = server.send("GET", "/health", &[("x-request-id", "my-1")], b"");
    assert_eq!(health.header("x-request-id"), Some("my-1"));
    let page = server.get("/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn several_indexes_are_addressed_by_name() {
    let place = indexed(8);
    place.file("b.jsonl", "{\"id\": \"only\", \"text\": \"one river\"}\n");
    place.run(&["index", "b.jsonl", "--into", "second"]).ok();
    let server = Server::start(&place, &["idx", "other=second"]);
    server.post("/v1/search", &json!({"query": "river"})).fails(400, &["idx, other"]);
    let found = server.post("/v1/search", &json!({"query": "river", "index": "other"})).ok();
    assert_eq!(ids(&found), ["only"]);
    let both = ["other", "idx"].map(|index| json!({"query": "river", "index": index, "k": 1}));
    assert_eq!(server.post("/v1/search/batch", &json!(both)).ok().as_array().unwrap().len(), 2);
    place
        .run(&["serve", "idx", "idx", "--port", "0"])
        .fails(2, &["two indexes have the name 'idx'"]);
    place.run(&["serve", "nowhere", "--port", "0"]).fails(8, &["nowhere"]);
}

#[test]
fn models_alone_are_served_too() {
    let place = indexed(3);
    let (embed, pair) = (json!({"inputs": "a"}), json!({"query": "a", "texts": ["b"]}));
    let server = Server::start(&place, &["--embed-only"]);
    server.post("/embed", &embed).ok();
    server.post("/v1/search", &json!({"query": "a"})).fails(424, &["no index"]);
    server.post("/rerank", &pair).fails(424, &["no reranker"]);
    let server = Server::start(&place, &["--rerank-only", "--reranker", &small_reranker()]);
    server.post("/rerank", &pair).ok();
    server.post("/embed", &embed).fails(424, &["no embedding model", "backend"]);
    place.run(&["serve", "--rerank-only", "--port", "0"]).fails(3, &["reranker"]);
}

#[cfg(unix)]
#[test]
fn a_unix_socket_serves_and_is_removed_with_the_server() {
    let place = indexed(4);
    let path = place.path("s.sock");
    let server = Server::from_command(place.command(&["serve", "idx", "--unix", "s.sock"]));
    assert_eq!(server.address(), "s.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let body = br#"{"query": "river"}"#;
    exchange(&mut stream, "whatever", "POST", "/v1/search", &JSON, body).unwrap().ok();
    place.run(&["serve", "idx", "--unix", "s.sock"]).fails(2, &["another server listens here"]);
    place.file("plain", "");
    place.run(&["serve", "idx", "--unix", "plain"]).fails(2, &["not a socket"]);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(!path.exists());
}
