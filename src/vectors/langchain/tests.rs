//! Tests of the reader of stores that LangChain saved.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use warpseek_ingest::json_kind;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/langchain")
}

/// The folders of the stores, with the name of the index.
fn stores() -> Vec<(PathBuf, &'static str)> {
    let folders = std::fs::read_dir(fixtures()).expect("the folder of the stores");
    let mut stores: Vec<_> = folders
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (path.clone(), if path.ends_with("current-distances") { "papers" } else { "index" })
        })
        .collect();
    stores.sort();
    assert!(stores.len() >= 13, "{stores:?}");
    stores
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("expected.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Checks the documents against the lines of `expected.jsonl`.
#[track_caller]
fn assert_documents(name: &str, documents: LangchainDocuments, expected: &[Value]) {
    assert_eq!(documents.len(), expected.len(), "{name}");
    for (document, expected) in documents.zip(expected) {
        let document = document.expect("a document");
        assert_eq!((&document.id, &document.doc_id), (&document.doc_id, &document.id));
        assert_eq!(document.id, expected["id"], "{name}");
        assert_eq!(document.text, expected["text"], "{name}");
        // As text: the order counts.
        let metadata = Value::Object(document.metadata).to_string();
        assert_eq!(metadata, expected["metadata"].to_string(), "{name}");
    }
}

#[test]
fn stores_of_all_versions_hold_what_langchain_finds_in_them() {
    for (folder, index_name) in stores() {
        let name = folder.display().to_string();
        let store = open(&folder, index_name).unwrap_or_else(|error| panic!("{error}"));
        let expected = lines(&folder.join("expected.jsonl"));
        assert_eq!(store.vectors.n_rows(), expected.len(), "{name}");
        let mut vector = vec![0f32; store.vectors.dim()];
        for (row, expected) in expected.iter().enumerate() {
            store.vectors.read(row, &mut vector).expect("a vector");
            let expected = expected["vector"].as_array().expect("an array");
            let expected = expected.iter().map(|v| v.as_f64().expect("a number") as f32);
            assert_eq!(vector, expected.collect::<Vec<f32>>(), "{name}, vector {row}");
        }
        let notes = store.notes.texts().join("\n");
        if name.ends_with("-changed") {
            let left_out = "1 entry is left out: documents of the docstore that no vector";
            assert!(notes.contains(left_out), "{name}: {notes}");
        }
        if name.ends_with("-texts") {
            for field in ["field 'nan': 2 values became null", "field 'infinities': 2 values"] {
                assert!(notes.contains(field), "{name}: {notes}");
            }
        }
        assert_documents(&name, store.documents, &expected);
    }
}

#[test]
fn every_protocol_says_the_same() {
    let folder = fixtures().join("current-protocols");
    let expected = lines(&folder.join("expected.jsonl"));
    for protocol in 0..6 {
        let name = format!("p{protocol}.pkl");
        let bytes = std::fs::read(folder.join(&name)).expect("a pickle");
        let notes = ReadNotes::default();
        let documents =
            documents(&name, Box::new(bytes), expected.len(), &|row| row as i64, &notes);
        assert_documents(&name, documents.expect("documents"), &expected);
    }
}

/// A pickle in protocol 4: a store of these documents and positions, given as opcodes.
fn store(documents: &[u8], positions: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x04".to_vec();
    bytes.extend(global("langchain_community.docstore.in_memory", "InMemoryDocstore"));
    bytes.extend(b")\x81}");
    bytes.extend(text("_dict"));
    bytes.extend(b"}(");
    bytes.extend(documents);
    bytes.extend(b"usb}(");
    bytes.extend(positions);
    bytes.extend(b"u\x86.");
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&[b'X'][..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    [text(module), text(name), vec![0x93]].concat()
}

/// A document with these fields, given as opcodes of keys and values.
fn document_of(fields: &[u8]) -> Vec<u8> {
    [
        &global("langchain_core.documents.base", "Document")[..],
        b")\x81}",
        &text("__dict__"),
        b"}(",
        fields,
        b"usb",
    ]
    .concat()
}

fn document(content: &str, metadata: &[u8]) -> Vec<u8> {
    let fields = [&text("page_content")[..], &text(content), &text("metadata"), metadata];
    document_of(&fields.concat())
}

/// An entry of a dict with a text as its key.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], value].concat()
}

/// The position of a vector and its id.
fn position(row: u8, id: &str) -> Vec<u8> {
    [&[b'K', row][..], &text(id)].concat()
}

fn read(bytes: Vec<u8>, n_rows: usize) -> Result<LangchainDocuments> {
    documents("index.pkl", Box::new(bytes), n_rows, &|row| row as i64, &ReadNotes::default())
}

/// The metadata of a store of one document whose field `x` has this value.
fn metadata(value: &[u8]) -> Result<Value> {
    let metadata = [&b"}("[..], &entry("x", value), b"u"].concat();
    let bytes = store(&entry("a", &document("t", &metadata)), &position(0, "a"));
    let mut documents = read(bytes, 1)?;
    let document = documents.next().expect("one document")?;
    Ok(document.metadata["x"].clone())
}

#[track_caller]
fn assert_refused(outcome: Result<impl std::fmt::Debug>, parts: &[&str]) {
    let error = outcome.expect_err("an error");
    let message = error.to_string();
    assert_eq!(error.exit_code(), 7, "{message}");
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}

#[test]
fn positions_and_documents_that_do_not_match_are_refused() {
    let (a, b) = (entry("a", &document("t", b"}")), entry("b", &document("u", b"}")));
    let both = [&a[..], &b].concat();
    let places = |rows: &[(u8, &str)]| -> Vec<u8> {
        rows.iter().flat_map(|(row, id)| position(*row, id)).collect()
    };
    let good = read(store(&both, &places(&[(1, "a"), (0, "b")])), 2).expect("a store");
    let ids: Vec<String> = good.map(|d| d.expect("a document").id).collect();
    assert_eq!(ids, ["b", "a"]);
    let cases: [(Vec<u8>, usize, &[&str]); 8] = [
        (store(&both, &places(&[(0, "a")])), 2, &["2 vectors", "1 positions", "position 1"]),
        (
            store(&both, &places(&[(0, "a"), (1, "b")])),
            1,
            &["1 vectors", "2 positions", "at the position 1"],
        ),
        (store(&both, &places(&[(0, "a"), (2, "b")])), 2, &["none is the position 1"]),
        (store(&both, &places(&[(0, "a"), (0, "b")])), 2, &["position 0 occurs twice"]),
        (store(&both, &places(&[(0, "a"), (1, "c")])), 2, &["vector 1", "'c'", "no such document"]),
        (store(&both, &places(&[(0, "a"), (1, "a")])), 2, &["vector 1", "'a'", "another vector"]),
        (store(&[&a[..], &a].concat(), &places(&[(0, "a")])), 1, &["the id 'a' twice"]),
        (store(&both, b"K\x00K\x01"), 1, &["vector 0 has the id 1", "no such document"]),
    ];
    for (bytes, n_rows, parts) in cases {
        assert_refused(read(bytes, n_rows), parts);
    }
    // The ids of an IndexIDMap are the positions.
    let mapped = store(&both, &places(&[(7, "b"), (9, "a")]));
    let id = |row: usize| [9, 7][row];
    let mapped = documents("m.pkl", Box::new(mapped), 2, &id, &ReadNotes::default());
    let ids: Vec<String> = mapped.expect("a store").map(|d| d.expect("a document").id).collect();
    assert_eq!(ids, ["a", "b"]);
    let numbered = [&b"K\x07"[..], &document("t", b"}")].concat();
    let mut numbered = read(store(&numbered, b"K\x00K\x07"), 1).expect("a store");
    assert_eq!(numbered.next().expect("a document").expect("a document").id, "7");
}

#[test]
fn documents_of_another_form_are_refused_by_id_and_field() {
    let one = |document: Vec<u8>| read(store(&entry("a", &document), &position(0, "a")), 1);
    let fields = |fields: &[Vec<u8>]| document_of(&fields.concat());
    let (content, meta) = (entry("page_content", &text("t")), entry("metadata", b"}"));
    let cases: [(Vec<u8>, &[&str]); 9] = [
        (fields(std::slice::from_ref(&meta)), &["document 'a': it has no page_content"]),
        (fields(std::slice::from_ref(&content)), &["document 'a': it has no metadata"]),
        (fields(&[content.clone(), entry("metadata", b"N")]), &["'metadata'", "found None"]),
        (fields(&[entry("page_content", b"K\x07"), meta.clone()]), &["'page_content'", "an int"]),
        (fields(&[content.clone(), meta.clone(), entry("score", b"N")]), &["unknown field: score"]),
        (text("t"), &["document 'a': it is not a Document but a str"]),
        (document("t", &[&b"}"[..], &entry("", b"N"), b"s"].concat()), &["without a name"]),
        (document("t", &[&b"}"[..], b"\x88N", b"s"].concat()), &["a bool is a key"]),
        (document("t", b"}(K\x01N\x8c\x011Nu"), &["the key '1' appears twice"]),
    ];
    for (document, parts) in cases {
        assert_refused(one(document), parts);
    }
    let bad_id = store(&entry("a\nb", &document("t", b"}")), &position(0, "a\nb"));
    assert_refused(read(bad_id, 1), &["control characters"]);
    let half = [&text("ab")[..1], &[4, 0, 0, 0, b'a', 0xed, 0xa0, 0x80]].concat();
    let parts = ["document 'a', field 'page_content'", "half of a surrogate pair at byte 2"];
    let fields = fields(&[entry("page_content", &half), meta]);
    assert_refused(one(fields), &parts);
}

#[test]
fn values_without_a_json_form_are_refused_by_field() {
    let cases: [(&[u8], &[&str]); 5] = [
        (b"C\x02ab", &["document 'a', field 'x'", "bytes have no JSON form", "decode"]),
        (b"\x8c\x08builtins\x8c\x04list\x93", &["field 'x'", "the class builtins", "no JSON form"]),
        (b"\x8c\x08datetime\x8c\x04date\x93C\x03abc\x85R", &["field 'x'", "datetime.date", "fit"]),
        (b"\x8b\x00\x10\x00\x00", &["cut off"]),
        (b"}N\x88s", &["field 'x'", "None is a key"]),
    ];
    for (value, parts) in cases {
        assert_refused(metadata(value), parts);
    }
    let long = [&b"\x8b\x00\x10\x00\x00"[..], &[1; 4096]].concat();
    assert_refused(metadata(&long), &["field 'x'", "more than 4300 digits"]);
}

#[test]
fn classes_off_the_list_are_refused_by_name_and_position() {
    for (module, name) in [("collections", "Counter"), ("fractions", "Fraction")] {
        let value = [&global(module, name)[..], b")R"].concat();
        let named = format!("`{module}.{name}` at byte ");
        assert_refused(
            metadata(&value),
            &["index.pkl: it names", &named, "Nothing in it was executed"],
        );
    }
    let zone = global("builtins", "getattr");
    assert_refused(metadata(&zone), &["`builtins.getattr`", "zoneinfo"]);
}

#[test]
fn shared_values_are_not_spelled_out_without_limit() {
    // A list of two, which a list holds twice, and so on: 2^60 items in the end.
    let mut nested = b"]K\x01aK\x02a".to_vec();
    for level in 0..60u8 {
        nested.extend([b'q', level, b'0', b']', b'h', level, b'a', b'h', level, b'a']);
    }
    let started = std::time::Instant::now();
    assert_refused(metadata(&nested), &["field 'x'", "too often"]);
    let mut deep = b"]".to_vec();
    (0..200).for_each(|_| deep.splice(0..0, *b"](").for_each(drop));
    deep.extend([b'e'; 200]);
    assert_refused(metadata(&deep), &["field 'x'", "nested deeper than 127"]);
    // A list that holds itself.
    assert_refused(metadata(b"]q\x00h\x00a"), &["field 'x'", "contains itself"]);
    assert!(started.elapsed().as_secs() < 20);

    // One large text in the metadata of many documents.
    let large = "x".repeat(1 << 20);
    let mut documents = entry("0", &document(&large, b"}"));
    let shared = b"q\x01";
    let at = documents.windows(5).rposition(|w| w == b"xxxxx").expect("the text") + 5;
    documents.splice(at..at, *shared);
    let mut positions = position(0, "0");
    for row in 1..1000u16 {
        let fields = [&text("page_content")[..], b"h\x01", &text("metadata"), b"}"].concat();
        documents.extend(entry(&row.to_string(), &document_of(&fields)));
        positions.extend([b'M', row as u8, (row >> 8) as u8]);
        positions.extend(text(&row.to_string()));
    }
    assert_refused(read(store(&documents, &positions), 1000), &["too often"]);
}

#[test]
fn a_folder_without_the_store_names_those_it_has() {
    let folder = fixtures().join("current-distances");
    let error = open(&folder, "index").expect_err("an error");
    assert_eq!(error.exit_code(), 2);
    for part in ["index.faiss and index.pkl", "--index-name", "'papers'"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(open(&fixtures().join("gone"), "index").expect_err("an error").exit_code(), 8);
    let error = open(&fixtures(), "index").expect_err("an error").to_string();
    assert!(error.contains("save_local"), "{error}");
}

#[test]
fn kinds_of_values_become_json() {
    let cases: [(&[u8], Value); 12] = [
        (b"N", json!(null)),
        (b"J\xff\xff\xff\xff", json!(-1)),
        (b"\x8a\x00", json!(0)),
        (b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80", json!(i64::MIN)),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00", json!(u64::MAX)),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01", json!("18446744073709551616")),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff", json!("-9223372036854775809")),
        (b"L18446744073709551615L\n", json!(u64::MAX)),
        (b"L-18446744073709551616L\n", json!("-18446744073709551616")),
        (b"I01\n", json!(true)),
        (b"F1e400\n", json!(null)),
        (b"V\\u20ac \\U0001f642 \xe9\n", json!("€ 🙂 é")),
    ];
    for (value, expected) in cases {
        let got = metadata(value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
        assert_eq!(got, expected, "{}", json_kind(&got));
    }
}

/// The call of a class, given as opcodes of its arguments.
fn call(module: &str, name: &str, args: &[u8]) -> Vec<u8> {
    [&global(module, name)[..], b"(", args, b"tR"].concat()
}

#[test]
fn dates_and_paths_are_written_as_python_writes_them() {
    let zone = |seconds: i32| {
        let seconds = [&b"K\x00J"[..], &seconds.to_le_bytes(), b"K\x00"].concat();
        call("datetime", "timezone", &call("datetime", "timedelta", &seconds))
    };
    let at = |zone: Vec<u8>| {
        let fields = b"C\x0a\x07\xe8\x82\x1d\x17\x3b\x3a\x00\x00\x07".to_vec();
        call("datetime", "datetime", &[fields, zone].concat())
    };
    let path = |name: &str, parts: &[&str]| {
        call("pathlib", name, &parts.iter().flat_map(|part| text(part)).collect::<Vec<u8>>())
    };
    let cases = [
        (at(Vec::new()), "2024-02-29T23:59:58.000007"),
        (at(b"N".to_vec()), "2024-02-29T23:59:58.000007"),
        (at(zone(0)), "2024-02-29T23:59:58.000007+00:00"),
        (at(zone(-3661)), "2024-02-29T23:59:58.000007-01:01:01"),
        (at(call("pytz", "_UTC", b"")), "2024-02-29T23:59:58.000007+00:00"),
        (call("datetime", "timedelta", b"J\xff\xff\xff\xffM\x7e\x51K\x00"), "-PT18H12M18S"),
        (path("PosixPath", &["/a//b", "./c", "..", "d/"]), "/a/b/c/../d"),
        (path("PosixPath", &["a", "/b"]), "/b"),
        (path("PurePosixPath", &["//host", "x"]), "//host/x"),
        (path("PurePosixPath", &[]), "."),
        (path("WindowsPath", &["C:\\", "a", "b/c"]), "C:\\a\\b\\c"),
        (path("PureWindowsPath", &["C:/a", "/b"]), "C:\\b"),
        (path("PureWindowsPath", &["//host/share", "x"]), "\\\\host\\share\\x"),
        (path("PureWindowsPath", &["C:/a", "D:b"]), "D:b"),
    ];
    for (value, expected) in cases {
        assert_eq!(metadata(&value).unwrap_or_else(|error| panic!("{error}")), expected);
    }
    let dates: [&[u8]; 4] = [b"\x07\xe7\x02\x1d", b"\0\0\x01\x01", b"\x07\xe7\x0d\x01", b"\x07"];
    for fields in dates {
        let fields = [&[b'C', fields.len() as u8][..], fields].concat();
        let parts = ["document 'a', field 'x'", "datetime.date with arguments that do not fit"];
        assert_refused(metadata(&call("datetime", "date", &fields)), &parts);
    }
    assert_refused(metadata(&at(zone(86_400))), &["datetime.datetime with arguments"]);
}

/// The bytes of all pickles of the fixtures, read once.
fn pickles() -> &'static [Vec<u8>] {
    static PICKLES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
        let folders = stores().into_iter().map(|(folder, _)| folder);
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
        let paths = files.map(|entry| entry.expect("an entry").path());
        let pickles = paths.filter(|path| path.extension().is_some_and(|e| e == "pkl"));
        pickles.map(|path| std::fs::read(path).expect("a pickle")).collect()
    });
    &PICKLES
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(bytes, 1);
    }

    #[test]
    fn changed_pickles_never_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        moved in prop::option::of((any::<[prop::sample::Index; 2]>(), 0..60usize)),
        cut in prop::option::of(any::<prop::sample::Index>()),
        n_rows in prop::sample::select(vec![3usize, 10, 25]),
    ) {
        let mut bytes = which.get(pickles()).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(([from, to], length)) = moved {
            let from = from.index(bytes.len());
            let part = bytes[from..(from + length).min(bytes.len())].to_vec();
            let to = to.index(bytes.len());
            bytes.splice(to..to, part);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(documents) = read(bytes, n_rows) {
            documents.for_each(drop);
        }
    }
}
