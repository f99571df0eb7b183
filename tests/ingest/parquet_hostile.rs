//! Parquet files with false claims: damaged at random, and assembled by hand to do harm.

use std::time::{Duration, Instant};

use warpseek_error::Error;
use warpseek_ingest::{Document, ReadOptions};

use super::parquet::{SCHEMA, all_properties, rows};
use super::parquet_builder::*;
use super::parquet_writer::write;
use super::{Folder, assert_has, gzip, memory};

/// The texts and messages of a file, and the peak of memory.
fn outcomes(content: &[u8]) -> (Vec<String>, usize) {
    outcomes_within(content, 1 << 20)
}

fn outcomes_within(content: &[u8], max_record_bytes: u64) -> (Vec<String>, usize) {
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let options = ReadOptions { max_record_bytes, ..ReadOptions::default() };
    let start = Instant::now();
    let (outcomes, peak) = memory::peak(|| {
        let reader = warpseek_ingest::open(&[path], &options).expect("a reader");
        let outcome = |result: Result<Document, Error>| match result {
            Ok(document) => document.text,
            Err(error) => format!("error: {error}"),
        };
        // No intact file here has more than a dozen rows.
        reader.take(100).map(outcome).collect::<Vec<_>>()
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    (outcomes, peak)
}

/// The only note on a file.
fn notes(content: &[u8], max_record_bytes: u64) -> String {
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let options = ReadOptions { max_record_bytes, ..ReadOptions::default() };
    let mut reader = warpseek_ingest::open(&[path], &options).expect("a reader");
    assert!(reader.by_ref().all(|document| document.is_ok()));
    let notes = reader.notes().list();
    assert_eq!(notes.len(), 1, "{notes:?}");
    notes[0].to_string()
}

/// Flips, overwrites and cuts, at places spread over the whole file.
#[test]
fn parquet_damaged_anywhere_is_an_error_or_other_data() {
    for (number, properties) in all_properties().into_iter().enumerate().step_by(7) {
        let content = write(SCHEMA, properties, vec![rows(), rows()]);
        let mut damaged: Vec<Vec<u8>> = Vec::new();
        for at in (number..content.len()).step_by(199) {
            damaged.extend([0x01, 0x80, 0xff].map(|change| {
                let mut copy = content.clone();
                copy[at] ^= change;
                copy
            }));
            let end = (at + 5).min(content.len());
            damaged.push([&content[..at], &[0xff; 5], &content[end..]].concat());
            damaged.push(content[..at].to_vec());
            // A hole: everything behind it is elsewhere than the footer says.
            damaged.push([&content[..at], &content[(at + 7).min(content.len())..]].concat());
        }
        for copy in damaged {
            let (outcomes, peak) = outcomes(&copy);
            assert!(!outcomes.is_empty());
            assert!(peak < 16 << 20, "{peak} bytes at once: {outcomes:?}");
        }
    }
}

#[test]
fn parquet_made_by_hand_is_read() {
    let body = plain(&[b"one", b"two"]);
    let packed = gzip(&body);
    let packed_page = sizes(body.len() as i64, packed.len() as i64).structure(5, data(2, PLAIN));
    let packed_page = [packed_page.end(), packed].concat();
    let words = [dictionary(2, &body), page(2, DICTIONARY, &[1, 3, 0b10])].concat();
    // Delta lengths 3 and 3: block 128, 4 mini blocks, 2 values, first 3 (zigzag 6).
    let deltas = [&[0x80, 1, 4, 2, 6, 0, 0, 0, 0, 0][..], b"onetwo"].concat();
    // [1, 2, 3] in a row of its own: repetition levels 0 1 1, definition levels 1 1 1.
    let numbers = [levels(&[2, 0, 4, 1]), levels(&[6, 1]), vec![0; 12]].concat();
    // A page without values does not end a column.
    let empty = page(0, PLAIN, &[levels(&[]), levels(&[])].concat());
    let numbers = [page(3, PLAIN, &numbers), empty.clone()].concat();
    let halves =
        [page(1, PLAIN, &plain(&[b"one"])), page(0, PLAIN, &[]), page(1, PLAIN, &plain(&[b"two"]))];
    let cases = [
        ("plain", file(2, &[texts(&[b"one", b"two"])])),
        ("gzip", file(2, &[TestColumn { codec: GZIP, ..column(packed_page) }])),
        ("dictionary", file(2, &[TestColumn { has_dictionary: true, ..column(words) }])),
        ("deltas", file(2, &[column(page(2, DELTA_LENGTH, &deltas))])),
        ("a page without values", file(2, &[column(halves.concat())])),
        ("a list", file(1, &[texts(&[b"one"]), list(numbers)])),
    ];
    for (what, content) in cases {
        let expected = if what == "a list" { &["one"][..] } else { &["one", "two"] };
        assert_eq!(outcomes(&content).0, expected, "{what}");
    }
}

#[test]
fn parquet_false_claims_are_refused_without_harm() {
    let zeros = gzip(vec![0; 64 << 20]);
    let bomb = sizes(100, zeros.len() as i64).structure(5, data(1, PLAIN)).end();
    let bomb = TestColumn { codec: GZIP, ..column([bomb, zeros].concat()) };
    let huge = [vec![0x80, 1, 4], Thrift::varint(1 << 40), vec![0; 6]].concat();
    // Two prefix lengths of nothing, then the suffix lengths.
    let suffixes = [vec![0x80, 1, 4, 2, 0, 0, 0, 0, 0, 0], huge.clone()].concat();
    let long = [&[0x80, 1, 4, 2, 0xfe, 1, 0, 0, 0, 0][..], b"onetwo"].concat();
    let run = [vec![6, 0, 0, 0], Thrift::varint(0x1_ffff_fffe), vec![1]].concat();
    let endless = page(i64::from(i32::MAX), PLAIN, &run.repeat(2));
    let header = |unpacked: i64, packed: i64| {
        vec![column(sizes(unpacked, packed).structure(5, data(1, PLAIN)).end())]
    };
    let of = |values: i64, encoding: i64, body: &[u8]| vec![column(page(values, encoding, body))];
    let with = |entries: i64, body: &[u8], indices: &[u8]| {
        let pages = [dictionary(entries, body), page(1, DICTIONARY, indices)];
        vec![TestColumn { has_dictionary: true, ..column(pages.concat()) }]
    };
    let one = plain(&[b"a"]);
    let beyond = [0xff, 0xff, 0, 0, 1, 2, 3, 4];
    let cases: [(&str, Vec<TestColumn>, &str); 16] = [
        ("a page of two gigabytes", header(i64::from(i32::MAX), 10), "a page claims"),
        ("a body beyond the end", header(10, 200 << 20), "damaged"),
        ("a negative size", header(-1, 10), "negative size"),
        ("no sizes", vec![column(vec![0x25, 2, 0])], "without sizes"),
        ("a gzip bomb", vec![bomb], "unpacks to more bytes than it claims"),
        ("no dictionary", of(1, DICTIONARY, &[1, 2, 0]), "there is none"),
        ("entries that are not there", with(1 << 30, b"", &[1, 2, 0]), "1073741824 entries"),
        ("a few too many entries", with(3, &one, &[1, 2, 0]), "does not hold"),
        ("an index beyond the dictionary", with(1, &one, &[8, 2, 9]), "damaged"),
        ("endless lengths", of(1, DELTA_LENGTH, &huge), "packed numbers"),
        ("endless suffixes", of(2, DELTA_BYTE_ARRAY, &suffixes), "packed numbers"),
        ("lengths beyond the data", of(2, DELTA_LENGTH, &long), "damaged"),
        ("no mini blocks", of(1, DELTA_LENGTH, &[0x80, 1, 0, 1, 0]), "without a header"),
        ("prefixes cut off", of(40, DELTA_BYTE_ARRAY, &[0x80, 1, 4, 40, 0, 0, 2]), "cut off"),
        ("an unknown encoding", of(1, 10, &[0; 4]), "not supported"),
        ("a string beyond the page", of(1, PLAIN, &beyond), "damaged"),
    ];
    for (what, columns, expected) in cases {
        let (outcomes, peak) = outcomes(&file(2, &columns));
        assert!(outcomes.len() <= 3, "{what}: {outcomes:?}");
        assert_has(&outcomes[0], &["error: ", "d.parquet, row 1", expected]);
        assert!(peak < 4 << 20, "{what}: {peak} bytes at once");
    }
    // Metadata that cannot be read costs no record.
    let content = file(1, &[texts(&[b"a"]), list(endless)]);
    let (outcomes, peak) = outcomes(&content);
    assert_eq!(outcomes, ["a"]);
    assert!(peak < 4 << 20, "{peak} bytes at once");
    assert_has(&notes(&content, 1 << 20), &["'list': 1 value became null", "131072 values"]);
}

#[test]
fn parquet_footers_with_false_claims_are_refused_without_harm() {
    let group = |name: &str, children: i64| {
        Thrift::default().i32(3, REQUIRED).text(4, name).i32(5, children).end()
    };
    let leaf = || Thrift::default().i32(1, INT32).i32(3, REQUIRED).text(4, "x").end();
    let schema = |elements: Vec<Vec<u8>>| {
        let footer = Thrift::default().i32(1, 1).list(2, 12, &elements);
        footer.i64(3, 0).list(4, 12, &[]).end()
    };
    let nested = |levels: usize| [vec![group("g", 1); levels], vec![leaf()]].concat();
    let long = [vec![group("m", 1), group(&"n".repeat(1 << 20), 100)], vec![leaf(); 100]].concat();
    let unknown = |kind: u8, value: &[u8]| Thrift::default().i32(1, 1).field(9, kind, value).end();
    // The crate reads a field as declared, and skips a list of truth values without its bytes: a
    // deep schema hides in the bytes of another field.
    let hidden = schema(nested(30_000));
    let as_text = [Thrift::varint(hidden.len() as u64), hidden.clone()].concat();
    let as_truths = [vec![0xf1], Thrift::varint(hidden.len() as u64), hidden].concat();
    let two_schemas = |first: &[Vec<u8>], second: &[Vec<u8>]| {
        let second = [vec![0xfc], Thrift::varint(second.len() as u64), second.concat()].concat();
        Thrift::default().list(2, 12, first).again(2, 9, second).end()
    };
    let cases: [(&str, Vec<u8>, &str); 14] = [
        ("a deep schema", schema(nested(10_000)), "nested too deeply"),
        ("a long schema", schema(nested(50_001)), "too many fields"),
        ("children that are not there", schema(vec![group("m", 1)]), "more fields than the schema"),
        ("endless children", schema(vec![group("m", i64::from(i32::MAX)), leaf()]), "more fields"),
        ("negative children", schema(vec![group("m", -1), leaf()]), "more fields"),
        ("two roots", schema(vec![leaf(), leaf()]), "more than one root"),
        ("long names", schema(long), "names of the fields are too long"),
        ("a string of 2^40 bytes", unknown(8, &Thrift::varint(1 << 40)), "cut off"),
        ("a list of 2^30 structs", unknown(9, &[0xfc, 128, 128, 128, 128, 4]), "list is too long"),
        ("lists in lists", unknown(9, &[0x19; 100]), "nested too deeply"),
        ("a schema in a string", Thrift::default().field(2, 8, &as_text).end(), "wrong type"),
        ("a schema in truth values", unknown(9, &as_truths), "list of truth values"),
        ("two schemas", two_schemas(&nested(1), &nested(30_000)), "appears twice"),
        ("no schema", Thrift::default().i32(1, 1).end(), "damaged"),
    ];
    for (what, footer, expected) in cases {
        let (outcomes, peak) = outcomes(&with_footer(b"PAR1".to_vec(), &footer));
        assert_eq!(outcomes.len(), 1, "{what}: {outcomes:?}");
        assert_has(&outcomes[0], &["error: ", "d.parquet", expected]);
        assert!(peak < 8 << 20, "{what}: {peak} bytes at once");
    }
}

#[test]
fn parquet_rows_of_lists_are_limited() {
    // At most ten values in a row of 80 bytes. Levels as runs, bit-packed, and over two pages.
    let numbers = |reps: &[u8], count: i64| {
        let ones = levels(&[Thrift::varint(count as u64 * 2), vec![1]].concat());
        page(count, PLAIN, &[levels(reps), ones, vec![0; 4 * count as usize]].concat())
    };
    let cases = [
        ("a run of ten", numbers(&[2, 0, 18, 1], 10), true),
        ("a run of eleven", numbers(&[2, 0, 20, 1], 11), false),
        ("ten packed", numbers(&[5, 0b1111_1110, 0b11], 10), true),
        ("eleven packed", numbers(&[5, 0b1111_1110, 0b111], 11), false),
        ("over two pages", [numbers(&[2, 0, 10, 1], 6), numbers(&[10, 1], 5)].concat(), false),
        ("a run without end", numbers(&[2, 0, 0xfe, 0xff, 0xff, 0xff, 15, 1], 12), false),
    ];
    for (what, pages, is_read) in cases {
        let content = file(1, &[texts(&[b"a"]), list(pages)]);
        let (outcomes, _) = outcomes_within(&content, 80);
        assert_eq!(outcomes, ["a"], "{what}");
        if !is_read {
            let parts = ["field 'list': 1 value became null", "a row has more than 10 values"];
            assert_has(&notes(&content, 80), &parts);
        }
    }
}

#[test]
fn parquet_page_headers_with_false_claims_are_refused() {
    let (sizes, data) = (|| sizes(8, 8), || data(1, PLAIN));
    let huge = Thrift::zigzag(i64::from(i32::MAX));
    let twice = sizes().again(2, 5, huge).structure(5, data()).end();
    // 2^31 truth values, which the crate would pass one by one.
    let truths = [vec![0xf1], Thrift::varint((1 << 31) - 1)].concat();
    let endless = sizes().structure(5, data().field(9, 9, truths)).end();
    let typed = sizes().field(5, 8, Thrift::varint(3)).end();
    for (header, expected) in [(twice, "appears twice"), (endless, "a list"), (typed, "wrong type")]
    {
        let pages = [header, plain(&[b"abcd"])].concat();
        let (outcomes, peak) = outcomes(&file(1, &[column(pages)]));
        assert_has(&outcomes[0], &["row 1", "page header", expected]);
        assert!(peak < 4 << 20, "{expected}: {peak} bytes at once");
    }
    // A header with long statistics is read.
    let statistics = Thrift::default().text(1, &"x".repeat(100_000));
    let header = sizes().structure(5, data().structure(5, statistics)).end();
    let pages = [header, plain(&[b"abcd"])].concat();
    let (outcomes, _) = outcomes(&file(1, &[column(pages)]));
    assert_eq!(outcomes, ["abcd"]);
}

#[test]
fn parquet_rows_before_a_bad_page_are_read() {
    let good = |values: &[&[u8]]| page(values.len() as i64, PLAIN, &plain(values));
    let pages = [good(&[b"a", b"b"]), page(2, 10, &[0; 4])].concat();
    let (outcomes, _) = outcomes(&file(4, &[column(pages)]));
    assert_eq!(outcomes[..2], ["a", "b"]);
    assert_has(&outcomes[2], &["row 3", "not supported", "rows 3 to 4 are passed over"]);
    assert_eq!(outcomes.len(), 3);
}

#[test]
fn parquet_levels_that_disagree_are_refused() {
    // Optional text in which a run of levels is missing, and one with values too few.
    let short = [levels(&[2, 1]), plain(&[b"a", b"b"])].concat();
    let few = [levels(&[4, 1]), plain(&[b"a"])].concat();
    for body in [short, few] {
        let column = TestColumn { repetition: OPTIONAL, ..column(page(2, PLAIN, &body)) };
        let (outcomes, _) = outcomes(&file(2, &[column]));
        assert_eq!(outcomes[0], "a");
        assert_has(&outcomes[1], &["error: ", "row 2", "damaged"]);
    }
    // More rows than values.
    let (outcomes, _) = outcomes(&file(1 << 40, &[texts(&[b"a", b"b"])]));
    assert_eq!(outcomes[..2], ["a", "b"]);
    assert_eq!(outcomes.len(), 3);
    let passed_over = "rows 3 to 1099511627776 are passed over";
    assert_has(&outcomes[2], &["row 3", "ends before the others", passed_over]);
}
