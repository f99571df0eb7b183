//! JSON lines.

use std::time::{Duration, Instant};

use serde_json::json;
use warpseek_error::Error;
use warpseek_ingest::{FieldMap, ReadOptions};

use super::{Folder, assert_has, documents, first_error, gzip, memory, noted, outcomes, read};

fn limit(max_record_bytes: u64) -> ReadOptions {
    ReadOptions { max_record_bytes, ..ReadOptions::default() }
}

#[test]
fn jsonl_lines_know_their_number() {
    let content = "\u{feff}{\"id\":1,\"text\":\"a\"}\r\n\r\n  \n\
        {\"id\":2,\"text\":\"b\"}\n{\"id\":3,\"text\":\"c\"}";
    let all = documents("d.jsonl", content);
    let places: Vec<_> = all.iter().map(|d| d.place.record.as_deref()).collect();
    assert_eq!(places, [Some("line 1"), Some("line 4"), Some("line 5")]);
    assert!(all[0].place.file.ends_with("d.jsonl"));
}

#[test]
fn jsonl_records_without_id_are_numbered_alike_every_time() {
    let content = "{\"text\":\"a\"}\n\nbroken\n{\"text\":\"b\"}\n";
    let folder = Folder::new();
    let path = folder.file("d.jsonl", content);
    for _ in 0..2 {
        let ids: Vec<_> =
            read(&path, &limit(100)).into_iter().flatten().map(|document| document.id).collect();
        let path = path.display();
        assert_eq!(ids, [format!("{path}:1"), format!("{path}:3")]);
    }
}

#[test]
fn jsonl_bad_lines_do_not_stop_the_others() {
    let deep = format!("{{\"id\":1,\"text\":\"a\",\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let cases: [(&[u8], &[&str]); 10] = [
        (b"{\"id\":1,\"text\":\"a\"", &["EOF while parsing", "column 18"]),
        (b"{\"id\":1 \"text\":\"a\"}", &["expected `,` or `}`", "column 9"]),
        (b"{\"id\":1,\"text\":\"a\"} x", &["trailing characters", "column 21"]),
        (b"[1, 2]", &["expected an object, found an array"]),
        (b"\"text\"", &["expected an object, found a string"]),
        (b"{\"id\":1,\"text\":\"a\xff\"}", &["not valid UTF-8 at byte 18 of the line", "iconv"]),
        (b"{\"id\":1,\"text\":\"a\",\"id\":2}", &["the key 'id' appears twice", "column"]),
        (b"{\"id\":1,\"text\":\"a\",\"m\":[{\"k\":1,\"k\":1}]}", &["the key 'k' appears twice"]),
        (b"{\"id\":1,\"text\":\"a\",\"x\":1e999}", &["number out of range"]),
        (deep.as_bytes(), &["recursion limit exceeded"]),
    ];
    for (line, parts) in cases {
        let mut content = b"{\"id\":0,\"text\":\"first\"}\n".to_vec();
        content.extend(line);
        content.extend(b"\n{\"id\":9,\"text\":\"last\"}\n");
        let outcomes = outcomes("d.jsonl", content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 3, "{outcomes:?}");
        assert_has(&outcomes[1], &["d.jsonl, line 2: "]);
        assert_has(&outcomes[1], parts);
        assert!(!outcomes[1].contains("at line"), "{}", outcomes[1]);
        assert_eq!(outcomes[2], "last");
    }
}

