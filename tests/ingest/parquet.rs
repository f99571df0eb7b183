//! Parquet files of honest writers.

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::{Value, json};
use warpseek::ingest::{FieldMap, Format, ReadOptions};

use super::parquet_writer::{Cells, nested, some, text, write};
use super::{Folder, assert_has, documents, first_error, gzip, outcomes, read};

pub(super) const SCHEMA: &str = "message papers {
    REQUIRED BYTE_ARRAY id (STRING);
    OPTIONAL BYTE_ARRAY title (STRING);
    REQUIRED BYTE_ARRAY text (STRING);
    OPTIONAL INT32 day (DATE);
    OPTIONAL INT64 seen (TIMESTAMP(MICROS,true));
    OPTIONAL INT64 local (TIMESTAMP(NANOS,false));
    OPTIONAL INT32 clock (TIME(MILLIS,true));
    OPTIONAL INT96 old_stamp;
    OPTIONAL INT32 price (DECIMAL(9,2));
    OPTIONAL FIXED_LEN_BYTE_ARRAY(16) wide (DECIMAL(38,10));
    OPTIONAL DOUBLE score;
    OPTIONAL FLOAT ratio;
    OPTIONAL BOOLEAN open;
    OPTIONAL INT32 small (INTEGER(8,false));
    OPTIONAL INT64 large (INTEGER(64,false));
    OPTIONAL BYTE_ARRAY plain;
    OPTIONAL FIXED_LEN_BYTE_ARRAY(16) key (UUID);
    OPTIONAL group tags (LIST) { REPEATED group list { OPTIONAL BYTE_ARRAY element (STRING); } }
    OPTIONAL group author {
        REQUIRED BYTE_ARRAY name (STRING);
        OPTIONAL group papers (LIST) { REPEATED group list { REQUIRED INT64 element; } }
    }
    OPTIONAL group counts (MAP) {
        REPEATED group key_value { REQUIRED BYTE_ARRAY key (STRING); OPTIONAL INT32 value; }
    }
    REPEATED INT32 bare;
    OPTIONAL group parts (LIST) {
        REPEATED group array { REQUIRED INT32 x; OPTIONAL INT32 y; }
    }
}";

/// Three rows: all there, all missing, and the edges.
pub(super) fn rows() -> Vec<Cells> {
    let bytes = |values: &[&str]| values.iter().map(|value| ByteArray::from(*value)).collect();
    let fixed = |value: Vec<u8>| FixedLenByteArray::from(ByteArray::from(value));
    let mut stamp = Int96::new();
    // 2000-01-01T12:00:00 is Julian day 2451545.
    stamp.set_data(
        (43_200_000_000_000u64 & 0xffff_ffff) as u32,
        (43_200_000_000_000u64 >> 32) as u32,
        2_451_545,
    );
    vec![
        text(&["a", "b", "c"]),
        Cells::Bytes(bytes(&["A", ""]), some(&[1, 0, 1])),
        text(&["one", "two", "three"]),
        Cells::Int(vec![19_844, -1], some(&[1, 0, 1])),
        Cells::Long(vec![1_714_555_800_000_001, -1], some(&[1, 0, 1])),
        Cells::Long(vec![1_714_555_800_000_000_001], some(&[1, 0, 0])),
        Cells::Int(vec![34_200_007], some(&[1, 0, 0])),
        Cells::Int96(vec![stamp], some(&[1, 0, 0])),
        Cells::Int(vec![1999, -5], some(&[1, 0, 1])),
        Cells::Fixed(
            vec![fixed((-12_345_678_901_234_567_890i128).to_be_bytes().to_vec())],
            some(&[1, 0, 0]),
        ),
        Cells::Double(vec![0.25, f64::NAN], some(&[1, 0, 1])),
        Cells::Float(vec![0.1, -1e10], some(&[1, 0, 1])),
        Cells::Bool(vec![true, false], some(&[1, 0, 1])),
        Cells::Int(vec![200, -1], some(&[1, 0, 1])),
        Cells::Long(vec![-1, i64::MAX], some(&[1, 0, 1])),
        Cells::Bytes(bytes(&["plain é"]), some(&[1, 0, 0])),
        Cells::Fixed(vec![fixed((0u8..16).collect())], some(&[1, 0, 0])),
        // ["x", null, "y"], missing, []
        Cells::Bytes(bytes(&["x", "y"]), nested(&[3, 2, 3, 0, 1], &[0, 1, 1, 0, 0])),
        // {name, papers: [1, 2]}, missing, {name, papers: missing}
        Cells::Bytes(bytes(&["Ann", "Bob"]), some(&[1, 0, 1])),
        Cells::Long(vec![1, 2], nested(&[3, 3, 0, 1], &[0, 1, 0, 0])),
        // {k: 1, l: null}, missing, {}
        Cells::Bytes(bytes(&["k", "l"]), nested(&[2, 2, 0, 1], &[0, 1, 0, 0])),
        Cells::Int(vec![1], nested(&[3, 2, 0, 1], &[0, 1, 0, 0])),
        // [7, 8], [], [9]
        Cells::Int(vec![7, 8, 9], nested(&[1, 1, 0, 1], &[0, 1, 0, 0])),
        // [{1, 2}, {3, null}], missing, [{4, 5}]
        Cells::Int(vec![1, 3, 4], nested(&[2, 2, 0, 2], &[0, 1, 0, 0])),
        Cells::Int(vec![2, 5], nested(&[3, 2, 0, 3], &[0, 1, 0, 0])),
    ]
}

