//! Which field becomes what.

use serde_json::{Value, json};
use warpseek::ingest::{FieldMap, ReadOptions, Shape};

use super::{assert_has, documents, first_error, outcomes};

/// `id`, `doc_id`, `title`, `embed_title`, metadata of the first record; its text is always `T`.
fn detected(record: Value, fields: FieldMap) -> Value {
    let folder = super::Folder::new();
    let path = folder.file("d.jsonl", record.to_string());
    let options = ReadOptions { fields, ..ReadOptions::default() };
    let document = super::read(&path, &options).remove(0).expect("a document");
    assert_eq!(document.text, "T");
    assert_eq!(document.shape, Shape::Record);
    let id = document.id.replace(&path.display().to_string(), "d.jsonl");
    let doc_id = document.doc_id.replace(&path.display().to_string(), "d.jsonl");
    json!([id, doc_id, document.title, document.embed_title, document.metadata])
}

fn map(id: &str, text: &str, title: &str, metadata: &[&str]) -> FieldMap {
    let name = |name: &str| (!name.is_empty()).then(|| name.to_string());
    let metadata = (!metadata.is_empty()).then(|| metadata.iter().map(|n| n.to_string()).collect());
    FieldMap { id: name(id), text: name(text), title: name(title), metadata }
}

#[test]
fn fields_of_known_layouts_are_found() {
    let cases = [
        // BEIR, with and without title, its metadata poured out.
        (
            json!({"_id": "7", "title": "A", "text": "T", "url": "u"}),
            json!(["7", "7", "A", true, {"url": "u"}]),
        ),
        (json!({"_id": "7", "text": "T"}), json!(["7", "7", "", true, {}])),
        (
            json!({"_id": "7", "text": "T", "metadata": {"u": 0, "id": 3, "text": "x"}, "z": 1}),
            json!(["7", "7", "", true, {"u": 0, "id": 3, "metadata.text": "x", "z": 1}]),
        ),
        (
            json!({"_id": "7", "text": "T", "metadata": "as it is"}),
            json!(["7", "7", "", true, {"metadata": "as it is"}]),
        ),
        // Chunked papers.
        (
            json!({"doi": 1, "chunk-id": "3", "chunk": "T", "id": "9.1", "title": "A", "n": null}),
            json!(["9.1-3", "9.1", "A", false, {"doi": 1, "chunk-id": "3", "n": null}]),
        ),
        (
            json!({"id": 12, "chunk-id": 0, "chunk": "T"}),
            json!(["12-0", "12", "", false, {"chunk-id": 0}]),
        ),
        // Any other: the first of the lists.
        (
            json!({"docid": "x", "pid": 9, "body": "T", "abstract": 1, "headline": "H", "name": 2}),
            json!(["x", "x", "H", true, {"pid": 9, "abstract": 1, "name": 2}]),
        ),
        (json!({"_id": "x", "contents": "T"}), json!(["x", "x", "", true, {}])),
        (
            json!({"id": "a", "_id": "b", "content": "T", "title": null}),
            json!(["a", "a", "", true, {"_id": "b"}]),
        ),
        (
            json!({"docno": 18446744073709551615u64, "passage": "T"}),
            json!(["18446744073709551615", "18446744073709551615", "", true, {}]),
        ),
        (json!({"id": -3, "chunk": "T"}), json!(["-3", "-3", "", true, {}])),
        // No id at all.
        (json!({"text": "T"}), json!(["d.jsonl:1", "d.jsonl:1", "", true, {}])),
    ];
    for (record, expected) in cases {
        assert_eq!(detected(record.clone(), FieldMap::default()), expected, "{record}");
    }
}