#[test]
fn json_that_is_not_lines_is_read_as_its_records() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let marked = utf16("\u{feff}{\"id\": 1, \"text\": \"a\"}");
    let unmarked = utf16("[{\"id\": 1, \"text\": \"a\"}, {\"text\": \"b\", \"id\": 2}]");
    let cases: [(&[u8], &[&str]); 10] = [
        (br#"[{"id": 1, "text": "a"}]"#, &["a"]),
        (
            b"\n[\n  {\"text\": \"a, ]}\"},\n{\"text\":\"\\\"]\",\"x\":[[{}]]}\n]\n",
            &["a, ]}", "\"]"],
        ),
        (b"{\n  \"id\": 1,\n  \"text\": \"a\"\n}\n", &["a"]),
        (b"{\n\"text\":\"a\"\n}\n{\"text\":\n\"b\"}{\"text\":\"c\"}", &["a", "b", "c"]),
        (b"[{\"text\":\"a\"},7,{\"text\":\"c\"}]", &["a", "record 2: not a JSON object", "c"]),
        (
            b"[{\"text\":\"a\"},{\"text\":x},{\"text\":\"c\"}]",
            &["a", "record 2: not valid JSON", "c"],
        ),
        (b"[{\"text\":\"a\"}{\"text\":\"b\"}]", &["a", "record 2: no comma"]),
        (b"[{\"text\":\"a\"},\n{\"text\":\"b\"", &["a", "record 2: the file ends inside"]),
        (&marked, &["a"]),
        (&unmarked, &["a", "b"]),
    ];
    for (content, expected) in cases {
        for (name, content) in [("d.json", content.to_vec()), ("d.jsonl.gz", gzip(content))] {
            let outcomes = outcomes(name, content, &ReadOptions::default());
            assert_eq!(outcomes.len(), expected.len(), "{outcomes:?}");
            outcomes.iter().zip(expected).for_each(|(outcome, part)| assert_has(outcome, &[part]));
        }
    }
}

#[test]
fn json_array_of_any_length_takes_little_memory() {
    let folder = super::Folder::new();
    let record = format!("{{\"text\": \"{}\"}},\n", "word ".repeat(100));
    let path = folder.file("d.json", format!("[{}{{\"text\":\"last\"}}]", record.repeat(20_000)));
    let (count, peak) = super::memory::peak(|| {
        let mut reader = warpseek_ingest::open(&[path], &ReadOptions::default()).expect("a reader");
        reader.by_ref().filter(Result::is_ok).count()
    });
    assert_eq!(count, 20_001);
    assert!(peak < 1 << 20, "{peak} bytes at once");
    let long = format!("[{{\"text\":\"{}\"}},{{\"text\":\"b\"}}]", "x".repeat(3000));
    let outcomes = outcomes("d.json", long, &limit(1024));
    assert_has(&outcomes[0], &["record 1", "longer than 1 KiB", "--max-record-bytes"]);
    assert_eq!(outcomes[1], "b");
}

#[test]
fn jsonl_that_is_something_else_gets_a_cure() {
    let settings = b"{\n  \"name\": \"tool\",\n  \"version\": \"1.0\"\n}\n";
    let cases: [(&[u8], &[&str]); 8] = [
        (b"[1, 2]", &["record 1: not a JSON object", "found a number"]),
        (b"[\n{}\n]", &["no text field"]),
        (settings, &["no text field: it has 'name', 'version'", "--text-field"]),
        (b"\xfe\xff\0{", &["not valid JSON"]),
        (b"\xff\xfe\0\0{\0\0\0", &["is UTF-32"]),
        (b"\x01\0\x02\0\x03\0", &["NUL bytes", "binary"]),
        (b"", &["no records"]),
        (b"\n \r\n", &["no records"]),
    ];
    for (content, parts) in cases {
        for (name, content) in [("d.jsonl", content.to_vec()), ("d.json.gz", gzip(content))] {
            let outcomes = outcomes(name, content, &ReadOptions::default());
            assert_eq!(outcomes.len(), 1, "{outcomes:?}");
            assert_has(&outcomes[0], parts);
            assert_has(&outcomes[0], &[name]);
        }
    }
}

#[test]
fn jsonl_long_lines_are_passed_over() {
    let long = format!("{{\"id\":2,\"text\":\"{}\"}}", "x".repeat(3000));
    let content =
        format!("{{\"id\":1,\"text\":\"a\"}}\n{long}\n{{\"id\":3,\"text\":\"c\"}}\n{long}");
    let outcomes = outcomes("d.jsonl", content, &limit(1024));
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    assert_has(&outcomes[1], &["line 2", "longer than 1 KiB", "--max-record-bytes"]);
    assert_eq!(outcomes[2], "c");
    assert_has(&outcomes[3], &["line 4", "longer than 1 KiB"]);
}

