//! Source code, notebooks, messages and markup; texts in legacy encodings.

use serde_json::json;
use warpseek_ingest::chunk::{Chunking, split};
use warpseek_ingest::{self as ingest, ReadOptions, TextKind};

use super::{Folder, assert_has, documents, first_error};

#[test]
fn code_is_cut_between_functions() {
    let function = |n: usize| format!("def f{n}(x):\n    y = x\n\n    return y + {n}\n");
    let text: String = (0..9).map(|n| function(n) + "\n\n").collect();
    let document = documents("tool.py", &text).remove(0);
    assert_eq!((document.title.as_str(), document.kind), ("tool.py", TextKind::Code));
    assert_eq!(document.metadata["language"], json!("python"));
    let chunking = Chunking { max_tokens: 20, overlap: 5, split_records: false };
    let ranges =
        split(&document, &chunking, |part| part.split_whitespace().count()).expect("chunks");
    let chunks: Vec<&str> = ranges.into_iter().map(|range| &document.text[range]).collect();
    // Each function has nine words.
    assert_eq!(chunks.len(), 5);
    for (n, chunk) in chunks.iter().enumerate() {
        assert!(chunk.starts_with(function(2 * n).trim_end()), "{chunk}");
    }
}

#[test]
fn code_of_one_long_line_is_cut_too() {
    let text = format!("x = 1\ny = [{}]\nz = 2\n", "1, ".repeat(1000));
    let document = documents("d.js", &text).remove(0);
    let chunking = Chunking { max_tokens: 50, overlap: 5, split_records: false };
    let size = |part: &str| part.split_whitespace().count();
    let ranges = split(&document, &chunking, size).expect("chunks");
    assert!(ranges.iter().all(|range| size(&document.text[range.clone()]) <= 50));
    let words: usize = ranges.iter().map(|range| size(&document.text[range.clone()])).sum();
    assert_eq!(words, size(&text));
}

#[test]
fn notebook_has_its_cells_without_what_they_printed() {
    let notebook = json!({
        "nbformat": 4, "metadata": {"kernelspec": {"name": "python3", "language": "python"}},
        "cells": [
            {"cell_type": "markdown", "source": ["# Rivers\n", "\n", "Some words."]},
            {"cell_type": "code", "source": "print('x')\n", "outputs": [{"text": ["secret"]}]},
            {"cell_type": "code", "source": []},
            {"cell_type": "raw", "source": "raw"},
        ],
    });
    let document = documents("d.ipynb", notebook.to_string()).remove(0);
    assert_eq!((document.title.as_str(), document.kind), ("Rivers", TextKind::Markdown));
    assert_eq!(document.text, "# Rivers\n\nSome words.\n\n```python\nprint('x')\n```\n\nraw");
    assert_eq!(document.metadata["language"], json!("python"));
    let old = r#"{"nbformat":3,"worksheets":[{"cells":[{"cell_type":"code","input":["x"]}]}]}"#;
    assert_eq!(documents("d.ipynb", old)[0].text, "```\nx\n```");
    for (content, part) in
        [("{}", "no nbformat"), ("[", "not a Jupyter notebook"), ("7", "notebook")]
    {
        assert_has(&first_error("d.ipynb", content), &["d.ipynb", part]);
    }
}

