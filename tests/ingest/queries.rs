//! Files of queries, and the header of csv and tsv files.

use std::io::Cursor;

use parquet::file::properties::WriterProperties;
use warpseek_error::Error;
use warpseek_ingest::{FieldMap, FileFormat, HeaderRule, QueryFile, ReadOptions};

use super::parquet_writer::{Cells, text, write};
use super::{Folder, assert_has, documents, gzip, outcomes, read};

/// Field names: the id's and the text's, if not empty.
fn named(id: &str, text: &str) -> ReadOptions {
    let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let fields = FieldMap { id: name(id), text: name(text), ..FieldMap::default() };
    ReadOptions { fields, ..ReadOptions::default() }
}

fn headless() -> ReadOptions {
    ReadOptions { header: HeaderRule::Absent, ..ReadOptions::default() }
}

fn open(name: &str, content: &[u8], options: &ReadOptions) -> Result<QueryFile, Error> {
    if name == "-" {
        return QueryFile::from_reader(Cursor::new(content.to_vec()), "<stdin>", options);
    }
    let folder = Folder::new();
    QueryFile::open(&folder.file(name, content), options)
}

/// Id and text of each query; an error as `error` and its message.
fn queries(name: &str, content: impl AsRef<[u8]>, options: &ReadOptions) -> Vec<(String, String)> {
    let outcome = |query: Result<warpseek_ingest::Document, Error>| match query {
        Ok(query) => (query.id, query.text),
        Err(error) => ("error".to_owned(), error.to_string()),
    };
    match open(name, content.as_ref(), options) {
        Ok(file) => file.map(outcome).collect(),
        Err(error) => vec![("error".to_owned(), error.to_string())],
    }
}

#[track_caller]
fn assert_queries(name: &str, content: impl AsRef<[u8]>, expected: &[(&str, &str)]) {
    assert_queries_with(&ReadOptions::default(), name, content, expected);
}

