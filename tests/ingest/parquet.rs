//! Parquet files as writers make them.

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::{Value, json};
use warpseek_ingest::{FieldMap, FileFormat, ReadOptions};

use super::parquet_writer::{Cells, nested, some, text, write};
use super::{Folder, assert_has, documents, gzip, noted, outcomes, read};

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

/// The metadata of the three rows; the second shows what is missing from the third.
const EXPECTED: [&str; 3] = [
    r#"{"day": "2024-05-01", "seen": "2024-05-01T09:30:00.000001Z",
        "local": "2024-05-01T09:30:00.000000001", "clock": "09:30:00.007",
        "old_stamp": "2000-01-01T12:00:00.000000000", "price": 19.99,
        "wide": "-1234567890.1234567890", "score": 0.25, "ratio": 0.1, "open": true, "small": 200,
        "large": 18446744073709551615,
        "key": "00010203-0405-0607-0809-0a0b0c0d0e0f", "tags": ["x", null, "y"],
        "author": {"name": "Ann", "papers": [1, 2]}, "counts": {"k": 1, "l": null},
        "bare": [7, 8], "parts": [{"x": 1, "y": 2}, {"x": 3, "y": null}]}"#,
    r#"{"day": null, "seen": null, "local": null, "clock": null, "old_stamp": null, "price": null,
        "wide": null, "score": null, "ratio": null, "open": null, "small": null, "large": null,
        "key": null, "tags": null, "author": null, "counts": null, "bare": [],
        "parts": null}"#,
    r#"{"day": "1969-12-31", "seen": "1969-12-31T23:59:59.999999Z", "price": -0.05,
        "ratio": -1e10, "open": false, "small": 255, "large": 9223372036854775807, "tags": [],
        "author": {"name": "Bob", "papers": null}, "counts": {}, "bare": [9],
        "parts": [{"x": 4, "y": 5}]}"#,
];