fn expected() -> Vec<Value> {
    let mut missing = json!({
        "day": null, "seen": null, "local": null, "clock": null, "old_stamp": null, "price": null,
        "wide": null, "score": null, "ratio": null, "open": null, "small": null, "large": null,
        "plain": null, "key": null, "tags": null, "author": null, "counts": null, "bare": [],
        "parts": null,
    });
    let full = json!({
        "day": "2024-05-01",
        "seen": "2024-05-01T09:30:00.000001Z",
        "local": "2024-05-01T09:30:00.000000001",
        "clock": "09:30:00.007",
        "old_stamp": "2000-01-01T12:00:00.000000000",
        "price": 19.99,
        "wide": "-1234567890.1234567890",
        "score": 0.25,
        "ratio": 0.1,
        "open": true,
        "small": 200,
        "large": u64::MAX,
        "plain": "plain é",
        "key": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "tags": ["x", null, "y"],
        "author": {"name": "Ann", "papers": [1, 2]},
        "counts": {"k": 1, "l": null},
        "bare": [7, 8],
        "parts": [{"x": 1, "y": 2}, {"x": 3, "y": null}],
    });
    let mut edges = missing.clone();
    for (name, value) in [
        ("day", json!("1969-12-31")),
        ("seen", json!("1969-12-31T23:59:59.999999Z")),
        ("price", json!(-0.05)),
        ("ratio", json!(-1e10)),
        ("open", json!(false)),
        ("small", json!(255)),
        ("large", json!(i64::MAX)),
        ("tags", json!([])),
        ("author", json!({"name": "Bob", "papers": null})),
        ("counts", json!({})),
        ("bare", json!([9])),
        ("parts", json!([{"x": 4, "y": 5}])),
    ] {
        edges[name] = value;
    }
    missing["bare"] = json!([]);
    vec![full, missing, edges]
}

fn with(version: WriterVersion, compression: Compression, dictionary: bool) -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(compression)
        .set_dictionary_enabled(dictionary)
        .build()
}

pub(super) fn all_properties() -> Vec<WriterProperties> {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let mut all = Vec::new();
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            all.extend([true, false].map(|dictionary| with(version, codec, dictionary)));
        }
    }
    all
}

#[test]
fn parquet_of_every_codec_and_version_is_read() {
    for properties in all_properties() {
        let label = format!("{properties:?}");
        let content = write(SCHEMA, properties, vec![rows(), rows()]);
        let all = documents("d.parquet", content);
        assert_eq!(all.len(), 6, "{label}");
        for (number, document) in all.iter().enumerate() {
            let at = number % 3;
            assert_eq!(document.id, ["a", "b", "c"][at]);
            assert_eq!(document.title, ["A", "", ""][at]);
            assert_eq!(document.text, ["one", "two", "three"][at]);
            assert_eq!(json!(document.metadata), expected()[at], "{label}");
            let row = format!("row {}", number + 1);
            assert_eq!(document.place.record.as_deref(), Some(row.as_str()));
        }
        let names: Vec<_> = all[0].metadata.keys().collect();
        assert_eq!((names[0].as_str(), names[1].as_str()), ("day", "seen"));
    }
}

