//! Values of every kind, as files of each format have them, through the library.

use crate::support;
use serde_json::{Value, json};
use std::path::Path;
use warpseek::ingest::chunk::{Chunk, Chunking};
use warpseek::ingest::{FieldMap, ReadOptions};
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter};

/// An index over files with these contents, and the ids and warnings that filters give.
struct Collection {
    dir: tempfile::TempDir,
}

impl Collection {
    fn new(files: &[(&str, &str)]) -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, content)| this.add(name, content));
        this
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("idx")
    }

    fn writer(&self) -> IndexWriter {
        let manifest = IndexManifest::new(4, None, Chunking::default());
        IndexWriter::open_or_create(&self.path(), &manifest).unwrap()
    }

    fn add(&self, name: &str, content: &str) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let options = ReadOptions { fields: FieldMap::default(), ..ReadOptions::default() };
        let mut writer = self.writer();
        for document in warpseek::ingest::open(&[path], &options).unwrap() {
            let chunk = Chunk { range: 0..1, tokens: 1, tokens_lost: 0 };
            writer.put(document.unwrap(), vec![chunk], &[0.5; 4]).unwrap();
        }
        writer.commit().unwrap();
    }

    fn delete(&self, filter: &str) -> usize {
        let mut writer = self.writer();
        let (found, _) = writer.find_where(&Filter::parse(filter).unwrap()).unwrap();
        found.iter().for_each(|&seq| writer.delete(seq));
        writer.commit().unwrap();
        found.len()
    }

    /// The ids of the rows that pass, joined by commas, and the warnings.
    #[track_caller]
    fn find(&self, filter: &str) -> (String, Vec<String>) {
        let index = Index::open(&self.path()).unwrap();
        let passing = index.rows_where(&Filter::parse(filter).unwrap());
        let passing = passing.unwrap_or_else(|e| panic!("{e}"));
        let mut rows = Vec::new();
        passing.mask.collect_range(0..index.n_rows(), &mut rows);
        let ids: Vec<String> = index.rows(&rows).unwrap().into_iter().map(|row| row.id).collect();
        (ids.join(","), passing.warnings.clone())
    }

    /// Checks the rows of filters that leave nothing out.
    #[track_caller]
    fn check(&self, expected: &[(&str, &str)]) {
        for (filter, ids) in expected {
            assert_eq!(self.find(filter), ((*ids).to_owned(), Vec::new()), "{filter}");
        }
    }

    #[track_caller]
    fn reason(&self, filter: &str) -> String {
        let index = Index::open(&self.path()).unwrap();
        index.rows_where(&Filter::parse(filter).unwrap()).unwrap_err().to_string()
    }

    fn metadata(&self, name: &str) -> Vec<Value> {
        let index = Index::open(&self.path()).unwrap();
        let rows: Vec<u32> = (0..index.n_rows() as u32).collect();
        index.rows(&rows).unwrap().into_iter().map(|r| r.metadata[name].clone()).collect()
    }
}

const GOODS: &str = "id,text,price,zip,paper\n\
    a,x,19.90,02139,1501.02580\nb,x,19.95,94110,1501.02582\nc,x,5.00,10001,0704.0010\n\
    d,x,7.25,00501,2101.00123\ne,x,120.00,60614,2101.00120\n";

#[test]
fn a_column_of_csv_has_one_type_over_all_of_its_cells() {
    let goods = Collection::new(&[("goods.csv", GOODS)]);
    goods.check(&[
        ("price < 20", "a,b,c,d"),
        ("price > 100", "e"),
        ("NOT (price < 20)", "e"),
        ("price = 19.9", "a"),
        ("price IN (5, 7.250)", "c,d"),
        ("price BETWEEN 7.25 AND 19.90", "a,d"),
        ("zip IN ('02139', '94110')", "a,b"),
        ("zip < '10002'", "a,c,d"),
        ("zip LIKE '%1%'", "a,b,c,d,e"),
        ("paper LIKE '1501%'", "a,b"),
        ("paper = '2101.00120'", "e"),
    ]);
    assert_eq!(goods.metadata("price"), [19.9, 19.95, 5.0, 7.25, 120.0].map(Value::from));
    let zips = ["02139", "94110", "10001", "00501", "60614"];
    assert_eq!(goods.metadata("zip"), zips.map(Value::from));
    let (ids, warnings) = goods.find("zip > 50000");
    assert_eq!(ids, "b,e");
    assert_eq!(warnings, ["field 'zip': 2 rows hold text and were not compared with a number"]);
    assert_eq!(goods.delete("price >= 5"), 5);
}

