//! Columns that cannot be read, and values that metadata cannot hold: neither costs a record.

use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use warpseek_ingest::{FieldMap, NoteKind, ReadOptions};

use super::parquet::value;
use super::parquet_builder::{self as builder, TestColumn};
use super::parquet_writer::{Cells, ColumnLevels, nested, some, text, write};
use super::{Folder, assert_has, first_error, noted};

fn bytes(values: &[&[u8]], levels: ColumnLevels) -> Cells {
    Cells::Bytes(values.iter().map(|value| ByteArray::from(value.to_vec())).collect(), levels)
}

/// The metadata of each row of one row group, and the notes.
fn metadata(schema: &str, cells: Vec<Cells>, options: &ReadOptions) -> (Vec<Value>, Vec<String>) {
    let folder = Folder::new();
    let content = write(schema, WriterProperties::default(), vec![cells]);
    let path = folder.file("d.parquet", content);
    let (documents, notes) = noted(&[path], options);
    (documents.into_iter().map(|document| json!(document.metadata)).collect(), notes)
}

fn chosen(names: &[&str]) -> ReadOptions {
    let metadata = Some(names.iter().map(ToString::to_string).collect());
    ReadOptions { fields: FieldMap { metadata, ..FieldMap::default() }, ..ReadOptions::default() }
}

