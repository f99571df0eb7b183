//! The indexes as chat models: `/v1/chat/completions`. The official clients are in `clients`.

use crate::cli::{indexed, search};
use crate::support::chat::{Chat, Reply};
use crate::support::cli::Workplace;
use crate::support::server::Server;
use serde_json::{Value, json};

const ROUTE: &str = "/v1/chat/completions";

fn served(script: impl IntoIterator<Item = Reply>, more: &[&str]) -> (Workplace, Chat, Server) {
    let place = indexed(20);
    let chat = Chat::start(script);
    let url = chat.url();
    let args = [&["idx", "--base-url", &url, "--chat-model", "stand-in-8b"], more].concat();
    let server = Server::start(&place, &args);
    (place, chat, server)
}

fn ask(text: &str) -> Value {
    json!({"model": "warpseek/idx", "messages": [{"role": "user", "content": text}]})
}

/// The same with further fields.
fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("no object: {more}") };
    body.as_object_mut().unwrap().extend(more);
    body
}

/// The events of a stream without its end, which is checked.
fn events(body: &str) -> Vec<Value> {
    let mut blocks: Vec<&str> = body.split("\n\n").filter(|b| !b.trim().is_empty()).collect();
    assert_eq!(blocks.pop(), Some("data: [DONE]"), "{body}");
    let event = |block: &str| serde_json::from_str(block.strip_prefix("data: ").unwrap()).unwrap();
    blocks.into_iter().map(event).collect()
}

fn quote_of(place: &Workplace) -> (String, String) {
    let hit = search(place, "river", &["-k", "1"])["hits"][0].clone();
    (hit["text"].as_str().unwrap().to_owned(), hit["id"].as_str().unwrap().to_owned())
}

#[test]
fn the_last_turn_is_answered_from_passages_with_citations() {
    let place = indexed(20);
    let (quote, id) = quote_of(&place);
    let written = format!("Caf\u{e9}, it is so: \"{quote}\" [1].");
    let stream = || Reply::stream(vec![Reply::events(&written, 4)]);
    let script = [Reply::text(&written), stream(), stream(), Reply::text(&written)];
    let (_place, chat, server) = served(script, &[]);
    let whole = server.post(ROUTE, &with(ask("river"), json!({"k": 1}))).ok();
    assert_eq!(
        (&whole["object"], &whole["model"]),
        (&json!("chat.completion"), &json!("warpseek/idx"))
    );
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!(written), &json!("stop"))
    );
    assert_eq!(whole["usage"]["total_tokens"], 18);
    assert_eq!(whole["citations"][0]["status"], "found");
    assert_eq!(whole["passages"][0]["id"], id);
    let citation = &choice["message"]["annotations"][0]["url_citation"];
    assert_eq!(
        (&citation["passage_id"], &citation["url"]),
        (&json!(id), &json!(format!("warpseek/idx/{id}")))
    );
    let range = ["start_index", "end_index"].map(|name| citation[name].as_u64().unwrap() as usize);
    let cited: String = written.chars().skip(range[0]).take(range[1] - range[0]).collect();
    assert_eq!(cited, quote);
    let options = json!({"k": 1, "stream": true, "stream_options": {"include_usage": true}});
    let reply = server.post(ROUTE, &with(ask("river"), options));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let all = events(&reply.body);
    let part = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    assert_eq!(all.iter().filter_map(part).collect::<String>(), written);
    assert_eq!(all[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(
        all.iter()
            .all(|event| event["object"] == "chat.completion.chunk" && event["id"] == all[0]["id"])
    );
    let [.., last, usage] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["citations"]),
        (&json!("stop"), &whole["citations"])
    );
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(18)));
    let without = server.post(ROUTE, &with(ask("river"), json!({"k": 1, "stream": true})));
    assert!(events(&without.body).iter().all(|event| event.get("usage").is_none()));
    // The passages stand in the prompt, with the conversation around them.
    let messages = json!([
        {"role": "system", "content": "Speak like a sailor."},
        {"role": "user", "content": "earlier question"},
        {"role": "assistant", "content": "earlier answer"},
        {"role": "user", "content": [{"type": "text", "text": "river"}]},
    ]);
    let options = json!({
        "messages": messages, "k": 1, "temperature": 0.5, "max_tokens": 77, "top_p": 0.9,
        "stop": ["END"], "seed": 3, "user": "me", "n": 1, "tools": [], "response_format": null,
    });
    server.post(ROUTE, &with(ask("x"), options)).ok();
    let asked = chat.questions().pop().unwrap().body;
    let (answer, turns) = (&asked["messages"], asked["messages"].as_array().unwrap());
    assert!(answer[0]["content"].as_str().unwrap().ends_with("Speak like a sailor."));
    assert_eq!(
        (&answer[1]["content"], &answer[2]["role"]),
        (&json!("earlier question"), &json!("assistant"))
    );
    let last = turns.last().unwrap()["content"].as_str().unwrap();
    assert!(last.contains(&quote) && last.contains("river"), "{last}");
    assert_eq!(
        (&asked["model"], &asked["stop"], &asked["seed"]),
        (&json!("stand-in-8b"), &json!(["END"]), &json!(3))
    );
    assert_eq!((&asked["temperature"], &asked["max_completion_tokens"]), (&json!(0.5), &json!(77)));
    assert!((asked["top_p"].as_f64().unwrap() - 0.9).abs() < 1e-6 && asked.get("user").is_none());
}

