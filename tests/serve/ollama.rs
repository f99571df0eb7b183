//! Routes of Ollama's clients.

use crate::cli::indexed;
use crate::serve::embedding::{embedded, floats};
use crate::support::server::Server;
use serde_json::{Value, json};

#[test]
fn ollama_embeds_texts_without_a_prompt() {
    let place = indexed(3);
    let server = Server::start(&place, &["--embed-only"]);
    let texts = ["passage: the quick river", "passage: bread"];
    let expected = embedded(&place, "passage", &texts.map(|text| &text["passage: ".len()..]));
    let name = server.get("/v1/models").ok()["data"][0]["id"].as_str().unwrap().to_owned();
    for model in [name.clone(), format!("{name}:latest")] {
        let body = json!({"model": model, "input": texts, "keep_alive": "5m"});
        let reply = server.post("/api/embed", &body);
        assert_eq!(reply.header("warning"), None, "{model}");
        let reply = reply.ok();
        assert_eq!(reply["embeddings"], json!(expected));
        assert_eq!(reply["model"], model);
        assert!(reply["prompt_eval_count"].as_u64().unwrap() > 4, "{reply}");
        assert!(reply["total_duration"].as_u64().unwrap() > 0, "{reply}");
    }
    let one = server.post("/api/embed", &json!({"model": "nomic-embed-text", "input": texts[1]}));
    assert!(one.header("warning").unwrap().contains("nomic-embed-text"));
    assert_eq!(one.ok()["embeddings"], json!([expected[1]]));
    let older = json!({"model": name, "prompt": texts[0], "options": {"temperature": 0}});
    assert_eq!(server.post("/api/embeddings", &older).ok(), json!({"embedding": expected[0]}));
    // Clients load a model by a request without texts.
    for body in [json!({"model": name}), json!({"input": ""}), json!({"input": []})] {
        assert_eq!(server.post("/api/embed", &body).ok()["embeddings"], json!([]), "{body}");
    }
    assert_eq!(server.post("/api/embeddings", &json!({})).ok(), json!({"embedding": []}));
}

#[test]
fn ollama_obeys_its_options_or_refuses_them() {
    let place = indexed(3);
    let server = Server::start(&place, &["--embed-only"]);
    let embed = |body: Value| server.post("/api/embed", &body);
    let long = "river bread storm ".repeat(2000);
    let cut = embed(json!({"input": long, "options": {"num_ctx": 5}}));
    assert!(cut.header("warning").unwrap().contains("longer than 5 tokens"));
    assert_eq!(cut.ok()["prompt_eval_count"], 5);
    let cut = server.post("/api/embeddings", &json!({"prompt": long}));
    assert!(cut.header("warning").unwrap().contains("tokens were left out"));
    let whole = embed(json!({"input": "river"})).ok()["embeddings"].clone();
    let dim = floats(&whole[0]).len();
    assert_eq!(embed(json!({"input": "river", "dimensions": dim})).ok()["embeddings"], whole);
    for (body, part) in [
        (json!({"input": long, "truncate": false}), "set `truncate` to true"),
        (json!({"input": "a", "dimensions": 7}), "`dimensions` can only be"),
        (json!({"input": "a", "options": {"num_ctx": 1}}), "`num_ctx` must be at least 3"),
        (json!({"input": ["a", " "]}), "`input` 1 is empty"),
        (json!({"input": 7}), "`input` must be a text or a list of texts"),
        (json!({"input": vec!["a"; 2049]}), "2048 are allowed"),
    ] {
        let reply = embed(body);
        reply.fails(400, &[part]);
        assert!(reply.json()["error"].is_string(), "{reply:?}");
    }
    server.post("/api/embeddings", &json!({"prompt": " "})).fails(400, &["`prompt` 0 is empty"]);
    server.post("/api/embeddings", &json!({"prompt": ["a"]})).fails(400, &["\"error\":"]);
    for path in ["/api/generate", "/api/chat", "/api/pull"] {
        server.post(path, &json!({"model": "a"})).fails(404, &["there is no such route"]);
    }
}

#[test]
fn ollama_describes_the_models() {
    let place = indexed(3);
    let server = Server::start(&place, &["--embed-only"]);
    let id = server.get("/v1/models").ok()["data"][0]["id"].clone();
    let tags = server.get("/api/tags").ok();
    let first = &tags["models"][0];
    assert_eq!(first["name"], format!("{}:latest", id.as_str().unwrap()));
    assert_eq!(first["details"]["family"], "bert");
    assert_eq!(first["digest"], server.get("/info").ok()["model_sha"]);
    let info = server.get("/info").ok();
    for field in ["model", "name"] {
        let shown = server.post("/api/show", &json!({field: first["name"]})).ok();
        assert_eq!(shown["capabilities"], json!(["embedding"]));
        assert_eq!(shown["model_info"]["bert.context_length"], info["max_input_length"]);
    }
    server.post("/api/show", &json!({"model": "llama3"})).fails(404, &["'llama3' is not served"]);
    server.post("/api/show", &json!({})).fails(400, &["`model` is missing"]);
    assert_eq!(server.get("/api/version").ok()["version"], env!("CARGO_PKG_VERSION"));
    let alone = indexed(3);
    let reranker = crate::support::cli::small_reranker();
    let server = Server::start(&alone, &["--rerank-only", "--reranker", &reranker]);
    assert_eq!(server.get("/api/tags").ok(), json!({"models": []}));
    server.post("/api/embed", &json!({"input": "a"})).fails(424, &["no embedding model"]);
}
