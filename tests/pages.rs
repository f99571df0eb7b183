//! PDF files through the commands: pages with the hits, and the process that reads the files.

use crate::support::cli::{Workplace, assert_holds, finish};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs::File;

/// A PDF file with one line of text on each page.
fn pdf(lines: &[&str]) -> Vec<u8> {
    let kids: Vec<String> = (0..lines.len()).map(|page| format!("{} 0 R", 4 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Count {} /Kids [{}] >>", lines.len(), kids.join(" ")),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    for (page, line) in lines.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {} 0 R /Resources << \
             /Font << /F1 3 0 R >> >> >>",
            5 + 2 * page
        ));
        let content = format!("BT /F1 11 Tf 72 700 Td ({line}) Tj ET");
        let length = content.len();
        objects.push(format!("<< /Length {length} >>\nstream\n{content}\nendstream"));
    }
    let mut file = "%PDF-1.4\n".to_owned();
    let mut table = String::new();
    for (number, object) in objects.iter().enumerate() {
        writeln!(table, "{:010} 00000 n ", file.len()).unwrap();
        write!(file, "{} 0 obj\n{object}\nendobj\n", number + 1).unwrap();
    }
    let (start, n) = (file.len(), objects.len() + 1);
    write!(file, "xref\n0 {n}\n0000000000 65535 f \n{table}trailer\n<< /Size {n} /Root 1 0 R >>\n")
        .unwrap();
    write!(file, "startxref\n{start}\n%%EOF\n").unwrap();
    file.into_bytes()
}

const LINES: [&str; 2] =
    ["The lamps of the garden are lit at night.", "The river carries paper boats to the sea."];

#[test]
fn hits_of_a_pdf_tell_their_page() {
    let place = Workplace::new();
    place.file("docs/report.pdf", pdf(&LINES));
    place.file("docs/broken.pdf", "no pdf");
    let run = place.call("index docs --into idx --on-error skip --extract-seconds 30").ok();
    assert_holds(&run.stdout, &["2 added", "1 skipped"]);
    assert_holds(&run.stderr, &["docs/broken.pdf: this is no PDF file"]);
    let result = place.call("search idx 'paper boats on the river' -k 2 --json").ok().json();
    let hits = result["hits"].as_array().unwrap();
    let hit = hits.iter().find(|hit| hit["text"] == LINES[1]).unwrap();
    assert_eq!(
        (&hit["id"], &hit["doc_id"]),
        (&json!("docs/report.pdf#page=2"), &json!("docs/report.pdf"))
    );
    assert_eq!(hit["metadata"], json!({"path": "docs/report.pdf", "format": "pdf", "page": 2}));
    let text = place.call("search idx 'paper boats on the river' --filter 'page = 2'").ok().stdout;
    assert_holds(&text, &["docs/report.pdf, page 2"]);
    assert!(!text.contains("page 1"));
    // A changed page is embedded again, and a page that is gone is pruned.
    place.file("docs/report.pdf", pdf(&["The lamps are out."]));
    std::fs::remove_file(place.path("docs/broken.pdf")).unwrap();
    let run = place.call("index docs --into idx --prune --yes").ok();
    assert_holds(&run.stdout, &["0 added", "1 updated", "1 pruned"]);
}

#[test]
fn process_that_reads_a_file_writes_its_sections_and_the_end() {
    let place = Workplace::new();
    let file = place.file("report.pdf", pdf(&LINES));
    let limits = json!({
        "time": {"secs": 30, "nanos": 0}, "memory": 2_u64 << 30, "file_bytes": 16 << 20,
        "entry_bytes": 1 << 20, "unpacked_bytes": 1 << 20, "text_bytes": 1 << 20, "sections": 100
    });
    let request = json!({"format": "pdf", "limits": limits}).to_string();
    let mut command = place.command(&["extract-text", &request]);
    let run = finish(command.stdin(File::open(place.path(&file)).unwrap())).ok();
    let lines: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&Value> = lines[..2].iter().map(|line| &line["section"]["text"]).collect();
    assert_eq!((texts, &lines[2]), (vec![&json!(LINES[0]), &json!(LINES[1])], &json!("end")));
    assert_eq!(run.stderr, "");
    // With too little memory, the process says so or ends without the last line.
    let small = request.replace(&(2_u64 << 30).to_string(), &(1 << 20).to_string());
    let large = place.file("large.pdf", vec![b' '; 8 << 20]);
    let mut command = place.command(&["extract-text", &small]);
    let run = finish(command.stdin(File::open(place.path(&large)).unwrap()));
    let is_told = run.stdout.contains("out of memory");
    assert!(is_told || run.code != 0 && !run.stdout.contains("end"), "{}", run.stdout);
    assert!(!run.stdout.contains("section"), "{}", run.stdout);
}
