//! Columns in the names of folders, and tables with a log of their files.

use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use warpseek_error::Error;
use warpseek_ingest::{self as ingest, FieldMap, ReadOptions};

use super::parquet_writer::{Cells, text, write};
use super::{Folder, assert_has, gzip, noted};

const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

fn parquet(ids: &[&str]) -> Vec<u8> {
    let schema = "message m { REQUIRED BYTE_ARRAY id (STRING); REQUIRED BYTE_ARRAY text (STRING);
        REQUIRED INT32 n; }";
    let numbers = Cells::Int(vec![1; ids.len()], None);
    write(schema, WriterProperties::default(), vec![vec![text(ids), text(ids), numbers]])
}

#[test]
fn folders_are_columns_of_files_of_every_record_format() {
    let folder = Folder::new();
    folder.file("t/year=2023/city=S%C3%A3o%20Paulo/p.parquet", parquet(&["a"]));
    folder.file("t/year=2024/zip=02139/c.csv", "id,text,m\nb,B,x\n");
    folder.file("t/year=2024/zip=02139/d.tsv", "id\ttext\nc\tC\n");
    folder.file("t/year=2025.5/j.jsonl.gz", gzip("{\"id\":\"d\",\"text\":\"D\"}"));
    folder.file(&format!("t/year={NULL}/j.jsonl"), "{\"id\":\"e\",\"text\":\"E\"}");
    folder.file("t/year=2026/note.txt", "a text has no columns");
    let (documents, notes) = noted(&[folder.path().join("t")], &ReadOptions::default());
    let all: Vec<(&str, Value)> =
        documents.iter().map(|d| (d.text.as_str(), json!(d.metadata))).collect();
    let expected = [
        ("a", json!({"n": 1, "year": 2023, "city": "São Paulo"})),
        ("B", json!({"m": "x", "year": 2024, "zip": "02139"})),
        ("C", json!({"year": 2024, "zip": "02139"})),
        ("D", json!({"year": 2025.5})),
        ("E", json!({"year": null})),
    ];
    for (text, metadata) in expected {
        let found = all.iter().find(|(other, _)| *other == text);
        assert_eq!(found, Some(&(text, metadata)));
    }
    assert_eq!(all.len(), 6);
    assert_eq!(notes, [""; 0]);
    // A file that is named itself has the columns too.
    let path = folder.path().join("t/year=2024/zip=02139/c.csv");
    assert_eq!(noted(&[path], &ReadOptions::default()).0[0].metadata["year"], 2024);
}

