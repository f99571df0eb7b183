//! Roles of fields.

use serde_json::{Value, json};
use warpseek_ingest::{FieldMap, ReadOptions, TextKind};

use super::{assert_has, documents, first_error, outcomes};

/// `id`, `doc_id`, `title`, `embed_title`, metadata of the first record; its text is always `T`.
fn detected(record: Value, fields: FieldMap) -> Value {
    let folder = super::Folder::new();
    let path = folder.file("d.jsonl", record.to_string());
    let options = ReadOptions { fields, ..ReadOptions::default() };
    let document = super::read(&path, &options).remove(0).expect("a document");
    assert_eq!((document.text.as_str(), document.kind), ("T", TextKind::Record));
    let id = |id: &str| id.replace(&path.display().to_string(), "d.jsonl");
    json!([
        id(&document.id),
        id(&document.doc_id),
        document.title,
        document.embed_title,
        document.metadata
    ])
}

/// Field names from `id=a text=b title=c metadata=d,e`; each part may be missing.
fn map(names: &str) -> FieldMap {
    let name = |role: &str| {
        let value = names.split(' ').find_map(|part| part.strip_prefix(role)?.strip_prefix('='));
        value.map(str::to_owned)
    };
    let metadata = name("metadata").map(|names| names.split(',').map(str::to_owned).collect());
    FieldMap { id: name("id"), text: name("text"), title: name("title"), metadata }
}

/// Field names, a record, and what is detected. A case goes on in an indented line.
const CASES: &str = r#"
# BEIR, with and without title, the fields of its metadata moved up.
| {"_id": "7", "title": "A", "text": "T", "url": "u"} | ["7", "7", "A", true, {"url": "u"}]
| {"_id": "7", "text": "T"} | ["7", "7", "", true, {}]
| {"_id": "7", "text": "T", "metadata": {"u": 0, "id": 3, "text": "x"}, "z": 1}
  | ["7", "7", "", true, {"u": 0, "id": 3, "metadata.text": "x", "z": 1}]
| {"_id": "7", "text": "T", "metadata": "as it is"} | ["7", "7", "", true, {"metadata": "as it is"}]
# Chunked papers.
| {"doi": 1, "chunk-id": "3", "chunk": "T", "id": "9.1", "title": "A", "n": null}
  | ["9.1-3", "9.1", "A", false, {"doi": 1, "chunk-id": "3", "n": null}]
| {"id": 12, "chunk-id": 0, "chunk": "T"} | ["12-0", "12", "", false, {"chunk-id": 0}]
# Other layouts: the first of the known names.
| {"docid": "x", "pid": 9, "body": "T", "abstract": 1, "headline": "H", "name": 2}
  | ["x", "x", "H", true, {"pid": 9, "abstract": 1, "name": 2}]
| {"_id": "x", "contents": "T"} | ["x", "x", "", true, {}]
| {"id": "a", "_id": "b", "content": "T", "title": null} | ["a", "a", "", true, {"_id": "b"}]
| {"docno": 18446744073709551615, "passage": "T"}
  | ["18446744073709551615", "18446744073709551615", "", true, {}]
| {"id": -3, "chunk": "T"} | ["-3", "-3", "", true, {}]
# No id at all.
| {"text": "T"} | ["d.jsonl:1", "d.jsonl:1", "", true, {}]
# Given names win.
title=_id | {"_id": "7", "title": "A", "text": "T", "url": {"host": "h", "path": "p"}}
  | ["7", "7", "7", true, {"title": "A", "url": {"host": "h", "path": "p"}}]
id=url.host text=text title=title
  | {"_id": "7", "title": "A", "text": "T", "url": {"host": "h", "path": "p"}}
  | ["h", "h", "A", true, {"_id": "7", "url": {"path": "p"}}]
metadata=url.path,title | {"_id": "7", "title": "A", "text": "T", "url": {"host": "h", "path": "p"}}
  | ["7", "7", "A", true, {"url.path": "p", "title": "A"}]
text=title | {"title": "T", "text": "x"} | ["d.jsonl:1", "d.jsonl:1", "", true, {"text": "x"}]
text=a.b.c | {"a": {"b": {"c": "T"}}, "id": 1} | ["1", "1", "", true, {}]
# A field with exactly that name goes before the one along the dots.
text=a.b | {"a": {"b": "no"}, "a.b": "T"} | ["d.jsonl:1", "d.jsonl:1", "", true, {"a": {"b": "no"}}]
# Names that would be found anyway change nothing.
id=_id text=text | {"_id": "7", "text": "T", "metadata": {"url": "u"}}
  | ["7", "7", "", true, {"url": "u"}]
# The given id of a chunked paper is the whole id.
id=id | {"id": "7", "chunk-id": 1, "chunk": "T"} | ["7", "7", "", true, {"chunk-id": 1}]
# Fields of BEIR's metadata by their inner or full name.
metadata=url,metadata.n | {"_id": "7", "text": "T", "metadata": {"url": "u", "n": 1, "m": 2}}
  | ["7", "7", "", true, {"url": "u", "metadata.n": 1}]
"#;

#[test]
fn fields_get_their_roles_by_layout_and_name() {
    for case in CASES.replace("\n  ", " ").lines().filter(|line| line.contains('|')) {
        let [names, record, expected] = case.split('|').collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(detected(json(record), map(names)), json(expected), "{case}");
    }
}

