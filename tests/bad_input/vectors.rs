//! Vectors, ids and documents that cannot be imported.

use crate::golden::golden;
use crate::support::cli::{Workplace, indexed, small_model};

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// An npy file, version 1.
pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
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
        ("bf16.npy", npy("<V2", "(4, 16)", &data), &["'<V2'", "bfloat16", "view('<u2')", "<< 16"]),
        ("f8.npy", npy("<f1", "(4, 32)", &data), &["'<f1'", "8-bit", "before they are saved"]),
        ("objects.npy", npy("|O", "(4,)", &data), &["'|O'", "np.stack"]),
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

/// A FAISS header of vectors of 8 dimensions.
fn faiss(letters: &[u8; 4], n_rows: u64, metric: u32) -> Vec<u8> {
    let numbers = [n_rows, 1 << 20, 1 << 20].map(u64::to_le_bytes).concat();
    [letters, &8u32.to_le_bytes()[..], &numbers, &[1], &metric.to_le_bytes()].concat()
}

/// An IndexFlat of these vectors, and one inside an IndexIDMap with these ids.
fn faiss_flat(letters: &[u8; 4], metric: u32, values: &[f32]) -> Vec<u8> {
    let head = faiss(letters, values.len() as u64 / 8, metric);
    [&head[..], &(values.len() as u64).to_le_bytes(), &bytes_of(values)].concat()
}

fn faiss_with_ids(letters: &[u8; 4], flat: &[u8], ids: &[i64]) -> Vec<u8> {
    let head = faiss(letters, ids.len() as u64, 0);
    let count = (ids.len() as u64).to_le_bytes();
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    [&head[..], flat, &count, &ids].concat()
}

#[test]
fn import_of_a_faiss_id_map_keeps_the_ids() {
    let mut units = [0f32; 32];
    (0..4).for_each(|i| units[i * 8 + i] = 1.0);
    let flat = faiss_flat(b"IxFI", 0, &units);
    let ids = [7, -5, 1 << 40, 0];
    let place = Workplace::new();
    for (letters, name) in [(b"IxMp", "map.faiss"), (b"IxM2", "map2.faiss")] {
        place.file(name, faiss_with_ids(letters, &flat, &ids));
        place.call(&format!("import {name} --into {name}.idx")).ok();
        place.call(&format!("batch {name}.idx {name} --out o.jsonl -k 1")).ok();
        let lines = place.lines("o.jsonl");
        for (line, id) in lines.iter().zip(ids) {
            assert_eq!(line["hits"][0]["id"], id.to_string(), "{line}");
            assert_eq!(line["hits"][0]["score"], 1.0);
        }
        assert_eq!(lines.len(), 4);
    }
    let whole = faiss_with_ids(b"IxMp", &flat, &ids);
    let hnsw = [&faiss(b"IxMp", 4, 0)[..], b"IHNf", &faiss(b"IxFI", 4, 0)[4..]].concat();
    place.file("cut.faiss", &whole[..whole.len() - 1]);
    place.file("none.faiss", &whole[..whole.len() - 40]);
    place.file("half.faiss", &whole[..whole.len() - 100]);
    place.file("head.faiss", &whole[..60]);
    place.file("few.faiss", faiss_with_ids(b"IxM2", &flat, &ids[..3]));
    place.file("hnsw.faiss", hnsw);
    place.file("twice.faiss", faiss_with_ids(b"IxMp", &flat, &[1, 2, 1, 3]));
    place.file("ids.txt", "a\nb\nc\nd\n");
    place.refuses(&[
        ("import cut.faiss --into new", 7, &["cut.faiss", "no ids for 4 vectors"]),
        ("import none.faiss --into new", 7, &["none.faiss", "cut off"]),
        ("import half.faiss --into new", 7, &["half.faiss", "cut off"]),
        ("import head.faiss --into new", 7, &["head.faiss", "cut off"]),
        ("import few.faiss --into new", 7, &["few.faiss", "3 ids", "4 vectors"]),
        ("import hnsw.faiss --into new", 7, &["'IHNf' inside an IndexIDMap", "IndexFlat"]),
        ("import twice.faiss --into new", 7, &["twice.faiss, vector 2", "'1' occurs twice"]),
    ]);
    let told = place.call("import map.faiss --into named --ids ids.txt").ok().stderr;
    assert!(told.contains("the ids in the FAISS index are not used"), "{told}");
}

#[test]
fn import_of_an_l2_index_promises_its_order_for_unit_vectors_alone() {
    let place = Workplace::new();
    let mut values = [0f32; 32];
    (0..4).for_each(|i| values[i * 8 + i] = 1.0);
    place.file("unit.faiss", faiss_flat(b"IxF2", 1, &values));
    let plain = place.call("import unit.faiss --into unit").ok();
    assert!(!plain.stderr.contains("L2"), "{}", plain.stderr);
    values[2 * 8 + 2] = 3.0;
    place.file("long.faiss", faiss_flat(b"IxF2", 1, &values));
    let parts = ["long.faiss", "L2", "vector 2 has the length 3.0000", "another order"];
    place.refuses(&[("import long.faiss --into long", 2, &parts)]);
    let scaled = place.call("import long.faiss --into long --normalize").ok();
    assert!(scaled.stderr.contains("ranked by cosine instead"), "{}", scaled.stderr);
}
