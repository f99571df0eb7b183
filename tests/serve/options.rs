//! Options of Jina's and Voyage's clients at `/v1/embeddings`.

use crate::cli::indexed;
use crate::support::cli::Workplace;
use crate::support::server::Server;
use serde_json::{Value, json};

fn served() -> (Workplace, Server) {
    let place = indexed(3);
    let server = Server::start(&place, &["--embed-only"]);
    (place, server)
}

fn with(more: &Value) -> Value {
    let mut body = json!({"input": "the quick river"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn vectors_have_the_encoding_that_jina_and_voyage_name() {
    let (_place, server) = served();
    let types = ["float", "int8", "uint8", "ubinary", "base64"];
    let body = json!({"texts": ["the quick river"], "embedding_types": types});
    let expected = server.post("/v2/embed", &body).ok()["embeddings"].clone();
    let vector = |more: Value| {
        let reply = server.post("/v1/embeddings", &with(&more)).ok();
        reply["data"][0]["embedding"].clone()
    };
    let offset = |bytes: &Value| -> Vec<i64> {
        bytes.as_array().unwrap().iter().map(|byte| byte.as_i64().unwrap() - 128).collect()
    };
    let binary = json!(offset(&expected["ubinary"][0]));
    for (name, expected) in [
        ("float", &expected["float"][0]),
        ("int8", &expected["int8"][0]),
        ("uint8", &expected["uint8"][0]),
        ("ubinary", &expected["ubinary"][0]),
        ("binary", &binary),
    ] {
        assert_eq!(&vector(json!({"output_dtype": name})), expected, "{name}");
        assert_eq!(&vector(json!({"embedding_type": name})), expected, "{name}");
    }
    assert_eq!(&vector(json!({"embedding_type": ["ubinary"]})), &expected["ubinary"][0]);
    let base64 = &expected["base64"][0];
    assert_eq!(&vector(json!({"embedding_type": "base64"})), base64);
    assert_eq!(&vector(json!({"encoding_format": "base64", "output_dtype": null})), base64);
    let packed = vector(json!({"encoding_format": "base64", "output_dtype": "ubinary"}));
    let bytes = expected["ubinary"][0].as_array().unwrap().len();
    assert_eq!(packed.as_str().unwrap().len(), bytes.div_ceil(3) * 4);
}

#[test]
fn options_of_jina_and_voyage_are_obeyed_or_refused_by_name() {
    let (_place, server) = served();
    let post = |more: Value| server.post("/v1/embeddings", &with(&more));
    let plain = post(json!({})).ok();
    let dim = plain["data"][0]["embedding"].as_array().unwrap().len();
    for same in [
        json!({"normalized": true, "late_chunking": false, "return_multivector": false}),
        json!({"truncate": true, "truncation": true, "output_dimension": dim}),
        json!({"task": "text-matching"}),
        json!({"dimensions": 0, "modality": "text"}),
        json!({"input_type": null, "task": "", "user": "me"}),
    ] {
        assert_eq!(post(same.clone()).ok()["data"], plain["data"], "{same}");
    }
    let long = "river ".repeat(2000);
    for (more, part) in [
        (json!({"input": long, "truncate": false}), "set `truncate` to true"),
        (json!({"input": long, "truncation": false}), "set `truncation` to true"),
        (json!({"output_dimension": 7}), "`output_dimension` can only be"),
        (json!({"normalized": false}), "`normalized` can only be true"),
        (json!({"late_chunking": true}), "`late_chunking` is not supported"),
        (json!({"return_multivector": true}), "`return_multivector` is not supported"),
        (json!({"return_tokenized_input": true}), "`return_tokenized_input` is not supported"),
        (json!({"modality": "image"}), "`modality` can only be text"),
        (json!({"embedding_type": "int4"}), "`embedding_type` cannot be 'int4'"),
        (json!({"embedding_type": ["float", "binary"]}), "`embedding_type` can be one type"),
        (json!({"embedding_type": 1}), "`embedding_type` must be a text"),
        (json!({"output_dtype": "base64"}), "`output_dtype` cannot be 'base64'"),
        (json!({"output_dtype": "int8", "embedding_type": "int8"}), "were both given"),
        (json!({"encoding_format": "hex"}), "not `hex`"),
    ] {
        let reply = post(more);
        assert_eq!(reply.status, 400, "{reply:?}");
        let body = reply.json();
        assert!(body["error"]["message"].as_str().unwrap().contains(part), "{body}");
        // Clients of Jina and Voyage read this field.
        assert_eq!(body["detail"], body["error"]["message"]);
    }
}
