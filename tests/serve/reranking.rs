//! Reranking in every dialect.

use crate::cli::indexed;
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::Server;
use serde_json::{Value, json};

fn served() -> (Workplace, Server) {
    let place = indexed(3);
    let server = Server::start(&place, &["--rerank-only", "--reranker", &small_reranker()]);
    (place, server)
}

/// Places of texts with their scores, best first.
fn pairs(results: &Value, score: &str) -> Vec<(u64, f64)> {
    let pair = |r: &Value| (r["index"].as_u64().unwrap(), r[score].as_f64().unwrap());
    results.as_array().unwrap().iter().map(pair).collect()
}

#[test]
fn reranking_in_all_dialects_equals_the_command() {
    let (place, server) = served();
    let post = |path: &str, body: Value| server.post(path, &body);
    let reranker = small_reranker();
    let texts = ["the quick river", "bread and clock", "storm"];
    let args = [&["rerank", "a storm"][..], &texts, &["--reranker", &reranker, "--json"]].concat();
    let expected = pairs(&place.run(&args).ok().json()["results"], "rerank_score");
    let first = texts[expected[0].0 as usize];
    for path in ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking"] {
        let body = json!({"query": "a storm", "documents": texts, "model": "x"});
        assert_eq!(pairs(&post(path, body).ok()["results"], "relevance_score"), expected, "{path}");
    }
    let body = json!({"query": "a storm", "texts": texts, "return_text": true});
    let tei = post("/rerank", body).ok();
    assert_eq!(pairs(&tei, "score"), expected);
    let one = json!({"query": "a storm", "texts": texts, "top_n": 1});
    assert_eq!(pairs(&post("/rerank", one).ok(), "score"), expected[..1]);
    // Clients write null for what is not set.
    let nulls =
        json!({"query": "a storm", "texts": texts, "raw_scores": null, "return_text": null});
    assert_eq!(pairs(&post("/rerank", nulls).ok(), "score"), expected);
    assert_eq!(tei[0]["text"], first);
    let objects = texts.map(|text| json!({"text": text}));
    let body =
        json!({"query": "a storm", "documents": objects, "return_documents": true, "top_n": 2});
    let reply = post("/v1/rerank", body).ok();
    assert_eq!(pairs(&reply["results"], "relevance_score"), expected[..2]);
    assert_eq!(reply["results"][0]["document"]["text"], first);
    let objects = json!([{"a": "x", "b": 1}]);
    post("/v1/rerank", json!({"query": "a", "documents": objects, "rank_fields": ["a", "b"]})).ok();
    let cut = json!({"query": "a", "documents": ["river ".repeat(50)], "max_tokens_per_doc": 5});
    let reply = post("/v2/rerank", cut).ok();
    assert!(reply["meta"]["warnings"][0].as_str().unwrap().contains("were left out"), "{reply}");
    let many = vec!["a"; 10_001];
    let empty = "{\"message\":\"invalid request: list of documents must not be empty\"}";
    for (path, body, status, part) in [
        ("/v2/rerank", json!({"query": "a", "documents": [], "model": "m"}), 400, empty),
        ("/v1/rerank", json!({"query": "a", "documents": [{"b": 1}]}), 400, "no field 'text'"),
        ("/rerank", json!({"query": "a", "texts": []}), 400, "\"error_type\":\"empty\""),
        ("/rerank", json!({"query": "a"}), 422, "texts"),
        (
            "/rerank",
            json!({"query": "a", "texts": ["b"], "top_k": 1}),
            422,
            "`top_k` has no effect",
        ),
        ("/rerank", json!({"query": "a", "texts": ["b"], "top_n": 0}), 422, "`top_n` must be"),
        ("/rerank", json!(["a", ["b"]]), 422, "an object with `query`"),
        ("/v1/rerank", json!(["a", ["b"]]), 400, "must be an object, not a list"),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b"], "max_tokens_per_doc": 0}),
            400,
            "must be at least 1",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": [{"text": "b", "image": "c"}]}),
            400,
            "has an image",
        ),
        ("/v1/rerank", json!({"query": "a", "documents": many}), 400, "10000 are allowed"),
    ] {
        post(path, body).fails(status, &[part]);
    }
}

