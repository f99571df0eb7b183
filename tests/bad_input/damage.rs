//! Indexes that are damaged, locked, or made by another version.

use super::{counts, index};
use crate::support::cli::{Workplace, assert_holds, indexed, records};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Commands that open the index `idx`, for reading or writing.
const COMMANDS: [&str; 8] = [
    "search idx river",
    "batch idx q.tsv --out out.jsonl",
    "info idx",
    "verify idx",
    "export idx --documents out.jsonl",
    "index corpus.jsonl --into idx",
    "delete idx d1",
    "compact idx",
];

/// Offset of the rows in a vector file.
const HEADER: usize = 4096;

/// Bytes of one row of the small model.
const ROW: usize = 64;

type Damage = fn(&mut Vec<u8>);

fn change(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    damage(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// The position of `words` in `bytes`.
#[track_caller]
fn find(bytes: &[u8], words: &[u8]) -> usize {
    bytes.windows(words.len()).position(|w| w == words).unwrap()
}

/// A place with an index `idx` of 40 records, and one with words that no other has.
fn with_a_rare_document() -> Workplace {
    let place = indexed(40);
    let rare = r#"{"_id": "rare", "text": "the xylograph stands alone", "topic": "zinnober"}"#;
    place.file("rare.jsonl", rare);
    index(&place, "rare.jsonl", &[]);
    place
}

#[test]
fn damaged_file_is_named_with_the_cure_by_every_command() {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\n");
    let cases: &[(&str, &str, Damage, &[&str])] = &[
        ("manifest cut off", "manifest.json", |b| b.truncate(30), &["damaged", "backup"]),
        ("manifest empty", "manifest.json", Vec::clear, &["damaged", "backup"]),
        (
            "manifest of something else",
            "manifest.json",
            |b| *b = br#"{"name": "photos"}"#.to_vec(),
            &["not a warpseek manifest", "backup"],
        ),
        (
            "manifest of a future version",
            "manifest.json",
            |b| {
                let text = String::from_utf8(b.clone()).unwrap();
                let from = "\"format_version\": 2";
                assert!(text.contains(from), "{text}");
                *b = text.replace(from, "\"format_version\": 99").into_bytes();
            },
            &["format version 99", "reads up to 3", "update warpseek"],
        ),
        (
            "manifest with another dimension",
            "manifest.json",
            |b| {
                let at = find(b, b"\"dim\": 24");
                b[at + 8] = b'5';
            },
            &["changed after the index was created", "backup"],
        ),
        ("database empty", "documents.db", Vec::clear, &["empty or not warpseek's", "backup"]),
        ("database halved", "documents.db", |b| b.truncate(b.len() / 2), &["damaged", "backup"]),
        (
            "database replaced",
            "documents.db",
            |b| *b = b"dear diary, ".repeat(5000),
            &["damaged", "backup"],
        ),
        (
            "database of a future version",
            "documents.db",
            |b| {
                b[60..64].copy_from_slice(&99u32.to_be_bytes());
                let checksum = xxh3_64_with_seed(&b[..4088], 1);
                b[4088..4096].copy_from_slice(&checksum.to_le_bytes());
            },
            &["format version 99", "update warpseek"],
        ),
        ("vectors empty", "vectors-0.f16", Vec::clear, &["cut off: 0 bytes", "backup"]),
        ("vectors without header", "vectors-0.f16", |b| b.truncate(100), &["cut off: 100 bytes"]),
        (
            "vectors cut off",
            "vectors-0.f16",
            |b| b.truncate(HEADER + 7 * ROW + 3),
            &["cut off: it holds 7 rows, the index committed 20", "backup"],
        ),
        ("header bit flipped", "vectors-0.f16", |b| b[1000] ^= 4, &["header is damaged", "backup"]),
        (
            "vectors replaced",
            "vectors-0.f16",
            |b| b[..8].fill(b'x'),
            &["not a warpseek vector file"],
        ),
    ];
    for (what, name, damage, parts) in cases {
        let path = place.path("idx").join(name);
        let before = std::fs::read(&path).unwrap();
        change(&path, damage);
        let damaged = std::fs::read(&path).unwrap();
        let named = format!("idx/{name}: ");
        for command in COMMANDS {
            eprintln!("{what}");
            place.refuses(&[(command, 5, &[&[named.as_str()][..], parts].concat())]);
            assert_eq!(std::fs::read(&path).unwrap(), damaged, "{what}: nothing writes to it");
        }
        std::fs::write(&path, before).unwrap();
    }
    place.is_sound(20);
}

#[test]
fn missing_file_is_named_with_the_cure_by_every_command() {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\n");
    for name in ["vectors-0.f16", "documents.db"] {
        let path = place.path("idx").join(name);
        std::fs::rename(&path, place.path("away")).unwrap();
        let named = format!("idx/{name}: ");
        for command in COMMANDS {
            place.refuses(&[(command, 5, &[&named, "missing", "backup"])]);
        }
        std::fs::rename(place.path("away"), path).unwrap();
    }
    place.is_sound(20);
}

/// Ids and scores of a search.
fn found(place: &Workplace) -> serde_json::Value {
    let run = place.call("search idx 'river bread' --json").ok().json();
    let hits = run["hits"].as_array().unwrap();
    hits.iter().map(|hit| serde_json::json!([hit["id"], hit["score"]])).collect()
}

#[test]
fn damaged_derived_file_changes_no_answer_and_compact_makes_it_anew() {
    let place = indexed(40);
    let before = found(&place);
    type FileDamage = fn(&Path);
    let cases: [(&str, &str, FileDamage); 6] = [
        ("missing", "i8", |path| std::fs::remove_file(path).unwrap()),
        ("missing", "scale", |path| std::fs::remove_file(path).unwrap()),
        ("missing", "sum", |path| std::fs::remove_file(path).unwrap()),
        ("header is damaged", "sum", |path| change(path, |bytes| bytes[20] ^= 4)),
        ("cut off", "i8", |path| change(path, |bytes| bytes.truncate(HEADER + 100))),
        ("header is damaged", "scale", |path| change(path, |bytes| bytes[1000] ^= 4)),
    ];
    for (generation, (what, extension, damage)) in cases.into_iter().enumerate() {
        let name = format!("vectors-{generation}.{extension}");
        damage(&place.path("idx").join(&name));
        let run = place.call("search idx 'river bread'").ok();
        assert_holds(&run.stderr, &[&name, what, "warpseek compact"]);
        assert_eq!(found(&place), before, "{name} {what}");
        let verify = place.call("verify idx").fails(5, &["1 of 12 checks failed"]);
        assert_holds(&verify.stdout, &["is missing or cannot be used; `warpseek compact`"]);
        place.call("compact idx").ok();
        assert_eq!(found(&place), before, "{name} {what}");
        place.is_sound(40);
    }
}

#[test]
fn prefilter_that_cannot_be_extended_is_given_up() {
    let place = indexed(40);
    let path = place.path("idx/vectors-0.scale");
    let whole = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    place.file("more.jsonl", records(45));
    index(&place, "more.jsonl", &[]);
    // Not even the old file, put back, is believed.
    std::fs::write(&path, whole).unwrap();
    assert_holds(&place.call("info idx").ok().stdout, &["int8 copy  none; `warpseek compact`"]);
    place.is_sound(45);
    place.call("compact idx").ok();
    assert!(place.stats("idx")["prefilter_bytes"].as_u64().unwrap() > 0);
    place.is_sound(45);
}

#[test]
fn damaged_row_is_refused_and_a_damaged_int8_row_costs_speed_alone() {
    let place = indexed(40);
    let before = found(&place);
    let search = "search idx 'river bread' -k 40";
    for (name, at) in [("vectors-0.i8", 7 * 64 + 3), ("vectors-0.scale", 9 * 12 + 3)] {
        let path = place.path("idx").join(name);
        change(&path, |bytes| bytes[HEADER + at] ^= 0x11);
        let run = place.call(search).ok();
        let named = ["vectors-0.i8: row ", "is damaged", "`warpseek compact` makes it anew"];
        assert_holds(&run.stderr, &named);
        assert_eq!(found(&place), before, "{name}");
        change(&path, |bytes| bytes[HEADER + at] ^= 0x11);
    }
    let path = place.path("idx/vectors-0.f16");
    let flip = |bytes: &mut Vec<u8>| bytes[HEADER + 10 * ROW + 5] ^= 0x40;
    change(&path, flip);
    let named: &[&str] = &["idx/vectors-0.f16: row 10 is damaged", "checksum", "backup"];
    place.refuses(&[
        (search, 5, named),
        ("search idx 'river bread' -k 40 --hybrid", 5, named),
        ("export idx --vectors out.npy", 5, named),
    ]);
    change(&path, flip);
    // The checksum of a row that is right.
    let path = place.path("idx/vectors-0.sum");
    change(&path, |bytes| bytes[HEADER + 10 * 8 + 1] ^= 0x40);
    let run = place.call(search).ok();
    assert_holds(&run.stderr, &["vectors-0.sum: the checksum of row 10", "the row is right"]);
    assert_eq!(found(&place), before);
}

#[test]
fn lost_write_ahead_log_is_told_with_the_cure() {
    let place = indexed(20);
    let before: Vec<_> = ["documents.db", "documents.db-wal", "documents.db-shm"]
        .map(|name| place.path("idx").join(name))
        .into_iter()
        .filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?)))
        .collect();
    place.call("delete idx d3").ok();
    // A database as it was, and no log: the deletion is lost.
    for (path, bytes) in &before {
        std::fs::write(path, bytes).unwrap();
    }
    let named: &[&str] = &["documents.db-wal: commits were lost", "backup", "'commits'"];
    place.file("q.tsv", "q1\triver\n");
    for command in COMMANDS {
        place.refuses(&[(command, 5, named)]);
    }
    std::fs::remove_file(place.path("idx/commits")).unwrap();
    place.is_sound(20);
    place.call("delete idx d4").ok();
    place.is_sound(19);
    // A damaged number is told and made anew.
    change(&place.path("idx/commits"), |bytes| bytes[3] ^= 1);
    assert_holds(&place.call("info idx").ok().stderr, &["commits: the file is damaged"]);
    place.call("delete idx d5").ok();
    assert!(!place.call("info idx").ok().stderr.contains("damaged"));
}

