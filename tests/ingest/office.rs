//! Office and EPUB files, which the tests write.

use std::io::{Cursor, Read, Write};

use serde_json::{Value, json};
use warpseek_ingest::{Document, ReadOptions, TextKind};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{assert_has, documents, first_error, outcomes};

const OOXML: &str = "http://schemas.openxmlformats.org";

/// A zip archive with these entries.
pub(super) fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The relationships of an entry of OOXML: ids, types and targets.
fn relationships(all: &[(&str, &str, &str)]) -> String {
    let one = |(id, kind, target): &(&str, &str, &str)| {
        format!(
            "<Relationship Id='{id}' Type='{OOXML}/officeDocument/2006/relationships/{kind}' \
             Target='{target}'/>"
        )
    };
    let all: String = all.iter().map(one).collect();
    format!("<Relationships xmlns='{OOXML}/package/2006/relationships'>{all}</Relationships>")
}

const TYPES: &str = "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'>\
                     <Default Extension='xml' ContentType='application/xml'/></Types>";

/// A DOCX file with this body, and two styles of headings and one of hidden text.
pub(super) fn docx(body: &str) -> Vec<u8> {
    let word = format!("xmlns:w='{OOXML}/wordprocessingml/2006/main'");
    let style = |n: u32| {
        format!(
            "<w:style w:type='paragraph' w:styleId='Heading{n}'><w:name w:val='heading {n}'/>\
             <w:pPr><w:outlineLvl w:val='{}'/></w:pPr></w:style>",
            n - 1
        )
    };
    let core = format!(
        "<cp:coreProperties xmlns:cp='{OOXML}/package/2006/metadata/core-properties' \
         xmlns:dc='http://purl.org/dc/elements/1.1/'><dc:title>Harbour rules</dc:title>\
         </cp:coreProperties>"
    );
    let hidden = "<w:style w:type='character' w:styleId='Secret'><w:rPr><w:vanish/></w:rPr>\
                  </w:style>";
    let styles = format!("<w:styles {word}>{}{}{hidden}</w:styles>", style(1), style(2));
    archive(&[
        ("[Content_Types].xml", TYPES),
        ("_rels/.rels", &relationships(&[("r1", "officeDocument", "word/document.xml")])),
        ("docProps/core.xml", &core),
        ("word/_rels/document.xml.rels", &relationships(&[("r1", "styles", "styles.xml")])),
        ("word/styles.xml", &styles),
        ("word/document.xml", &format!("<w:document {word}><w:body>{body}</w:body></w:document>")),
    ])
}

pub(super) fn paragraph(style: &str, text: &str) -> String {
    let style = match style {
        "" => String::new(),
        style => format!("<w:pPr><w:pStyle w:val='{style}'/></w:pPr>"),
    };
    format!("<w:p>{style}<w:r><w:t>{text}</w:t></w:r></w:p>")
}

pub(super) fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.text.as_str()).collect()
}

/// The part of the ids after the path, and a field of the metadata.
fn parts(documents: &[Document], field: &str) -> Vec<(String, Value)> {
    let part = |document: &Document| {
        let anchor = document.id.strip_prefix(&format!("{}#", document.doc_id)).unwrap();
        (anchor.to_owned(), document.metadata.get(field).cloned().unwrap_or_default())
    };
    documents.iter().map(part).collect()
}

#[test]
fn docx_sections_follow_headings_and_tables_name_their_columns() {
    let row = |cells: [&str; 2]| {
        let cell = |text| format!("<w:tc>{}</w:tc>", paragraph("", text));
        format!("<w:tr>{}</w:tr>", cells.map(cell).concat())
    };
    let table = format!(
        "<w:tbl>{}{}{}</w:tbl>",
        row(["Ship", "Berth"]),
        row(["Aurora", "12"]),
        row(["Borealis", "7"])
    );
    let body = [
        paragraph("", "Words before the first heading."),
        paragraph("Heading1", "Moorings"),
        paragraph("Heading2", "Berths"),
        paragraph("", "Each ship has a berth &amp; a number."),
        table,
        paragraph("Heading2", "Fees"),
        paragraph("", "Fees are due in June."),
    ];
    let documents = documents("rules.docx", docx(&body.concat()));
    let expected = [
        "Words before the first heading.",
        "# Moorings\n\n## Berths\n\nEach ship has a berth & a number.\n\n\
         Ship: Aurora; Berth: 12\nShip: Borealis; Berth: 7",
        "## Fees\n\nFees are due in June.",
    ];
    assert_eq!(texts(&documents), expected);
    let sections = [
        ("section=1".to_owned(), Value::Null),
        ("section=2".to_owned(), json!("Moorings > Berths")),
        ("section=3".to_owned(), json!("Moorings > Fees")),
    ];
    assert_eq!(parts(&documents, "section"), sections);
    assert_eq!(
        (documents[0].title.as_str(), documents[0].kind),
        ("Harbour rules", TextKind::Markdown)
    );
    assert_eq!(documents[0].metadata["format"], "docx");
}