#[test]
fn column_that_cannot_be_read_leaves_the_others() {
    let schema = "message m {
        REQUIRED BYTE_ARRAY text (STRING);
        REQUIRED group v (VARIANT) {
            REQUIRED BYTE_ARRAY metadata; OPTIONAL BYTE_ARRAY value;
            OPTIONAL group typed_value { OPTIONAL INT32 a; }
        }
        REQUIRED group g { REQUIRED FIXED_LEN_BYTE_ARRAY(16) big; REQUIRED INT32 n; }
        OPTIONAL group tags (LIST) { REPEATED group list { OPTIONAL BYTE_ARRAY element; } }
        OPTIONAL group parts (LIST) {
            REPEATED group list {
                OPTIONAL group element { OPTIONAL BYTE_ARRAY raw; OPTIONAL INT32 x; }
            }
        }
        OPTIONAL group sizes (MAP) {
            REPEATED group key_value {
                REQUIRED BYTE_ARRAY key (STRING); OPTIONAL BYTE_ARRAY value;
            }
        }
        REQUIRED group only { REQUIRED BYTE_ARRAY raw; }
        REQUIRED INT32 last;
    }";
    let fixed = FixedLenByteArray::from(ByteArray::from(vec![1u8; 16]));
    let cells = || {
        vec![
            text(&["T"]),
            bytes(&[b"\x01"], None),
            bytes(&[], some(&[0])),
            Cells::Int(vec![1], some(&[2])),
            Cells::Fixed(vec![fixed.clone()], None),
            Cells::Int(vec![7], None),
            bytes(&[b"a", b"b"], nested(&[3, 3], &[0, 1])),
            bytes(&[b"a"], nested(&[4, 3], &[0, 1])),
            Cells::Int(vec![5, 6], nested(&[4, 4], &[0, 1])),
            bytes(&[b"k"], nested(&[2], &[0])),
            bytes(&[b"\xff"], nested(&[3], &[0])),
            bytes(&[b"r"], None),
            Cells::Int(vec![9], None),
        ]
    };
    let (rows, notes) = metadata(schema, cells(), &ReadOptions::default());
    assert_eq!(rows, [json!({"g": {"n": 7}, "parts": [{"x": 5}, {"x": 6}], "last": 9})]);
    let parts = [
        ("'v': the column is left out", "VARIANT"),
        ("'g.big': the column is left out", "FIXED_LEN_BYTE_ARRAY(16)"),
        ("'tags': the column is left out", "BYTE_ARRAY"),
        ("'parts.raw': the column is left out", "BYTE_ARRAY"),
        ("'sizes': the column is left out", "BYTE_ARRAY"),
        ("'only.raw': the column is left out", "--metadata-fields"),
    ];
    assert_eq!(notes.len(), parts.len(), "{notes:?}");
    for (note, (start, reason)) in notes.iter().zip(parts) {
        assert_has(note, &["d.parquet, field ", start, reason]);
    }
    // Bytes that the user names are text. Nothing is told of columns that are not asked for.
    let (rows, notes) = metadata(schema, cells(), &chosen(&["last", "tags", "only.raw"]));
    assert_eq!(rows, [json!({"last": 9, "tags": ["a", "b"], "only.raw": "r"})]);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn column_of_the_text_or_the_id_must_be_read() {
    let fixed = || Cells::Fixed(vec![FixedLenByteArray::from(ByteArray::from("ab"))], None);
    let group = "REQUIRED group text (VARIANT) { REQUIRED BYTE_ARRAY metadata; \
                 REQUIRED BYTE_ARRAY value; }";
    let id = "REQUIRED BYTE_ARRAY id (STRING);";
    let cases = [
        ("REQUIRED FIXED_LEN_BYTE_ARRAY(2) id; REQUIRED BYTE_ARRAY text (STRING);", "'id'"),
        ("REQUIRED FIXED_LEN_BYTE_ARRAY(2) text; REQUIRED BYTE_ARRAY x (STRING);", "'text'"),
    ];
    for (columns, name) in cases {
        let schema = format!("message m {{ {columns} }}");
        let groups = vec![vec![fixed(), text(&["T"])]];
        let error = first_error("d.parquet", write(&schema, WriterProperties::default(), groups));
        assert_has(&error, &["d.parquet, field ", name, "cannot be read: it is binary", "cast it"]);
    }
    let schema = format!("message m {{ {id} {group} }}");
    let groups = vec![vec![text(&["1"]), text(&["m"]), text(&["v"])]];
    let error = first_error("d.parquet", write(&schema, WriterProperties::default(), groups));
    assert_has(&error, &["field 'text'", "cannot be read", "VARIANT"]);
    // Old writers do not annotate text. A title can be missing.
    let schema = "message m { REQUIRED BYTE_ARRAY id; REQUIRED BYTE_ARRAY text;
        REQUIRED FIXED_LEN_BYTE_ARRAY(2) title; }";
    let groups = vec![vec![text(&["1"]), text(&["T"]), fixed()]];
    let folder = Folder::new();
    let path = folder.file("d.parquet", write(schema, WriterProperties::default(), groups));
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    let document = &documents[0];
    assert_eq!([&document.id, &document.text, &document.title], ["1", "T", ""]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_has(&notes[0], &["field 'title': the column is left out"]);
}