#[test]
fn options_that_cannot_be_obeyed_are_refused_by_name() {
    let (_place, chat, server) = served([], &[]);
    for (more, param, part) in [
        (json!({"messages": []}), "messages", "the last of `messages`"),
        (json!({"messages": [{"role": "user", "content": " "}]}), "messages", "the last of"),
        (json!({"messages": [{"role": "assistant", "content": "a"}]}), "messages", "the last of"),
        (json!({"messages": [{"role": "tool", "content": "a"}]}), "messages", "the role 'tool'"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages",
            "'image_url'",
        ),
        (json!({"messages": "hello"}), "messages", "`messages` must be a list"),
        (json!({"n": 2}), "n", "`n` is not supported: it can only be 1"),
        (json!({"tools": [{"type": "function"}]}), "tools", "`tools` is not supported"),
        (json!({"response_format": {"type": "json_object"}}), "response_format", "not supported"),
        (json!({"logprobs": true}), "logprobs", "not supported"),
        (json!({"temperature": 3}), "temperature", "0 to 2"),
        (json!({"temperature": "hot"}), "temperature", "must be a number"),
        (json!({"top_p": 2}), "top_p", "from 0 to 1"),
        (json!({"max_tokens": 0}), "max_tokens", "at least 1"),
        (json!({"k": 0}), "k", "1 to 1000"),
        (json!({"filter": "nope = 1"}), "filter", "no field is called 'nope'"),
        (json!({"index": "other"}), "index", "names the index 'idx'"),
        (json!({"stream": "yes"}), "stream", "true or false"),
    ] {
        let reply = server.post(ROUTE, &with(ask("river"), more.clone()));
        reply.fails(400, &[]);
        let error = &reply.json()["error"];
        assert_eq!(error["param"], param, "{more}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{more}: {error}");
    }
    let other = server.post(ROUTE, &with(ask("a"), json!({"model": "warpseek/nope"})));
    other.fails(404, &["'nope'", "idx"]);
    assert_eq!(other.json()["error"]["param"], "model");
    server.post(ROUTE, &json!({"model": "m"})).fails(400, &["`messages` is missing"]);
    assert!(chat.questions().is_empty());
}

#[test]
fn models_of_other_names_answer_from_the_default_index_with_a_warning() {
    let (_place, _chat, server) = served([Reply::text("So."), Reply::text("So.")], &[]);
    let reply = server.post(ROUTE, &with(ask("river"), json!({"model": "gpt-4o", "topk": 3})));
    assert_eq!(reply.ok()["model"], "warpseek/idx");
    let warnings: Vec<&str> =
        reply.headers.iter().filter(|h| h.0 == "warning").map(|h| h.1.as_str()).collect();
    let has = |part: &str| warnings.iter().any(|warning| warning.contains(part));
    assert!(
        has("topk") && has("'gpt-4o' is not served here; 'warpseek/idx' was used"),
        "{warnings:?}"
    );
    let names: Vec<Value> = server.get("/v1/models").ok()["data"].as_array().unwrap().clone();
    assert!(names.iter().any(|model| model["id"] == "warpseek/idx"));
    assert_eq!(server.get("/v1/models/warpseek%2Fidx").ok()["id"], "warpseek/idx");
    let nothing = with(ask("river"), json!({"filter": "id = 'no such'"}));
    let refused = server.post(ROUTE, &nothing).ok();
    assert_eq!((&refused["refused"], &refused["passages"]), (&json!(true), &json!([])));
    let streamed = server.post(ROUTE, &with(nothing, json!({"stream": true})));
    let last = events(&streamed.body).pop().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
}

#[test]
fn failures_of_the_chat_service_are_told_with_their_reason() {
    let place = indexed(5);
    let server = Server::start(&place, &["idx"]);
    let reply = server.post(ROUTE, &ask("river"));
    reply.fails(503, &["no chat service is set up", "--base-url"]);
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    let names = server.get("/v1/models").ok();
    assert!(!names.to_string().contains("warpseek/idx"));
    let refusal = || Reply::error(401, "who are you", "invalid_api_key");
    let (_place, _chat, server) = served([refusal(), refusal()], &[]);
    server.post(ROUTE, &ask("river")).fails(502, &["who are you"]);
    let stream = server.post(ROUTE, &with(ask("river"), json!({"stream": true})));
    let last = events(&stream.body).pop().unwrap();
    assert!(last["error"]["message"].as_str().unwrap().contains("who are you"), "{last}");
}

#[test]
fn several_indexes_are_several_models() {
    let place = indexed(8);
    place.file("b.jsonl", "{\"id\": \"only\", \"text\": \"one river\"}\n");
    place.run(&["index", "b.jsonl", "--into", "second"]).ok();
    let chat = Chat::start([Reply::text("So."), Reply::text("So.")]);
    let url = chat.url();
    let args = ["idx", "other=second", "--base-url", &url, "--chat-model", "stand-in-8b"];
    let server = Server::start(&place, &args);
    let body = |model: &str| with(ask("river"), json!({"model": model}));
    let reply = server.post(ROUTE, &body("gpt-4o"));
    reply.fails(400, &["warpseek/idx, warpseek/other"]);
    let reply = server.post(ROUTE, &body("warpseek/other")).ok();
    assert_eq!(
        (&reply["model"], &reply["passages"][0]["id"]),
        (&json!("warpseek/other"), &json!("only"))
    );
    let named = with(body("x"), json!({"index": "other"}));
    assert_eq!(server.post(ROUTE, &named).ok()["model"], "warpseek/other");
}