#[test]
fn parquet_many_rows_in_small_pages_keep_their_order() {
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING);
        OPTIONAL group l (LIST) { REPEATED group list { OPTIONAL INT32 element; } } }";
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(7)
        .set_write_batch_size(5)
        .set_compression(Compression::SNAPPY)
        .build();
    let group = |start: usize| {
        let texts: Vec<String> = (start..start + 500).map(|n| format!("text {n}")).collect();
        let (mut values, mut defs, mut reps) = (vec![], vec![], vec![]);
        for n in start..start + 500 {
            for at in 0..(n % 4).max(1) {
                let def = if n % 4 == 0 {
                    1
                } else if at == 1 {
                    2
                } else {
                    3
                };
                defs.push(def);
                reps.push(i16::from(at > 0));
                if def == 3 {
                    values.push((n * 10 + at) as i32);
                }
            }
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        vec![text(&texts), Cells::Int(values, Some((defs, Some(reps))))]
    };
    let content = write(schema, properties, vec![group(0), group(500)]);
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let all = read(&path, &ReadOptions::default());
    assert_eq!(all.len(), 1000);
    for (n, document) in all.into_iter().enumerate() {
        let document = document.expect("a document");
        assert_eq!(document.text, format!("text {n}"));
        assert_eq!(document.id, format!("{}:{}", path.display(), n + 1));
        let list: Vec<Value> =
            (0..n % 4).map(|at| if at == 1 { Value::Null } else { json!(n * 10 + at) }).collect();
        assert_eq!(document.metadata["l"], json!(list));
    }
}

#[test]
fn parquet_reads_no_more_columns_than_needed() {
    let schema = "message m { REQUIRED BYTE_ARRAY id (STRING); REQUIRED BYTE_ARRAY text (STRING);
        REQUIRED BYTE_ARRAY image; REQUIRED group g { REQUIRED INT32 a; REQUIRED INT32 b; } }";
    let image = Cells::Bytes(vec![ByteArray::from(vec![0xff; 64])], None);
    let cells = || Cells::Int(vec![5], None);
    let content = write(
        schema,
        WriterProperties::default(),
        vec![vec![text(&["1"]), text(&["T"]), image, cells(), cells()]],
    );
    assert_has(
        &first_error("d.parquet", &content),
        &["d.parquet, row 1, field 'image'", "binary data", "byte 1", "--metadata-fields"],
    );
    let folder = Folder::new();
    let path = folder.file("d.parquet", &content);
    let fields = FieldMap { metadata: Some(vec!["g.b".into()]), ..FieldMap::default() };
    let options = ReadOptions { fields, ..ReadOptions::default() };
    let document = read(&path, &options).remove(0).expect("a document");
    assert_eq!(json!(document.metadata), json!({"g.b": 5}));
    let fields = FieldMap { metadata: Some(vec!["imag".into()]), ..FieldMap::default() };
    let options = ReadOptions { fields, ..ReadOptions::default() };
    assert_has(&outcomes("d.parquet", &content, &options)[0], &["'imag'", "did you mean 'image'"]);
}

#[test]
fn parquet_bad_rows_do_not_stop_the_others() {
    let schema = "message m { OPTIONAL BYTE_ARRAY id (STRING); OPTIONAL BYTE_ARRAY text (STRING);
        OPTIONAL DOUBLE n; OPTIONAL group g { OPTIONAL BYTE_ARRAY name (STRING); } }";
    let bytes =
        |values: &[&[u8]]| values.iter().map(|v| ByteArray::from(v.to_vec())).collect::<Vec<_>>();
    let content = write(
        schema,
        WriterProperties::default(),
        vec![vec![
            Cells::Bytes(bytes(&[b"1", b"3", b"4", b"5", b"6"]), some(&[1, 0, 1, 1, 1, 1])),
            Cells::Bytes(bytes(&[b"a", b"b", b"d\xff", b"e", b"f"]), some(&[1, 1, 0, 1, 1, 1])),
            Cells::Double(vec![1.5, f64::INFINITY], some(&[1, 0, 0, 0, 1, 0])),
            Cells::Bytes(bytes(&[b"x", b"\xfe"]), some(&[2, 0, 1, 0, 0, 2])),
        ]],
    );
    let outcomes = outcomes("d.parquet", content, &ReadOptions::default());
    assert_eq!(outcomes.len(), 6, "{outcomes:?}");
    assert_eq!(outcomes[0], "a");
    assert_has(&outcomes[1], &["d.parquet, row 2, field 'id'", "found null"]);
    assert_has(&outcomes[2], &["row 3, field 'text'", "found null"]);
    assert_has(&outcomes[3], &["row 4, field 'text'", "not valid UTF-8 (byte 2)"]);
    assert_has(&outcomes[4], &["row 5, field 'n'", "is infinite"]);
    assert_has(&outcomes[5], &["row 6, field 'g.name'", "not valid UTF-8"]);
}

