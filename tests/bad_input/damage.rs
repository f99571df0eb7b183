//! Indexes that are damaged, locked, or made by another version.

use super::{index, indexed, refused, sound, unbroken};
use crate::support::cli::{Workplace, records};
use std::path::Path;

/// Commands that open the index `idx`, for reading or writing.
const COMMANDS: [&[&str]; 8] = [
    &["search", "idx", "river"],
    &["batch", "idx", "q.tsv", "--out", "out.jsonl"],
    &["info", "idx"],
    &["verify", "idx"],
    &["export", "idx", "--documents", "out.jsonl"],
    &["index", "corpus.jsonl", "--into", "idx"],
    &["delete", "idx", "d1"],
    &["compact", "idx"],
];

/// Bytes of the header of a vector file, and of a row of the small model.
const HEADER: usize = 4096;
const ROW: usize = 64;

type Damage = fn(&mut Vec<u8>);

/// Changes the bytes of a file; returns those that it had.
fn change(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = std::fs::read(path).unwrap();
    let mut bytes = before.clone();
    damage(&mut bytes);
    std::fs::write(path, bytes).unwrap();
    before
}

/// Replaces the first occurrence of `old` by `new`, which may have another length.
#[track_caller]
fn replace(bytes: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let at = find(bytes, old);
    bytes.splice(at..at + old.len(), new.iter().copied());
}

/// Position of the first occurrence of `words`.
#[track_caller]
fn find(bytes: &[u8], words: &[u8]) -> usize {
    bytes.windows(words.len()).position(|w| w == words).unwrap()
}

/// Runs `verify` and checks that this is among its findings. Returns the number of failed checks.
#[track_caller]
fn damaged(place: &Workplace, what: &str, finding: &str) -> usize {
    let run = place.run(&["verify", "idx"]);
    refused(&run, what, 5, &["idx", "checks failed"]);
    let finding = format!("DAMAGED  {finding}");
    assert!(run.stdout.contains(&finding), "{what}: no '{finding}' in: {}", run.stdout);
    run.stdout.matches("DAMAGED").count()
}