#[test]
fn a_field_changes_its_type_with_later_documents_and_back_when_they_go() {
    let goods = Collection::new(&[("goods.csv", GOODS)]);
    goods.add("more.csv", "id,text,price\nf,x,unknown\n");
    let (ids, warnings) = goods.find("price < 20");
    assert_eq!(ids, "a,b,c,d");
    assert_eq!(warnings, ["field 'price': 1 row holds text and was not compared with a number"]);
    goods.check(&[("price = 'unknown'", "f"), ("price = '5.00'", "c"), ("price = '5'", "")]);
    goods.add("more.csv", "id,text,price\nf,x,3e0\n");
    goods.check(&[("price < 20", "a,b,c,d,f"), ("price = '5'", "c")]);
    goods.add("more.csv", "id,text,price\ng,x,?\n");
    assert_eq!(goods.find("price < 20").1.len(), 1);
    assert_eq!(goods.delete("price = '?'"), 1);
    goods.check(&[("price < 20", "a,b,c,d,f")]);
}

#[test]
fn odd_cells_of_a_column_are_told_and_differ_from_numbers_and_times() {
    let odd = Collection::new(&[(
        "odd.csv",
        "id,text,v,at\n1,x,5,2024-01-31T23:00:00-05:00\n2,x,abc,2024-02-01T00:00:00Z\n\
         3,x,7,unknown\n4,x,05,\n",
    )]);
    for (filter, ids) in [
        ("v = 5", "1"),
        ("v <> 5", "2,3,4"),
        ("NOT (v = 5)", "2,3,4"),
        ("v NOT IN (5)", "2,3,4"),
        ("v IN (5, 7)", "1,3"),
        ("v > 4", "1,3"),
        ("NOT (v > 6)", "1"),
        ("at >= TIMESTAMP '2024-02-01T00:00:00Z'", "1,2"),
        ("at <> TIMESTAMP '2024-02-01T04:00:00Z'", "2,3"),
    ] {
        let (found, warnings) = odd.find(filter);
        assert_eq!((found.as_str(), warnings.len()), (ids, 1), "{filter}: {warnings:?}");
    }
    let different = "field 'v': 2 rows hold text and were not compared with a number: it counts \
                     as different";
    assert_eq!(odd.find("v <> 5").1, [different]);
    let (ids, warnings) = odd.find("at >= '2024-02-01T00:00:00Z'");
    assert_eq!(ids, "2,3");
    let as_text = "field 'at': 1 row holds text that is no time and was compared as text, as all \
                   of the field is";
    assert_eq!(warnings, [as_text]);
    odd.check(&[("v <> '5'", "2,3,4"), ("v < '5'", "4")]);
    let words = Collection::new(&[("words.csv", "id,text,v\na,x,null\nb,x,5\nc,x,\n")]);
    assert_eq!(words.find("v <> 5").0, "a");
    assert_eq!(words.find("v IS NULL").0, "c");
}

#[test]
fn names_behind_document_are_the_documents_own() {
    let file = r#"{"_id":"a","text":"x","id":"M1","document":{"id":"b"}}
{"_id":"b","text":"x","id":"a"}
"#;
    let named = Collection::new(&[("named.jsonl", file)]);
    named.check(&[
        ("document.id = 'b'", "b"),
        ("metadata.document.id = 'b'", "a"),
        ("metadata.id = 'a'", "b"),
    ]);
    assert_eq!(named.delete("document.id = 'a'"), 1);
    let reason = named.reason("metadata.document.id = 'b'");
    assert!(reason.contains("no field is called 'document.id'"), "{reason}");
}

#[test]
fn data_frames_written_as_csv_keep_their_numbers_and_truth_values() {
    let frame = Collection::new(&[(
        "frame.csv",
        "id,text,year,p,flag,big,limit\na,x,2020.0,1e-05,True,1234567890123456789,inf\n\
         b,x,2021.0,0.5,False,1234567890123456788,1.5\n\
         c,x,,0.25,True,12345678901234567890123,nan\n",
    )]);
    frame.check(&[
        ("p < 0.1", "a"),
        ("flag = true", "a,c"),
        ("flag", "a,c"),
        ("NOT flag", "b"),
        ("flag = 'False'", "b"),
        ("year = 2020", "a"),
        ("year IS NULL", "c"),
        ("big = 1234567890123456789", "a"),
        ("big IN (1234567890123456788, 12345678901234567890123)", "b,c"),
        ("big > 1234567890123456788", "a,c"),
        ("limit > 1e300", "a"),
        ("limit <= 1.5", "b"),
    ]);
    assert_eq!(frame.metadata("flag"), [true, false, true].map(Value::from));
    assert!(frame.reason("flag = 1").contains("compare it with TRUE or FALSE"));
}