#[test]
fn verify_of_a_wrong_prefilter_names_the_files_and_the_cure() {
    let place = indexed(40);
    for (name, at) in [("vectors-0.i8", 7 * 64 + 3), ("vectors-0.scale", 9 * 12)] {
        let path = place.path("idx").join(name);
        change(&path, |bytes| bytes[HEADER + at] ^= 0x11);
        let verify = place.call("verify idx --sample 3").fails(5, &["1 of 12 checks failed"]);
        let damaged = "DAMAGED  vectors-0.i8 and vectors-0.scale, against the rows: from row 0 on";
        assert_holds(&verify.stdout, &[damaged]);
        change(&path, |bytes| bytes[HEADER + at] ^= 0x11);
    }
    place.is_sound(40);
}

#[test]
fn index_that_lost_its_manifest_is_not_thrown_away() {
    let place = indexed(20);
    place.file("new.jsonl", "{\"_id\": \"new\", \"text\": \"fresh bread\"}\n");
    let path = place.path("idx/manifest.json");
    std::fs::rename(&path, place.path("away")).unwrap();
    place.refuses(&[("search idx river", 8, &["idx", "manifest.json"])]);
    // The next writer restores the manifest from the database's copy.
    assert_eq!(counts(&index(&place, "new.jsonl", &[]), ["added", "updated"]), [1, 0]);
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(place.path("away")).unwrap());
    place.is_sound(21);
}