/// A slide with a title and a text; `attributes` are those of its first element.
pub(super) fn slide(attributes: &str, title: &str, body: &str) -> String {
    let shape = |kind: &str, text: &str| {
        format!(
            "<p:sp><p:nvSpPr><p:cNvPr id='2' name='x'/><p:cNvSpPr/><p:nvPr><p:ph \
             type='{kind}'/></p:nvPr></p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/><a:p><a:r><a:t>\
             {text}</a:t></a:r></a:p></p:txBody></p:sp>"
        )
    };
    format!(
        "<?xml version='1.0'?><p:sld xmlns:p='{OOXML}/presentationml/2006/main' \
         xmlns:a='{OOXML}/drawingml/2006/main' {attributes}><p:cSld><p:spTree>{}{}</p:spTree>\
         </p:cSld></p:sld>",
        shape("title", title),
        shape("body", body)
    )
}

/// A presentation that shows `slide2.xml` first, then `slide1.xml`.
pub(super) fn pptx(slide_1: &str, slide_2: &str) -> Vec<u8> {
    let presentation = format!(
        "<p:presentation xmlns:p='{OOXML}/presentationml/2006/main' \
         xmlns:r='{OOXML}/officeDocument/2006/relationships'><p:sldIdLst>\
         <p:sldId id='256' r:id='r2'/><p:sldId id='257' r:id='r1'/></p:sldIdLst></p:presentation>"
    );
    archive(&[
        ("[Content_Types].xml", TYPES),
        ("_rels/.rels", &relationships(&[("r1", "officeDocument", "ppt/presentation.xml")])),
        ("ppt/presentation.xml", &presentation),
        (
            "ppt/_rels/presentation.xml.rels",
            &relationships(&[
                ("r1", "slide", "slides/slide1.xml"),
                ("r2", "slide", "slides/slide2.xml"),
            ]),
        ),
        ("ppt/slides/slide1.xml", slide_1),
        ("ppt/slides/slide2.xml", slide_2),
    ])
}

#[test]
fn pptx_slides_are_documents_with_their_numbers() {
    let file = pptx(
        &slide("", "Second", "It is shown later."),
        &slide("", "First", "It is shown at the start."),
    );
    let documents = documents("talk.pptx", file);
    let slides = [("slide=1".to_owned(), json!(1)), ("slide=2".to_owned(), json!(2))];
    assert_eq!(parts(&documents, "slide"), slides);
    assert_has(&documents[0].text, &["First", "It is shown at the start."]);
    assert_has(&documents[1].text, &["Second", "It is shown later."]);
    assert_eq!(documents[0].text.matches("First").count(), 1);
}

/// A workbook with these sheets: names and rows.
pub(super) fn xlsx(sheets: &[(&str, &str)]) -> Vec<u8> {
    let main = format!(
        "xmlns='{OOXML}/spreadsheetml/2006/main' \
         xmlns:r='{OOXML}/officeDocument/2006/relationships'"
    );
    let mut names = String::new();
    let mut targets = vec![("s".to_owned(), "styles", "styles.xml".to_owned())];
    let mut entries = Vec::new();
    for (number, (name, rows)) in sheets.iter().enumerate() {
        let id = format!("r{number}");
        names += &format!("<sheet name='{name}' sheetId='{}' r:id='{id}'/>", number + 1);
        let path = format!("worksheets/sheet{number}.xml");
        targets.push((id, "worksheet", path.clone()));
        let sheet = format!("<worksheet {main}><sheetData>{rows}</sheetData></worksheet>");
        entries.push((format!("xl/{path}"), sheet));
    }
    let targets: Vec<(&str, &str, &str)> =
        targets.iter().map(|(id, kind, target)| (id.as_str(), *kind, target.as_str())).collect();
    let workbook = format!("<workbook {main}><sheets>{names}</sheets></workbook>");
    let styles = format!(
        "<styleSheet {main}><cellXfs count='2'><xf numFmtId='0'/><xf numFmtId='14'/></cellXfs>\
         </styleSheet>"
    );
    let relations = relationships(&targets);
    let root = relationships(&[("r1", "officeDocument", "xl/workbook.xml")]);
    let mut all: Vec<(&str, &str)> = vec![
        ("[Content_Types].xml", TYPES),
        ("_rels/.rels", &root),
        ("xl/workbook.xml", &workbook),
        ("xl/_rels/workbook.xml.rels", &relations),
        ("xl/styles.xml", &styles),
    ];
    all.extend(entries.iter().map(|(name, sheet)| (name.as_str(), sheet.as_str())));
    archive(&all)
}