/// A folder with an index `idx` of 40 records, and one more with words of its own.
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
    let newer = "format version 99, and this warpseek reads up to 2";
    let [manifest, database, vectors] = ["manifest.json", "documents.db", "vectors-0.f16"];
    let cases: &[(&str, Damage, &str)] = &[
        (manifest, |b| b.truncate(30), "damaged"),
        (manifest, Vec::clear, "damaged"),
        (manifest, |b| *b = br#"{"name": "photos"}"#.to_vec(), "not a warpseek manifest"),
        (manifest, |b| replace(b, br#"format_version": 2"#, br#"format_version": 99"#), newer),
        (manifest, |b| replace(b, br#"dim": 24"#, br#"dim": 54"#), "changed after the index was"),
        (database, Vec::clear, "empty or not warpseek's"),
        (database, |b| b.truncate(b.len() / 2), "damaged"),
        (database, |b| *b = b"dear diary, ".repeat(5000), "damaged"),
        (database, |b| b[60..64].copy_from_slice(&99u32.to_be_bytes()), newer),
        (vectors, Vec::clear, "cut off: 0 bytes"),
        (vectors, |b| b.truncate(100), "cut off: 100 bytes"),
        (vectors, |b| b.truncate(HEADER + 7 * ROW + 3), "it holds 7 rows, the index committed 20"),
        (vectors, |b| b[1000] ^= 4, "header is damaged"),
        (vectors, |b| b[..8].fill(b'x'), "not a warpseek vector file"),
    ];
    for (name, damage, finding) in cases {
        let path = place.path("idx").join(name);
        let before = change(&path, damage);
        let damaged = std::fs::read(&path).unwrap();
        let remedy = if *finding == newer { "update warpseek" } else { "backup" };
        for command in COMMANDS {
            let what = format!("{name}, {finding}: {}", command.join(" "));
            let parts = [&format!("idx/{name}: "), *finding, remedy];
            refused(&place.run(command), &what, 5, &parts);
            assert_eq!(std::fs::read(&path).unwrap(), damaged, "{what}: the file was written");
        }
        std::fs::write(&path, before).unwrap();
    }
    sound(&place, 20);
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
            let what = format!("no {name}: {}", command.join(" "));
            refused(&place.run(command), &what, 5, &[&named, "missing", "backup"]);
        }
        std::fs::rename(place.path("away"), path).unwrap();
    }
    sound(&place, 20);
}

/// Ids and scores of a search.
fn found(place: &Workplace) -> serde_json::Value {
    let run = place.run(&["search", "idx", "river bread", "--json"]).ok().json();
    let hits = run["hits"].as_array().unwrap();
    hits.iter().map(|hit| serde_json::json!([hit["id"], hit["score"]])).collect()
}

#[test]
fn damaged_int8_copy_costs_speed_alone_until_compact_makes_it_anew() {
    let place = indexed(40);
    let before = found(&place);
    let cases: [(&str, &str, Option<Damage>); 4] = [
        ("missing", "i8", None),
        ("missing", "scale", None),
        ("cut off", "i8", Some(|bytes| bytes.truncate(HEADER + 100))),
        ("header is damaged", "scale", Some(|bytes| bytes[1000] ^= 4)),
    ];
    for (generation, (what, extension, damage)) in cases.iter().enumerate() {
        let name = format!("vectors-{generation}.{extension}");
        let path = place.path("idx").join(&name);
        match damage {
            Some(damage) => drop(change(&path, damage)),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let run = place.run(&["search", "idx", "river bread"]).ok();
        for part in [&name, *what, "warpseek compact"] {
            assert!(run.stderr.contains(part), "{name} {what}: {}", run.stderr);
        }
        assert_eq!(found(&place), before, "{name} {what}");
        let files = format!("vectors-{generation}.i8 and vectors-{generation}.scale");
        let finding =
            format!("{files}, against the rows: one of them is missing or cannot be used");
        assert_eq!(damaged(&place, what, &format!("{finding}; `warpseek compact`")), 1);
        place.run(&["compact", "idx"]).ok();
        assert_eq!(found(&place), before, "{name} {what}");
        sound(&place, 40);
    }
}

#[test]
fn int8_copy_that_cannot_be_extended_is_given_up() {
    let place = indexed(40);
    let path = place.path("idx/vectors-0.scale");
    let whole = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    place.file("more.jsonl", records(45));
    index(&place, "more.jsonl", &[]);
    // The old file, put back, is not used either: it lacks the new rows.
    std::fs::write(&path, whole).unwrap();
    let int8_bytes =
        || place.run(&["info", "idx", "--json"]).ok().json()["stats"]["prefilter_bytes"].as_u64();
    assert_eq!(int8_bytes(), Some(0));
    let info = place.run(&["info", "idx"]).ok().stdout;
    assert!(info.contains("none; `warpseek compact`"), "{info}");
    sound(&place, 45);
    place.run(&["compact", "idx"]).ok();
    assert!(int8_bytes() > Some(0));
    sound(&place, 45);
}

#[test]
fn verify_of_a_wrong_int8_copy_names_the_files_and_the_cure() {
    let place = indexed(40);
    for (name, at) in [("vectors-0.i8", 7 * 64 + 3), ("vectors-0.scale", 9 * 12)] {
        let path = place.path("idx").join(name);
        let before = change(&path, |bytes| bytes[HEADER + at] ^= 0x11);
        let finding = "vectors-0.i8 and vectors-0.scale, against the rows: from row 0 on";
        assert_eq!(damaged(&place, name, finding), 1);
        std::fs::write(&path, before).unwrap();
    }
    sound(&place, 40);
}

#[test]
fn index_that_lost_its_manifest_is_not_thrown_away() {
    let place = indexed(20);
    place.file("new.jsonl", "{\"_id\": \"new\", \"text\": \"fresh bread\"}\n");
    let path = place.path("idx/manifest.json");
    std::fs::rename(&path, place.path("away")).unwrap();
    refused(&place.run(&["search", "idx", "river"]), "search", 8, &["idx", "manifest.json"]);
    // The next writer puts the manifest back from the database's copy and goes on.
    let report = place.run(&["index", "new.jsonl", "--into", "idx", "--json"]).ok().json();
    assert_eq!((&report["added"], &report["updated"]), (&1.into(), &0.into()));
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(place.path("away")).unwrap());
    sound(&place, 21);
}

#[test]
fn index_beside_somebody_elses_database_is_refused_and_leaves_it() {
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    place.file("theirs/documents.db", "not a database of ours");
    let run = place.run(&["index", "c.jsonl", "--into", "theirs"]);
    assert!(matches!(run.code, 2 | 5), "{}", run.stderr);
    assert_eq!(
        std::fs::read(place.path("theirs/documents.db")).unwrap(),
        b"not a database of ours"
    );
}

#[test]
fn verify_of_a_flipped_bit_names_the_file_and_the_rows() {
    let place = indexed(20);
    place.file("more.jsonl", records(45));
    index(&place, "more.jsonl", &[]);
    let path = place.path("idx/vectors-0.f16");
    for (row, rows) in [(0, "rows 0 to 19"), (31, "rows 20 to 44"), (44, "rows 20 to 44")] {
        let before = change(&path, |bytes| bytes[HEADER + row * ROW + 5] ^= 1);
        assert_eq!(damaged(&place, rows, &format!("vectors-0.f16, {rows}: ")), 1);
        let json = place.run(&["verify", "idx", "--sample", "2", "--json"]);
        assert_eq!((json.code, &json.json()["sound"]), (5, &false.into()));
        std::fs::write(&path, before).unwrap();
    }
    sound(&place, 45);
}

#[test]
fn compact_of_damaged_vectors_does_not_pass_them_off_as_sound() {
    let place = indexed(20);
    place.run(&["delete", "idx", "d3"]).ok();
    let path = place.path("idx/vectors-0.f16");
    let before = change(&path, |bytes| bytes[HEADER + 10 * ROW + 5] ^= 0x40);
    let run = place.run(&["compact", "idx"]);
    refused(&run, "compact", 5, &["idx/vectors-0.f16", "rows 0 to 19", "backup"]);
    damaged(&place, "verify", "vectors-0.f16, rows 0 to 19: ");
    std::fs::write(&path, before).unwrap();
    place.run(&["compact", "idx"]).ok();
    sound(&place, 19);
}

#[test]
fn verify_of_a_document_with_changed_bytes_names_it() {
    let place = with_a_rare_document();
    let path = place.path("idx/documents.db");
    let cases: [(&str, Damage); 4] = [
        ("a letter", |b| replace(b, b"xylograph stands", b"Xylograph stands")),
        ("no UTF-8", |b| replace(b, b"xylograph stands", b"\xffylograph stands")),
        ("a value of the metadata", |b| replace(b, b"zinnober", b"Zinnober")),
        ("the structure of the metadata", |b| {
            let at = find(b, b"zinnober");
            b[at - 1] = 0xff;
        }),
    ];
    for (what, damage) in cases {
        let before = change(&path, damage);
        let finding = "documents.db, content of 41 documents: 1 documents are damaged, 'rare'";
        damaged(&place, what, finding);
        std::fs::write(&path, before).unwrap();
    }
    sound(&place, 41);
}

#[test]
fn database_with_any_changed_byte_is_damaged_or_answers() {
    let place = with_a_rare_document();
    let path = place.path("idx/documents.db");
    let whole = std::fs::read(&path).unwrap();
    // The step shares no factor with SQLite's page size, so it reaches all kinds of bytes. Damage
    // at the other places shows only when a row is read.
    let rare = find(&whole, b"zinnober");
    let tokenizer = find(&whole, b"porter unicode61");
    let spread = (100..whole.len()).step_by(2311);
    for at in spread.chain([rare - 1, rare - 8, tokenizer]) {
        change(&path, |bytes| bytes[at] ^= 0x11);
        let search = place.run(&["search", "idx", "xylograph", "-k", "50", "--hybrid", "--json"]);
        let verify = place.run(&["verify", "idx"]);
        for run in [&search, &verify] {
            let what = format!("byte {at}");
            unbroken(run, &what);
            assert!(matches!(run.code, 0 | 5), "{what}: {}: {}", run.code, run.stderr);
        }
        assert!(search.code == 0 || verify.code == 5, "byte {at}: verify misses it");
        std::fs::write(&path, &whole).unwrap();
    }
    sound(&place, 41);
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
        &["index", "corpus.jsonl", "--into", "idx"][..],
        &["index", "corpus.jsonl", "--into", "idx", "--prune"],
        &["import", "v.fbin", "--into", "idx"],
        &["delete", "idx", "d1"],
        &["delete", "idx", "--filter", "year > 0"],
        &["compact", "idx"],
    ] {
        refused(&place.run(command), &command.join(" "), 8, &held);
    }
    sound(&place, 20);
    drop(lock);
    place.run(&["compact", "idx"]).ok();
    sound(&place, 20);
}
