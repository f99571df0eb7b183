//! Comma- and tab-separated values.

use serde_json::json;
use warpseek_ingest::ReadOptions;

use super::{assert_has, documents, memory, outcomes};

#[test]
fn csv_quotes_go_over_lines_and_lines_are_counted() {
    let content = "id,title,text\r\n\
        1,\"A, \"\"quoted\"\"\",\"first\r\nsecond\"\r\n\
        \r\n\
        2,B,plain\r\n\
        3,C,\"x\n\n\ny\"\n\
        4,,last";
    let all = documents("d.csv", content);
    let got: Vec<_> = all
        .iter()
        .map(|d| (d.id.as_str(), d.title.as_str(), d.text.as_str(), d.place.record.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("1", "A, \"quoted\"", "first\r\nsecond", Some("line 2")),
            ("2", "B", "plain", Some("line 5")),
            ("3", "C", "x\n\n\ny", Some("line 6")),
            ("4", "", "last", Some("line 10")),
        ]
    );
}

#[test]
fn csv_cells_become_numbers_only_where_nothing_is_lost() {
    let cells = [
        ("17", json!(17)),
        ("-3", json!(-3)),
        ("2.5", json!(2.5)),
        ("18446744073709551615", json!(u64::MAX)),
        ("", json!(null)),
        ("007", json!("007")),
        ("+1", json!("+1")),
        ("1e3", json!("1e3")),
        ("1.50", json!("1.50")),
        ("1904.11090", json!("1904.11090")),
        ("-0", json!("-0")),
        ("99999999999999999999999", json!("99999999999999999999999")),
        ("1.2.3", json!("1.2.3")),
        ("2024-05-01", json!("2024-05-01")),
        (" 5", json!(" 5")),
        ("true", json!("true")),
        ("NaN", json!("NaN")),
        ("-", json!("-")),
    ];
    let content: String = std::iter::once("id,text,v\n".to_string())
        .chain(cells.iter().enumerate().map(|(n, (cell, _))| format!("{n},12,{cell}\n")))
        .collect();
    for (document, (cell, expected)) in documents("d.csv", content).iter().zip(&cells) {
        assert_eq!(&document.metadata["v"], expected, "{cell}");
        assert_eq!(document.text, "12");
    }
}

#[test]
fn csv_header_with_a_mark_or_an_unnamed_column_is_read() {
    let all = documents("d.csv", "\u{feff}, id ,text\n0,a,T\n1,b,U\n");
    assert_eq!(all[1].id, "b");
    assert_eq!(all[1].metadata["column_1"], json!(1));
}

#[test]
fn csv_separator_is_found_or_given() {
    let cases: [(&str, &[u8]); 5] = [
        ("d.csv", b"id;title;text\n1;a, b;\"one; two\"\n2;c;three\n"),
        ("d.csv", b"id\ttitle\ttext\n1\ta, b\tone; two\n2\tc\tthree\n"),
        ("d.csv", b"id|title|text\r\n1|a, b|one; two\r\n2|c|three\r\n"),
        ("d.csv", b"id,title,text\n1,\"a, b\",one; two\n2,c,three\n"),
        ("d.tsv", b"id\ttitle\ttext\n1\ta, b\tone; two\n2\tc\tthree\n"),
    ];
    for (name, content) in cases {
        let all = documents(name, content);
        let got = all.iter().map(|d| (d.id.as_str(), d.title.as_str(), d.text.as_str()));
        assert_eq!(got.collect::<Vec<_>>(), [("1", "a, b", "one; two"), ("2", "c", "three")]);
    }
    let options = ReadOptions { delimiter: Some(b'#'), ..ReadOptions::default() };
    for name in ["d.csv", "d.tsv"] {
        assert_eq!(outcomes(name, "id#text\n1#a,b;c\td\n", &options), ["a,b;c\td"]);
    }
    let quote = ReadOptions { delimiter: Some(b'"'), ..ReadOptions::default() };
    assert_has(&outcomes("d.csv", "a", &quote)[0], &["--delimiter", "one ASCII character"]);
}

#[test]
fn csv_of_questions_and_answers_has_both_as_text() {
    let all = documents("d.csv", "Question,Answer,topic\nWhy?,So.,x\n,Only this.,y\n");
    assert_eq!([&all[0].text, &all[1].text], ["Why?\n\nSo.", "Only this."]);
    assert_eq!(json!(all[0].metadata), json!({"topic": "x"}));
    let all = documents("d.jsonl", "{\"id\":1,\"question\":\"Q\",\"answer\":\"A\",\"text\":\"T\"}");
    assert_eq!((all[0].text.as_str(), &all[0].metadata["question"]), ("T", &json!("Q")));
}

#[test]
fn csv_in_a_legacy_encoding_is_read() {
    let content = b"id;text\n1;Gr\xf6\xdfe und Ma\xdf\n2;\xdcbung f\xfcr M\xe4dchen\n";
    let all = documents("d.csv", content);
    assert_eq!([&all[0].text, &all[1].text], ["Größe und Maß", "Übung für Mädchen"]);
}

