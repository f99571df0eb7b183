//! Vectors, ids and documents that cannot be imported.

use crate::golden::golden;
use crate::support::cli::{Workplace, indexed, small_model};

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// An npy file, version 1.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The first four unit vectors of eight dimensions, as npy, after `change`.
fn units(change: impl FnOnce(&mut [f32])) -> Vec<u8> {
    let mut values = [0f32; 32];
    (0..4).for_each(|i| values[i * 8 + i] = 1.0);
    change(&mut values);
    npy("<f4", "(4, 8)", &bytes_of(&values))
}

/// A place with an index `idx` of `units.npy`.
fn imported() -> Workplace {
    let place = Workplace::new();
    place.file("units.npy", units(|_| {}));
    place.call("import units.npy --into idx").ok();
    place
}

/// Checks that `idx` still holds the unit vectors and nothing else.
#[track_caller]
fn kept(place: &Workplace) {
    place.call("verify idx").ok();
    let stats = place.stats("idx");
    assert_eq!((&stats["rows"], &stats["dead_rows"]), (&4.into(), &0.into()));
    place.call("batch idx units.npy --out self.jsonl -k 1").ok();
    for (i, line) in place.lines("self.jsonl").iter().enumerate() {
        assert_eq!(line["hits"][0]["id"], i.to_string());
        assert_eq!(line["hits"][0]["score"], 1.0);
    }
}

#[test]
fn import_of_vectors_that_cannot_be_stored_names_file_vector_and_cure() {
    let place = imported();
    let with = |value: f32| units(|v| v[2 * 8 + 5] = value);
    let data = bytes_of(&[0.5; 32]);
    let whole = units(|_| {});
    let faiss = std::fs::read(golden().join("vectors/small_ip.faiss")).unwrap();
    let fvecs = |dims: [u32; 2]| -> Vec<u8> {
        let rows = dims.map(|dim| [&dim.to_le_bytes()[..], &bytes_of(&[0.5; 8])].concat());
        rows.concat()
    };
    let fbin = |rows: u32| [&rows.to_le_bytes()[..], &8u32.to_le_bytes(), &data].concat();
    let wide = npy("<f4", "(1, 20000)", &bytes_of(&[0.0; 20_000]));
    let huge = [0.5f64, 1e300].map(f64::to_le_bytes).concat();
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("nan.npy", with(f32::NAN), &["nan.npy, vector 2", "component 5", "NaN", "finite"]),
        ("inf.npy", with(f32::INFINITY), &["inf.npy, vector 2", "component 5", "inf", "finite"]),
        ("minus.npy", with(f32::NEG_INFINITY), &["minus.npy, vector 2", "-inf", "finite"]),
        ("big.npy", with(70_000.0), &["big.npy, vector 2", "component 5", "70000", "65504"]),
        ("huge.npy", with(1e30), &["huge.npy, vector 2", "component 5", "65504"]),
        ("huge64.npy", npy("<f8", "(1, 2)", &huge), &["huge64.npy, vector 0", "component 1"]),
        ("flat.npy", npy("<f4", "(4, 0)", b""), &["flat.npy", "no dimensions"]),
        ("none.npy", npy("<f4", "(0, 8)", b""), &["none.npy", "no vectors"]),
        ("int.npy", npy("<i4", "(4, 8)", &data), &["int.npy", "'<i4'", "astype('float32')"]),
        ("turned.npy", npy(">f4", "(4, 8)", &data), &["turned.npy", "'>f4'", "little-endian"]),
        ("cube.npy", npy("<f4", "(2, 2, 8)", &data), &["cube.npy", "3 axes", "need 2"]),
        ("wide.npy", wide, &["wide.npy", "20000 dimensions", "at most 16384"]),
        ("cut.npy", whole[..whole.len() - 10].to_vec(), &["cut.npy", "cut off", "4 vectors of 8"]),
        ("head.npy", whole[..50].to_vec(), &["head.npy", "the header is cut off"]),
        ("lies.npy", npy("<f4", "(9999999999999999, 8)", &data), &["lies.npy", "cut off"]),
        ("empty.npy", Vec::new(), &["empty.npy", "the file is empty"]),
        ("text.npy", b"no array at all".to_vec(), &["text.npy", "not a npy file"]),
        ("mixed.fvecs", fvecs([8, 9]), &["mixed.fvecs, vector 1", "9 dimensions, the first one 8"]),
        ("cut.fvecs", fvecs([8, 8])[..71].to_vec(), &["cut.fvecs", "71 bytes", "whole number"]),
        ("cut.fbin", fbin(5), &["cut.fbin", "cut off", "5 vectors of 8"]),
        ("long.fbin", fbin(3), &["long.fbin", "3 vectors of 8", "not an fbin file"]),
        ("cut.faiss", faiss[..faiss.len() - 10].to_vec(), &["cut.faiss", "cut off"]),
        ("head.faiss", faiss[..20].to_vec(), &["head.faiss", "the header is cut off"]),
    ];
    for (name, content, parts) in cases {
        place.file(name, content);
        // Vectors of other dimensions than `idx` go to another index.
        let into = if name.starts_with("huge64") { "other" } else { "idx" };
        place.refuses(&[(&format!("import {name} --into {into}"), 7, parts)]);
    }
    place.file("five.npy", npy("<f4", "(4, 5)", &bytes_of(&[0.5; 20])));
    place.file("units.dat", &whole);
    place.file("zero.npy", units(|v| v[8..16].fill(0.0)));
    let formats = ["'csv'", "npy, fvecs, fbin, faiss"];
    place.refuses(&[
        ("import five.npy --into idx", 2, &["idx", "8 dimensions, not 5", "another folder"]),
        ("import gone.npy --into idx", 8, &["gone.npy"]),
        ("import units.dat --into idx", 2, &["units.dat", ".npy, .fvecs, .fbin or .faiss"]),
        ("import units.npy --into idx --vector-format csv", 2, &formats),
        ("import zero.npy --into idx --normalize", 7, &["zero.npy, vector 1", "length"]),
    ]);
    kept(&place);
}