#[test]
fn jsonl_line_of_exactly_the_limit_is_read() {
    let line = "{\"id\":1,\"text\":\"abc\"}";
    let content = format!("{line}\n{line}");
    assert_eq!(outcomes("d.jsonl", &content, &limit(line.len() as u64)).len(), 2);
    let short = outcomes("d.jsonl", content, &limit(line.len() as u64 - 1));
    assert!(short.iter().all(|outcome| outcome.contains("longer than 20 bytes")), "{short:?}");
}

#[test]
fn jsonl_bomb_is_cut_off_early() {
    // 20 MiB of one line.
    let mut content = b"{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"text\":\"".to_vec();
    content.resize(20 << 20, b'x');
    let bomb = gzip(content);
    assert!(bomb.len() < 1 << 18, "{} bytes", bomb.len());
    let folder = Folder::new();
    let path = folder.file("bomb.jsonl.gz", bomb);
    let start = Instant::now();
    let (all, peak) = memory::peak(|| read(&path, &limit(1 << 18)));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(peak < 1 << 20, "{peak} bytes at once");
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all[0].as_ref().map(|d| d.id.as_str()).ok(), Some("1"));
    let message = |at: usize| all[at].as_ref().expect_err("an error").to_string();
    assert_has(&message(1), &["line 2", "longer than 256 KiB"]);
    assert_has(&message(2), &["line 2", "no end of the line within 16 MiB"]);
}

#[test]
fn gzip_of_several_members_is_read_through() {
    let mut content = gzip("{\"id\":1,\"text\":\"a\"}\n{\"id\":2,");
    content.extend(gzip("\"text\":\"b\"}\n"));
    content.extend(gzip(""));
    content.extend(gzip("{\"id\":3,\"text\":\"c\"}"));
    let ids: Vec<_> = documents("d.jsonl.gz", &content).into_iter().map(|d| d.id).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    // The magic number decides, not the name.
    assert_eq!(documents("d.jsonl", content).len(), 3);
}

#[test]
fn gzip_with_zeros_behind_the_last_member_is_read() {
    let whole = [gzip("{\"id\":1,\"text\":\"a\"}\n"), gzip("{\"id\":2,\"text\":\"b\"}\n")].concat();
    for zeros in [1, 7, 512, 70_000] {
        let padded = [&whole[..], &vec![0; zeros]].concat();
        let ids: Vec<_> = documents("d.jsonl.gz", padded).into_iter().map(|d| d.id).collect();
        assert_eq!(ids, ["1", "2"], "{zeros} zeros");
    }
    let spoilt = [&whole[..], &[0; 10], b"x", &[0; 10]].concat();
    let spoilt = outcomes("d.jsonl.gz", spoilt, &ReadOptions::default());
    assert_eq!(spoilt.len(), 3, "{spoilt:?}");
    assert_has(&spoilt[2], &["gzip data is damaged", "behind the zeros"]);
    // Zeros in the middle are no padding, nor is another byte.
    for more in [&[&[0; 10][..], &gzip("{\"id\":3,\"text\":\"c\"}")].concat()[..], b"x"] {
        let outcomes = outcomes("d.jsonl.gz", [&whole, more].concat(), &ReadOptions::default());
        assert_has(outcomes.last().expect("an outcome"), &["d.jsonl.gz", "gzip data is"]);
    }
}