#[test]
fn fields_that_are_named_win() {
    let beir = json!({"_id": "7", "title": "A", "text": "T", "url": {"host": "h", "path": "p"}});
    let cases = [
        (
            map("", "", "_id", &[]),
            beir.clone(),
            json!(["7", "7", "7", true,
            {"title": "A", "url": {"host": "h", "path": "p"}}]),
        ),
        (
            map("url.host", "text", "title", &[]),
            beir.clone(),
            json!(["h", "h", "A", true,
            {"_id": "7", "url": {"path": "p"}}]),
        ),
        (
            map("", "", "", &["url.path", "title"]),
            beir.clone(),
            json!(["7", "7", "A", true,
            {"url.path": "p", "title": "A"}]),
        ),
        (
            map("", "title", "", &[]),
            json!({"title": "T", "text": "x"}),
            json!(["d.jsonl:1",
            "d.jsonl:1", "", true, {"text": "x"}]),
        ),
        // A field with just that name goes before the way along the dots.
        (
            map("", "a.b", "", &[]),
            json!({"a": {"b": "no"}, "a.b": "T"}),
            json!(["d.jsonl:1",
            "d.jsonl:1", "", true, {"a": {"b": "no"}}]),
        ),
        // Saying what is known anyhow changes nothing.
        (
            map("_id", "text", "", &[]),
            json!({"_id": "7", "text": "T", "metadata": {"url": "u"}}),
            json!(["7", "7", "", true, {"url": "u"}]),
        ),
        // The id of a chunked paper can be named, and is then the id alone.
        (
            map("id", "", "", &[]),
            json!({"id": "7", "chunk-id": 1, "chunk": "T"}),
            json!(["7", "7", "", true, {"chunk-id": 1}]),
        ),
        (
            map("", "a.b.c", "", &[]),
            json!({"a": {"b": {"c": "T"}}, "id": 1}),
            json!(["1", "1", "", true, {}]),
        ),
        // Metadata of BEIR's object by its inner or its full name.
        (
            map("", "", "", &["url", "metadata.n"]),
            json!({"_id": "7", "text": "T", "metadata": {"url": "u", "n": 1, "m": 2}}),
            json!(["7", "7", "", true, {"url": "u", "metadata.n": 1}]),
        ),
    ];
    for (fields, record, expected) in cases {
        assert_eq!(detected(record.clone(), fields.clone()), expected, "{record} {fields:?}");
    }
}

#[test]
fn fields_that_do_not_exist_are_named_with_their_neighbours() {
    let record = r#"{"id": "1", "text": "T", "headline": "H", "meta": {"author": "A"}}"#;
    let cases = [
        (map("", "txt", "", &[]), ["field 'txt'", "--text-field", "did you mean 'text'"]),
        (map("di", "", "", &[]), ["field 'di'", "--id-field", "'headline'"]),
        (map("", "", "headlin", &[]), ["field 'headlin'", "--title-field", "'headline'"]),
        (map("", "", "meta.auhtor", &[]), ["'meta.auhtor'", "--title-field", "'meta.author'"]),
        (map("", "", "", &["zzz"]), ["field 'zzz'", "--metadata-fields", "it has 'id', 'text'"]),
    ];
    for (fields, parts) in cases {
        let options = ReadOptions { fields, ..ReadOptions::default() };
        let outcomes = outcomes("d.jsonl", record, &options);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_has(&outcomes[0], &parts);
        assert_has(&outcomes[0], &["d.jsonl, "]);
    }
}