#[test]
fn documents_come_back_in_the_form_of_each_client() {
    let (_place, server) = served();
    let texts = ["the quick river", "bread and clock", "storm"];
    let rerank = |path: &str, more: Value| {
        let mut body = json!({"query": "a storm", "documents": texts});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(path, &body).ok()
    };
    let plain = rerank("/v1/rerank", json!({}));
    assert_eq!(plain["results"][0].get("document"), None);
    assert_eq!(plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"]);
    let ranking = pairs(&plain["results"], "relevance_score");
    let best = texts[ranking[0].0 as usize];
    // Jina returns documents unless it is told not to.
    let jina = "jina-reranker-v2-base-multilingual";
    for more in [json!({"model": jina}), json!({"model": jina, "truncation": true})] {
        let reply = rerank("/v1/rerank", more);
        assert_eq!(reply["results"][0]["document"], json!({"text": best}));
        assert_eq!(reply["object"], "list");
    }
    let without = rerank("/v1/rerank", json!({"model": jina, "return_documents": false}));
    assert_eq!(without["results"], plain["results"]);
    // Infinity returns texts.
    let reply = rerank("/rerank", json!({"return_documents": true}));
    assert_eq!(
        (&reply["object"], &reply["results"][0]["document"]),
        (&json!("rerank"), &json!(best))
    );
    // Voyage has a form of its own.
    let reply = rerank("/v1/rerank", json!({"top_k": 2, "return_documents": true}));
    assert_eq!(pairs(&reply["data"], "relevance_score"), ranking[..2]);
    assert_eq!(reply["data"][0]["document"], best);
    assert_eq!((&reply["object"], reply.get("results")), (&json!("list"), None));
    let reply = rerank("/v1/rerank", json!({"top_k": null, "truncation": true}));
    assert_eq!(pairs(&reply["data"], "relevance_score"), ranking);
    // llama.cpp calls the documents texts.
    let body = json!({"query": "a storm", "texts": texts, "top_n": 1});
    let reply = server.post("/v1/reranking", &body).ok();
    assert_eq!(pairs(&reply["results"], "relevance_score"), ranking[..1]);
    let cut = json!({"query": "a", "documents": ["river ".repeat(50)], "max_doc_length": 5});
    let reply = server.post("/v1/rerank", &cut).ok();
    assert!(reply["meta"]["warnings"][0].as_str().unwrap().contains("were left out"), "{reply}");
    for (field, value) in
        [("relevant_spans", json!({"mode": "enabled"})), ("return_embeddings", json!(true))]
    {
        let body = json!({"query": "a", "documents": texts, field: value});
        server.post("/v2/rerank", &body).fails(400, &[field, "not supported"]);
    }
    rerank("/v1/rerank", json!({"relevant_spans": {"mode": "disabled"}, "priority": 1}));
    let image = json!({"query": "a", "documents": [{"image": "data:"}]});
    server.post("/v1/rerank", &image).fails(400, &["document 0 has an image"]);
    let both = json!({"query": "a", "documents": texts, "top_k": 1, "top_n": 1});
    server.post("/v1/rerank", &both).fails(400, &["top_n and top_k were both given"]);
    let none = json!({"query": "a", "documents": texts, "top_k": 0});
    server.post("/v1/rerank", &none).fails(400, &["top_k must be at least 1"]);
    server.post("/reranking", &json!({"query": "a"})).fails(400, &["{\"error\":{", "documents"]);
}

#[test]
fn raw_scores_are_logits_on_every_route() {
    let (_place, server) = served();
    let texts = ["the quick river", "bread and clock", "storm"];
    let body = json!({"query": "a storm", "texts": texts, "raw_scores": true});
    let logits = pairs(&server.post("/rerank", &body).ok(), "score");
    let body = json!({"query": "a storm", "documents": texts, "raw_scores": true});
    for path in ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking"] {
        let reply = server.post(path, &body).ok();
        assert_eq!(pairs(&reply["results"], "relevance_score"), logits, "{path}");
    }
    let scored = |more: &str, value: bool| {
        let body = json!({"text_1": "a storm", "text_2": texts, more: value});
        let mut found = pairs(&server.post("/v1/score", &body).ok()["data"], "score");
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        found
    };
    assert_eq!(scored("raw_scores", true), logits);
    assert_eq!(scored("use_activation", false), logits);
    for ((index, score), (expected, logit)) in scored("raw_scores", false).iter().zip(&logits) {
        assert_eq!(index, expected);
        assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    }
}

#[test]
fn pairs_are_scored_as_vllm_does() {
    let (_place, server) = served();
    let score = |body: Value| server.post("/v1/score", &body);
    let scores = |body: Value| -> Vec<f64> {
        let reply = score(body).ok();
        let data = reply["data"].as_array().unwrap();
        assert!(data.iter().enumerate().all(|(i, d)| d["index"] == i && d["object"] == "score"));
        assert!(reply["usage"]["total_tokens"].as_u64().unwrap() > 0);
        data.iter().map(|d| d["score"].as_f64().unwrap()).collect()
    };
    let (queries, texts) = (["a storm", "bread"], ["the quick river", "storm"]);
    let one = |i: usize, j: usize| scores(json!({"text_1": queries[i], "text_2": texts[j]}))[0];
    let expected = [one(0, 0), one(0, 1)];
    assert_eq!(scores(json!({"text_1": queries[0], "text_2": texts})), expected);
    assert_eq!(scores(json!({"text_1": [queries[0]], "text_2": texts, "model": "m"})), expected);
    assert_eq!(scores(json!({"queries": queries[0], "documents": texts})), expected);
    assert_eq!(scores(json!({"data_1": queries, "data_2": texts})), [one(0, 0), one(1, 1)]);
    let body = json!({"text_1": queries[0], "text_2": texts});
    assert_eq!(server.post("/score", &body).ok()["data"], score(body).ok()["data"]);
    for (body, part) in [
        (json!({"text_1": queries, "text_2": "a"}), "`text_1` has 2 texts and `text_2` 1"),
        (json!({"text_1": [], "text_2": "a"}), "`text_1` is empty: send at least one"),
        (json!({"text_1": "a", "text_2": []}), "`text_2` is empty: send at least one"),
        (json!({"text_1": "a", "text_2": ["a", ""]}), "`text_2` 1 has an empty text"),
        (json!({"text_1": 1, "text_2": "a"}), "must be texts or lists of texts"),
        (json!({"text_1": "a"}), "`text_2` is missing"),
        (json!({"text_1": "a", "text_2": vec!["b"; 2049]}), "2048 are allowed"),
        (json!({"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 9}), "in windows"),
        (
            json!({"text_1": "a", "text_2": "b", "raw_scores": true, "use_activation": true}),
            "contradict",
        ),
    ] {
        let reply = score(body);
        assert_eq!(reply.status, 400, "{reply:?}");
        let message = reply.json()["error"]["message"].clone();
        assert!(message.as_str().unwrap().contains(part), "{message}");
    }
}