#[test]
fn jsonl_numbers_that_json_lacks_are_null_in_metadata() {
    let lines = "{\"id\":1,\"text\":\"a NaN\",\"x\":NaN,\"l\":[1,-Infinity,Infinity]}\n\
                 {\"id\":2,\"text\":\"b\",\"x\":0.5,\"title\":NaN}\n\
                 {\"id\":3,\"text\":\"c\",\"x\": Infinity }\n";
    let folder = Folder::new();
    let path = folder.file("d.jsonl", lines);
    let (all, notes) = noted(std::slice::from_ref(&path), &ReadOptions::default());
    let values: Vec<_> = all.iter().map(|d| d.metadata["x"].clone()).collect();
    assert_eq!(values, [json!(null), json!(0.5), json!(null)]);
    assert_eq!(all[0].metadata["l"], json!([1, null, null]));
    assert_eq!((all[0].text.as_str(), all[1].title.as_str()), ("a NaN", ""));
    assert_eq!(notes.len(), 3, "{notes:?}");
    let told = |field: &str| notes.iter().find(|n| n.contains(field)).expect("a note");
    assert_has(told("'x'"), &["d.jsonl, field 'x': 2 values became null: NaN or infinity"]);
    assert_has(told("'l'"), &["2 values became null"]);
    assert_has(told("'title'"), &["1 value became null"]);
    // What is not kept is not told.
    let fields = FieldMap { metadata: Some(vec!["x".into()]), ..FieldMap::default() };
    let (_, notes) = noted(&[path], &ReadOptions { fields, ..ReadOptions::default() });
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn jsonl_causes_are_named() {
    for (line, parts) in [
        ("{\"id\":NaN,\"text\":\"a\"}", &["line 2, field 'id'", "NaN"][..]),
        ("{\"id\":1,\"text\":NaN}", &["line 2, field 'text'", "NaN"]),
        ("{\"id\":1,\"text\":\"a\",\"x\":-NaN}", &["line 2", "not valid JSON"]),
        ("{\"id\":1,\"text\":\"cut \\ud83d at\"}", &["\\ud83d is half", "column 21", "\\ufffd"]),
        ("{\"id\":1,\"text\":\"cut \\udc00\"}", &["\\udc00 is half of a surrogate pair"]),
    ] {
        let content = format!("{{\"id\":0,\"text\":\"first\"}}\n{line}\n");
        let outcomes = outcomes("d.jsonl", content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        assert_has(&outcomes[1], parts);
    }
}

#[test]
fn gzip_cut_off_gives_what_is_before() {
    let lines: String = (0..5000).map(|n| format!("{{\"id\":{n},\"text\":\"a{n}\"}}\n")).collect();
    let whole = gzip(&lines);
    for length in [whole.len() - 4, whole.len() / 2, 200] {
        let outcomes = outcomes("d.jsonl.gz", &whole[..length], &ReadOptions::default());
        let (last, good) = outcomes.split_last().expect("something");
        assert_has(last, &["d.jsonl.gz, line ", "gzip data is cut off", "gzip -t"]);
        assert!(good.iter().enumerate().all(|(n, text)| *text == format!("a{n}")));
        assert!(good.len() > 20, "{} records of {length} bytes", good.len());
    }
}

#[test]
fn gzip_damaged_is_told_once() {
    let lines: String = (0..5000).map(|n| format!("{{\"id\":{n},\"text\":\"a{n}\"}}\n")).collect();
    let mut damaged = gzip(&lines);
    let length = damaged.len();
    // The checksum stands four bytes before the length, at the end.
    damaged[length - 8] ^= 0xff;
    let outcomes = outcomes("d.jsonl.gz", &damaged, &ReadOptions::default());
    assert_eq!(outcomes.len(), 5001);
    assert_has(&outcomes[5000], &["d.jsonl.gz", "gzip data is damaged"]);
    let error = first_error("d.jsonl.gz", &gzip(&lines)[..12]);
    assert_has(&error, &["d.jsonl.gz", "cut off"]);
    let error = first_error("d.jsonl.gz", lines);
    assert_has(&error, &["not gzip data although its name ends with .gz"]);
}

#[test]
fn jsonl_errors_are_about_the_input() {
    let folder = Folder::new();
    let path = folder.file("d.jsonl", "{\"id\":1}");
    let error = read(&path, &ReadOptions::default()).remove(0).expect_err("no text");
    assert!(matches!(error, Error::Input { .. }));
    assert_eq!(error.exit_code(), 7);
}