pub(super) fn cell(place: &str, text: &str) -> String {
    format!("<c r='{place}' t='inlineStr'><is><t>{text}</t></is></c>")
}

#[test]
fn xlsx_rows_name_their_columns_with_dates_and_stored_values() {
    let ships = format!(
        "<row r='1'>{}</row><row r='3'>{}{}{}</row><row r='4'>{}<c r='B4' s='1'><v>45443</v></c>\
         <c r='C4'><f>6*7</f><v>42</v></c></row><row r='5'>{}<c r='C5'><v>1.5</v></c></row>",
        cell("A1", "Ships in May"),
        cell("A3", "Ship"),
        cell("B3", "Arrival"),
        cell("C3", "Tons"),
        cell("A4", "Aurora"),
        cell("A5", "Borealis"),
    );
    let second = format!("<row r='1'>{}</row>", cell("A1", "Only one cell"));
    let documents = documents("ships.xlsx", xlsx(&[("May", &ships), ("Notes #2", &second)]));
    let expected = [
        "Ships in May\nShip: Aurora; Arrival: 2024-05-31; Tons: 42\nShip: Borealis; Tons: 1.5",
        "Only one cell",
    ];
    assert_eq!(texts(&documents), expected);
    let sheets = [
        ("sheet=May".to_owned(), json!("May")),
        ("sheet=Notes %232".to_owned(), json!("Notes #2")),
    ];
    assert_eq!(parts(&documents, "sheet"), sheets);
    assert_eq!(documents[0].metadata["row"], 1);
}

#[test]
fn xlsx_with_many_rows_is_blocks_that_tell_their_first_row() {
    let mut rows = format!("<row r='1'>{}{}</row>", cell("A1", "Name"), cell("B1", "Place"));
    for row in 2..=100 {
        let (a, b) = (format!("A{row}"), format!("B{row}"));
        let (name, place) = (cell(&a, &format!("name of {row}")), cell(&b, "somewhere"));
        rows += &format!("<row r='{row}'>{name}{place}</row>");
    }
    // A cell far away from the others takes no memory for those between.
    rows += &format!("<row r='1048576'>{}</row>", cell("XFD1048576", "far away"));
    let documents = documents("a.xlsx", xlsx(&[("S", &rows)]));
    assert!(documents.len() > 3);
    for (part, document) in documents.iter().enumerate() {
        let first = document.metadata["row"].as_u64().unwrap();
        let expected = match part {
            0 => "sheet=S".to_owned(),
            part => format!("sheet=S&part={}", part + 1),
        };
        assert!(document.id.ends_with(&format!("a.xlsx#{expected}")), "{}", document.id);
        assert!(document.text.len() <= 800);
        if first < 1000 {
            assert_has(&document.text, &[&format!("Name: name of {first}; Place: somewhere")]);
        }
    }
    assert_has(&documents[documents.len() - 1].text, &["far away"]);
}

/// An ODT file with these automatic styles and this body.
pub(super) fn odt(styles: &str, body: &str) -> Vec<u8> {
    let content = format!(
        "<office:document-content><office:automatic-styles>{styles}</office:automatic-styles>\
         <office:body><office:text>{body}</office:text></office:body></office:document-content>"
    );
    let mimetype = "application/vnd.oasis.opendocument.text";
    archive(&[("mimetype", mimetype), ("content.xml", &content)])
}