#[test]
fn fields_without_text_are_listed() {
    let error = first_error("d.jsonl", r#"{"id": 1, "titel": "x", "bdy": "y"}"#);
    assert_has(&error, &["d.jsonl: no text field", "'id', 'titel', 'bdy'", "--text-field"]);
    assert_has(&first_error("d.jsonl", "{}"), &["no fields at all"]);
    assert_has(&first_error("d.csv", "a,b\n1,2\n"), &["d.csv: no text field", "'a', 'b'"]);
}

#[test]
fn fields_with_wrong_values_are_refused_by_record_and_field() {
    let long = "x".repeat(513);
    let cases = [
        (json!({"_id": "1", "text": 5}), "field 'text'", "must be a string, found a number"),
        (json!({"_id": "1", "text": ["x"]}), "field 'text'", "found an array"),
        (json!({"_id": "1", "text": null}), "field 'text'", "found null"),
        (json!({"_id": "1", "text": " \n\t "}), "field 'text'", "the text is empty"),
        (json!({"_id": "1"}), "field 'text'", "no text"),
        (json!({"_id": "1", "text": "T", "title": 3}), "field 'title'", "found a number"),
        (json!({"_id": "1", "text": "T", "title": {}}), "field 'title'", "found an object"),
        (json!({"_id": 1.5, "text": "T"}), "field '_id'", "found 1.5: write it as a string"),
        (json!({"_id": true, "text": "T"}), "field '_id'", "found true or false"),
        (json!({"_id": null, "text": "T"}), "field '_id'", "found null"),
        (json!({"_id": {"a": 1}, "text": "T"}), "field '_id'", "found an object"),
        (json!({"_id": "", "text": "T"}), "field '_id'", "may not be empty"),
        (json!({"_id": " \t", "text": "T"}), "field '_id'", "may not be empty"),
        (json!({"_id": "a\nb", "text": "T"}), "field '_id'", "control characters"),
        (json!({"_id": long, "text": "T"}), "field '_id'", "513 bytes long: at most 512"),
        (json!({"text": "T"}), "field '_id'", "no id although others"),
    ];
    for (record, field, reason) in cases {
        let content = format!(
            "{{\"_id\": 0, \"text\": \"first\"}}\n{record}\n{{\"_id\": 2, \"text\": \"last\"}}"
        );
        let outcomes = outcomes("d.jsonl", content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 3, "{record}: {outcomes:?}");
        assert_has(&outcomes[1], &["d.jsonl, line 2, ", field, reason]);
        assert_eq!((outcomes[0].as_str(), outcomes[2].as_str()), ("first", "last"));
    }
}

#[test]
fn fields_of_chunked_papers_need_both_ids() {
    let line = |id: Value, chunk: Value| {
        format!("{}\n", json!({"id": id, "chunk-id": chunk, "chunk": "T"}))
    };
    let content = line(json!("a"), json!("0"))
        + &line(json!("a"), json!(null))
        + &line(json!("  "), json!(1))
        + &line(json!("x".repeat(300)), json!("y".repeat(300)));
    let outcomes = outcomes("d.jsonl", content, &ReadOptions::default());
    assert_eq!(outcomes[0], "T");
    assert_has(&outcomes[1], &["line 2, field 'chunk-id'", "found null"]);
    assert_has(&outcomes[2], &["line 3, field 'id'", "may not be empty"]);
    assert_has(&outcomes[3], &["line 4", "601 bytes long"]);
}

#[test]
fn fields_ids_of_512_bytes_are_taken() {
    let id = "é".repeat(256);
    let document = documents("d.jsonl", json!({"id": id, "text": "T"}).to_string()).remove(0);
    assert_eq!(document.id, id);
}

#[test]
fn fields_title_of_later_records_counts() {
    let all = documents(
        "d.jsonl",
        "{\"_id\":1,\"text\":\"a\"}\n{\"_id\":2,\"text\":\"b\",\"title\":\"B\"}",
    );
    assert_eq!((all[0].title.as_str(), all[1].title.as_str()), ("", "B"));
    assert!(all[1].metadata.is_empty());
}

#[test]
fn fields_metadata_keeps_the_order_of_the_record() {
    let document = documents(
        "d.jsonl",
        r#"{"z": 1, "id": "i", "y": [1, {"b": 2, "a": 3}], "text": "T", "x": null}"#,
    )
    .remove(0);
    let metadata = serde_json::to_string(&document.metadata).expect("JSON");
    assert_eq!(metadata, r#"{"z":1,"y":[1,{"b":2,"a":3}],"x":null}"#);
}
