//! Text, Markdown and HTML files.

use std::time::{Duration, Instant};

use serde_json::json;
use warpseek_ingest::{Document, ReadOptions, TextKind};

use super::{Folder, assert_has, documents, first_error, gzip, memory, outcomes};

fn document(name: &str, content: &str) -> Document {
    documents(name, content).remove(0)
}

fn html(body: &str) -> String {
    document("d.html", body).text
}

#[test]
fn text_file_is_one_document() {
    let folder = Folder::new();
    let path = folder.file("notes/A day.v2.txt", "  One.\r\n\r\nTwo.\n");
    let document = super::read(&path, &ReadOptions::default()).remove(0).expect("a document");
    let name = path.display().to_string();
    assert_eq!((document.id.as_str(), document.doc_id.as_str()), (name.as_str(), name.as_str()));
    assert_eq!(document.title, "A day.v2");
    assert_eq!(document.text, "  One.\r\n\r\nTwo.\n");
    assert_eq!((document.embed_title, document.kind), (false, TextKind::Prose));
    assert_eq!(json!(document.metadata), json!({"path": name, "format": "text"}));
    assert_eq!((document.place.file, document.place.record), (name, None));
}

#[test]
fn text_in_a_folder_is_named_by_its_way_below_it() {
    let folder = Folder::new();
    folder.file("b.md", "text");
    folder.file("a/c.txt.gz", gzip("text"));
    let all = super::read(folder.path(), &ReadOptions::default());
    let got: Vec<_> = all
        .into_iter()
        .map(|document| document.map(|d| (d.id, d.title)).expect("a document"))
        .collect();
    let root = folder.path().display();
    assert_eq!(
        got,
        [(format!("{root}/a/c.txt.gz"), "c".into()), (format!("{root}/b.md"), "b".into())]
    );
}

#[test]
fn markdown_title_is_the_first_heading() {
    let cases = [
        ("# One #\n\n# Two", "One"),
        ("text\n\n## C# and F#\n", "C# and F#"),
        ("Over\nthe line\n---\n# No", "the line"),
        ("Title\n=====\n", "Title"),
        ("```sh\n# not this\n```\n# This", "This"),
        ("~~~\n# no\n```\n# no\n~~~~\n# Yes", "Yes"),
        ("    # code\n\n### Three", "Three"),
        ("#hashtag\n\n#\n\n####### seven\n# Real", "Real"),
        ("- item\n---\n\n> quote\n---\n\nword", "d"),
        ("no heading", "d"),
    ];
    for (content, expected) in cases {
        let document = document("d.md", content);
        assert_eq!(document.title, expected, "{content}");
        assert_eq!(document.text, content);
        assert_eq!((document.kind, document.embed_title), (TextKind::Markdown, false));
        assert_eq!(document.metadata["format"], json!("markdown"));
    }
}

#[test]
fn markdown_front_matter_is_not_text() {
    let cases = [
        (
            "---\ntitle: \"From: here\"\ntags:\n  - a\n- b\n---\n# Head\nbody",
            "From: here",
            "# Head\nbody",
        ),
        ("---\nauthor: me\n---\n\n# Head\nbody", "Head", "\n# Head\nbody"),
        ("---\r\ntitle: 'T'\r\n...\r\nbody", "T", "body"),
        ("+++\ntitle = \"Toml\"\n[extra]\n+++\nbody", "Toml", "body"),
        ("---\ntitle: >\n  folded\n---\n# Head", "Head", "# Head"),
    ];
    for (content, title, text) in cases {
        let document = document("d.markdown", content);
        assert_eq!((document.title.as_str(), document.text.as_str()), (title, text));
    }
    // A rule with prose below, and one that never closes, are text.
    for content in ["---\nJust prose here, no keys.\n---\n", "---\ntitle: x\n"] {
        assert_eq!(document("d.md", content).text, content);
    }
}

#[test]
fn html_title_is_title_then_heading_then_name() {
    let cases = [
        ("<title> The\n &amp; title </title><h1>H</h1>", "The & title"),
        (
            "<html><head><title></title></head><h1>The <i>first</i><br>head</h1><h1>b</h1>",
            "The first head",
        ),
        ("<svg><title>icon</title></svg><p>x</p>", "d"),
        ("<p>x<h1> </h1><h1>Second</h1>", "Second"),
    ];
    for (content, expected) in cases {
        assert_eq!(document("d.html", &format!("{content}<p>body")).title, expected, "{content}");
    }
    let document = document("d.htm", "<p>x");
    assert_eq!((document.kind, document.embed_title), (TextKind::Prose, false));
    assert_eq!(document.metadata["format"], json!("html"));
}