#[test]
fn odt_sections_follow_headings() {
    let content = "<office:document-content xmlns:office='o' xmlns:text='t' xmlns:table='b'>\
        <office:body><office:text><text:h text:outline-level='1'>Tides</text:h>\
        <text:p>High water comes<text:s text:c='2'/>twice &amp; <text:span>is</text:span> logged.\
        <office:annotation><text:p>a remark</text:p></office:annotation></text:p>\
        <text:list><text:list-item><text:p>spring tide</text:p></text:list-item>\
        <text:list-item><text:p>neap tide</text:p></text:list-item></text:list>\
        <table:table><table:table-row><table:table-cell><text:p>Day</text:p></table:table-cell>\
        <table:table-cell><text:p>Height</text:p></table:table-cell></table:table-row>\
        <table:table-row><table:table-cell><text:p>Monday</text:p></table:table-cell>\
        <table:table-cell><text:p>4 m</text:p></table:table-cell></table:table-row></table:table>\
        <text:h text:outline-level='2'>Winds</text:h><text:p>North.</text:p>\
        </office:text></office:body></office:document-content>";
    let meta = "<office:document-meta><office:meta><dc:title>The &lt;sea&gt;</dc:title>\
                </office:meta></office:document-meta>";
    let file = archive(&[
        ("mimetype", "application/vnd.oasis.opendocument.text"),
        ("meta.xml", meta),
        ("content.xml", content),
    ]);
    let documents = documents("sea.odt", file);
    let expected = [
        "# Tides\n\nHigh water comes  twice & is logged.\n\n- spring tide\n- neap tide\n\n\
         Day: Monday; Height: 4 m",
        "## Winds\n\nNorth.",
    ];
    assert_eq!(texts(&documents), expected);
    let sections = [
        ("section=1".to_owned(), json!("Tides")),
        ("section=2".to_owned(), json!("Tides > Winds")),
    ];
    assert_eq!(parts(&documents, "section"), sections);
    assert_eq!(documents[0].title, "The <sea>");
}

#[test]
fn epub_chapters_follow_the_spine_and_have_the_titles_of_the_contents() {
    let container = "<container><rootfiles><rootfile full-path='OEBPS/book.opf'/></rootfiles>\
                     </container>";
    let package = "<package><metadata><dc:title>Two islands</dc:title></metadata><manifest>\
        <item id='b' href='text/b%20b.xhtml' media-type='application/xhtml+xml'/>\
        <item id='a' href='text/a.xhtml' media-type='application/xhtml+xml'/>\
        <item id='n' href='nav.xhtml' properties='nav' media-type='application/xhtml+xml'/>\
        </manifest><spine><itemref idref='n'/><itemref idref='a'/><itemref idref='b'/></spine>\
        </package>";
    let nav = "<html><body><nav><a href='text/a.xhtml'>The first island</a></nav></body></html>";
    let chapter = |text: &str| {
        format!("<html><head><title>Two islands</title></head><body>{text}</body></html>")
    };
    let first = chapter("<h1>I</h1><p>It was&nbsp;small.</p><p>And green.</p>");
    let second = chapter("<h2>The second island</h2><p>It was large.</p>");
    let entries = [
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", container),
        ("OEBPS/book.opf", package),
        ("OEBPS/nav.xhtml", nav),
        ("OEBPS/text/a.xhtml", &first),
        ("OEBPS/text/b b.xhtml", &second),
    ];
    let chapters = documents("islands.epub", archive(&entries));
    assert_eq!(
        texts(&chapters),
        ["I\n\nIt was small.\n\nAnd green.", "The second island\n\nIt was large."]
    );
    let sections = [
        ("section=1".to_owned(), json!("The first island")),
        ("section=2".to_owned(), json!("The second island")),
    ];
    assert_eq!(parts(&chapters, "section"), sections);
    assert_eq!((chapters[0].title.as_str(), chapters[0].kind), ("Two islands", TextKind::Prose));
    let lock = "<encryption><CipherReference URI='OEBPS/text/a.xhtml'/></encryption>";
    let mut locked = entries.to_vec();
    locked.push(("META-INF/encryption.xml", lock));
    let error = first_error("locked.epub", archive(&locked));
    assert_has(&error, &["locked.epub: the EPUB is encrypted (DRM)"]);
}

#[test]
fn zip_that_is_cut_off_or_none_is_refused() {
    let whole = docx(&paragraph("", "Some text."));
    for name in ["a.docx", "a.pptx", "a.xlsx", "a.odt", "a.epub"] {
        let error = first_error(name, &whole[..whole.len() / 2]);
        assert_has(&error, &[name, "cut off or damaged", "copy or download the file again"]);
        assert_has(&first_error(name, "some text"), &[name, "this is no ", "zip archive"]);
        assert_has(&first_error(name, ""), &[name, "the file is empty"]);
        let other = archive(&[("hello.txt", "hello")]);
        assert_has(&first_error(name, other), &[name, "damaged"]);
    }
}