#[test]
fn column_of_the_file_wins_and_a_conflict_is_told() {
    let folder = Folder::new();
    let lines = r#"{"id":1,"text":"a","year":1999}
        {"id":2,"text":"b"}
        {"id":3,"text":"c","year":"2023"}
        {"id":4,"text":"d","year":null}"#;
    let path = folder.file("year=2023/j.jsonl", lines);
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    let years: Vec<_> = documents.iter().map(|d| d.metadata["year"].clone()).collect();
    assert_eq!(years, [json!(1999), json!(2023), json!("2023"), json!(null)]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_has(&notes[0], &["j.jsonl, field 'year': 2 records have another value", "'year=2023'"]);
    // The same value in another notation is none; nor is the id's column a partition's.
    let path = folder.file("n=01/id=9/p.parquet", parquet(&["a"]));
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    assert_eq!((documents[0].id.as_str(), &documents[0].metadata["n"]), ("a", &json!(1)));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_has(&notes[0], &["field 'id': 1 record has another value", "'id=9'"]);
    let path = folder.file("n=1/n=2/j.jsonl", "{\"id\":1,\"text\":\"a\"}");
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    assert_eq!(documents[0].metadata["n"], 2);
    assert_has(&notes[0], &["field 'n'", "further in"]);
}

#[test]
fn columns_of_folders_can_be_chosen() {
    let folder = Folder::new();
    let path = folder.file("year=2023/month=5/c.csv", "id,text,x\n1,a,y\n");
    let options = |names: &[&str]| {
        let metadata = Some(names.iter().map(ToString::to_string).collect());
        let fields = FieldMap { metadata, ..FieldMap::default() };
        ReadOptions { fields, ..ReadOptions::default() }
    };
    let of =
        |names: &[&str]| json!(noted(std::slice::from_ref(&path), &options(names)).0[0].metadata);
    assert_eq!(of(&["year"]), json!({"year": 2023}));
    assert_eq!(of(&["x", "month"]), json!({"x": "y", "month": 5}));
    let mut reader =
        ingest::open(std::slice::from_ref(&path), &options(&["day"])).expect("a reader");
    let error = reader.next().expect("a result").expect_err("no such field");
    assert_has(&error.to_string(), &["field 'day'", "--metadata-fields"]);
}

#[test]
fn tables_with_a_log_are_refused_with_a_cure() {
    let folder = Folder::new();
    let part = folder.file("delta/year=2023/part-0.parquet", parquet(&["a"]));
    folder.file("delta/_delta_log/00000000000000000000.json", "{\"commitInfo\":{}}");
    folder.file("ice/data/part-0.parquet", parquet(&["a"]));
    folder.file("ice/metadata/v1.metadata.json", "{}");
    folder.file("hudi/part-0.parquet", parquet(&["a"]));
    folder.file("hudi/.hoodie/hoodie.properties", "");
    // A folder that is only called alike.
    folder.file("plain/metadata/notes.txt", "x");
    folder.file("plain/a.jsonl", "{\"id\":1,\"text\":\"a\"}");
    let of = |path: &str| ingest::open(&[folder.path().join(path)], &ReadOptions::default());
    for (path, parts) in [
        ("delta", ["Delta Lake", "to_parquet"]),
        ("delta/year=2023", ["Delta Lake", "_delta_log"]),
        ("delta/year=2023/part-0.parquet", ["Delta Lake", "export its current version"]),
        ("ice", ["Iceberg", "export its current version"]),
        ("ice/data/part-0.parquet", ["Iceberg", "no longer be part"]),
        ("hudi", ["Hudi", ".hoodie"]),
        ("", ["table", "export its current version"]),
    ] {
        let error = of(path).err().expect("refused");
        assert!(matches!(error, Error::Input { .. }), "{error}");
        assert_has(&error.to_string(), &parts);
    }
    assert_eq!(of("plain").expect("a reader").count(), 2);
    std::fs::remove_dir_all(folder.path().join("delta/_delta_log")).expect("removed");
    assert_eq!(ingest::open(&[part], &ReadOptions::default()).expect("a reader").count(), 1);
}

#[test]
fn column_of_a_path_has_one_type_over_all_inputs_and_yields_to_beirs_metadata() {
    let folder = Folder::new();
    folder.file("t/zip=02139/a.csv", "id,text\na,A\n");
    folder.file("t/zip=94110/b.csv", "id,text,n\nb,B,7\n");
    folder.file("t/zip=94110/c.jsonl", r#"{"id":"c","text":"C"}"#);
    let (documents, _) = noted(&[folder.path().join("t")], &ReadOptions::default());
    let zips: Vec<_> = documents.iter().map(|d| d.metadata["zip"].clone()).collect();
    assert_eq!(zips, ["02139", "94110", "94110"].map(Value::from));
    assert_eq!(documents[1].metadata["n"], 7);
    let beir = r#"{"_id":"1","text":"a","metadata":{"year":1999}}"#;
    let path = folder.file("year=2023/beir.jsonl", beir);
    let (documents, notes) = noted(std::slice::from_ref(&path), &ReadOptions::default());
    assert_eq!((&documents[0].metadata["year"], notes.len()), (&json!(1999), 1), "{notes:?}");
}