#[test]
fn fields_that_do_not_exist_are_named_with_their_neighbours() {
    let record = r#"{"id": "1", "text": "T", "headline": "H", "meta": {"author": "A"}}"#;
    let cases = [
        (map("text=txt"), ["field 'txt'", "--text-field", "did you mean 'text'"]),
        (map("id=di"), ["field 'di'", "--id-field", "'headline'"]),
        (map("title=headlin"), ["field 'headlin'", "--title-field", "'headline'"]),
        (map("title=meta.auhtor"), ["'meta.auhtor'", "--title-field", "'meta.author'"]),
        (map("metadata=zzz"), ["field 'zzz'", "--metadata-fields", "it has 'id', 'text'"]),
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

/// The documents and notes of a file, as `id`, `title`, `text`, `embed_title`.
fn titles(name: &str, content: impl AsRef<[u8]>) -> (Value, Vec<String>) {
    let folder = super::Folder::new();
    let path = folder.file(name, content);
    let (documents, notes) = super::noted(&[path], &ReadOptions::default());
    let all: Vec<Value> =
        documents.iter().map(|d| json!([d.id, d.title, d.text, d.embed_title])).collect();
    let notes = notes.iter().map(|note| note[note.rfind(name).unwrap_or(0)..].to_owned());
    (all.into(), notes.collect())
}

#[test]
fn records_with_a_title_and_no_text_are_their_title_and_are_counted() {
    let lines = [
        json!({"_id": "1", "title": "One", "text": "first"}),
        json!({"_id": "2", "title": "Two", "text": ""}),
        json!({"_id": "3", "title": "Three", "text": null}),
        json!({"_id": "4", "title": "Four", "metadata": {"url": "see the page"}}),
        json!({"_id": "5", "title": "Five", "text": " \n\t", "metadata": {}}),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    let expected = json!([
        ["1", "One", "first", true],
        ["2", "Two", "", true],
        ["3", "Three", "", true],
        ["4", "Four", "", true],
        ["5", "Five", "", true],
    ]);
    let note = |name: &str, n: &str| {
        [format!("{name}, field 'text': {n} no text: its title stands alone")]
    };
    let found = titles("d.jsonl", &text);
    assert_eq!((&found.0, &found.1[..]), (&expected, &note("d.jsonl", "4 records have")[..]));
    // In any order: the first record of the file may be such a one.
    let turned: Vec<&str> = text.lines().rev().collect();
    let found = titles("d.jsonl", turned.join("\n"));
    assert_eq!(found.0.as_array().map(Vec::len), Some(5));
    assert_eq!(found.1, note("d.jsonl", "4 records have"));
    let alone = text.lines().nth(3).unwrap_or_default();
    let found = titles("d.jsonl", alone);
    assert_eq!((found.0, found.1), (json!([expected[3]]), note("d.jsonl", "1 record has").into()));
    // The names of other fields of text are found later.
    let later = format!("{alone}\n{}", json!({"_id": "6", "contents": "c", "title": "Six"}));
    assert_eq!(titles("d.jsonl", later).0[1], json!(["6", "Six", "c", true]));
    let csv = "id,title,text\n1,One,first\n2,Two,\n3,Three,\"  \"\n";
    let found = titles("d.csv", csv);
    assert_eq!(found.0[2], json!(["3", "Three", "", true]));
    assert_eq!(found.1, note("d.csv", "2 records have"));
    // A chunk that holds no text does not hold its title either.
    let chunk = json!({"id": "p", "chunk-id": 0, "chunk": "", "title": "Paper"});
    assert_eq!(titles("d.jsonl", chunk.to_string()).0[0], json!(["p-0", "Paper", "", true]));
}

#[test]
fn records_with_neither_title_nor_text_are_refused_by_record_and_field() {
    let bare = [
        (json!({"_id": "2"}), "the record has no text"),
        (json!({"_id": "2", "title": " ", "text": ""}), "the text is empty"),
        (json!({"_id": "2", "title": null, "text": null}), "found null"),
        (json!({"_id": "2", "title": "", "text": 7}), "found a number"),
        (json!({"_id": "2", "title": "T", "text": 7}), "found a number"),
    ];
    for first in [json!({"_id": "1", "text": "T"}), json!({"_id": "1", "title": "alone"})] {
        for (record, reason) in &bare {
            let content = format!("{first}\n{record}\n{}", json!({"_id": "3", "text": "last"}));
            let outcomes = outcomes("d.jsonl", content, &ReadOptions::default());
            assert_has(&outcomes[1], &["d.jsonl, line 2, field 'text'", reason]);
            assert_eq!(outcomes[2], "last");
        }
    }
    assert_has(&first_error("d.csv", "id,title,text\n1,,\n"), &["field 'text'", "is empty"]);
    // A field of several words may be the text, so that the title is not taken alone.
    let unclear = json!({"_id": "1", "title": "A title", "article": "Some words"}).to_string();
    let parts = ["no text field", "'_id', 'title', 'article'", "--text-field"];
    assert_has(&first_error("d.jsonl", &unclear), &parts);
    let second = format!("{}\n{unclear}", json!({"_id": "0", "title": "alone"}));
    let parts = ["line 2", "no text, unless 'article' is it", "--text-field"];
    assert_has(&first_error("d.jsonl", second), &parts);
    assert_has(&first_error("d.csv", "id,title\n1,One\n"), &["no text field", "--text-field"]);
}
