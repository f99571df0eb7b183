//! Embedding in every dialect: roles and prompts, encodings, forms of errors.

use crate::cli::indexed;
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::{JSON, Server};
use serde_json::{Value, json};

fn served() -> (Workplace, Server) {
    let place = indexed(5);
    let server = Server::start(&place, &["idx", "--reranker", &small_reranker()]);
    (place, server)
}

/// The vectors that the command makes of texts in a role.
pub(super) fn embedded(place: &Workplace, role: &str, texts: &[&str]) -> Vec<Value> {
    let run = place.pipe(&["embed", "--role", role], texts.join("\n")).ok();
    let vector = |line| serde_json::from_str::<Value>(line).unwrap()["vector"].clone();
    run.stdout.lines().map(vector).collect()
}

pub(super) fn floats(vector: &Value) -> Vec<f32> {
    vector.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn embeddings_have_the_prompt_of_their_role() {
    let (place, server) = served();
    let texts = ["the quick river", "bread"];
    for (role, input_type, prompt_name, prompt) in
        [("query", "query", "query", "query: "), ("passage", "document", "corpus", "passage: ")]
    {
        let expected = embedded(&place, role, &texts);
        let prompted = texts.map(|text| format!("{prompt}{text}"));
        let search = format!("search_{input_type}");
        let task = format!("retrieval.{role}");
        for body in [
            json!({"input": texts, "input_type": input_type}),
            json!({"input": texts, "input_type": search}),
            json!({"input": texts, "task": task}),
            json!({"input": texts, "prompt_name": prompt_name}),
            // A text that begins with the prompt does not get it twice.
            json!({"input": prompted, "input_type": input_type}),
        ] {
            let reply = server.post("/v1/embeddings", &body).ok();
            let found: Vec<&Value> =
                reply["data"].as_array().unwrap().iter().map(|d| &d["embedding"]).collect();
            assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{body}");
        }
        for body in [
            json!({"inputs": texts, "prompt_name": prompt_name}),
            json!({"inputs": prompted, "prompt_name": prompt_name}),
            json!({"inputs": texts, "parameters": {"prompt_name": prompt_name}}),
            // Nothing is truncated, so that the end that would be does not matter.
            json!({"inputs": texts, "prompt_name": prompt_name, "truncation_direction": "left"}),
        ] {
            assert_eq!(server.post("/embed", &body).ok(), json!(expected), "{body}");
        }
        let body = json!({"texts": texts, "input_type": search});
        assert_eq!(server.post("/v1/embed", &body).ok()["embeddings"], json!(expected));
        let reply = server.post("/v2/embed", &body).ok();
        assert_eq!(reply["embeddings"]["float"], json!(expected));
    }
    // Without a role there is no prompt; a text may carry one.
    let expected = embedded(&place, "passage", &texts);
    let prompted = texts.map(|text| format!("passage: {text}"));
    for (path, body, at) in [
        ("/v1/embeddings", json!({"input": prompted[0]}), "/data/0/embedding"),
        ("/v1/embeddings", json!({"input": texts[0], "prompt": "passage: "}), "/data/0/embedding"),
        ("/embed", json!({"inputs": texts[0], "prompt": "passage: "}), "/0"),
        ("/embed", json!({"inputs": prompted[0]}), "/0"),
        ("/", json!({"inputs": prompted[0]}), "/0"),
        ("/v2/embed", json!({"texts": [prompted[0]]}), "/embeddings/float/0"),
        (
            "/v2/embed",
            json!({"texts": [prompted[0]], "input_type": "clustering"}),
            "/embeddings/float/0",
        ),
    ] {
        assert_eq!(server.post(path, &body).ok().pointer(at), Some(&expected[0]), "{path} {body}");
    }
    let long = "river ".repeat(600);
    for (path, body, part) in [
        ("/v1/embeddings", json!({"input": "a", "input_type": "other"}), "`input_type` can be"),
        ("/v1/embeddings", json!({"input": "a", "task": "query", "prompt": "b"}), "`task` and"),
        ("/v1/embeddings", json!({"input": [[1]], "prompt": "b"}), "prompt goes in front"),
        ("/v2/embed", json!({"texts": ["a"], "input_type": "image"}), "`input_type` can be"),
        (
            "/v2/embed",
            json!({"texts": [long], "input_type": "search_query", "truncate": "START"}),
            "the start is the prompt",
        ),
    ] {
        server.post(path, &body).fails(400, &[part]);
    }
    let of_role = |role: &str| {
        let body = json!({"input": texts, "input_type": role});
        server.post("/v1/embeddings", &body).ok()["data"].clone()
    };
    assert_eq!(of_role("QUERY"), of_role("query"));
    server.post("/embed", &json!({"inputs": "a", "prompt_name": "x"})).fails(422, &["prompt_name"]);
}

#[test]
fn embeddings_in_all_dialects_are_the_same() {
    let (place, server) = served();
    let post = |path: &str, body: Value| server.post(path, &body);
    let texts = ["the quick river", "bread"];
    let expected = embedded(&place, "passage", &texts);
    let prompted = texts.map(|text| format!("passage: {text}"));
    let body = json!({"input": prompted, "model": "e5-like"});
    for path in ["/v1/embeddings", "/embeddings"] {
        let openai = post(path, body.clone()).ok();
        for (i, expected) in expected.iter().enumerate() {
            assert_eq!(&openai["data"][i]["embedding"], expected);
        }
    }
    for path in ["/embed", "/"] {
        assert_eq!(post(path, json!({"inputs": prompted})).ok(), json!(expected));
    }
    let jina = json!({"input": [{"text": prompted[0]}, prompted[1]]});
    let reply = post("/v1/embeddings", jina).ok();
    assert_eq!(
        json!([reply["data"][0]["embedding"], reply["data"][1]["embedding"]]),
        json!(expected)
    );
    for (other, name) in [
        (json!({"image": "a"}), "not `image`"),
        (json!({"text": 1}), "not `text`"),
        (json!({"text": "a", "pdf": "b"}), "`pdf`"),
    ] {
        let body = json!({"input": ["a", other]});
        post("/v1/embeddings", body).fails(400, &["`input` 1 must be", name]);
    }
    post("/embed", json!({"inputs": [[1, 2]]})).fails(422, &["token ids go to /v1/embeddings"]);
    // Token ids of this model are accepted, others never.
    let tokens = post("/tokenize", json!({"inputs": texts[0]})).ok();
    let own: Vec<&Value> = tokens[0].as_array().unwrap().iter().map(|t| &t["id"]).collect();
    let by_ids = post("/v1/embeddings", json!({"input": own}));
    assert_eq!(by_ids.ok()["usage"]["prompt_tokens"], own.len());
    for foreign in [json!([9906, 1917]), json!([[9906, 1917]]), json!([own[0]])] {
        let reply = post("/v1/embeddings", json!({"input": foreign}));
        reply.fails(400, &["check_embedding_ctx_length=False"]);
    }
    post("/v1/embeddings", json!({"input": []})).fails(400, &["`input` is empty"]);
    post("/v1/embeddings", json!({"input": "a", "dimensions": 7})).fails(400, &["`dimensions`"]);
    let other = post("/v1/embeddings", json!({"input": "a", "model": "text-embedding-3-small"}));
    assert!(other.header("warning").unwrap().contains("text-embedding-3-small"));
    let many = post("/v1/embeddings", json!({"input": vec!["word"; 1500]})).ok();
    assert_eq!(many["data"].as_array().unwrap().len(), 1500);
    let too_many = json!({"input": vec!["word"; 2049]});
    post("/v1/embeddings", too_many).fails(400, &["2048 are allowed"]);
    let long = "river ".repeat(2000);
    let cut = post("/v1/embeddings", json!({"input": long}));
    assert!(cut.header("warning").unwrap().contains("tokens were left out"));
    post("/embed", json!({"inputs": long, "truncate": false}))
        .fails(422, &["tokens", "validation"]);
    let left = post("/embed", json!({"inputs": long, "truncation_direction": "Left"})).ok();
    assert_eq!(left[0].as_array().unwrap().len(), expected[0].as_array().unwrap().len());
    let states = post("/embed_all", json!({"inputs": texts[0]})).ok();
    assert!(states[0].as_array().unwrap().len() >= own.len());
    let pair = json!({"source_sentence": "bread", "sentences": ["bread", "river"]});
    let alike = post("/similarity", json!({"inputs": pair})).ok();
    let [same, other] = [0, 1].map(|i| alike[i].as_f64().unwrap());
    assert!((same - 1.0).abs() < 1e-5 && other < same);
}

#[test]
fn cohere_embeds_in_every_encoding() {
    let (_place, server) = served();
    let texts = ["the quick river", "bread"];
    let types = ["float", "int8", "uint8", "binary", "ubinary", "base64"];
    let body = json!({"texts": texts, "input_type": "search_query", "embedding_types": types});
    let reply = server.post("/v2/embed", &body).ok();
    assert_eq!(reply["response_type"], "embeddings_by_type");
    assert_eq!(reply["texts"], json!(texts));
    assert!(reply["meta"]["billed_units"]["input_tokens"].as_u64().unwrap() > 4, "{reply}");
    assert_eq!(reply["meta"]["api_version"]["version"], "2");
    let found = &reply["embeddings"];
    for (i, _) in texts.iter().enumerate() {
        let vector = floats(&found["float"][i]);
        let scale = 127.0 / 8.0 * (vector.len() as f32).sqrt();
        let int8: Vec<f32> =
            vector.iter().map(|v| (v * scale).round().clamp(-127.0, 127.0)).collect();
        assert_eq!(floats(&found["int8"][i]), int8);
        let uint8: Vec<f32> = int8.iter().map(|v| v + 128.0).collect();
        assert_eq!(floats(&found["uint8"][i]), uint8);
        let bytes = floats(&found["ubinary"][i]);
        assert_eq!(bytes.len() * 8, vector.len());
        for (j, value) in vector.iter().enumerate() {
            let bit = bytes[j / 8] as u8 >> (7 - j % 8) & 1;
            assert_eq!(bit == 1, *value > 0.0);
        }
        let signed: Vec<f32> = bytes.iter().map(|b| f32::from(*b as u8 as i8)).collect();
        assert_eq!(floats(&found["binary"][i]), signed);
        let raw: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(found["base64"][i], encode_base64(&raw));
    }
    // Version 1 without encodings gives lists of numbers.
    let plain = json!({"texts": texts, "input_type": "search_query", "model": "embed-v4.0"});
    let first = server.post("/v1/embed", &plain);
    assert!(first.header("warning").unwrap().contains("embed-v4.0"));
    assert_eq!(first.ok()["response_type"], "embeddings_floats");
    assert_eq!(first.ok()["embeddings"], found["float"]);
    let parts = json!([{"type": "text", "text": "the quick"}, {"type": "text", "text": "river"}]);
    let inputs = json!([{"content": parts}, {"content": [parts[0]]}]);
    let joined = server.post("/v2/embed", &json!({"inputs": inputs})).ok();
    assert_eq!(joined["texts"], json!(["the quick\nriver", "the quick"]));
    let dim = found["float"][0].as_array().unwrap().len();
    server.post("/v2/embed", &json!({"texts": ["a"], "output_dimension": dim})).ok();
}

#[test]
fn cohere_truncates_texts_as_the_request_asks() {
    let (_place, server) = served();
    let words: Vec<String> = (0..60).map(|i| ["river", "bread", "storm"][i % 3].into()).collect();
    let embed = |text: &str, more: Value| {
        let mut body = json!({"texts": [text]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v2/embed", &body)
    };
    let vector = |text: &str, more: Value| embed(text, more).ok()["embeddings"]["float"][0].clone();
    let tokens = server.post("/tokenize", &json!({"inputs": words[..6].join(" ")})).ok();
    let limit = tokens[0].as_array().unwrap().len();
    let whole = words.join(" ");
    let first = vector(&words[..6].join(" "), json!({}));
    let last = vector(&words[54..].join(" "), json!({}));
    assert_eq!(vector(&whole, json!({"max_tokens": limit})), first);
    assert_eq!(vector(&whole, json!({"max_tokens": limit, "truncate": "END"})), first);
    assert_eq!(vector(&whole, json!({"max_tokens": limit, "truncate": "START"})), last);
    let cut = embed(&whole, json!({"max_tokens": limit})).ok();
    assert!(cut["meta"]["warnings"][0].as_str().unwrap().contains("were left out"), "{cut}");
    embed(&whole, json!({"max_tokens": limit, "truncate": "NONE"}))
        .fails(400, &["`texts` 0 has", "START or END"]);
    embed("a", json!({"max_tokens": 100_000})).ok();
}

#[test]
fn cohere_embed_refuses_by_name() {
    let (_place, server) = served();
    let empty: [&str; 0] = [];
    let image = json!([{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
    for (body, part) in [
        (json!({}), "`texts` is empty"),
        (json!({"texts": empty}), "`texts` is empty"),
        (json!({"texts": ["a", " "]}), "`texts` 1 is empty"),
        (json!({"texts": "a"}), "`texts` must be a list, not the text"),
        (json!({"texts": [1]}), "a value in `texts` must be a text, not 1"),
        (json!({"texts": vec!["a"; 2049]}), "2048 are allowed"),
        (json!({"texts": ["a"], "inputs": [{"content": []}]}), "give one"),
        (json!({"inputs": [{"content": []}]}), "`inputs` 0 is empty"),
        (json!({"inputs": image}), "`inputs` 0 holds a part of type 'image_url'"),
        (json!({"images": ["data:"]}), "`images` cannot be embedded"),
        (json!({"texts": ["a"], "truncate": "MIDDLE"}), "`truncate` can be"),
        (json!({"texts": ["a"], "max_tokens": 1}), "`max_tokens` must be at least 3"),
        (json!({"texts": ["a"], "output_dimension": 7}), "`output_dimension` can only be"),
        (json!({"texts": ["a"], "embedding_types": ["int4"]}), "'int4'"),
    ] {
        let reply = server.post("/v2/embed", &body);
        reply.fails(400, &[part, "{\"message\":"]);
        assert_eq!(reply.json().as_object().unwrap().len(), 1);
        server.post("/v1/embed", &body).fails(400, &[part]);
    }
}

#[test]
fn the_root_takes_the_requests_of_its_models() {
    let (place, server) = served();
    let post = |path: &str, body: &Value| server.post(path, body);
    let (texts, pairs) = (["river", "bread"], [["storm", "river"], ["storm", "bread"]]);
    for (path, body) in [
        ("/embed", json!({"inputs": texts})),
        ("/embed", json!({"inputs": texts, "normalize": false, "truncate": true})),
        ("/rerank", json!({"query": "storm", "texts": texts, "return_text": true})),
        ("/similarity", json!({"inputs": {"source_sentence": "storm", "sentences": texts}})),
    ] {
        assert_eq!(post("/", &body).ok(), post(path, &body).ok(), "{body}");
    }
    let ranked = post("/rerank", &json!({"query": "storm", "texts": texts})).ok();
    let score = |i: u64| {
        let mut all = ranked.as_array().unwrap().iter();
        all.find(|r| r["index"] == i).unwrap()["score"].clone()
    };
    let of = |i: u64| json!([{"score": score(i), "label": "LABEL_0"}]);
    assert_eq!(post("/predict", &json!({"inputs": pairs[0]})).ok(), of(0));
    assert_eq!(post("/predict", &json!({"inputs": pairs})).ok(), json!([of(0), of(1)]));
    let many = json!({"inputs": [pairs[0]], "truncate": true, "truncation_direction": "Right"});
    assert_eq!(post("/predict", &many).ok(), json!([of(0)]));
    let raw = post("/predict", &json!({"inputs": pairs[0], "raw_scores": true})).ok();
    let sigmoid = 1.0 / (1.0 + (-raw[0]["score"].as_f64().unwrap()).exp());
    assert!((sigmoid - score(0).as_f64().unwrap()).abs() < 1e-6);
    for (path, body, status, part) in [
        ("/predict", json!({"inputs": "one text"}), 400, "must be a pair"),
        ("/predict", json!({"inputs": []}), 400, "`inputs` is empty"),
        ("/predict", json!({"inputs": [["storm", " "]]}), 400, "`inputs` 0 has an empty text"),
        ("/", json!({}), 422, "`inputs` is missing"),
        ("/", json!([1]), 422, "an object with `inputs`"),
        ("/embed_sparse", json!({"inputs": "a"}), 424, "/embed_sparse"),
    ] {
        let reply = post(path, &body);
        assert!(reply.status == status || reply.status == 422, "{path} {body} {reply:?}");
        reply.fails(reply.status, &[part, "\"error_type\":"]);
    }
    for path in ["/health", "/ping"] {
        assert_eq!(server.get(path).ok()["status"], "ok");
    }
    server.get("/docs").fails(200, &["/v2/embed", "/api-docs/openapi.json"]);
    server.get("/").fails(200, &["<html"]);
    let alone = Server::start(&place, &["--rerank-only", "--reranker", &small_reranker()]);
    alone.post("/", &json!({"query": "storm", "texts": texts})).ok();
    alone.post("/", &json!({"inputs": texts})).fails(424, &["no embedding model"]);
    // The page needs no key, but requests do.
    let keys = place.file("keys", "first\n");
    let closed = Server::start(&place, &["idx", "--api-key-file", &keys]);
    closed.post("/", &json!({"inputs": texts})).fails(401, &["a key is needed", "error_type"]);
    assert_eq!(closed.get("/").status, 200);
}

#[test]
fn errors_have_the_form_of_the_dialect_of_their_path() {
    let place = indexed(3);
    let args = ["idx", "--max-body-bytes", "3000", "--max-receiving-bytes", "1024"];
    let server = Server::start(&place, &args);
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let long = vec![b' '; 4000];
    for (path, expected) in [
        ("/v1/embeddings", &["detail", "error"][..]),
        ("/v1/rerank", &["detail", "message"]),
        ("/v2/rerank", &["message"]),
        ("/v1/embed", &["message"]),
        ("/v2/embed", &["message"]),
        ("/embed", &["error", "error_type"]),
        ("/predict", &["error", "error_type"]),
        ("/rerank", &["error", "error_type"]),
        ("/", &["error", "error_type"]),
        ("/api/embed", &["error"]),
        ("/v1/score", &["error"]),
        ("/v1/reranking", &["error"]),
        ("/v1/search", &["error"]),
    ] {
        let plain = [("content-type", "text/plain")];
        let replies = [
            (405, server.send("PUT", path, &[], b"")),
            (413, server.send("POST", path, &JSON, &long)),
            (415, server.send("POST", path, &plain, b"{}")),
            (429, server.send("POST", path, &JSON, &long[..2000])),
        ];
        for (status, reply) in replies {
            assert_eq!(reply.status, status, "{path}: {reply:?}");
            assert_eq!(keys(&reply.json()), expected, "{path}: {reply:?}");
            let wait = reply.header("retry-after").map(|wait| wait.parse::<u64>().unwrap());
            assert_eq!(wait.is_some(), status == 429);
            assert!(wait.is_none_or(|wait| (1..=60).contains(&wait)));
        }
    }
    for (path, expected) in [
        ("/v2/chat", &["message"][..]),
        ("/v1/classify", &["message"]),
        ("/api/nothing", &["error"]),
        ("/v1/nothing", &["error"]),
    ] {
        let reply = server.post(path, &json!({}));
        assert_eq!(
            (reply.status, &keys(&reply.json())[..]),
            (404, &expected.iter().map(|k| k.to_string()).collect::<Vec<_>>()[..])
        );
    }
    assert!(server.post("/api/nothing", &json!({})).json()["error"].is_string());
    assert!(server.post("/v1/nothing", &json!({})).json()["error"].is_object());
}

/// The alphabet of base64, written out: the test shares no code with the server.
fn encode_base64(bytes: &[u8]) -> String {
    let letters: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(*three.get(i).unwrap_or(&0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = letters[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { letter } else { '=' });
        }
    }
    text
}