#[test]
fn office_file_with_a_password_is_refused_with_the_remedy() {
    // Encrypted files are OLE compound files with an entry of this name.
    let mut ole = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    ole.resize(1536, 0);
    let old = ole.clone();
    ole.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    for (name, format) in [("a.docx", "docx"), ("a.pptx", "pptx"), ("a.xlsx", "xlsx")] {
        let expected = format!("{format} file is encrypted: save a copy without a password");
        assert_has(&first_error(name, &ole), &[name, &expected]);
    }
    let expected = "this is an old Office file, not docx: save it as docx, pptx or xlsx";
    assert_has(&first_error("a.docx", &old), &[expected]);
    let manifest = "<manifest><encryption-data/></manifest>";
    let odt = archive(&[("content.xml", "<x/>"), ("META-INF/manifest.xml", manifest)]);
    assert_has(&first_error("a.odt", odt), &["the odt file is encrypted"]);
}

#[test]
fn entries_that_decompress_beyond_the_limits_are_refused() {
    let blanks = " ".repeat(300_000);
    let body = paragraph("", "Some text.") + &blanks;
    let mut options = ReadOptions::default();
    assert_eq!(outcomes("a.docx", docx(&paragraph("", "Some text.")), &options), ["Some text."]);
    options.extract.limits.entry_bytes = 100_000;
    let file = docx(&body);
    assert!(file.len() < 10_000);
    let error = &outcomes("a.docx", &file, &options)[0];
    assert_has(
        error,
        &["a.docx: the entry 'word/document.xml' is larger than 100000 bytes", "bomb"],
    );
    options.extract.limits.entry_bytes = 1 << 20;
    options.extract.limits.unpacked_bytes = 100_000;
    let error = &outcomes("a.docx", &file, &options)[0];
    assert_has(error, &["a.docx: the entries are larger than 100000 bytes", "bomb"]);
}

#[test]
fn xml_that_is_compressed_much_is_read() {
    // Much more than 100 times, by blanks between the elements.
    let blanks = " ".repeat(3_000_000);
    let file = docx(&format!("{}{blanks}{}", paragraph("", "One."), paragraph("", "Two.")));
    assert!(file.len() < 20_000, "{}", file.len());
    assert_eq!(texts(&documents("a.docx", file.clone())), ["One.\n\nTwo."]);
    let body = format!("{blanks}Some text.");
    let slides = pptx(&slide("", "Head", &body), &slide("", "Head", "Other text."));
    let documents = documents("a.pptx", slides);
    assert_has(&documents[0].text, &["Other text."]);
    assert_has(&documents[1].text, &["Some text."]);
    // The limits on decompressed entries stay.
    let mut options = ReadOptions::default();
    options.extract.limits.entry_bytes = 4_000_000;
    let error = &outcomes("a.docx", &file, &options)[0];
    assert_has(error, &["more than 100 times", "more than 1000000 bytes of XML", "odt, pdf"]);
    options.extract.limits.entry_bytes = 1_000_000;
    assert_has(&outcomes("a.docx", file, &options)[0], &["is larger than 1000000 bytes"]);
}

#[test]
fn docx_or_odt_that_is_cut_off_gives_its_text_and_an_error() {
    let body = [paragraph("", "The first."), paragraph("", "The second.")].concat();
    let cut = |file: Vec<u8>, entry: &str, at: &str| {
        let mut archive = zip::ZipArchive::new(Cursor::new(file)).unwrap();
        let names: Vec<String> =
            archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        let mut entries = Vec::new();
        for name in names {
            let mut text = String::new();
            archive.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
            if name == entry {
                text.truncate(text.find(at).unwrap());
            }
            entries.push((name, text));
        }
        let entries: Vec<_> = entries.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        self::archive(&entries)
    };
    let options = ReadOptions::default();
    for at in ["</w:body>", "</w:document>"] {
        let outcomes = outcomes("a.docx", cut(docx(&body), "word/document.xml", at), &options);
        assert_eq!(outcomes[0], "The first.\n\nThe second.");
        assert_has(&outcomes[1], &["'word/document.xml' is cut off: copy the file again"]);
    }
    let file = odt("", "<text:p>The first.</text:p><text:p>The second.</text:p><text:p>The third");
    for at in ["</office:text>", "<text:p>The third", "</office:document-content>"] {
        let outcomes = outcomes("a.odt", cut(file.clone(), "content.xml", at), &options);
        assert_has(&outcomes[0], &["The first.\n\nThe second."]);
        assert_has(&outcomes[1], &["'content.xml' is cut off: copy the file again"]);
    }
}

#[test]
fn file_without_text_is_an_error() {
    assert_has(&first_error("a.docx", docx("")), &["a.docx: no text in this docx file"]);
    assert_has(&first_error("a.xlsx", xlsx(&[("S", "")])), &["a.xlsx: no text in this xlsx file"]);
}