#[test]
fn parquet_packed_or_from_a_stream_goes_through_a_file() {
    let content = write(SCHEMA, WriterProperties::default(), vec![rows()]);
    assert_eq!(documents("d.parquet.gz", gzip(&content)).len(), 3);
    let options = ReadOptions { format: Some(Format::Parquet), ..ReadOptions::default() };
    for bytes in [content.clone(), gzip(&content)] {
        let stream = std::io::Cursor::new(bytes);
        let reader = warpseek::ingest::read_stream(stream, "<stdin>", &options).expect("a reader");
        let all: Vec<_> = reader.map(|document| document.expect("a document")).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[2].place.to_string(), "<stdin>, row 3");
    }
}

#[test]
fn parquet_long_rows_are_passed_over() {
    let schema = "message m { REQUIRED BYTE_ARRAY text (STRING); REPEATED INT32 n; }";
    let long = "x".repeat(2000);
    let content = write(
        schema,
        WriterProperties::default(),
        vec![vec![text(&["a", &long, "c"]), Cells::Int(vec![1], nested(&[0, 1, 0], &[0, 0, 0]))]],
    );
    let options = ReadOptions { max_record_bytes: 1000, ..ReadOptions::default() };
    let outcomes = outcomes("d.parquet", content, &options);
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    assert_has(&outcomes[1], &["row 2", "longer than 1000 bytes", "--max-record-bytes"]);
    assert_eq!(outcomes[2], "c");
}

#[test]
fn parquet_that_cannot_be_read_gets_a_cure() {
    let content = write(SCHEMA, WriterProperties::default(), vec![rows()]);
    let encrypted = [&content[..content.len() - 1], b"E"].concat();
    let mut long_footer = content.clone();
    let at = long_footer.len() - 8;
    long_footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let no_rows = write(SCHEMA, WriterProperties::default(), vec![]);
    let no_text = "message m { REQUIRED INT32 n; REQUIRED group g { REQUIRED INT32 x; } }";
    let one = || Cells::Int(vec![1], None);
    let no_text = write(no_text, WriterProperties::default(), vec![vec![one(), one()]]);
    let cases: [(&[u8], &[&str]); 8] = [
        (b"", &["no records"]),
        (b"text,id\n", &["not a parquet file"]),
        (&content[..content.len() - 10], &["not a parquet file, or cut off"]),
        (&content[content.len() - 9..], &["not a parquet file"]),
        (&encrypted, &["encrypted"]),
        (&long_footer, &["claims a footer of 4294967295 bytes"]),
        (&no_rows, &["no records"]),
        (&no_text, &["no text field", "'n', 'g'", "--text-field"]),
    ];
    for (content, parts) in cases {
        let outcomes = outcomes("d.parquet", content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_has(&outcomes[0], &["d.parquet"]);
        assert_has(&outcomes[0], parts);
    }
}

#[test]
fn parquet_progress_goes_with_the_rows() {
    let folder = Folder::new();
    let content = write(SCHEMA, WriterProperties::default(), vec![rows(), rows()]);
    let length = content.len() as u64;
    let path = folder.file("d.parquet", content);
    let mut reader = warpseek::ingest::open(&[path], &ReadOptions::default()).expect("a reader");
    for row in 1..=6 {
        reader.next().expect("a row").expect("a document");
        assert_eq!(reader.progress().bytes_read, length * row / 6);
    }
    assert!(reader.next().is_none());
    assert_eq!(reader.progress().bytes_read, length);
}