#[test]
fn times_are_compared_as_points_in_time_in_any_notation() {
    let times = Collection::new(&[(
        "times.jsonl",
        r#"{"id":"a","text":"x","at":"2024-05-01 09:30:00","day":"2024-05-01"}
{"id":"b","text":"x","at":"2024-05-01T09:30:00.000000","day":"2023-12-31"}
{"id":"c","text":"x","at":"2024-05-01T11:30:00+02:00","day":null}
{"id":"d","text":"x","at":"2024-05-01"}
"#,
    )]);
    let held = "field 'at': 1 row holds a time with an offset and was";
    let (ids, warnings) = times.find("at >= '2024-05-01T00:00:00'");
    assert_eq!((ids.as_str(), warnings.len()), ("a,b,c,d", 1));
    assert_eq!(warnings[0], format!("{held} compared as UTC with a time without one"));
    let (ids, warnings) = times.find("at = '2024-05-01 09:30:00'");
    assert_eq!(ids, "a,b");
    assert_eq!(warnings, [format!("{held} not compared with a time without one")]);
    assert_eq!(times.find("NOT (at = '2024-05-01 09:30:00')").0, "d");
    assert_eq!(times.find("at = '2024-05-01T09:30:00Z'").0, "c");
    assert_eq!(times.find("at = '2024-05-01T05:00:00-04:30'").0, "c");
    assert_eq!(times.find("at IN ('2024-05-01', '2024-05-01 09:30')").0, "a,b,d");
    times.check(&[
        ("day >= '2024'", "a"),
        ("day < '2024-01'", "b"),
        ("day BETWEEN DATE '2023-12-31' AND DATE '2024-05-01'", "a,b"),
        ("day < TIMESTAMP '2024-05-01 00:00:01'", "a,b"),
        ("day LIKE '2023%'", "b"),
    ]);
    let reason = times.reason("day > '2024'");
    assert!(reason.contains("holds dates or times, and '2024' is none"), "{reason}");
    assert!(times.reason("day = 2024").contains("never a number"));
    assert!(times.reason("day = DATE '2024-13-01'").contains("write DATE '2024-01-31'"));
}

#[test]
fn mixed_values_compare_as_what_they_are_and_the_rest_is_told() {
    let values = ["1", "1.0", "true", "\"1\"", "null", "[1,2]"];
    let lines = values
        .iter()
        .enumerate()
        .map(|(i, value)| format!("{{\"id\":\"{i}\",\"text\":\"x\",\"n\":{value}}}\n"));
    let file: String = lines.chain(["{\"id\":\"6\",\"text\":\"x\"}\n".to_owned()]).collect();
    let mixed = Collection::new(&[("mixed.jsonl", &file)]);
    for (filter, ids) in [
        ("n = 1", "0,1"),
        ("n != 1", "2,3,5"),
        ("NOT (n = 1)", "2,3,5"),
        ("n IN (1, 2)", "0,1"),
        ("n NOT IN (1, 2)", "2,3,5"),
        ("n < 2", "0,1"),
        ("n = '1'", "3"),
        ("n = true", "2"),
        ("n CONTAINS 2", "5"),
        ("n IS NULL", "4,6"),
    ] {
        assert_eq!(mixed.find(filter).0, ids, "{filter}");
    }
    let told =
        |label: &str| format!("field 'n': 1 row holds {label} and was not compared with a number");
    let expected = ["text", "an array", "a boolean"].map(told);
    assert_eq!(mixed.find("n < 2").1, expected);
    let different = expected.map(|warning| warning + ": it counts as different");
    assert_eq!(mixed.find("n != 1").1, different);
}

#[test]
fn texts_that_are_all_numbers_are_numbers_beside_numbers() {
    let years = Collection::new(&[(
        "years.jsonl",
        r#"{"id":"a","text":"x","year":"2020","price":"1.50"}
{"id":"b","text":"x","year":2021,"price":"10.25"}
{"id":"c","text":"x","price":"9.99"}
"#,
    )]);
    years.check(&[("year >= 2020", "a,b"), ("price < 10", "a,c"), ("price = '1.5'", "a")]);
    // A typed format's text stays text in the output.
    assert_eq!(years.metadata("price"), [json!("1.50"), json!("10.25"), json!("9.99")]);
    let (ids, warnings) = years.find("year LIKE '20%'");
    assert_eq!((ids.as_str(), warnings.len()), ("a", 1), "{warnings:?}");
    assert!(years.reason("year = 'last'").contains("holds numbers, and 'last' is none"));
}

#[test]
fn integers_of_64_bits_are_compared_exactly() {
    let hashes = Collection::new(&[(
        "hashes.jsonl",
        r#"{"id":"a","text":"x","h":17843725896483928171,"i":9007199254740993}
{"id":"b","text":"x","h":17843725896483928170,"i":9007199254740992}
"#,
    )]);
    hashes.check(&[
        ("h = 17843725896483928171", "a"),
        ("h > 17843725896483928170", "a"),
        ("h IN (17843725896483928170)", "b"),
        ("h > 17843725896483928170.5", "a"),
        ("i = 9007199254740993", "a"),
        ("i > 9007199254740992.5", "a"),
        ("i < 9007199254740992.999999", "b"),
    ]);
}

