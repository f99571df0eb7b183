//! FAISS stores of LangChain, imported by the built program.

use crate::golden::golden;
use crate::support::cli::Workplace;
use serde_json::Value;
use std::path::PathBuf;

fn store(name: &str) -> PathBuf {
    golden().join("langchain").join(name)
}

/// The lines of a store's `expected.jsonl`.
fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(store(name).join("expected.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that the index `idx` holds the documents and vectors of a store, in its order.
#[track_caller]
fn holds(place: &Workplace, name: &str) {
    let expected = expected(name);
    place.call("export idx --vectors v.npy --documents d.jsonl").ok();
    let lines = place.lines("d.jsonl");
    assert_eq!(lines.len(), expected.len(), "{name}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!((&line["id"], &line["text"]), (&expected["id"], &expected["text"]), "{name}");
        // As text: the order counts.
        assert_eq!(line["metadata"].to_string(), expected["metadata"].to_string(), "{name}");
    }
    // The vectors of LangChain find their own documents.
    let vectors = expected.iter().map(|line| line["vector"].to_string());
    let queries: Vec<String> = vectors.map(|v| format!("{{\"vector\": {v}}}\n")).collect();
    place.file("q.jsonl", queries.concat());
    place.call("batch idx q.jsonl --out o.jsonl -k 1").ok();
    for (line, expected) in place.lines("o.jsonl").iter().zip(&expected) {
        assert_eq!(line["hits"][0]["id"], expected["id"], "{name}");
    }
    place.call("verify idx").ok();
}

#[test]
fn import_of_a_langchain_store_keeps_ids_texts_metadata_and_order() {
    for version in ["2023-03", "2023-06", "2023-12", "2024-01", "current"] {
        for kind in ["texts", "changed"] {
            let (place, name) = (Workplace::new(), format!("{version}-{kind}"));
            let folder = store(&name).display().to_string();
            let run = place.run(&["import", &folder, "--into", "idx", "--json"]).ok();
            let (report, n) = (run.json(), expected(&name).len());
            assert_eq!((&report["rows"], &report["added"]), (&n.into(), &n.into()), "{report}");
            let notes = report["notes"].to_string();
            let note = match kind {
                "texts" => "field 'nan': 2 values became null",
                _ => "1 entry is left out: documents of the docstore that no vector belongs to",
            };
            assert!(notes.contains(note) && run.stderr.contains(note), "{notes}\n{}", run.stderr);
            holds(&place, &name);
        }
    }
}

#[test]
fn import_of_a_langchain_store_heeds_name_metric_and_scale() {
    let place = Workplace::new();
    let (folder, normalized) = (store("current-distances"), store("current-normalized"));
    let (folder, normalized) = (folder.display().to_string(), normalized.display().to_string());
    let import =
        |more: &[&str]| place.run(&[&["import", &folder, "--into", "idx"][..], more].concat());
    import(&[]).fails(2, &["index.faiss and index.pkl", "--index-name", "'papers'"]);
    let named = ["--index-name", "papers"];
    import(&named).fails(2, &["papers.faiss", "L2", "has the length 2.0000", "--normalize"]);
    assert!(!place.path("idx").exists());
    let scaled = import(&[&named[..], &["--normalize"]].concat()).ok();
    assert!(scaled.stderr.contains("ranked by cosine instead"), "{}", scaled.stderr);
    holds(&place, "current-distances");
    // LangChain scaled these itself.
    place.run(&["import", &normalized, "--into", "scaled"]).ok();
}

#[test]
fn import_of_every_protocol_of_pickle_gives_the_same() {
    let folder = store("current-protocols");
    for protocol in 0..6 {
        let place = Workplace::new();
        for (from, to) in [("index.faiss", "p.faiss"), (&format!("p{protocol}.pkl"), "p.pkl")] {
            place.file(&format!("s/{to}"), std::fs::read(folder.join(from)).unwrap());
        }
        place.call("import s --into idx --index-name p").ok();
        holds(&place, "current-protocols");
    }
}

#[test]
fn import_of_a_langchain_store_refuses_what_it_cannot_keep_and_stores_nothing() {
    let place = Workplace::new();
    let folder = store("current-changed");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let (faiss, pickle) = (read("index.faiss"), read("index.pkl"));
    let other = std::fs::read(store("current-texts").join("index.faiss")).unwrap();
    let save = |name: &str, faiss: &[u8], pickle: &[u8]| {
        place.file(&format!("{name}/index.faiss"), faiss);
        place.file(&format!("{name}/index.pkl"), pickle);
    };
    // A class of the standard library in the place of a known one.
    let class = |name: &str| [&b"\x80\x04c"[..], name.as_bytes(), b"\n)R."].concat();
    save("counter", &faiss, &class("collections\nCounter"));
    save("fraction", &faiss, &class("fractions\nFraction"));
    save("set", &faiss, b"\x80\x04\x8f.");
    save("old", &faiss, b"S'text'\n.");
    save("cut", &faiss, &pickle[..pickle.len() - 1]);
    save("empty", &faiss, b"");
    save("other", &other, &pickle);
    place.file("half/index.faiss", &faiss);
    place.file("ids.txt", "a\n");
    place.refuses(&[
        ("import counter --into idx", 7, &["index.pkl", "`collections.Counter` at byte 2"]),
        ("import fraction --into idx", 7, &["`fractions.Fraction`", "executed", "--documents"]),
        ("import set --into idx", 7, &["InMemoryDocstore", "found a set", "save_local"]),
        ("import old --into idx", 7, &["STRING", "Python 2", "byte 0"]),
        ("import cut --into idx", 7, &["index.pkl", "cut off"]),
        ("import empty --into idx", 7, &["index.pkl", "the file is empty"]),
        ("import other --into idx", 7, &["25 vectors", "10 positions", "an `add`"]),
        ("import half --into idx", 2, &["index.pkl", "vectors alone", "half/index.faiss"]),
        ("import counter --into idx --ids ids.txt", 2, &["--ids is for a file of vectors"]),
        ("import cut --into idx --text-field x", 2, &["--text-field is for a file of vectors"]),
        ("import cut/index.faiss --into idx --index-name x", 2, &["--index-name is for a folder"]),
    ]);
    assert!(!place.path("idx").exists());
    place.call("import counter/index.faiss --into idx").ok();
}
