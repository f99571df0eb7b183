//! PDF files, which the tests write.

use std::fmt::Write;

use serde_json::json;
use warpseek_ingest::{Document, ReadOptions, TextKind};

use super::{Folder, assert_has, documents, first_error, gzip, noted, outcomes};

/// A PDF file with these objects, of which the first is the catalogue.
fn pdf(objects: &[String], trailer: &str) -> Vec<u8> {
    let mut file = "%PDF-1.4\n".to_owned();
    let mut offsets = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        write!(file, "{} 0 obj\n{object}\nendobj\n", number + 1).unwrap();
    }
    let start = file.len();
    let n = objects.len() + 1;
    write!(file, "xref\n0 {n}\n0000000000 65535 f \n").unwrap();
    for offset in offsets {
        writeln!(file, "{offset:010} 00000 n ").unwrap();
    }
    write!(file, "trailer\n<< /Size {n} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n")
        .unwrap();
    file.into_bytes()
}

fn stream(dictionary: &str, content: &str) -> String {
    format!("<< {dictionary} /Length {} >>\nstream\n{content}\nendstream", content.len())
}

/// A PDF file with a content stream for each page; `extra` is appended to the trailer.
fn with_contents(contents: &[String], extra: &str) -> Vec<u8> {
    let kids: Vec<String> =
        (0..contents.len()).map(|page| format!("{} 0 R", 6 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Count {} /Kids [{}] >>", contents.len(), kids.join(" ")),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding << /Type /Encoding \
         /BaseEncoding /WinAnsiEncoding /Differences [1 /ffi] >> >>"
            .to_owned(),
        stream(
            "/Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 /ColorSpace \
             /DeviceGray",
            "x",
        ),
        "<< /Title (A real title) >>".to_owned(),
    ];
    for (page, content) in contents.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {} 0 R /Resources << \
             /Font << /F1 3 0 R >> /XObject << /Im1 4 0 R >> >> >>",
            7 + 2 * page
        ));
        objects.push(stream("", content));
    }
    pdf(&objects, extra)
}

/// A PDF file with these lines on its pages; one that begins with `@` stands at the
/// foot of the page.
fn with_lines(pages: &[&[&str]]) -> Vec<u8> {
    let content = |lines: &&[&str]| {
        let mut content = "BT /F1 11 Tf 14 TL 72 770 Td\n".to_owned();
        for line in *lines {
            match line.strip_prefix('@') {
                Some(foot) => writeln!(content, "1 0 0 1 297 30 Tm ({foot}) Tj"),
                None => writeln!(content, "({line}) Tj T*"),
            }
            .unwrap();
        }
        content + "ET"
    };
    let contents: Vec<String> = pages.iter().map(content).collect();
    with_contents(&contents, "/Info 5 0 R")
}

const BRIDGE: &[&str] = &[
    "The old bridge across the river was closed for repairs in the spring of that",
    "year, and all traffic had to take the longer road along the harbour. Nobody",
    "knew how long the work would take.",
];

#[test]
fn pdf_pages_are_documents_with_their_numbers() {
    let second: &[&str] =
        &["Winter came early and the lamps were lit in the market place before four.", "@7"];
    let folder = Folder::new();
    let path = folder.file("papers/report.pdf", with_lines(&[BRIDGE, second]));
    let options = ReadOptions { base: Some(folder.path().to_path_buf()), ..ReadOptions::default() };
    let (documents, notes) = noted(&[path], &options);
    let [first, second] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!(
        (first.id.as_str(), first.doc_id.as_str()),
        ("papers/report.pdf#page=1", "papers/report.pdf")
    );
    assert_eq!(second.id, "papers/report.pdf#page=2");
    assert_eq!((first.title.as_str(), first.kind), ("A real title", TextKind::Markdown));
    let metadata = json!({"path": "papers/report.pdf", "format": "pdf", "page": 2});
    assert_eq!(json!(second.metadata), metadata);
    assert_eq!(second.source.as_deref(), Some("papers/report.pdf"));
    assert_has(
        &first.text,
        &["repairs in the spring of that year, and all traffic", "would take."],
    );
    assert_has(&second.text, &["Winter came early"]);
    assert!(!second.text.contains('7'), "the page number is left out: {}", second.text);
    assert_eq!((notes, first.has_own_id, first.embed_title), (Vec::new(), false, false));
}

#[test]
fn pdf_ligatures_and_divided_words_are_joined() {
    let lines: &[&str] = &[
        "The o\\001ce of the harbour was moved to the other side of the town, be-",
        "cause the river had risen above the old walls and the cellars were full.",
    ];
    let text = documents("a.pdf", with_lines(&[lines])).remove(0).text;
    assert_has(&text, &["The office of the harbour", "town, because the river"]);
}

#[test]
fn pdf_sentence_that_goes_over_a_page_end_stays_whole() {
    let first: &[&str] = &["The keeper of the lighthouse wrote down every ship that"];
    let second: &[&str] = &[
        "passed the island during the storm. In the morning the sea was calm again, and",
        "the boats went out.",
    ];
    let texts: Vec<String> =
        documents("a.pdf", with_lines(&[first, second])).into_iter().map(|d| d.text).collect();
    assert_has(&texts[0], &["every ship that passed the island during the storm."]);
    assert!(texts[1].starts_with("In the morning"), "{texts:?}");
}

