//! Parquet files that lie: damaged by chance, and put together by hand to do harm.

use std::time::{Duration, Instant};

use warpseek::ingest::{ReadOptions, Reader};

use super::parquet::{SCHEMA, all_properties, rows};
use super::parquet_writer::write;
use super::{Folder, assert_has, gzip, memory};

/// What came out, and the most memory that it took.
fn outcomes(content: &[u8]) -> (Vec<String>, usize) {
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let options = ReadOptions { max_record_bytes: 1 << 20, ..ReadOptions::default() };
    let start = Instant::now();
    let (outcomes, peak) = memory::peak(|| {
        // No honest file here has more than a dozen rows.
        let first = |reader: Reader| {
            reader.take(100).map(|r| match r {
                Ok(document) => document.text,
                Err(error) => format!("error: {error}"),
            })
        };
        match warpseek::ingest::open(&[path], &options) {
            Ok(reader) => first(reader).collect::<Vec<_>>(),
            Err(error) => vec![format!("error: {error}")],
        }
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    (outcomes, peak)
}

/// Flips, overwrites and cuts, at places spread over the whole file.
#[test]
fn parquet_damaged_anywhere_is_an_error_or_other_data() {
    for (number, properties) in all_properties().into_iter().enumerate().step_by(7) {
        let content = write(SCHEMA, properties, vec![rows(), rows()]);
        let mut damaged: Vec<Vec<u8>> = Vec::new();
        for at in (number..content.len()).step_by(199) {
            for change in [0x01, 0x80, 0xff] {
                let mut copy = content.clone();
                copy[at] ^= change;
                damaged.push(copy);
            }
            let mut copy = content.clone();
            let end = (at + 5).min(copy.len());
            copy[at..end].fill(0xff);
            damaged.push(copy);
        }
        damaged.extend((0..content.len()).step_by(211).map(|at| content[..at].to_vec()));
        // A hole: everything behind it lies elsewhere than the footer says.
        damaged.extend(
            (4..content.len() - 600)
                .step_by(211)
                .map(|at| [&content[..at], &content[at + 7..]].concat()),
        );
        for copy in damaged {
            let (outcomes, peak) = outcomes(&copy);
            assert!(!outcomes.is_empty());
            assert!(peak < 16 << 20, "{peak} bytes at once: {outcomes:?}");
        }
    }
}

/// Thrift's compact protocol, as far as parquet needs it.
#[derive(Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: i16,
}

impl Thrift {
    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn zigzag(value: i64) -> Vec<u8> {
        Self::varint(((value << 1) ^ (value >> 63)) as u64)
    }

    fn field(mut self, id: i16, kind: u8, value: impl AsRef<[u8]>) -> Self {
        self.bytes.push((((id - self.last) as u8) << 4) | kind);
        self.bytes.extend(value.as_ref());
        self.last = id;
        self
    }

    fn i32(self, id: i16, value: i64) -> Self {
        self.field(id, 5, Self::zigzag(value))
    }

    fn i64(self, id: i16, value: i64) -> Self {
        self.field(id, 6, Self::zigzag(value))
    }

    fn text(self, id: i16, value: &str) -> Self {
        self.field(id, 8, [Self::varint(value.len() as u64), value.as_bytes().to_vec()].concat())
    }

    fn structure(self, id: i16, value: Self) -> Self {
        self.field(id, 12, value.end())
    }

    fn list(self, id: i16, kind: u8, items: &[Vec<u8>]) -> Self {
        let head = [vec![0xf0 | kind], Self::varint(items.len() as u64)].concat();
        self.field(id, 9, [head, items.concat()].concat())
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

const BYTE_ARRAY: i64 = 6;
const INT32: i64 = 1;
const REQUIRED: i64 = 0;
const OPTIONAL: i64 = 1;
const REPEATED: i64 = 2;
const GZIP: i64 = 2;
const PLAIN: i64 = 0;
const RLE: i64 = 3;
const DELTA_LENGTH: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const DICTIONARY: i64 = 8;

/// A column of one chunk; its pages as they lie in the file.
struct Chunk {
    name: &'static str,
    kind: i64,
    repetition: i64,
    codec: i64,
    pages: Vec<u8>,
    has_dictionary: bool,
}

fn chunk(name: &'static str, kind: i64, repetition: i64, pages: Vec<u8>) -> Chunk {
    Chunk { name, kind, repetition, codec: 0, pages, has_dictionary: false }
}

/// The header of a data page and its body.
fn page(values: i64, encoding: i64, unpacked: usize, body: &[u8]) -> Vec<u8> {
    let data = Thrift::default().i32(1, values).i32(2, encoding).i32(3, RLE).i32(4, RLE);
    let header = Thrift::default()
        .i32(1, 0)
        .i32(2, unpacked as i64)
        .i32(3, body.len() as i64)
        .structure(5, data);
    [header.end(), body.to_vec()].concat()
}

fn dictionary(values: i64, body: &[u8]) -> Vec<u8> {
    let data = Thrift::default().i32(1, values).i32(2, PLAIN);
    let size = body.len() as i64;
    let header = Thrift::default().i32(1, 2).i32(2, size).i32(3, size).structure(7, data);
    [header.end(), body.to_vec()].concat()
}

fn file(rows: i64, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    let root = Thrift::default().text(4, "m").i32(5, chunks.len() as i64);
    let mut schema = vec![root.end()];
    let mut columns = Vec::new();
    for chunk in chunks {
        let element = Thrift::default().i32(1, chunk.kind).i32(3, chunk.repetition);
        schema.push(element.text(4, chunk.name).end());
        let (start, size) = (bytes.len() as i64, chunk.pages.len() as i64);
        bytes.extend(&chunk.pages);
        let path =
            [Thrift::varint(chunk.name.len() as u64), chunk.name.as_bytes().to_vec()].concat();
        let mut meta = Thrift::default()
            .i32(1, chunk.kind)
            .list(2, 5, &[Thrift::zigzag(PLAIN)])
            .list(3, 8, &[path])
            .i32(4, chunk.codec)
            .i64(5, rows)
            .i64(6, size)
            .i64(7, size)
            .i64(9, start);
        if chunk.has_dictionary {
            meta = meta.i64(11, start);
        }
        columns.push(Thrift::default().i64(2, start).structure(3, meta).end());
    }
    let group = Thrift::default().list(1, 12, &columns).i64(2, 100).i64(3, rows);
    let footer = Thrift::default()
        .i32(1, 1)
        .list(2, 12, &schema)
        .i64(3, rows)
        .list(4, 12, &[group.end()])
        .end();
    bytes.extend(&footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}

fn plain(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|v| [&(v.len() as u32).to_le_bytes()[..], v].concat()).collect()
}

/// A required text column with these rows.
fn texts(values: &[&[u8]]) -> Chunk {
    let body = plain(values);
    chunk("text", BYTE_ARRAY, REQUIRED, page(values.len() as i64, PLAIN, body.len(), &body))
}

#[test]
fn parquet_made_by_hand_is_read() {
    let body = plain(&[b"one", b"two"]);
    let packed = gzip(&body);
    let list =
        [&4u32.to_le_bytes()[..], &[2, 0, 4, 1], &4u32.to_le_bytes(), &[6, 1, 0, 0]].concat();
    let list = [list, [1i32, 2, 3].iter().flat_map(|n| n.to_le_bytes()).collect()].concat();
    let words = [dictionary(2, &body), page(2, DICTIONARY, 3, &[1, 3, 0b10])].concat();
    let all = [
        file(2, &[texts(&[b"one", b"two"])]),
        file(
            2,
            &[Chunk {
                codec: GZIP,
                ..chunk("text", BYTE_ARRAY, REQUIRED, page(2, PLAIN, body.len(), &packed))
            }],
        ),
        file(2, &[Chunk { has_dictionary: true, ..chunk("text", BYTE_ARRAY, REQUIRED, words) }]),
        // Delta lengths 3 and 3: block 128, 4 mini blocks, 2 values, first 3 (zigzag 6).
        file(
            2,
            &[chunk(
                "text",
                BYTE_ARRAY,
                REQUIRED,
                page(
                    2,
                    DELTA_LENGTH,
                    17,
                    &[&[0x80, 1, 4, 2, 6, 0, 0, 0, 0, 0][..], b"onetwo"].concat(),
                ),
            )],
        ),
        // [1, 2, 3] in a row of its own: repetition levels 0 1 1, definition levels 1 1 1.
        file(
            1,
            &[texts(&[b"one"]), chunk("list", INT32, REPEATED, page(3, PLAIN, list.len(), &list))],
        ),
    ];
    for (number, content) in all.iter().enumerate() {
        let (outcomes, _) = outcomes(content);
        let expected = if number == 4 { vec!["one"] } else { vec!["one", "two"] };
        assert_eq!(outcomes, expected, "file {number}");
    }
}

#[test]
fn parquet_lies_are_refused_without_harm() {
    let zeros = gzip(vec![0; 64 << 20]);
    let huge_delta = |count: u64| {
        let header = [vec![0x80, 1, 4], Thrift::varint(count), vec![0]].concat();
        [header, vec![0, 0, 0, 0, 0]].concat()
    };
    // Two prefix lengths of nothing, then the suffix lengths.
    let suffixes = [vec![0x80, 1, 4, 2, 0, 0, 0, 0, 0, 0], huge_delta(1 << 40)].concat();
    let run = |level: u8| [vec![6, 0, 0, 0], Thrift::varint(0x1_ffff_fffe), vec![level]].concat();
    let rep_bomb = [run(1), run(1)].concat();
    let header_only = |unpacked: i64, packed: i64| {
        let data = Thrift::default().i32(1, 1).i32(2, PLAIN).i32(3, RLE).i32(4, RLE);
        Thrift::default().i32(1, 0).i32(2, unpacked).i32(3, packed).structure(5, data).end()
    };
    let column = |pages: Vec<u8>| vec![chunk("text", BYTE_ARRAY, REQUIRED, pages)];
    let with_dictionary = |entries: i64, body: &[u8], indices: &[u8]| {
        let pages = [dictionary(entries, body), page(1, DICTIONARY, indices.len(), indices)];
        vec![Chunk { has_dictionary: true, ..column(pages.concat()).remove(0) }]
    };
    let cases: [(&str, Vec<Chunk>, &str); 15] = [
        ("a page of two gigabytes", column(header_only(i64::from(i32::MAX), 10)), "a page claims"),
        ("a body beyond the end", column(header_only(10, 200 << 20)), "damaged"),
        ("a negative size", column(header_only(-1, 10)), "negative size"),
        ("no sizes", column(vec![0x25, 2, 0]), "does not begin with"),
        (
            "a gzip bomb",
            vec![Chunk { codec: GZIP, ..column(page(1, PLAIN, 100, &zeros)).remove(0) }],
            "unpacks to more bytes than it claims",
        ),
        ("no dictionary", column(page(1, DICTIONARY, 3, &[1, 2, 0])), "there is none"),
        (
            "entries that are not there",
            with_dictionary(1 << 30, b"", &[1, 2, 0]),
            "1073741824 entries",
        ),
        (
            "a few too many entries",
            with_dictionary(3, &plain(&[b"a"]), &[1, 2, 0]),
            "does not hold",
        ),
        (
            "an index beyond the dictionary",
            with_dictionary(1, &plain(&[b"a"]), &[8, 2, 9]),
            "damaged",
        ),
        (
            "endless lengths",
            column(page(1, DELTA_LENGTH, 50, &huge_delta(1 << 40))),
            "packed numbers",
        ),
        ("endless suffixes", column(page(2, DELTA_BYTE_ARRAY, 50, &suffixes)), "packed numbers"),
        (
            "lengths beyond the data",
            column(page(
                2,
                DELTA_LENGTH,
                17,
                &[&[0x80, 1, 4, 2, 0xfe, 1, 0, 0, 0, 0][..], b"onetwo"].concat(),
            )),
            "damaged",
        ),
        ("an unknown encoding", column(page(1, 10, 4, &[0; 4])), "not supported"),
        (
            "a string beyond the page",
            column(page(1, PLAIN, 8, &[0xff, 0xff, 0, 0, 1, 2, 3, 4])),
            "damaged",
        ),
        (
            "a list without end",
            vec![
                texts(&[b"a"]),
                chunk(
                    "list",
                    INT32,
                    REPEATED,
                    page(i64::from(i32::MAX), PLAIN, rep_bomb.len(), &rep_bomb),
                ),
            ],
            "more than 131072 values",
        ),
    ];
    for (what, chunks, expected) in cases {
        let (outcomes, peak) = outcomes(&file(2, &chunks));
        println!("{what}: {peak} {outcomes:?}");
        assert!(outcomes.len() <= 3, "{what}: {outcomes:?}");
        assert_has(&outcomes[0], &["error: ", "d.parquet, row 1", expected]);
        assert!(peak < 4 << 20, "{what}: {peak} bytes at once");
    }
}

#[test]
fn parquet_levels_that_disagree_are_refused() {
    // Optional text in which a run of levels is missing, and one with values too few.
    let levels = |runs: &[u8]| [&(runs.len() as u32).to_le_bytes()[..], runs].concat();
    let short = [levels(&[2, 1]), plain(&[b"a", b"b"])].concat();
    let few = [levels(&[4, 1]), plain(&[b"a"])].concat();
    for body in [short, few] {
        let pages = page(2, PLAIN, body.len(), &body);
        let (outcomes, _) = outcomes(&file(2, &[chunk("text", BYTE_ARRAY, OPTIONAL, pages)]));
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
