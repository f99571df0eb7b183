//! Mistakes in requests, searches by the parameters of a URL, compressed bodies, and the default of
//! several indexes.

use crate::cli::{ids, indexed};
use crate::support::cli::Workplace;
use crate::support::server::{Answered, JSON, Server};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

fn served(n: usize) -> (Workplace, Server) {
    let place = indexed(n);
    let server = Server::start(&place, &["idx"]);
    (place, server)
}

fn warnings(reply: &Answered) -> Vec<&str> {
    reply.headers.iter().filter(|h| h.0 == "warning").map(|h| h.1.as_str()).collect()
}

#[test]
fn unknown_fields_are_warnings_and_with_strict_errors() {
    let (_place, server) = served(12);
    let plain = server.post("/v1/search", &json!({"query": "river", "k": 10}));
    assert!(warnings(&plain).is_empty());
    let body = json!({"query": "river", "top_k": 2, "rerank-depth": 0, "nonsense": [1, {}]});
    let reply = server.post("/v1/search", &body);
    assert_eq!(ids(&reply.ok()), ids(&plain.ok()));
    let told = reply.json()["warnings"].as_array().unwrap().clone();
    let told: Vec<&str> = told.iter().map(|text| text.as_str().unwrap()).collect();
    for (warning, part) in [
        ("`top_k` is unknown", "did you mean `k`?"),
        ("`rerank-depth` is unknown", "did you mean `rerank_depth`?"),
        ("`nonsense` is unknown", "use "),
    ] {
        let is_it = |text: &&str| text.contains(warning) && text.contains(part);
        assert!(told.iter().any(is_it), "{told:?}");
    }
    assert_eq!(warnings(&reply).len(), 3);
    let all = told.iter().find(|text| text.contains("nonsense")).unwrap();
    for field in ["query", "vector", "k", "index", "filter", "hybrid", "mmr", "with_text"] {
        assert!(all.contains(field), "{field}: {all}");
    }
    server.post("/v1/search?strict=true", &body).fails(400, &["is unknown"]);
    server.post("/v1/search?strict=yes", &body).fails(400, &["`strict` can be true or false"]);
    server.post("/v1/search?strict=true", &json!({"query": "river"})).ok();
    let many = json!([{"query": "a"}, {"query": "a", "limit": 3}]);
    let batch = server.post("/v1/search/batch", &many);
    assert!(warnings(&batch)[0].contains("request 1: `limit` is unknown"));
    assert!(batch.json()[1]["warnings"][0].as_str().unwrap().contains("did you mean `k`"));
    assert_eq!(batch.json()[0]["warnings"], json!([]));
    let documents = json!([{"id": "n", "text": "t", "any": "metadata"}]);
    for (path, body, near) in [
        ("/v1/search/batch", many, "`k`"),
        ("/v1/compare", json!({"query": "a", "shown": 2}), "`show`"),
        ("/v1/documents", json!({"documents": documents, "indx": "idx"}), "`index`"),
    ] {
        assert_eq!(warnings(&server.post(path, &body)).len(), 1, "{path}");
        server.post(&format!("{path}?strict=1"), &body).fails(400, &["did you mean", near]);
    }
    let plain = server.get("/v1/overview").ok();
    let overview = server.get("/v1/overview?indx=idx");
    assert_eq!(overview.ok(), plain);
    assert!(warnings(&overview)[0].contains("`indx` is unknown: did you mean `index`?"));
    assert!(warnings(&server.get("/v1/overview?index=idx&strict=true")).is_empty());
    for (address, part) in [
        ("/v1/overview?indx=idx&strict=1", "did you mean `index`"),
        ("/v1/overview?strict=yes", "`strict` can be true or false"),
        ("/v1/overview?index=idx&index=idx", "duplicate field `index`"),
    ] {
        server.get(address).fails(400, &[part]);
    }
    let delete = |address: &str| server.send("DELETE", address, &[], b"");
    delete("/v1/documents/n?indx=other").fails(400, &["indx"]);
    assert_eq!(delete("/v1/documents/n?index=idx").ok()["deleted"], 1);
}