#[test]
fn tsv_quotes_are_ordinary_characters() {
    let all = documents("d.tsv", "id\ttext\n1\t\"Hi,\" he said\n2\t\"open\n3\tx\n");
    let texts: Vec<_> = all.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["\"Hi,\" he said", "\"open", "x"]);
    // Unless the header has some.
    let all = documents("d.tsv", "\"id\"\t\"text\"\n\"1\"\t\"two\nlines\"\n");
    assert_eq!((all[0].id.as_str(), all[0].text.as_str()), ("1", "two\nlines"));
}

#[test]
fn csv_bad_records_do_not_stop_the_others() {
    let cases: [(&[u8], &[&str]); 4] = [
        (b"1,a", &["the record has 2 fields, the header has 3"]),
        (b"1,a,b,c,d,e", &["the record has more than 3 fields, the header has 3"]),
        (b"1,a,b\xff", &["field 'text'", "not valid UTF-8 at byte 2 of the field"]),
        (b"1,,  ", &["field 'text'", "the text is empty"]),
    ];
    for (line, parts) in cases {
        let mut content = "id,title,text\n0,\"x\ny\",é first\n".as_bytes().to_vec();
        content.extend(line);
        content.extend(b"\n9,z,last\n");
        let outcomes = outcomes("d.csv", content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 3, "{outcomes:?}");
        assert_has(&outcomes[1], &["d.csv, line 4"]);
        assert_has(&outcomes[1], parts);
        assert_eq!(outcomes[2], "last");
    }
}

#[test]
fn csv_late_nul_bytes_are_refused_by_field() {
    let content = format!("id,title,text\n1,a,{}\n2,\0,b\n3,c,d\n", "x".repeat(5000));
    let outcomes = outcomes("d.csv", content, &ReadOptions::default());
    assert_has(&outcomes[1], &["d.csv, line 3, field 'title'", "NUL byte"]);
    assert_eq!(outcomes[2], "d");
}

#[test]
fn csv_header_that_cannot_be_used_gets_a_cure() {
    let many = vec!["x"; 10_001].join(",");
    let cases: [(&str, &[u8], &[&str]); 9] = [
        ("d.csv", b"id;text\n1;a\n2;b;c\n", &["line 1", "one column with ';'", "--delimiter"]),
        ("d.csv", b"id\ttext\n1\ta\n2\n", &["one column with tabs", "--format tsv"]),
        ("d.tsv", b"id,text\n1,a\n", &["one column with commas", "--format csv"]),
        ("d.csv", b"id,text,id\n1,a,2\n", &["line 1, field 'id'", "twice"]),
        ("d.csv", b"i\xc3\xa9,te\xffxt\n1,a\n", &["line 1, field 'column 2'", "not valid UTF-8"]),
        ("d.csv", many.as_bytes(), &["more than 10000 columns"]),
        ("d.csv", b"", &["d.csv: no records"]),
        ("d.csv", b"id,text\n\n\n", &["d.csv: no records"]),
        ("d.csv", b"a\0\0b", &["NUL bytes"]),
    ];
    for (name, content, parts) in cases {
        let outcomes = outcomes(name, content, &ReadOptions::default());
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_has(&outcomes[0], parts);
    }
}

#[test]
fn csv_open_quote_is_found_at_the_end() {
    let content = "id,text\n1,a\n2,\"open\n3,b\n4,c\n";
    let outcomes = outcomes("d.csv", content, &ReadOptions::default());
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert_has(&outcomes[1], &["d.csv, line 3", "inside a quoted field"]);
}

#[test]
fn csv_long_records_are_passed_over() {
    let long = "x\n".repeat(2000);
    let content = format!("id,text\n1,a\n2,\"{long}\"\n3,c\n4,\"{long}");
    let options = ReadOptions { max_record_bytes: 1000, ..ReadOptions::default() };
    let outcomes = outcomes("d.csv", content, &options);
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    assert_has(&outcomes[1], &["line 3", "longer than 1000 bytes", "closing quote"]);
    assert_eq!(outcomes[2], "c");
    assert_has(&outcomes[3], &["line 2005", "longer than 1000 bytes"]);
}

#[test]
fn csv_bomb_is_cut_off_early() {
    let mut content = b"id,text\n1,a\n2,\"".to_vec();
    content.resize(20 << 20, b',');
    let bomb = super::gzip(content);
    let options = ReadOptions { max_record_bytes: 1 << 18, ..ReadOptions::default() };
    let folder = super::Folder::new();
    let path = folder.file("d.csv.gz", bomb);
    let (all, peak) = memory::peak(|| super::read(&path, &options));
    assert!(peak < 2 << 20, "{peak} bytes at once");
    assert_eq!(all.len(), 3, "{all:?}");
    let message = |at: usize| all[at].as_ref().expect_err("an error").to_string();
    assert_has(&message(1), &["line 3", "longer than 256 KiB"]);
    assert_has(&message(2), &["line 3", "no end of the record within 16 MiB"]);
}