#[test]
fn index_beside_somebody_elses_database_is_refused_and_leaves_it() {
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    place.file("theirs/documents.db", "not a database of ours");
    let run = place.call("index c.jsonl --into theirs");
    assert!(matches!(run.code, 2 | 5), "{}", run.stderr);
    let database = std::fs::read(place.path("theirs/documents.db")).unwrap();
    assert_eq!(database, b"not a database of ours");
}

#[test]
fn verify_of_a_flipped_bit_names_the_file_and_the_rows() {
    let place = indexed(20);
    place.file("more.jsonl", records(45));
    index(&place, "more.jsonl", &[]);
    let path = place.path("idx/vectors-0.f16");
    for (row, rows) in [(0, "rows 0 to 19"), (31, "rows 20 to 44"), (44, "rows 20 to 44")] {
        let flip = |bytes: &mut Vec<u8>| bytes[HEADER + row * ROW + 5] ^= 1;
        change(&path, flip);
        let run = place.call("verify idx --sample 2").fails(5, &["idx", "of 10 checks failed"]);
        assert_eq!(run.stdout.matches("DAMAGED").count(), 1, "{}", run.stdout);
        assert_holds(&run.stdout, &[&format!("DAMAGED  vectors-0.f16, {rows}: "), "backup"]);
        let json = place.call("verify idx --json");
        assert_eq!((json.code, &json.json()["sound"]), (5, &false.into()));
        change(&path, flip);
    }
    place.is_sound(45);
}