#[test]
fn wrong_types_are_refused_with_field_and_type() {
    let (_place, server) = served(5);
    let search = "/v1/search";
    let documents = "/v1/documents";
    for (path, body, param, part) in [
        (
            search,
            json!({"query": "a", "k": "5"}),
            "k",
            "`k` must be a whole number from 0, not the text \"5\"",
        ),
        (search, json!({"query": "a", "k": -1}), "k", "`k` must be a whole number from 0, not -1"),
        (search, json!({"query": "a", "k": 2.5}), "k", "not 2.5"),
        (search, json!({"query": ["a"]}), "query", "`query` must be a text, not a list"),
        (search, json!({"query": "a", "hybrid": "yes"}), "hybrid", "must be true or false"),
        (
            search,
            json!({"query": "a", "filter": {"year": 3}}),
            "filter",
            "`filter` must be a text, not an object",
        ),
        (
            search,
            json!({"query": "a", "fusion": "best"}),
            "fusion",
            "`fusion` can be `weighted` or `rrf`",
        ),
        (search, json!({"query": "a", "mmr": "x"}), "mmr", "`mmr` must be true, false or a number"),
        (
            search,
            json!({"query": "a", "vector": [1, "b"]}),
            "vector",
            "a value in `vector` must be a number",
        ),
        (
            documents,
            json!({"documents": {"id": "x"}}),
            "documents",
            "`documents` must be a list, not an object",
        ),
        (
            documents,
            json!({"documents": ["x"]}),
            "documents",
            "a value in `documents` must be an object",
        ),
    ] {
        let reply = server.post(path, &body);
        reply.fails(400, &["the body does not fit: "]);
        let error = &reply.json()["error"];
        assert_eq!(error["param"], param, "{body}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part) && !message.contains("line 1"), "{body}: {message}");
    }
    server.post(documents, &json!({})).fails(400, &["`documents` is missing"]);
    server.post(search, &json!([1])).fails(400, &["an object"]);
    let batch = "/v1/search/batch";
    for body in [json!({}), json!({"query": "a"}), json!({"searches": [{"query": "a"}]})] {
        server.post(batch, &body).fails(400, &["it must be a list, not an object"]);
    }
    server.post(batch, &json!("a")).fails(400, &["must be a list, not the text"]);
    server.post(batch, &json!([])).fails(400, &["the list of searches is empty: send"]);
    let second = json!([{"query": "a"}, {"query": "a", "k": "x"}]);
    server.post("/v1/search/batch", &second).fails(400, &["request 1: `k` must be a whole number"]);
    let text = server.send("POST", search, &JSON, b"{\"query\": \"a\", }");
    text.fails(400, &["line 1 column"]);
}

#[test]
fn null_means_that_an_optional_field_is_absent() {
    let (_place, server) = served(12);
    let plain = |path: &str, body: &Value| {
        let mut reply = server.post(path, body).ok();
        reply.as_object_mut().unwrap().remove("took_ms");
        reply
    };
    let api = server.get("/api-docs/openapi.json").ok();
    for (path, name) in [("/v1/search", "SearchRequest"), ("/v1/compare", "CompareRequest")] {
        let schemas = [name, "Retrieval"].map(|name| api["components"]["schemas"][name].clone());
        let of = |schema: &Value| find_properties(schema);
        let names: Vec<String> = schemas.iter().flat_map(of).collect();
        assert!(names.contains(&"k".to_owned()) && names.contains(&"hybrid".to_owned()));
        let mut body: Value = names.iter().map(|name| (name.clone(), Value::Null)).collect();
        body["query"] = json!("storm bread");
        assert_eq!(plain(path, &body), plain(path, &json!({"query": "storm bread"})), "{path}");
    }
    let nothing = json!({"query": null, "stream": null});
    server.post("/v1/search", &nothing).fails(400, &["`query` is empty"]);
    server.post("/v1/compare", &nothing).fails(400, &["`query` is empty"]);
    let documents = json!([{"id": "n", "text": "t", "title": null}]);
    server.post("/v1/documents", &json!({"documents": documents, "index": null})).ok();
    let inputs = json!({"source_sentence": "a", "sentences": ["b"]});
    server.post("/similarity", &json!({"inputs": inputs, "parameters": null})).ok();
}

/// The names of the fields of a schema and of its parts.
fn find_properties(schema: &Value) -> Vec<String> {
    let own = schema["properties"].as_object().into_iter().flatten();
    let parts = schema["allOf"].as_array().into_iter().flatten();
    own.map(|(name, _)| name.clone()).chain(parts.flat_map(find_properties)).collect()
}

#[test]
fn a_search_by_get_equals_the_search_by_post() {
    let (_place, server) = served(40);
    let plain = |reply: &Answered| {
        let mut reply = reply.ok();
        reply.as_object_mut().unwrap().remove("took_ms");
        reply
    };
    for (address, body) in [
        ("q=storm+bread", json!({"query": "storm bread"})),
        ("query=storm%20bread&k=3", json!({"query": "storm bread", "k": 3})),
        (
            "q=river&filter=year%20%3E%3D%202010&hybrid=true&with_text=false&index=idx",
            json!({"query": "river", "filter": "year >= 2010", "hybrid": true, "with_text": false}),
        ),
        ("q=5&mmr=0.3&max_per_doc=1", json!({"query": "5", "mmr": 0.3, "max_per_doc": 1})),
        (
            "q=true&mmr=false&hybrid=true&fusion=rrf&strict=true",
            json!({"query": "true", "hybrid": true, "fusion": "rrf"}),
        ),
    ] {
        let found = server.get(&format!("/v1/search?{address}"));
        assert_eq!(plain(&found), plain(&server.post("/v1/search", &body)), "{address}");
    }
    for (address, parts) in [
        ("", &["`query` is empty"][..]),
        ("q=", &["`query` is empty"]),
        ("q=a&k=x", &["`k` must be a whole number from 0, not the text"]),
        ("q=a&k=0", &["1 to 1000"]),
        ("q=a&query=b", &["`query` is given twice"]),
        ("q=a&vector=1", &["`vector`", "POST"]),
        ("q=a&limit=3&strict=true", &["did you mean `k`"]),
        ("q=a&strict=x", &["`strict` can be"]),
        ("q=a&filter=nope%3D1", &["no field is called 'nope'"]),
        ("q=a&fusion=rrf", &["`fusion` needs `hybrid`"]),
    ] {
        server.get(&format!("/v1/search?{address}")).fails(400, parts);
    }
    let warned = server.get("/v1/search?q=a&limit=3");
    assert!(warned.ok()["warnings"][0].as_str().unwrap().contains("did you mean `k`"));
    let evil = [("host", "evil.example")];
    assert_eq!(server.send("GET", "/v1/search?q=a", &evil, b"").status, 403);
    server.get("/v1/search?q=a&index=b").fails(404, &["'b'", "idx"]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn post_encoded(server: &Server, encoding: &str, body: &[u8]) -> Answered {
    let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
    server.send("POST", "/v1/search", &headers, body)
}

#[test]
fn bodies_in_gzip_are_read_within_the_limits_of_plain_ones() {
    let place = indexed(12);
    let server = Server::start(&place, &["idx", "--max-body-bytes", "100000"]);
    let body = json!({"query": "river", "k": 3}).to_string();
    let plain = ids(&server.send("POST", "/v1/search", &JSON, body.as_bytes()).ok());
    for encoding in ["gzip", "GZIP", "x-gzip"] {
        let reply = post_encoded(&server, encoding, &gzip(body.as_bytes()));
        assert_eq!(ids(&reply.ok()), plain, "{encoding}");
    }
    assert_eq!(ids(&post_encoded(&server, "identity", body.as_bytes()).ok()), plain);
    // Two members are one body.
    let (head, tail) = body.as_bytes().split_at(5);
    let two = [gzip(head), gzip(tail)].concat();
    assert_eq!(ids(&post_encoded(&server, "gzip", &two).ok()), plain);
    for encoding in ["br", "deflate", "zstd", "gzip, gzip"] {
        post_encoded(&server, encoding, b"x").fails(415, &[encoding, "gzip"]);
    }
    post_encoded(&server, "gzip", body.as_bytes()).fails(400, &["no valid gzip"]);
    let whole = gzip(body.as_bytes());
    post_encoded(&server, "gzip", &whole[..whole.len() - 9]).fails(400, &["no valid gzip"]);
    post_encoded(&server, "gzip", b"").fails(400, &["no valid gzip"]);
    post_encoded(&server, "gzip", &gzip(b"")).fails(400, &["the body is empty"]);
    let bomb = gzip(&vec![b' '; 100 << 20]);
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let at_limit = gzip(format!("{body}{}", " ".repeat(100_000 - body.len())).as_bytes());
    assert_eq!(ids(&post_encoded(&server, "gzip", &at_limit).ok()), plain);
    let beyond = gzip(format!("{body}{}", " ".repeat(100_001 - body.len())).as_bytes());
    post_encoded(&server, "gzip", &beyond).fails(413, &["longer than 100000 bytes"]);
    let roomy = Server::start(&place, &["idx", "--max-body-bytes", "1000000"]);
    #[cfg(target_os = "linux")]
    let before = roomy.memory();
    for _ in 0..5 {
        post_encoded(&roomy, "gzip", &bomb).fails(413, &["longer than 1000000 bytes"]);
    }
    #[cfg(target_os = "linux")]
    assert!(roomy.memory() < before + 30_000, "{} KiB, then {}", before, roomy.memory());
}

#[test]
fn requests_without_an_index_get_the_default_of_several() {
    let place = indexed(8);
    place.file("b.jsonl", "{\"id\": \"only\", \"text\": \"one river\"}\n");
    place.run(&["index", "b.jsonl", "--into", "second"]).ok();
    let args = ["idx", "other=second", "--default-index", "other"];
    let server = Server::start(&place, &args);
    let found = |body: Value| ids(&server.post("/v1/search", &body).ok());
    assert_eq!(found(json!({"query": "river"})), ["only"]);
    assert_eq!(ids(&server.get("/v1/search?q=river").ok()), ["only"]);
    assert_eq!(found(json!({"query": "river", "index": "idx", "k": 3})).len(), 3);
    assert_eq!(server.get("/info").ok()["default_index"], "other");
    let refused = place.run(&["serve", "idx", "--default-index", "x", "--port", "0"]);
    refused.fails(2, &["--default-index", "no index is called 'x'", "idx"]);
}

#[test]
fn no_reply_shows_the_folder_of_a_model() {
    let (place, server) = served(4);
    let model = crate::support::cli::small_model();
    let folder = model.parent().unwrap().to_str().unwrap();
    let models = server.get("/v1/models");
    assert_eq!(models.ok()["data"][0]["id"], "e5-like");
    for path in ["/v1/models", "/info"] {
        let text = server.get(path).body;
        assert!(
            !text.contains(folder) && !text.contains(place.path(".").to_str().unwrap()),
            "{text}"
        );
    }
    assert_eq!(server.get("/v1/models/e5-like").ok()["id"], "e5-like");
    let path = model.to_str().unwrap();
    let by_path = server.post("/v1/embeddings", &json!({"input": "a", "model": path}));
    assert_eq!((by_path.status, by_path.header("warning")), (200, None));
}
