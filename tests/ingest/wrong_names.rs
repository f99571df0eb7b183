//! Files whose names tell another format than their bytes: the messages say what they are.

use std::io::Cursor;

use warpseek_ingest::{self as ingest, ReadOptions};

use super::office::{archive, docx, paragraph, xlsx};
use super::{assert_has, first_error, gzip};

const PDF: &str = "%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << >>\n%%EOF\n";

/// An OLE compound file with a stream of this name.
fn ole(name: &str) -> Vec<u8> {
    let mut file = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    file.resize(1536, 0);
    file.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    file
}

#[test]
fn text_files_that_hold_another_format_say_so() {
    let word = docx(&paragraph("", "Some text."));
    for name in ["a.txt", "a.md", "a.rst", "a.tex", "a.html", "a.py", "a.csv", "a.jsonl", "a.ipynb"]
    {
        for (content, kind, remedy) in [
            (PDF.as_bytes(), "a PDF file", "rename it, or name its format with --format pdf"),
            (&word, "a Word file (docx)", "rename it, or name its format with --format docx"),
            (b"{\\rtf1\\ansi text}", "an RTF file", "save it as docx or as text"),
            (b"%!PS-Adobe-3.0\nshow", "a PostScript file", "convert it to PDF (ps2pdf, say)"),
            (&ole("WordDocument"), "an old Word file (doc)", "save it as docx"),
        ] {
            let expected = format!("{name}: this is {kind}, not text: {remedy}");
            assert_has(&first_error(name, content), &[&expected]);
        }
    }
    assert_has(&first_error("a.txt.gz", gzip(PDF)), &["a.txt.gz: this is a PDF file, not text"]);
}

#[test]
fn pdf_as_a_stream_without_a_format_names_the_option() {
    let reader = ingest::read_stream(Cursor::new(PDF), "<stdin>", &ReadOptions::default());
    let error = reader.expect("a reader").next().expect("a result").expect_err("no JSON lines");
    let expected = "<stdin>: this is a PDF file, not text: name its format with --format pdf";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn office_files_with_the_wrong_ending_say_what_they_are() {
    let word = docx(&paragraph("", "Some text."));
    let sheets = xlsx(&[("S", "")]);
    let odf = |kind: &str| {
        let mimetype = format!("application/vnd.oasis.opendocument.{kind}");
        archive(&[("mimetype", &mimetype), ("content.xml", "<x/>")])
    };
    let rename = |format: &str| format!("rename it, or name its format with --format {format}");
    for (name, content, kind, remedy) in [
        ("a.docx", &sheets, "an Excel file (xlsx), not docx", rename("xlsx")),
        ("a.xlsx", &word, "a Word file (docx), not xlsx", rename("docx")),
        ("a.pptx", &word, "a Word file (docx), not pptx", rename("docx")),
        ("a.odt", &odf("spreadsheet"), "a spreadsheet (ods), not odt", rename("xlsx")),
        ("a.epub", &odf("text"), "an OpenDocument text (odt), not epub", rename("odt")),
        ("a.odt", &odf("presentation"), "a presentation (odp), not odt", "save it as pptx".into()),
        ("a.pdf", &word, "a Word file (docx), not pdf", rename("docx")),
        ("a.docx", &PDF.into(), "a PDF file, not docx", rename("pdf")),
        ("a.docx", &ole("WordDocument"), "an old Word file (doc)", "save it as docx".into()),
        ("a.xlsx", &ole("WordDocument"), "an old Word file (doc)", "save it as docx".into()),
        ("a.pptx", &ole("PowerPoint Document"), "an old PowerPoint", "save it as pptx".into()),
        ("a.docx", &ole("Workbook"), "an old Excel file (xls), not docx", rename("xlsx")),
        ("a.xls", &"<HTML><table>".into(), "an HTML file, not xlsx", rename("html")),
        ("a.docx", &"{\\rtf1 text}".into(), "an RTF file, not docx", "save it as docx".into()),
    ] {
        assert_has(&first_error(name, content), &[name, "this is ", kind, &remedy]);
    }
}