#[test]
fn message_has_its_headers_and_its_text() {
    let message = "From: =?utf-8?q?Zo=C3=AB?= <zoe@example.org>\r\n\
        To: b@example.org, C <c@example.org>\r\n\
        Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n\
        MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
        --x\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n\
        --y\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nCaf=E9 at nine\r\n\
        --y\r\nContent-Type: text/html\r\n\r\n<p>no</p>\r\n--y--\r\n\
        --x\r\nContent-Type: application/pdf; name=a.pdf\r\n\
        Content-Disposition: attachment; filename=a.pdf\r\n\r\nPDF\r\n--x--\r\n";
    let folder = Folder::new();
    let path = folder.file("d.eml", message);
    let (all, notes) = super::noted(&[path], &ReadOptions::default());
    assert_eq!((all[0].title.as_str(), all[0].text.trim()), ("Grüße", "Café at nine"));
    assert_eq!(all[0].metadata["from"], json!("Zoë <zoe@example.org>"));
    assert_eq!(all[0].metadata["to"], json!("b@example.org, C <c@example.org>"));
    assert_eq!(all[0].metadata["date"], json!("1997-11-21T09:55:06-06:00"));
    assert_eq!(notes.len(), 1);
    assert_has(&notes[0], &["d.eml: 1 entry is left out: attachments are not read"]);

    let page = "From: a@b.c\nContent-Type: text/html\n\n<h1>Head</h1><p>words <i>here</i></p>";
    let all = documents("d.eml", page);
    assert_eq!((all[0].title.as_str(), all[0].text.as_str()), ("d", "Head\n\nwords here"));
    assert_has(&first_error("d.eml", "words\n\nmore words"), &["not an e-mail message"]);
    assert_has(&first_error("d.eml", "From: a@b.c\n\n"), &["no text"]);
}

#[test]
fn markup_is_prose_under_its_title() {
    for (name, content, title, text) in [
        ("d.rst", "Head\n====\n\n.. note\n\nwords", "Head", "Head\n====\n\nwords"),
        ("d.org", "#+TITLE: Name\n* Head\nwords", "Name", "* Head\nwords"),
        (
            "d.tex",
            "\\title{On \\emph{x}}\n\\begin{document}\nwords % no\n\\end{document}",
            "On x",
            "words\n",
        ),
    ] {
        let document = documents(name, content).remove(0);
        assert_eq!((document.title.as_str(), document.text.as_str()), (title, text), "{name}");
        assert_eq!(document.kind, TextKind::Prose);
    }
}

#[test]
fn texts_in_other_encodings_are_read_and_told() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let cases: [(&str, Vec<u8>, &str, &str); 5] = [
        ("d.txt", b"caf\xe9".to_vec(), "café", "windows-1252"),
        ("d.html", b"<meta charset='ISO-8859-2'><p>\xb1\xbf".to_vec(), "ąż", "ISO-8859-2"),
        ("d.md", utf16("\u{feff}word"), "word", "UTF-16BE"),
        ("d.txt", utf16("words without a mark"), "words without a mark", "UTF-16BE"),
        ("d.py", b"# \xfcber\nx = 1".to_vec(), "# über\nx = 1", "windows-1252"),
    ];
    for (name, content, text, encoding) in cases {
        let folder = Folder::new();
        let path = folder.file(name, content);
        let mut reader = ingest::open(&[path], &ReadOptions::default()).expect("a reader");
        let document = reader.next().expect("a result").expect("a document");
        assert_eq!(document.text, text);
        let decisions = reader.take_decisions();
        assert_eq!(decisions.len(), 1, "{decisions:?}");
        assert_has(&decisions[0], &[name, "read as", encoding]);
    }
}

#[test]
fn html_that_is_hidden_is_no_text() {
    for (content, text) in [
        ("a<div hidden>b<div>c</div>d</div>e", "a\n\ne"),
        ("a<p style='color: red; display : NONE'>b<p>c", "a\n\nc"),
        ("a<span style=\"display:none\">b</span>c", "ac"),
        ("<ul><li>a<li hidden>b<ul><li>c</ul><li>d</ul>e", "a\nd\n\ne"),
        ("<ul><li>a<li hidden>b</ul>c", "a\n\nc"),
        ("<table><tr><td>a<td hidden>b<td>c<tr hidden><td>d</table>e", "a\tc\n\ne"),
        ("a<input hidden>b<br hidden>c", "a b\nc"),
        ("a<div hidden=until-found>b</div><div style='display:block'>c</div>", "a\n\nb\n\nc"),
        ("<body style='display:none'>a", "a"),
    ] {
        assert_eq!(documents("d.html", content)[0].text, text, "{content}");
    }
}