#[test]
fn compact_of_damaged_vectors_does_not_pass_them_off_as_sound() {
    let place = indexed(20);
    place.call("delete idx d3").ok();
    let path = place.path("idx/vectors-0.f16");
    let flip = |bytes: &mut Vec<u8>| bytes[HEADER + 10 * ROW + 5] ^= 0x40;
    change(&path, flip);
    place.refuses(&[
        ("compact idx", 5, &["idx/vectors-0.f16", "rows 0 to 19", "backup"]),
        ("verify idx", 5, &["of 10 checks failed"]),
    ]);
    change(&path, flip);
    place.call("compact idx").ok();
    place.is_sound(19);
}

#[test]
fn verify_of_a_document_with_changed_bytes_names_it() {
    let place = with_a_rare_document();
    let path = place.path("idx/documents.db");
    // A letter, and a byte that is not UTF-8; a value, and the structure of the metadata.
    type ByteDamage = fn(&mut u8);
    let cases: [(&[u8], usize, ByteDamage); 4] = [
        (b"xylograph stands", 0, |b| *b ^= 0x20),
        (b"xylograph stands", 0, |b| *b = 0xff),
        (b"zinnober", 0, |b| *b = b'Z'),
        (b"zinnober", 1, |b| *b = 0xff),
    ];
    let before = std::fs::read(&path).unwrap();
    for (words, bytes_before, damage) in cases {
        change(&path, |b| {
            let at = find(b, words) - bytes_before;
            damage(&mut b[at]);
        });
        let run = place.call("verify idx").fails(5, &["checks failed"]);
        let page = "the checksum of page ";
        assert_holds(
            &run.stdout,
            &["DAMAGED  documents.db, content: the database is damaged", page],
        );
        assert_holds(&run.stdout, &["ok       vectors-0.f16, checksums and norms of 41 rows"]);
        std::fs::write(&path, &before).unwrap();
    }
    place.is_sound(41);
}

#[test]
fn database_with_any_changed_byte_is_damaged_or_answers() {
    let place = with_a_rare_document();
    let path = place.path("idx/documents.db");
    let whole = std::fs::read(&path).unwrap();
    // A stride that shares no factor with SQLite's page size reaches all kinds of bytes. The other
    // positions are where damage shows only when a row is read.
    let rare = find(&whole, b"zinnober");
    let tokenizer = find(&whole, b"porter unicode61");
    let spread = (100..whole.len()).step_by(2311);
    for at in spread.chain([rare - 1, rare - 8, tokenizer]) {
        change(&path, |bytes| bytes[at] ^= 0x11);
        eprintln!("case: byte {at}");
        let search = place.call("search idx xylograph -k 50 --hybrid --json").unbroken();
        let verify = place.call("verify idx").unbroken();
        for run in [&search, &verify] {
            assert!(matches!(run.code, 0 | 5), "byte {at}: {}: {}", run.code, run.stderr);
        }
        assert!(search.code == 0 || verify.code == 5, "byte {at}: verify misses it");
        std::fs::write(&path, &whole).unwrap();
    }
    place.is_sound(41);
}

#[test]
fn index_that_another_process_writes_is_left_alone() {
    let place = indexed(20);
    place.file("v.fbin", [&1u32.to_le_bytes()[..], &24u32.to_le_bytes(), &[0; 96]].concat());
    place.file("idx/lock", "4711");
    let lock = std::fs::File::options().write(true).open(place.path("idx/lock")).unwrap();
    lock.try_lock().unwrap();
    let held = ["idx is being written by another process", "process 4711", "try again"];
    for command in [
        "index corpus.jsonl --into idx",
        "index corpus.jsonl --into idx --prune",
        "import v.fbin --into idx",
        "delete idx d1",
        "delete idx --filter 'year > 0'",
        "compact idx",
    ] {
        place.refuses(&[(command, 8, &held)]);
    }
    place.is_sound(20);
    drop(lock);
    place.call("compact idx").ok();
    place.is_sound(20);
}