#[test]
fn pdf_with_a_password_is_refused_with_the_remedy() {
    let hex = |byte: &str| byte.repeat(32);
    let encrypt = format!(
        "/Encrypt << /Filter /Standard /V 1 /R 2 /O <{}> /U <{}> /P -4 >> /ID [<01> <01>]",
        hex("41"),
        hex("42")
    );
    let file = with_contents(&["BT /F1 11 Tf (secret) Tj ET".into()], &encrypt);
    let error = first_error("locked.pdf", file);
    assert_has(&error, &["locked.pdf: the PDF is encrypted: save a copy without a password"]);
    assert!(!error.contains("secret"));
}

#[test]
fn pdf_without_a_text_layer_is_refused_with_the_remedy() {
    let image = "q 500 0 0 700 40 60 cm /Im1 Do Q".to_owned();
    let error = first_error("scan.pdf", with_contents(&[image.clone(), image.clone()], ""));
    assert_has(&error, &["scan.pdf: no text layer: it holds scanned images", "ocrmypdf"]);
    // Beside pages with text it is a note.
    let text = "BT /F1 11 Tf 72 700 Td (The harbour was quiet in the evening.) Tj ET".to_owned();
    let folder = Folder::new();
    let path = folder.file("mixed.pdf", with_contents(&[text, image], ""));
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    assert_eq!((documents.len(), notes.len()), (1, 1));
    assert_has(&notes[0], &["mixed.pdf: 1 entry is left out: pages without a text layer", "OCR"]);
    let empty = first_error("empty.pdf", with_contents(&[String::new()], ""));
    assert_has(&empty, &["empty.pdf: no text: all pages are empty"]);
}

#[test]
fn pdf_that_is_none_or_damaged_is_refused() {
    assert_has(&first_error("a.pdf", "words"), &["a.pdf: this is no PDF file"]);
    assert_has(&first_error("a.pdf", ""), &["a.pdf: the file is empty"]);
    let error = first_error("a.pdf", "%PDF-1.4\nnothing of a PDF file follows here\n");
    assert_has(&error, &["a.pdf: the PDF is damaged or cut off (", "copy or download it again"]);
}

#[test]
fn pdf_that_is_cut_off_or_lacks_pages_says_so_behind_its_pages() {
    let file = with_lines(&[BRIDGE, BRIDGE]);
    let options = ReadOptions::default();
    assert_eq!(outcomes("a.pdf", &file, &options).len(), 2);
    let cut = outcomes("a.pdf", &file[..file.len() - 40], &options);
    let [pages @ .., error] = &cut[..] else { panic!("{cut:?}") };
    assert!(pages.iter().all(|page| page.starts_with("The old bridge")), "{cut:?}");
    assert_has(error, &["a.pdf: the PDF is damaged or cut off: ", "pages could be read"]);
    let more = String::from_utf8(file).unwrap().replace("/Count 2", "/Count 3");
    let missing = outcomes("a.pdf", more, &options);
    assert_has(&missing[2], &["2 pages of 3 could be read", "copy or download it again"]);
}

#[test]
fn pdf_is_read_from_gzip_and_beyond_the_record_limit() {
    let options = ReadOptions { max_record_bytes: 100, ..ReadOptions::default() };
    let file = with_lines(&[BRIDGE]);
    let plain = outcomes("a.pdf", &file, &options);
    assert_has(&plain[0], &["The old bridge"]);
    assert_eq!(outcomes("a.pdf.gz", gzip(&file), &options), plain);
}

#[test]
fn pdf_limits_are_errors_about_the_file() {
    let file = with_lines(&[BRIDGE, BRIDGE]);
    let mut options = ReadOptions::default();
    options.extract.limits.sections = 1;
    let pages = outcomes("a.pdf", &file, &options);
    assert_has(&pages[0], &["The old bridge"]);
    assert_has(&pages[1], &["a.pdf: more than 1 pages or sections: split the file"]);
    let mut options = ReadOptions::default();
    options.extract.limits.text_bytes = 1024;
    options.extract.limits.file_bytes = 512;
    let error = &outcomes("a.pdf", &file, &options)[0];
    assert_has(error, &["a.pdf: the file is larger than 512 bytes: split it"]);
    options.extract.limits.file_bytes = 1 << 20;
    options.extract.limits.text_bytes = 16;
    let error = &outcomes("a.pdf", &file, &options)[0];
    assert_has(error, &["more than 16 bytes of text: split the file"]);
}

#[test]
fn pdf_documents_follow_one_another_in_page_order() {
    let lines: Vec<String> = (1..=40)
        .map(|page| format!("This is what stands on the page of number {page}x."))
        .collect();
    let pages: Vec<[&str; 1]> = lines.iter().map(|line| [line.as_str()]).collect();
    let pages: Vec<&[&str]> = pages.iter().map(|page| &page[..]).collect();
    let documents: Vec<Document> = documents("a.pdf", with_lines(&pages));
    assert_eq!(documents.len(), 40);
    for (index, document) in documents.iter().enumerate() {
        assert_eq!(document.metadata["page"], index + 1);
        assert_has(&document.text, &[&format!("number {}x", index + 1)]);
    }
}