#[test]
fn html_blocks_lines_and_spaces_are_kept_apart() {
    let cases = [
        ("<p>One\n  two</p><p>three<div>four</div>five", "One two\n\nthree\n\nfour\n\nfive"),
        ("a<b>b</b> <i> c</i>d<span>e</span>", "ab cde"),
        (
            "<ul><li>one<li>two<ul><li>deep</ul><li>three</ul>after",
            "one\ntwo\ndeep\nthree\n\nafter",
        ),
        ("<table><tr><th>a<th>b<tr><td>c</td><td></td><td>d</table>x", "a\tb\nc\td\n\nx"),
        ("x<br>y<br/>z", "x\ny\nz"),
        ("<pre>\n  let x;\n\n    y\n</pre>after", "  let x;\n\n    y\n\nafter"),
        ("a<pre>b<br>c</pre>", "a\n\nb\nc"),
        ("&lt;p&gt; &eacute;&#233;&nbsp;&copy;", "<p> éé ©"),
        (
            "see <img src=x alt=\"a &quot;red&quot; fox\">there<img alt=''>!",
            "see a \"red\" fox there!",
        ),
        ("<dl><dt>k<dd>v</dl>", "k\nv"),
        ("<textarea>a <b></textarea>c", "a <b> c"),
    ];
    for (body, expected) in cases {
        assert_eq!(html(body), expected, "{body}");
    }
}

#[test]
fn html_hidden_elements_leave_nothing() {
    let cases = [
        "<head><style>p{}</style><script>var a = '<p>no</p>';</script></head><p>yes",
        "<head><meta charset=utf-8><title>t</title><base href=x>yes",
        "<script>if (a < b && c > d) no()</script>yes<style>no</style>",
        "<noscript><p>no</p></noscript>yes<iframe>no</iframe>",
        "<template>no<template>no</template><p>no</template>yes",
        "<svg><text>no</text><style/><g><svg></svg>no</g></svg>yes",
        "<svg><text>no<p>yes",
        "<!-- no --><![CDATA[no]]>yes<?no?>",
        "</p></b>yes</table></svg>",
        "<body><head>no: this is not a head</head>",
    ];
    for (number, body) in cases.iter().enumerate() {
        if number + 1 < cases.len() {
            assert_eq!(html(body), "yes", "{body}");
        }
    }
}

#[test]
fn html_nested_without_end_is_read() {
    for tag in ["div", "b", "ul", "table", "svg", "template", "pre", "h1"] {
        let deep = format!("<p>start{}end", format!("<{tag}>").repeat(100_000));
        let start = Instant::now();
        let text = html(&deep);
        assert!(start.elapsed() < Duration::from_secs(20), "{tag}: {:?}", start.elapsed());
        assert!(text.starts_with("start"), "{tag}: {text}");
    }
    assert_eq!(html(&("<div>".repeat(100_000) + "x" + &"</div>".repeat(100_000))), "x");
}

#[test]
fn html_with_countless_attributes_is_read() {
    let attributes: String = (0..100_000).map(|n| format!("a{n} ")).collect();
    let start = Instant::now();
    assert_eq!(html(&format!("<p>x<p {attributes}>y")), "x\n\ny");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn html_takes_little_more_memory_than_its_size() {
    let folder = Folder::new();
    let page = "<p class=x>some <b>text</b> here</p>\n".repeat(50_000);
    let path = folder.file("d.html", &page);
    let (all, peak) = memory::peak(|| super::read(&path, &ReadOptions::default()));
    assert!(all[0].is_ok());
    assert!(peak < 6 * page.len(), "{peak} bytes for {}", page.len());
}

#[test]
fn text_files_that_cannot_be_used_get_a_cure() {
    let late_nul = [b"x".repeat(10_000).as_slice(), b"\0"].concat();
    let damaged = "déjà caf".as_bytes().iter().chain(b"\xe9").copied().collect::<Vec<u8>>();
    let cases: [(&str, &[u8], &[&str]); 7] = [
        ("d.txt", &damaged, &["not valid UTF-8 at byte 11 of the file", "iconv -f LATIN1"]),
        ("d.txt", b"a\0b", &["NUL bytes", "binary"]),
        ("d.txt", &late_nul, &["NUL byte at byte 10001", "binary"]),
        ("d.txt", b"", &["no records"]),
        ("d.md", b" \n\t\n", &["no records"]),
        ("d.html", b"<script>x</script>", &["no text", "html"]),
        ("d.md", b"---\ntitle: x\n---\n", &["no text", "markdown"]),
    ];
    for (name, content, parts) in cases {
        let error = first_error(name, content);
        assert_has(&error, &[name]);
        assert_has(&error, parts);
    }
    let options = ReadOptions { max_record_bytes: 10, ..ReadOptions::default() };
    assert_eq!(outcomes("d.txt", "0123456789", &options), ["0123456789"]);
    let long = outcomes("d.txt", "0123456789a", &options);
    assert_has(&long[0], &["d.txt", "longer than 10 bytes", "--max-record-bytes"]);
}

#[test]
fn text_bomb_is_cut_off_early() {
    let folder = Folder::new();
    let path = folder.file("d.txt.gz", gzip(vec![b'x'; 20 << 20]));
    let options = ReadOptions { max_record_bytes: 1 << 20, ..ReadOptions::default() };
    let (all, peak) = memory::peak(|| super::read(&path, &options));
    assert_has(&all[0].as_ref().expect_err("too long").to_string(), &["longer than 1 MiB"]);
    assert!(peak < 4 << 20, "{peak} bytes at once");
}