#[test]
fn import_of_documents_that_do_not_match_names_file_and_line_and_stores_none() {
    let place = imported();
    let document = |id: &str| format!("{{\"_id\": \"{id}\", \"text\": \"x\"}}\n");
    let documents = |ids: &[&str]| ids.iter().map(|id| document(id)).collect::<String>();
    let bad = document("a") + "{\"_id\": \"b\", \"text\": 7}\n";
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("few.txt", b"a\nb\n".into(), &["few.txt", "only 2 entries", "must match"]),
        ("none.txt", b"".into(), &["none.txt", "only 0 entries"]),
        ("many.txt", b"a\nb\nc\nd\ne\n".into(), &["many.txt", "more entries", "(4)"]),
        ("gap.txt", b"a\n\nc\nd\n".into(), &["gap.txt, line 2", "empty"]),
        ("twice.txt", b"a\nb\na\nd\n".into(), &["twice.txt, line 3", "'a' occurs twice"]),
        ("control.txt", b"a\nb\x01\nc\nd\n".into(), &["line 2", "control characters"]),
        ("latin.txt", b"a\ncaf\xe9\nc\nd\n".into(), &["latin.txt, line 2", "UTF-8"]),
        ("few.jsonl", documents(&["a", "b"]).into(), &["few.jsonl", "only 2 entries"]),
        ("many.jsonl", documents(&["a", "b", "c", "d", "e"]).into(), &["more entries", "(4)"]),
        ("twice.jsonl", documents(&["a", "b", "a", "d"]).into(), &["line 3: ", "'a' occurs twice"]),
        ("bad.jsonl", bad.into(), &["bad.jsonl, line 2, field 'text'", "found a number"]),
    ];
    for (name, content, parts) in cases {
        place.file(name, content);
        let flag = if name.ends_with(".txt") { "--ids" } else { "--documents" };
        let parts = [&[name][..], parts].concat();
        place.refuses(&[(&format!("import units.npy --into idx {flag} {name}"), 7, &parts)]);
    }
    kept(&place);
}

#[test]
fn import_that_replaces_rows_of_the_same_numbers_says_so() {
    let place = imported();
    place.file("others.npy", units(|v| v.reverse()));
    let report = place.call("import others.npy --into idx --json").ok().json();
    assert_eq!(report["updated"], 4, "{report}");
    let text = place.call("import units.npy --into idx").ok();
    assert!(text.stdout.contains("4 updated"), "{}", text.stdout);
}

#[test]
fn import_with_a_model_of_another_dimension_names_both() {
    let place = indexed(12);
    place.file("units.npy", units(|_| {}));
    let model = small_model().display().to_string();
    let args = ["import", "units.npy", "--into", "new", "--model", &model];
    place.run(&args).fails(2, &["8 dimensions", "makes 24"]);
    assert!(!place.path("new").exists());
    place.file("ids.txt", "a\nb\nc\nd\n");
    let both = "import units.npy --into new --ids ids.txt --documents corpus.jsonl";
    place.refuses(&[(both, 2, &["--ids", "--documents"])]);
    place.is_sound(12);
}
