//! Hidden text of Office files, which is left out, and the notes about it.

use warpseek_ingest::ReadOptions;

use super::office::{archive, cell, docx, odt, paragraph, pptx, slide, texts, xlsx};
use super::{Folder, assert_has, noted};

/// The texts of a file, and the notes.
fn read(name: &str, content: Vec<u8>) -> (Vec<String>, Vec<String>) {
    let folder = Folder::new();
    let path = folder.file(name, content);
    let (documents, notes) = noted(&[path], &ReadOptions::default());
    (texts(&documents).into_iter().map(str::to_owned).collect(), notes)
}

#[test]
fn hidden_runs_of_word_are_left_out_and_told() {
    let run = |properties: &str, text: &str| {
        format!("<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>")
    };
    let body = format!(
        "<w:p>{}{}{}{}</w:p>",
        run("<w:b/>", "Open &amp; "),
        run("<w:vanish/>", "secret &amp; "),
        run("<w:rStyle w:val='Secret'/>", "private "),
        run("<w:vanish w:val='false'/>", "clear."),
    );
    let (all, notes) = read("a.docx", docx(&body));
    assert_eq!(all, ["Open & clear."]);
    assert_eq!(notes.len(), 1);
    assert_has(&notes[0], &["a.docx: 2 ", "hidden text", "show them to index them"]);
    assert_eq!(read("a.docx", docx(&paragraph("", "All of it."))).1, [""; 0]);
}

#[test]
fn hidden_slides_are_left_out_and_told() {
    let shown = slide("show='1'", "Second", "It is shown.");
    let (all, notes) = read("a.pptx", pptx(&shown, &slide("show='0'", "First", "It is hidden.")));
    assert_eq!(all.len(), 1);
    assert_has(&all[0], &["Second", "It is shown."]);
    assert_has(&notes[0], &["a.pptx: 1 ", "hidden slides; show them"]);
}

#[test]
fn hidden_sheets_are_left_out_and_told_and_hidden_rows_are_read() {
    let rows = |text: &str| format!("<row r='1' hidden='1'>{}</row>", cell("A1", text));
    // The attribute stands behind the name.
    let sheets = [("Open", rows("filtered out")), ("Secret' state='hidden", rows("secret"))];
    let sheets = sheets.each_ref().map(|(name, rows)| (*name, rows.as_str()));
    let (all, notes) = read("a.xlsx", xlsx(&sheets));
    assert_eq!(all, ["filtered out"]);
    assert_has(&notes[0], &["a.xlsx: 1 ", "hidden sheets; show them"]);
}

#[test]
fn hidden_text_of_opendocument_is_left_out_and_told() {
    let styles = "<style:style style:name='T1'><style:text-properties text:display='none'/>\
                  </style:style><style:style style:name='T2' style:parent-style-name='T1'/>\
                  <style:style style:name='T3'><style:text-properties text:display='true'/>\
                  </style:style>";
    let body = "<text:p>One <text:span text:style-name='T1'>secret<text:s/></text:span>\
        <text:span text:style-name='T3'>two</text:span>.</text:p>\
        <text:p text:style-name='T2'>secret</text:p>\
        <text:p><text:hidden-paragraph text:is-hidden='true'/>secret</text:p>\
        <text:p><text:hidden-paragraph text:is-hidden='false'/>Three.</text:p>\
        <text:section text:display='none'><text:p>secret</text:p></text:section>\
        <text:section text:display='true'><text:p>Four.</text:p></text:section>";
    let (all, notes) = read("a.odt", odt(styles, body));
    assert_eq!(all, ["One two.\n\nThree.\n\nFour."]);
    assert_has(&notes[0], &["a.odt: 4 ", "hidden text"]);
}

#[test]
fn ods_that_claims_too_many_cells_is_refused_before_it_is_read() {
    let ods = |repeated: &str| {
        let content = format!(
            "<office:document-content><office:body><office:spreadsheet><table:table \
             table:name='S'><table:table-row {repeated}><table:table-cell \
             office:value-type='string'><text:p>a</text:p></table:table-cell><table:table-cell \
             {} office:value-type='float' office:value='1'/></table:table-row></table:table>\
             </office:spreadsheet></office:body></office:document-content>",
            repeated.replace("rows", "columns")
        );
        let manifest = "<manifest:manifest/>";
        let mimetype = "application/vnd.oasis.opendocument.spreadsheet";
        archive(&[
            ("mimetype", mimetype),
            ("META-INF/manifest.xml", manifest),
            ("content.xml", &content),
        ])
    };
    assert_eq!(read("a.ods", ods("")).0, ["a; 1"]);
    let error = super::first_error("a.ods", ods("table:number-rows-repeated='9000'"));
    assert_has(&error, &["a.ods: the cells of the workbook", "2 GiB of memory: save it as xlsx"]);
}