#[test]
fn json_columns_are_parsed_and_json_text_is_text() {
    let schema = "message m { REQUIRED BYTE_ARRAY id (JSON); REQUIRED BYTE_ARRAY text (JSON);
        OPTIONAL BYTE_ARRAY x (JSON); }";
    let x = [r#"["Ada", {"n": 1}]"#, r#"{"k": 1, "k": 2}"#].map(str::as_bytes);
    let cells = vec![text(&["7", "\"b\"", "c"]), text(&["\"T\"", "{\"a\": 1}", "plain"]), {
        bytes(&x, some(&[1, 1, 0]))
    }];
    let folder = Folder::new();
    let content = write(schema, WriterProperties::default(), vec![cells]);
    let (documents, notes) = noted(&[folder.file("d.parquet", content)], &ReadOptions::default());
    let texts: Vec<_> = documents.iter().map(|d| (d.id.as_str(), d.text.as_str())).collect();
    assert_eq!(texts, [("7", "T"), ("b", "{\"a\": 1}"), ("c", "plain")]);
    assert_eq!(documents[0].metadata["x"], json!(["Ada", {"n": 1}]));
    assert_eq!(documents[1].metadata["x"], json!(r#"{"k": 1, "k": 2}"#));
    assert_eq!(documents[2].metadata["x"], Value::Null);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_has(&notes[0], &["'x': 1 value became text", "a key twice"]);
}

#[test]
fn values_that_metadata_cannot_hold_are_counted() {
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING); REQUIRED DOUBLE n;
        REQUIRED group g { REQUIRED INT32 day (DATE); REQUIRED BYTE_ARRAY name (STRING); } }";
    let cells = vec![
        text(&["a", "b", "c", "d"]),
        Cells::Double(vec![1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY], None),
        Cells::Int(vec![0, i32::MAX, 3_000_000, 1], None),
        bytes(&[b"x", b"y", b"\xfe", b"z"], None),
    ];
    let (rows, notes) = metadata(schema, cells, &ReadOptions::default());
    let expected = [
        json!({"n": 1.5, "g": {"day": "1970-01-01", "name": "x"}}),
        json!({"n": null, "g": {"day": null, "name": "y"}}),
        json!({"n": null, "g": {"day": "+10183-09-17", "name": null}}),
        json!({"n": null, "g": {"day": "1970-01-02", "name": "z"}}),
    ];
    assert_eq!(rows.len(), 4);
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row["n"], expected["n"]);
        assert_eq!(row["g"]["name"], expected["g"]["name"]);
    }
    assert_eq!(rows[3], expected[3]);
    assert!(rows[2]["g"]["day"].as_str().is_some_and(|day| day.starts_with("+10183-")));
    let mut notes: Vec<&str> =
        notes.iter().map(|note| note.split_once("field ").expect("a field").1).collect();
    notes.sort_unstable();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert_has(notes[0], &["'g.day': 1 value became null: an infinite date"]);
    assert_has(notes[1], &["'g.day': 1 value became text: dates outside the years 0 to 9999"]);
    assert_has(notes[2], &["'g.name': 1 value became null: text that is not valid UTF-8"]);
    assert_has(notes[3], &["'n': 3 values became null: NaN or infinity"]);
}

#[test]
fn maps_keep_their_entries_or_become_text() {
    let map = |key: &str| {
        format!("group v (MAP) {{ REPEATED group map {{ REQUIRED {key} k; REQUIRED INT32 v; }} }}")
    };
    let two = |n: [i32; 2]| Cells::Int(n.to_vec(), nested(&[1, 1], &[0, 1]));
    let of = |column: &str, keys: Cells| {
        let schema =
            format!("message m {{ REQUIRED BYTE_ARRAY text (STRING); REQUIRED {column} }}");
        let (mut rows, notes) =
            metadata(&schema, vec![text(&["T"]), keys, two([8, 9])], &ReadOptions::default());
        (rows.remove(0)["v"].take(), notes)
    };
    assert_eq!(of(&map("INT32"), two([1, 2])), (json!({"1": 8, "2": 9}), vec![]));
    let (value, notes) = of(&map("INT32"), two([7, 7]));
    assert_eq!(value, json!(r#"{"7":8,"7":9}"#));
    assert_has(&notes[0], &["field 'v': 1 value became text: a map with the same key twice"]);
    let keys = Cells::Double(vec![f64::NAN, 1.0], nested(&[1, 1], &[0, 1]));
    let (value, notes) = of(&map("DOUBLE"), keys);
    assert_eq!(value, Value::Null);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_has(&notes[1], &["field 'v': 1 value became null: a map with a key"]);
}

#[test]
fn lists_are_limited_by_the_size_of_a_record() {
    // At most ten values in a row of 80 bytes, also with levels of two bits.
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING);
        REQUIRED group v (LIST) { REPEATED group array (LIST) { REPEATED INT32 array; } } }";
    for (length, is_read) in [(10, true), (11, false)] {
        let mut reps = vec![2; length];
        reps[0] = 0;
        let cells = Cells::Int(vec![7; length], nested(&vec![2; length], &reps));
        let options = ReadOptions { max_record_bytes: 80, ..ReadOptions::default() };
        let (rows, notes) = metadata(schema, vec![text(&["T"]), cells], &options);
        match is_read {
            true => assert_eq!(rows[0]["v"], json!([vec![7; 10]])),
            false => assert_has(&notes[0], &["'v': 1 value became null", "more than 10 values"]),
        }
        assert_eq!(rows[0]["v"].is_null(), !is_read);
        assert_eq!(notes.is_empty(), is_read);
    }
}