fn expected() -> [Value; 3] {
    let [full, missing, mut edges]: [Value; 3] =
        EXPECTED.map(|row| serde_json::from_str(row).expect("JSON"));
    for (name, value) in missing.as_object().expect("an object") {
        let edges = edges.as_object_mut().expect("an object");
        edges.entry(name).or_insert_with(|| value.clone());
    }
    [full, missing, edges]
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

/// A schema with a text and one more column.
fn with_text(column: &str) -> String {
    let end = if column.ends_with('}') { "" } else { ";" };
    format!("message m {{ REQUIRED BYTE_ARRAY text (STRING); REQUIRED {column}{end} }}")
}

/// The JSON value of one parquet value, and the notes; no value for a column that is left out.
pub(super) fn value(column: &str, cells: Cells) -> (Option<Value>, Vec<String>) {
    let schema = with_text(column);
    let content = write(&schema, WriterProperties::default(), vec![vec![text(&["T"]), cells]]);
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let mut reader = warpseek_ingest::open(&[path], &ReadOptions::default()).expect("a reader");
    let document = reader.next().expect("a row").expect("a document");
    let notes = reader.notes().list();
    (document.metadata.get("v").cloned(), notes.iter().map(ToString::to_string).collect())
}

/// A column's type, an integer or bytes as hexadecimal digits, the JSON value, and behind `~` a
/// part of the note that the value is told with. `-` is a column that is left out.
const VALUES: &str = r#"
INT32 v (DATE) | 0 | "1970-01-01"
INT32 v (DATE) | -1 | "1969-12-31"
INT32 v (DATE) | 59 | "1970-03-01"
INT32 v (DATE) | 11016 | "2000-02-29"
INT32 v (DATE) | 11017 | "2000-03-01"
INT32 v (DATE) | 19782 | "2024-02-29"
INT32 v (DATE) | 47540 | "2100-02-28"
INT32 v (DATE) | 47541 | "2100-03-01"
INT32 v (DATE) | -719528 | "0000-01-01"
INT32 v (DATE) | 2932896 | "9999-12-31"
INT32 v (DATE) | 2932897 | "+10000-01-01" ~ became text: dates outside the years 0 to 9999
INT32 v (DATE) | -719529 | "-0001-12-31" ~ became text: dates outside the years 0 to 9999
INT32 v (DATE) | -2147483648 | null ~ became null: dates outside the years 0 to 9999
INT32 v (DATE) | 2147483647 | null ~ infinite
INT32 v (DATE) | -2147483647 | null ~ infinite
INT64 v (TIMESTAMP(MILLIS,true)) | -1 | "1969-12-31T23:59:59.999Z"
INT64 v (TIMESTAMP(MILLIS,true)) | -9223372036854775808 | null ~ years 0 to 9999
INT64 v (TIMESTAMP(MICROS,true)) | -63537523200000000 | "-0044-07-30T00:00:00.000000Z" ~ text
INT64 v (TIMESTAMP(MICROS,false)) | 9223372036854775807 | null ~ infinite
INT64 v (TIMESTAMP(NANOS,false)) | -9223372036854775807 | null ~ infinite
INT64 v (TIMESTAMP(NANOS,true)) | 1714555800000000001 | "2024-05-01T09:30:00.000000001Z"
INT64 v (TIMESTAMP(NANOS,true)) | -9223372036854775808 | "1677-09-21T00:12:43.145224192Z"
INT64 v (TIMESTAMP_MICROS) | 1 | "1970-01-01T00:00:00.000001Z"
INT64 v (TIME(NANOS,true)) | 86399999999999 | "23:59:59.999999999"
INT64 v (TIME(MICROS,true)) | 86400000000 | "24:00:00.000000" ~ became text: the time of day 24:00
INT64 v (TIME(MICROS,true)) | 86400000001 | null ~ outside 0 to 24 hours
INT32 v (TIME(MILLIS,false)) | -1 | null ~ outside 0 to 24 hours
INT32 v (INTEGER(8,true)) | -128 | -128
INT32 v (INTEGER(16,false)) | -1 | 65535
INT32 v (INTEGER(32,false)) | -1 | 4294967295
INT32 v (UINT_8) | -1 | 255
INT64 v | -1 | -1
INT32 v (DECIMAL(5,2)) | -5 | -0.05
INT64 v (DECIMAL(15,3)) | 123456 | 123.456
INT64 v (DECIMAL(18,3)) | 9500 | 9.5
INT64 v (DECIMAL(18,3)) | 10000 | 10.0
INT64 v (DECIMAL(18,3)) | 0 | 0.0
INT64 v (DECIMAL(18,3)) | 999999999999999000 | 999999999999999.0
INT64 v (DECIMAL(18,3)) | 1234567890123456789 | "1234567890123456.789"
INT64 v (DECIMAL(18,3)) | 1234567890123456000 | 1234567890123456
INT64 v (DECIMAL(18,0)) | 42 | 42
INT64 v (DECIMAL(18,18)) | -1 | -1e-18
BYTE_ARRAY v (DECIMAL(9,0)) | x | 0
BYTE_ARRAY v (DECIMAL(9,0)) | xff | -1
BYTE_ARRAY v (DECIMAL(9,0)) | x80 | -128
BYTE_ARRAY v (DECIMAL(9,0)) | xff00 | -256
BYTE_ARRAY v (DECIMAL(9,0)) | x00ff | 255
BYTE_ARRAY v (DECIMAL(38,0)) | x00ffffffffffffffff | 18446744073709551615
BYTE_ARRAY v (DECIMAL(38,0)) | x010000000000000000 | "18446744073709551616"
BYTE_ARRAY v (DECIMAL(38,2)) | x43c33c1937564802 | "48828125000000000.02"
BYTE_ARRAY v (DECIMAL(38,0)) | x80000000000000000000 | "-604462909807314587353088"
BYTE_ARRAY v (DECIMAL(38,18)) | xff54ab567314e0f52e | "-12.345678901234567890"
BYTE_ARRAY v (DECIMAL(38,0)) | xffffffffffffffffffffffffffffffffffffffff | -1
BYTE_ARRAY v (DECIMAL(39,0)) | x05 | "5" ~ became text: decimals of more than 38 digits
BYTE_ARRAY v (DECIMAL(50,10)) | x037e11d600 | "1.5000000000" ~ more than 38 digits
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | x003c | 1.0
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | x00c0 | -2.0
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | xff7b | 65504.0
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | x0100 | 5.9604645e-8
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | x007e | null ~ NaN or infinity
FIXED_LEN_BYTE_ARRAY(2) v (FLOAT16) | x00fc | null ~ NaN or infinity
FIXED_LEN_BYTE_ARRAY(12) v (INTERVAL) | x010000000300000000000000 | "P1M3D"
FIXED_LEN_BYTE_ARRAY(12) v (INTERVAL) | x0e00000000000000fcce3800 | "P1Y2MT1H2M3.004S"
FIXED_LEN_BYTE_ARRAY(12) v (INTERVAL) | x000000000000000000000000 | "PT0S"
FIXED_LEN_BYTE_ARRAY(12) v | x010000000300000000000000 | - ~ left out: it is binary, FIXED
FIXED_LEN_BYTE_ARRAY(16) v | x61616161616161616161616161616161 | - ~ 128-bit
BYTE_ARRAY v | x6161 | - ~ 'v': the column is left out: it is binary, BYTE_ARRAY
BYTE_ARRAY v (BSON) | x0500000000 | - ~ BSON
BYTE_ARRAY v (GEOMETRY) | x01 | - ~ GEOMETRY
BYTE_ARRAY v (GEOGRAPHY) | x01 | - ~ GEOGRAPHY
BYTE_ARRAY v (JSON) | x7b7d | {}
BYTE_ARRAY v (JSON) | x5b312c226122 | "[1,\"a\"" ~ became text: text that is not valid JSON
BYTE_ARRAY v (JSON) | x5b4e614e2c315d | [null, 1] ~ became null: NaN or infinity
BYTE_ARRAY v (JSON) | xff | null ~ became null: text that is not valid UTF-8
BYTE_ARRAY v (ENUM) | x7b7d | "{}"
BYTE_ARRAY v (STRING) | xc328 | null ~ became null: text that is not valid UTF-8
"#;

#[test]
fn parquet_values_are_rendered_by_their_type() {
    for case in VALUES.lines().skip(1) {
        let [column, raw, expected] = case.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let byte = |at: usize| u8::from_str_radix(&raw[at..at + 2], 16).expect("a byte");
        let bytes: Vec<u8> =
            (1..raw.len() - 1).step_by(2).filter(|_| raw.starts_with('x')).map(byte).collect();
        let bytes = ByteArray::from(bytes);
        let integer = || raw.parse::<i64>().expect("an integer");
        let cells = match &column[..5] {
            "INT32" => Cells::Int(vec![integer() as i32], None),
            "INT64" => Cells::Long(vec![integer()], None),
            "FIXED" => Cells::Fixed(vec![FixedLenByteArray::from(bytes)], None),
            _ => Cells::Bytes(vec![bytes], None),
        };
        let (value, notes) = value(column, cells);
        let (expected, note) = expected.split_once(" ~").unwrap_or((expected, "-"));
        let expected: Option<Value> = match expected {
            "-" => None,
            json => Some(serde_json::from_str(json).expect("JSON")),
        };
        assert_eq!(value, expected, "{case}");
        assert_eq!(notes.len(), usize::from(note != "-"), "{case}: {notes:?}");
        assert!(notes.iter().all(|told| told.contains(note.trim())), "{case}: {notes:?}");
        assert!(notes.iter().all(|told| told.contains("d.parquet, field 'v'")), "{notes:?}");
    }
}

#[test]
fn parquet_lists_and_maps_of_old_writers_are_read() {
    let one = |n: i32, reps: &[i16]| Cells::Int(vec![n; reps.len()], nested(&[1, 1], reps));
    let cases = [
        // The repeated field is the element.
        ("group v (LIST) { REPEATED INT32 element; }", json!([7, 7])),
        (
            "group v (LIST) { REPEATED group array { REQUIRED INT32 x; } }",
            json!([{"x": 7}, {"x": 7}]),
        ),
        (
            "group v (LIST) { REPEATED group v_tuple { REQUIRED INT32 x; } }",
            json!([{"x": 7}, {"x": 7}]),
        ),
        // The repeated field is a group around the element, whatever its name.
        ("group v (LIST) { REPEATED group bag { REQUIRED INT32 array_element; } }", json!([7, 7])),
        // A map without values is a list of its keys.
        ("group v (MAP) { REPEATED group map { REQUIRED INT32 key; } }", json!([7, 7])),
        // Repeated fields without an annotation.
        ("group v { REPEATED INT32 x; }", json!({"x": [7, 7]})),
        ("group v { REPEATED group x { REQUIRED INT32 y; } }", json!({"x": [{"y": 7}, {"y": 7}]})),
    ];
    for (column, expected) in cases {
        assert_eq!(value(column, one(7, &[0, 1])), (Some(expected), vec![]), "{column}");
    }
    // A list of lists, both of the oldest form: [[7], [7]] and [[7, 7]].
    let column = "group v (LIST) { REPEATED group array (LIST) { REPEATED INT32 array; } }";
    for (reps, expected) in [([0, 1], json!([[7], [7]])), ([0, 2], json!([[7, 7]]))] {
        let cells = Cells::Int(vec![7, 7], nested(&[2, 2], &reps));
        assert_eq!(value(column, cells), (Some(expected), vec![]));
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
    // Of every four rows: a null list, then lists of one, two and three, the second element null.
    let group = |start: usize| {
        let texts: Vec<String> = (start..start + 500).map(|n| format!("text {n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let levels = [(1, 0), (3, 0), (3, 0), (2, 1), (3, 0), (2, 1), (3, 1)].repeat(125);
        let (defs, reps): (Vec<i16>, Vec<i16>) = levels.into_iter().unzip();
        let value = |n: usize, at: usize| (n * 10 + at) as i32;
        let values = (start..start + 500)
            .step_by(4)
            .flat_map(|n| [value(n + 1, 0), value(n + 2, 0), value(n + 3, 0), value(n + 3, 2)]);
        vec![text(&texts), Cells::Int(values.collect(), nested(&defs, &reps))]
    };
    let content = write(schema, properties, vec![group(0), group(500)]);
    let folder = Folder::new();
    let path = folder.file("d.parquet", content);
    let all = read(&path, &ReadOptions::default());
    assert_eq!(all.len(), 1000, "{:?}", all.iter().filter(|r| r.is_err()).collect::<Vec<_>>());
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
    assert_eq!([&outcomes[0], &outcomes[4], &outcomes[5]], ["a", "e", "f"]);
    assert_has(&outcomes[1], &["d.parquet, row 2, field 'id'", "found null"]);
    assert_has(&outcomes[2], &["row 3, field 'text'", "found null"]);
    assert_has(&outcomes[3], &["row 4, field 'text'", "not valid UTF-8 (byte 2)"]);
}

#[test]
fn parquet_packed_or_from_a_stream_goes_through_a_file() {
    let content = write(SCHEMA, WriterProperties::default(), vec![rows()]);
    assert_eq!(documents("d.parquet.gz", gzip(&content)).len(), 3);
    let options = ReadOptions { format: Some(FileFormat::Parquet), ..ReadOptions::default() };
    for bytes in [content.clone(), gzip(&content)] {
        let stream = std::io::Cursor::new(bytes);
        let reader = warpseek_ingest::read_stream(stream, "<stdin>", &options).expect("a reader");
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
fn parquet_rows_with_a_title_and_no_text_are_their_title() {
    let schema = "message m {
        REQUIRED BYTE_ARRAY id (STRING);
        REQUIRED BYTE_ARRAY title (STRING);
        OPTIONAL BYTE_ARRAY text (STRING);
    }";
    let texts: Vec<ByteArray> = ["first", ""].map(ByteArray::from).into();
    let columns = |titles: &[&str]| {
        let texts = Cells::Bytes(texts.clone(), some(&[1, 0, 1]));
        vec![text(&["a", "b", "c"]), text(titles), texts]
    };
    let folder = Folder::new();
    let rows = vec![columns(&["A", "B", "C"])];
    let path = folder.file("d.parquet", write(schema, WriterProperties::default(), rows));
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    let texts: Vec<&str> = documents.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["first", "", ""]);
    assert!(documents.iter().all(|d| d.embed_title && !d.title.is_empty()));
    assert_eq!(notes.len(), 1);
    assert_has(&notes[0], &["field 'text': 2 records have no text: its title stands alone"]);
    let rows = vec![columns(&["A", "", "C"])];
    let content = write(schema, WriterProperties::default(), rows);
    let outcomes = outcomes("d.parquet", content, &ReadOptions::default());
    assert_has(&outcomes[1], &["row 2, field 'text'", "found null"]);
}

#[test]
fn parquet_progress_goes_with_the_rows() {
    let folder = Folder::new();
    let content = write(SCHEMA, WriterProperties::default(), vec![rows(), rows()]);
    let length = content.len() as u64;
    let path = folder.file("d.parquet", content);
    let mut reader = warpseek_ingest::open(&[path], &ReadOptions::default()).expect("a reader");
    for row in 1..=6 {
        reader.next().expect("a row").expect("a document");
        assert_eq!(reader.progress().bytes_read, length * row / 6);
    }
    assert!(reader.next().is_none());
    assert_eq!(reader.progress().bytes_read, length);
}