#[test]
fn names_of_the_document_and_of_metadata_are_both_reachable() {
    let shadowed = Collection::new(&[(
        "shadowed.jsonl",
        r#"{"id":"a","text":"x","doc_id":"REPORT-7","title":"t1"}
{"id":"b","text":"x","doc_id":"REPORT-8","title":"t2"}
"#,
    )]);
    shadowed.check(&[
        ("metadata.doc_id = 'REPORT-7'", "a"),
        ("document.doc_id = 'b'", "b"),
        ("document.title = 't2'", "b"),
        ("title = 't1'", "a"),
    ]);
    let reason = shadowed.reason("doc_id = 'REPORT-7'");
    assert!(reason.contains("write document.doc_id or metadata.doc_id"), "{reason}");
    let reason = shadowed.reason("zzz = 1");
    assert!(reason.ends_with("the fields are id, doc_id, title"), "{reason}");
}

#[test]
fn like_heeds_case_and_ilike_does_not() {
    let signs = Collection::new(&[("signs.csv", "id,text,v\na,x,[a]*?b\nb,x,a*?b\nc,x,[a]xyb\n")]);
    signs.check(&[("v LIKE '[a]*?%'", "a"), ("v LIKE 'a*%'", "b"), ("v LIKE '[a]%'", "a,c")]);
    let names = Collection::new(&[(
        "names.jsonl",
        "{\"id\":\"a\",\"text\":\"x\",\"v\":\"NeurIPS 2023\"}\n\
         {\"id\":\"b\",\"text\":\"x\",\"v\":\"\u{e9}cole\"}\n\
         {\"id\":\"c\",\"text\":\"x\",\"v\":\"a\\u0000b\"}\n",
    )]);
    names.check(&[
        ("v LIKE 'neurips%'", ""),
        ("v LIKE 'NeurIPS%'", "a"),
        ("v ILIKE 'neurips%'", "a"),
        ("v ILIKE '\u{c9}cole'", "b"),
        ("v NOT ILIKE '\u{c9}COLE'", "a,c"),
        ("v LIKE 'a_b'", "c"),
        ("v LIKE 'a'", ""),
        ("v LIKE 'a%'", "c"),
        ("v LIKE '%b%'", "c"),
        ("v LIKE '%'", "a,b,c"),
    ]);
    assert!(names.reason("v LIKE 'a!' ESCAPE '!'").contains("ends with the escape character"));
}

/// Makes the catalogue what earlier versions wrote.
fn make_older(index: &Path) {
    let database = support::database(index);
    let columns = "name, texts, numbers, booleans, arrays, objects, nulls";
    let definition = columns.replace("name,", "name TEXT PRIMARY KEY,");
    let mut table = String::from("CREATE TABLE field (\n    name     TEXT PRIMARY KEY");
    for name in definition.split(", ").skip(1) {
        table += &format!(",\n    {name:8} INTEGER NOT NULL DEFAULT 0");
    }
    let sql = format!(
        "CREATE TABLE copy AS SELECT {columns} FROM field; DROP TABLE field;
         {table}\n) WITHOUT ROWID; INSERT INTO field SELECT {columns} FROM copy; DROP TABLE copy;
         UPDATE document SET embed_title = embed_title & 1;"
    );
    database.execute_batch(&sql).unwrap();
}

#[test]
fn an_older_index_opens_says_what_it_lacks_and_learns_it() {
    let goods = Collection::new(&[(
        "goods.jsonl",
        "{\"id\":\"a\",\"text\":\"x\",\"price\":\"19.90\"}\n\
         {\"id\":\"b\",\"text\":\"x\",\"price\":\"5.00\"}\n",
    )]);
    make_older(&goods.path());
    assert!(warpseek::store::verify(&goods.path()).unwrap().iter().all(|f| f.problem.is_none()));
    assert!(!Index::open(&goods.path()).unwrap().fields().counts_readings());
    let reason = goods.reason("price < 10");
    assert!(reason.contains("holds text") && reason.contains("`warpseek compact`"), "{reason}");
    goods.writer().compact().unwrap();
    goods.check(&[("price < 10", "b")]);
    make_older(&goods.path());
    goods.add("more.jsonl", "{\"id\":\"c\",\"text\":\"x\",\"price\":\"7.5\"}\n");
    goods.check(&[("price < 10", "b,c")]);
    assert!(warpseek::store::verify(&goods.path()).unwrap().iter().all(|f| f.problem.is_none()));
}