#[test]
fn damaged_metadata_is_null_from_there_on() {
    let good = |values: &[&[u8]]| builder::texts(values);
    // The second column goes wrong at its second page: an encoding that there is not.
    let pages =
        [builder::page(1, builder::PLAIN, &5i32.to_le_bytes()), builder::page(2, 10, &[0; 8])];
    let number =
        |pages: Vec<u8>| TestColumn { name: "n", kind: builder::INT32, ..builder::column(pages) };
    let content = builder::file(3, &[number(pages.concat()), good(&[b"a", b"b", b"c"])]);
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let mut reader = warpseek_ingest::open(&[path], &ReadOptions::default()).expect("a reader");
    let rows: Vec<_> = reader.by_ref().map(|document| document.expect("a document")).collect();
    let texts: Vec<_> = rows.iter().map(|d| (d.text.as_str(), d.metadata["n"].clone())).collect();
    assert_eq!(texts, [("a", json!(5)), ("b", Value::Null), ("c", Value::Null)]);
    let notes = reader.notes().list();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((notes[0].kind, notes[0].count), (NoteKind::Null, 2));
    assert_eq!(notes[0].place.field.as_deref(), Some("n"));
    assert_has(&notes[0].to_string(), &["2 values became null: the column cannot be read"]);
    // One that ends early, and one whose codec is not supported.
    let short = number(builder::page(1, builder::PLAIN, &5i32.to_le_bytes()));
    let lzo = TestColumn { codec: 3, ..number(builder::page(3, builder::PLAIN, &[0; 12])) };
    for (column, reason) in [(short, "ends before the others"), (lzo, "LZO")] {
        let path = folder.file("e.parquet", builder::file(3, &[column, good(&[b"a", b"b", b"c"])]));
        let (documents, notes) = noted(&[path], &ReadOptions::default());
        assert_eq!(documents.len(), 3, "{reason}");
        assert_has(&notes[0], &["field 'n'", "became null", reason]);
    }
}

#[test]
fn fields_of_the_same_name_are_told() {
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING); REQUIRED INT32 n;
        REQUIRED INT32 n; }";
    let one = |n| Cells::Int(vec![n], None);
    let (rows, notes) =
        metadata(schema, vec![text(&["T"]), one(1), one(2)], &ReadOptions::default());
    assert_eq!(rows, [json!({"n": 1})]);
    assert_has(&notes[0], &["field 'n': the column is left out", "same name"]);
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING);
        REQUIRED BYTE_ARRAY text (STRING); }";
    let groups = vec![vec![text(&["T"]), text(&["U"])]];
    let error = first_error("d.parquet", write(schema, WriterProperties::default(), groups));
    assert_has(&error, &["field 'text'", "same name"]);
    // A column of nulls.
    let nulls = Cells::Int(vec![], some(&[0]));
    let optional = "message m { REQUIRED BYTE_ARRAY text (STRING); OPTIONAL INT32 v (UNKNOWN); }";
    let (rows, notes) = metadata(optional, vec![text(&["T"]), nulls], &ReadOptions::default());
    assert_eq!((rows, notes), (vec![json!({"v": null})], vec![]));
    assert_eq!(value("INT32 v", one(3)), (Some(json!(3)), vec![]));
}