#[track_caller]
fn assert_queries_with(
    options: &ReadOptions,
    name: &str,
    content: impl AsRef<[u8]>,
    expected: &[(&str, &str)],
) {
    let content = content.as_ref();
    for packed in [false, true] {
        let (name, content) = match packed {
            false => (name.to_owned(), content.to_vec()),
            true if name == "-" => (name.to_owned(), gzip(content)),
            true => (format!("{name}.gz"), gzip(content)),
        };
        let got = queries(&name, content, options);
        let got: Vec<(&str, &str)> = got.iter().map(|(id, text)| (&id[..], &text[..])).collect();
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn query_header_is_no_query() {
    let two = [("q1", "ban cars"), ("q2", "ban, guns")];
    for (name, content) in [
        ("q.tsv", "qid\tquery\nq1\tban cars\nq2\tban, guns\n"),
        ("q.tsv", "\u{feff}Query-ID\tText\r\nq1\tban cars\r\n\r\nq2\tban, guns\r\n"),
        ("q.tsv", "\"qid\"\t\"query\"\nq1\tban cars\nq2\t\"ban, guns\"\n"),
        ("q.tsv", "qid\tlang\tQuery Text\nq1\ten\tban cars\nq2\ten\tban, guns\n"),
        ("q.tsv", "_id\tutterance\nq1\tban cars\nq2\tban, guns"),
        ("q.tsv", "qid,query\nq1,ban cars\nq2,\"ban, guns\"\n"),
        ("q.csv", "query,id\nban cars,q1\n\"ban, guns\",q2\n"),
        ("q.csv", "\n\nID,TITLE\nq1,ban cars\nq2,\"ban, guns\"\n"),
        ("q.csv", "id,question,answer\r\nq1,ban cars,x\r\nq2,\"ban, guns\",\r\n"),
        ("q.csv", "qid\tquery\nq1\tban cars\nq2\tban, guns\n"),
        ("q.txt", "qid\tquery\nq1\tban cars\nq2\tban, guns\n"),
        ("-", "qid\tyear\tquery\nq1\t2020\tban cars\nq2\t2020\tban, guns\n"),
        ("-", "qid,query\nq1,ban cars\nq2,\"ban, guns\"\n"),
        (
            "q.jsonl",
            "{\"qid\":\"q1\",\"query\":\"ban cars\"}\n{\"id\":\"q2\",\"text\":\"ban, guns\"}",
        ),
        (
            "queries",
            "{\"qid\":\"q1\",\"query\":\"ban cars\"}\n{\"Id\":\"q2\",\"Text\":\"ban, guns\"}",
        ),
    ] {
        assert_queries(name, content, &two);
    }
}

#[test]
fn query_without_header_is_the_first() {
    let two = [("1", "ban \"cars\""), ("2", "how, why")];
    for (name, content) in [
        ("q.tsv", "1\tban \"cars\"\n2\thow, why\n"),
        ("q.tsv", "ban \"cars\"\nhow, why\n"),
        ("q.csv", "1,\"ban \"\"cars\"\"\"\r\n2,\"how, why\"\r\n"),
        ("q.csv", "\"ban \"\"cars\"\"\"\n\"how, why\"\n"),
        ("q.txt", "ban \"cars\"\r\nhow, why"),
        ("q.txt", "1\tban \"cars\"\n2\thow, why"),
        ("-", "ban \"cars\"\nhow, why\n"),
    ] {
        assert_queries(name, content, &two);
    }
    assert_queries("q.tsv", "1\tabstract\n2\ttitle\n", &[("1", "abstract"), ("2", "title")]);
    // Quotes that begin a cell of tsv are a part of it.
    assert_queries(
        "q.tsv",
        "7\t\"warp\" speed\n8\t\"x\"",
        &[("7", "\"warp\" speed"), ("8", "\"x\"")],
    );
    assert_queries_with(&headless(), "q.tsv", "id\ttext\n2\tb\n", &[("id", "text"), ("2", "b")]);
    assert_queries_with(&headless(), "q.csv", "query\nb\n", &[("1", "query"), ("2", "b")]);
    assert_queries_with(&headless(), "q.csv", "hello there,b\n", &[("hello there", "b")]);
    let options = ReadOptions { header: HeaderRule::Absent, ..named("", "column_1") };
    assert_queries_with(&options, "q.csv", "a b,x,1\nc,y,2\n", &[("1", "a b"), ("2", "c")]);
    let options = ReadOptions { header: HeaderRule::Absent, ..named("column_3", "column_1") };
    assert_queries_with(&options, "-", "a b\tx\tq1\nc\ty\tq2\n", &[("q1", "a b"), ("q2", "c")]);
}

#[test]
fn query_fields_that_are_named_are_taken() {
    let content = "id,text,ask,key\n1,no,yes,k1\n2,no,\"yes, too\",k2\n";
    assert_queries_with(&named("", "ask"), "q.csv", content, &[("1", "yes"), ("2", "yes, too")]);
    let both = [("k1", "yes"), ("k2", "yes, too")];
    assert_queries_with(&named("key", "ask"), "q.csv", content, &both);
    // By the names a first line is known on standard input too.
    assert_queries_with(&named("key", "ask"), "-", content, &both);
    assert_queries_with(&named("", "utterance"), "q.tsv", "utterance\na\n", &[("1", "a")]);
    let nested = "{\"meta\": {\"q\": \"a\"}, \"text\": \"no\", \"n\": 5}\n";
    assert_queries_with(&named("n", "meta.q"), "q.jsonl", nested, &[("5", "a")]);

    for (options, name, content, parts) in [
        (named("", "qurey"), "q.csv", "id,query\n1,a\n", ["'qurey'", "--query-field", "'query'"]),
        (named("key", ""), "q.tsv", "qid\tquery\n1\ta\n", ["'key'", "--id-field", "'qid'"]),
        (named("", "ask"), "q.jsonl", "{\"text\": \"a\"}\n", ["'ask'", "--query-field", "'text'"]),
        (named("", "ask"), "q.txt", "a\nb\n", ["q.txt", "lines of text", "no fields"]),
    ] {
        let got = queries(name, content, &options);
        assert_eq!((got.len(), &got[0].0[..]), (1, "error"), "{got:?}");
        assert_has(&got[0].1, &parts);
    }
}

#[test]
fn query_without_id_has_a_number() {
    let lines = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
    assert_queries("q.jsonl", lines, &[("1", "a"), ("3", "b")]);
    assert_queries("q.txt", "a\n\nb\n", &[("1", "a"), ("3", "b")]);
    assert_queries("q.csv", "query\na\n\n\"b\nc\"\nd\n", &[("1", "a"), ("2", "b\nc"), ("3", "d")]);
    assert_queries("q.tsv", "title\nan old title\n", &[("1", "an old title")]);
    assert_queries("q.csv", "id,query\n007,a\n 1.50 ,b\n", &[("007", "a"), ("1.50", "b")]);
}

#[test]
fn query_with_a_fault_is_named_by_line_and_field() {
    let first = ("q1".to_owned(), "a".to_owned());
    for (name, content, parts) in [
        ("q.tsv", "q1\ta\nb\n", ["line 2", "no tab", "`id <tab> text`"]),
        ("q.tsv", "q1\ta\n\tb\n", ["line 2", "field 'id'", "the id is empty"]),
        ("q.tsv", "q1\ta\nq2\t \n", ["line 2", "field 'text'", "no text"]),
        ("q.tsv", "q1\ta\nq2\tb\tc\n", ["line 2", "more than 2 fields", "first record has 2"]),
        ("q.csv", "id,query\nq1,a\nq2,\n", ["line 3", "field 'query'", "no text"]),
        ("q.csv", "id,query\nq1,a\n,b\n", ["line 3", "field 'id'", "the id is empty"]),
        ("q.csv", "id,query\nq1,a\nq2,b,c\n", ["line 3", "more than 2", "the header has 2"]),
        ("q.jsonl", "{\"id\":\"q1\",\"text\":\"a\"}\n5", ["line 2", "not a JSON object", "number"]),
        (
            "q.jsonl",
            "{\"id\":\"q1\",\"text\":\"a\"}\n{\"id\":\"b\"}",
            ["line 2", "'text'", "it has id"],
        ),
    ] {
        let got = queries(name, content, &ReadOptions::default());
        assert_eq!((got.len(), &got[0]), (2, &first), "{name}: {got:?}");
        assert_has(&got[1].1, &parts);
    }
    for (name, content, parts) in [
        ("q.csv", "how, why and when\n", ["line 1", "'how', 'why and when'", "--query-field"]),
        ("q.tsv", "q1\ta\tb\n", ["line 1", "none of its 3 columns", "column_1 to column_3"]),
        (
            "q.csv",
            "id,a,b\n1,x,y\n",
            ["no column with the text", "'id', 'a', 'b'", "--query-field"],
        ),
        ("q.txt", "\0\0a", ["q.txt", "NUL bytes", "binary"]),
    ] {
        let got = queries(name, content, &ReadOptions::default());
        assert_eq!((got.len(), &got[0].0[..]), (1, "error"), "{name}: {got:?}");
        assert_has(&got[0].1, &parts);
    }
    for name in ["q.tsv", "q.csv", "q.txt", "q.jsonl", "-"] {
        for content in ["", "\n \n", "\u{feff}"] {
            assert_queries(name, content, &[]);
        }
    }
    assert_queries("q.tsv", "qid\tquery\n", &[]);
}

#[test]
fn query_file_notes_what_was_decided() {
    for (name, content, parts) in [
        ("q.tsv", "qid\tquery\nq1\ta\n", &["a header", "ids from 'qid'", "texts from 'query'"][..]),
        ("q.tsv", "q1\ta\n", &["tsv", "data, not a header", "ids from 'id'", "texts from 'text'"]),
        ("q.csv", "query\na\n", &["csv", "a header", "no ids", "numbered", "texts from 'query'"]),
        ("q.csv", "text,query\na,b\n", &["texts from 'text'", "not from 'query': --query-field"]),
        ("q.txt", "query\na\n", &["lines of text", "'query', too"]),
        ("q.txt", "a\n", &["lines of text"]),
    ] {
        let file = open(name, content.as_bytes(), &ReadOptions::default()).expect("a file");
        assert_has(file.note().unwrap_or("no note"), parts);
    }
    let file = open("q.jsonl", b"{\"text\":\"a\"}", &ReadOptions::default()).expect("a file");
    assert_eq!(file.note(), None);
    for content in ["a\n\n\nb\n", "a\r\n\r\n\r\nb\r\n"] {
        for name in ["q.txt", "q.csv", "q.tsv"] {
            let mut file = open(name, content.as_bytes(), &ReadOptions::default()).expect("a file");
            assert_eq!((file.by_ref().count(), file.blank_lines()), (2, 2), "{name} {content:?}");
        }
    }
}

#[test]
fn query_rows_of_parquet_are_read() {
    let schema = "message q {
        REQUIRED INT64 qid;
        REQUIRED BYTE_ARRAY Query (STRING);
        REQUIRED DOUBLE weight;
        REQUIRED BYTE_ARRAY filter (STRING);
    }";
    let columns = || {
        let weights = Cells::Double(vec![0.5, 1.5], None);
        let (ids, filters) = (Cells::Long(vec![7, 8], None), text(&["year > 1", "a = 'b'"]));
        vec![ids, text(&["ban cars", "ban, guns"]), weights, filters]
    };
    let file = write(schema, WriterProperties::default(), vec![columns()]);
    let two = [("7", "ban cars"), ("8", "ban, guns")];
    assert_queries("q.parquet", &file, &two);
    // Its first bytes say what it is.
    assert_queries("queries", &file, &two);
    assert_queries("-", &file, &two);
    let mut read = open("q.parquet", &file, &ReadOptions::default()).expect("a file");
    assert_has(read.note().unwrap_or("no note"), &["parquet", "'qid'", "'Query'"]);
    let first = read.next().expect("a result").expect("a query");
    assert_eq!(first.metadata.len(), 1);
    assert_eq!(first.metadata["filter"], "year > 1");
    assert_queries_with(
        &named("", "filter"),
        "q.parquet",
        &file,
        &[("7", "year > 1"), ("8", "a = 'b'")],
    );
    let got = queries("q.parquet", &file, &named("qid", "weight"));
    assert_has(&got[0].1, &["row 1", "field 'weight'", "expected text, not a number"]);
}

#[test]
fn tsv_of_documents_without_header_is_recognised() {
    let collection = "0\tThe \"presence\" of communication\n1\t\"Quoted\" words here\n2\tshort\n";
    let all = documents("collection.tsv", collection);
    let got: Vec<_> = all.iter().map(|d| (d.id.as_str(), d.text.as_str())).collect();
    let three = [
        ("0", "The \"presence\" of communication"),
        ("1", "\"Quoted\" words here"),
        ("2", "short"),
    ];
    assert_eq!(got, three);
    assert!(all.iter().all(|d| d.metadata.is_empty()));

    let folder = Folder::new();
    let path = folder.file("c.tsv.gz", gzip(collection));
    let mut reader = warpseek_ingest::open(&[path], &ReadOptions::default()).expect("a reader");
    assert!(reader.next().is_some_and(|first| first.is_ok()));
    let notes = reader.take_decisions();
    assert_eq!(notes.len(), 1);
    assert_has(&notes[0], &["c.tsv.gz", "not a header", "id and text"]);

    // A header, even a strange one, wins where a field is named or a name may be a name.
    let options = named("", "a b");
    assert_eq!(outcomes("d.tsv", "0\ta b\n1\tx y\n", &options), ["x y"]);
    assert_has(
        &outcomes("d.tsv", "0\t1\n5\tx y\n", &ReadOptions::default())[0],
        &["no text field"],
    );
    assert_has(&outcomes("d.csv", "0,a b\n1,x\n", &ReadOptions::default())[0], &["no text field"]);
}

#[test]
fn table_of_documents_without_header_is_read_on_request() {
    let pairs = |name: &str, content: &str, options: &ReadOptions| {
        let folder = Folder::new();
        let all = read(&folder.file(name, content), options);
        let pair = |d: warpseek_ingest::Document| (d.id, d.text);
        all.into_iter().map(|d| d.map(pair).expect("a document")).collect::<Vec<_>>()
    };
    let pair = |id: &str, text: &str| (id.to_owned(), text.to_owned());
    assert_eq!(
        pairs("d.tsv", "id\ttext\nD2\tb\n", &headless()),
        [pair("id", "text"), pair("D2", "b")]
    );
    assert_eq!(pairs("d.csv", "D1,\"a, b\"\n", &headless()), [pair("D1", "a, b")]);
    let wide = ReadOptions { header: HeaderRule::Absent, ..named("column_1", "column_3") };
    assert_eq!(pairs("d.tsv", "D1\turl\ta b\n", &wide), [pair("D1", "a b")]);
    let got = outcomes("d.tsv", "D1\turl\ta b\n", &headless());
    assert_has(&got[0], &["no text field", "'column_1', 'column_2', 'column_3'", "--text-field"]);
    let options = ReadOptions { format: Some(FileFormat::Tsv), ..headless() };
    let reader = warpseek_ingest::read_stream(Cursor::new("1\tx\n"), "<stdin>", &options);
    let first = reader.expect("a reader").next().expect("a result").expect("a document");
    assert_eq!((first.id.as_str(), first.text.as_str()), ("1", "x"));
}
