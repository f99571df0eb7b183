//! Files, folders and places that cannot be indexed.

use super::{counts, index};
use crate::golden::golden;
use crate::support::cli::{Workplace, assert_holds, finish, indexed, records};
use std::io::Write;

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The parts of the message about a record that is too long.
const LONG: [&str; 3] = ["line 1", "longer than 1000 bytes", "raise --max-record-bytes"];

#[test]
fn index_of_a_file_that_is_not_what_it_seems_names_it_and_the_cure() {
    let place = indexed(12);
    let good = records(2);
    let wide = format!("{{\"_id\": \"w\", \"text\": \"{}\"}}\n", "a".repeat(3000));
    let latin = b"{\"_id\": \"a\", \"text\": \"x\"}\n{\"_id\": \"b\", \"text\": \"caf\xe9\"}\n";
    let good = good.as_bytes();
    type Case<'a> = (&'a str, &'a [u8], &'a str, i32, &'a [&'a str]);
    let cases: &[Case] = &[
        ("empty.jsonl", b"", "", 7, &["empty.jsonl", "no records"]),
        ("blank.jsonl", b"\n \n\n", "", 7, &["blank.jsonl", "no records"]),
        ("empty.csv", b"", "", 7, &["empty.csv", "no records"]),
        ("empty.txt", b"", "", 7, &["empty.txt", "no records"]),
        ("empty.parquet", b"", "", 7, &["empty.parquet", "no records"]),
        ("bare.html", b"<html><body></body></html>", "", 7, &["bare.html", "no text"]),
        ("bin.jsonl", b"\x7fELF\0\x01\x02\0\0", "", 7, &["bin.jsonl", "binary file"]),
        ("bin.txt", b"\x7fELF\0\0\0\0", "", 7, &["bin.txt", "binary file"]),
        ("zip.txt", b"PK\x03\x04\0\0\0\0", "", 7, &["zip.txt", "a zip archive", "unpack it"]),
        ("junk.parquet", b"no parquet at all", "", 7, &["junk.parquet", "not a parquet file"]),
        ("latin.jsonl", latin, "--on-duplicate last", 7, &["line 2", "UTF-8 at byte", "iconv"]),
        ("latin.txt", b"\xc3\xa9 caf\xe9", "", 7, &["latin.txt", "byte 7", "iconv -f LATIN1"]),
        ("wide.txt", b"\xff\xfe\0\0h\0\0\0", "", 7, &["wide.txt", "UTF-32", "iconv -f UTF-32"]),
        ("plain.jsonl.gz", good, "", 7, &["plain.jsonl.gz", "not gzip", "rename"]),
        ("long.jsonl", wide.as_bytes(), "--max-record-bytes 1000", 7, &LONG),
        ("short.csv", b"id,title,text\n1,a,b\n2,c\n", "", 7, &["short.csv, line 3", "2 fields"]),
        ("more.csv", b"id,text\n1,a\n2,b,c\n", "", 7, &["more.csv, line 3", "more than 2"]),
        ("quote.csv", b"id,text\n1,\"a\n", "", 7, &["quote.csv, line 2", "closing quote"]),
        ("twice.csv", b"id,id,text\n1,2,a\n", "", 7, &["line 1, field 'id'", "rename"]),
        ("semi.csv", b"id;text\n1;a\n2\n", "", 7, &["semi.csv, line 1", "';'", "--delimiter"]),
        ("head.csv", b"id,text\n", "", 7, &["head.csv", "no records"]),
        ("blank.csv", b"id,text\n1,\n", "", 7, &["blank.csv, line 2, field 'text'", "empty"]),
        ("array.json", b"[{\"_id\": \"1\"}]", "", 7, &["array.json", "no text field"]),
        ("pretty.json", b"{\n\"_id\": \"1\"}", "", 7, &["pretty.json", "no text field"]),
        ("other.jsonl", b"{\"id\": \"1\", \"words\": \"x\"}", "", 7, &["'words'", "--text-field"]),
        ("data.dat", good, "", 2, &["data.dat", "'.dat'", "--format", ".jsonl"]),
        ("data", good, "", 2, &["data: no file name ending", "--format"]),
        ("data.jsonl.zst", good, "", 2, &["'.zst'", "decompress it first"]),
        ("a.jsonl", good, "--format yaml", 2, &["'yaml'", "jsonl, csv"]),
        ("b.jsonl", good, "--format csv", 7, &["b.jsonl", "--text-field"]),
        ("c.jsonl", good, "--text-field txet", 7, &["c.jsonl, field 'txet'", "mean 'text'"]),
        ("d.jsonl", good, "--id-field key", 7, &["field 'key'", "it has '_id', 'title', 'text'"]),
        ("e.jsonl", good, "--metadata-fields topic,yaer", 7, &["field 'yaer'", "mean 'year'"]),
        ("f.jsonl", good, "--max-record-bytes 0", 2, &["--max-record-bytes"]),
        ("g.jsonl", good, "--chunk-tokens 0", 2, &["0 tokens", "1 to 124"]),
        ("h.jsonl", good, "--chunk-tokens 9", 2, &["overlap of 32", "smaller"]),
    ];
    for (name, content, more, code, parts) in cases {
        place.file(name, content);
        // Bad records are told with their file.
        let name_part: &[&str] = if *code == 7 { &[name] } else { &[] };
        let parts = [name_part, parts].concat();
        place.refuses(&[(&format!("index {name} --into idx {more}"), *code, &parts)]);
    }
    // The good line before the one in Latin-1 went in; all else left the index alone.
    place.is_sound(13);
}

#[test]
fn index_of_a_cut_off_gzip_keeps_the_records_before_the_cut() {
    let place = Workplace::new();
    let whole = gzip(&records(400));
    place.file("c.jsonl.gz", &whole[..whole.len() / 2]);
    let parts = ["c.jsonl.gz, line ", "cut off", "gzip -t"];
    place.refuses(&[("index c.jsonl.gz --into idx", 7, &parts)]);
    let kept = place.stats("idx")["rows"].as_u64().unwrap();
    assert!((1..400).contains(&kept), "{kept}");
    place.file("c.jsonl.gz", &whole);
    let report = index(&place, "c.jsonl.gz", &[]);
    assert_eq!(counts(&report, ["unchanged", "added"]), [kept, 400 - kept]);
    place.is_sound(400);
}

#[test]
fn index_of_what_is_not_there_names_it_and_stores_nothing() {
    let place = Workplace::new();
    place.file("good.jsonl", records(3));
    std::fs::create_dir_all(place.path("hollow/deeper")).unwrap();
    place.file("other/photo.jpg", [0xff, 0xd8]);
    let cases: [(&str, i32, &[&str]); 6] = [
        ("none.jsonl", 8, &["none.jsonl"]),
        ("good.jsonl none.jsonl", 8, &["none.jsonl"]),
        ("hollow", 7, &["hollow", "no readable file", ".jsonl"]),
        ("other", 7, &["other", "1 left out", "--format"]),
        ("- -", 2, &["standard input", "once"]),
        ("-", 7, &["<stdin>", "no records"]),
    ];
    for (inputs, code, parts) in cases {
        place.refuses(&[(&format!("index --into new {inputs}"), code, parts)]);
        let rows = place.call("info new --json");
        assert!(rows.code == 8 || rows.json()["stats"]["rows"] == 0, "{inputs}");
    }
}

#[cfg(unix)]
#[test]
fn index_of_a_file_that_may_not_be_read_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = indexed(12);
    place.file("secret/a.txt", "river");
    let path = place.path("secret/a.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&path).is_ok() {
        println!("this user may read every file: nothing is tested");
        return;
    }
    place.refuses(&[
        ("index secret/a.txt --into idx", 8, &["cannot read secret/a.txt"]),
        ("index secret --into idx --strict", 8, &["cannot read secret/a.txt"]),
        ("index secret --into idx", 7, &["secret", "no readable file"]),
    ]);
    place.is_sound(12);
}

#[test]
fn index_of_a_folder_that_holds_the_index_reads_the_documents_alone() {
    let place = indexed(12);
    let report = index(&place, ".", &["--prune"]);
    assert_eq!(counts(&report, ["unchanged", "pruned"]), [12, 0]);
    place.is_sound(12);
}

#[cfg(unix)]
#[test]
fn index_of_a_folder_with_a_link_to_itself_reads_the_rest() {
    let place = indexed(12);
    place.file("docs/a.txt", "river");
    for (to, name) in [("loop", "docs/loop"), ("nowhere", "docs/lost"), ("../docs", "docs/up")] {
        std::os::unix::fs::symlink(to, place.path(name)).unwrap();
    }
    let run = place.call("index docs --into idx").ok();
    assert_holds(&run.stderr, &["docs/loop", "docs/lost", "docs/up"]);
    place.is_sound(13);
}

#[test]
fn index_of_a_folder_leaves_bad_files_out_and_tells_each_reason() {
    let place = Workplace::new();
    place.file("docs/a.txt", "river");
    place.file("docs/b.json", "[{\"text\": \"lamp\"}, {\"text\": 7}]");
    place.file("docs/c.jsonl", "{\"id\": \"c\", \"text\": \"garden\"}\n");
    place.file("docs/d.jpg", [0xff, 0xd8]);
    place.file("docs/e.txt", b"\x7fELF\0\0\0\0");
    place.file("docs/node_modules/f.md", "no");
    place.file("docs/g.md", "no");
    place.file("docs/.ignore", "g.md");
    let run = place.call("index docs --into idx").ok();
    assert_holds(
        &run.stderr,
        &[
            "left out:\n",
            "1  the text must be a string, found a number (docs/b.json, record 2, field 'text')",
            "1  holds NUL bytes: this is a binary file (docs/e.txt)",
            "1  unknown type '.jpg' (docs/d.jpg)",
            "1  a folder of a tool",
            "1  named by an ignore file or --glob\n",
            "1  hidden\n",
        ],
    );
    assert_holds(&run.stdout, &["3 added, 2 skipped"]);
    place.is_sound(3);

    // Documents of files that are skipped stay, those of files that are gone do not.
    place.file("docs/a.txt", [0, 1, 2, 3]);
    std::fs::remove_file(place.path("docs/c.jsonl")).unwrap();
    let run = place.call("index docs --into idx --prune --yes --json").ok();
    assert_holds(&run.stderr, &["kept 1 documents", "--glob '!FILE'", "pruning: 1 documents"]);
    let report = run.json();
    assert_eq!(counts(&report, ["unchanged", "pruned"]), [1, 1]);
    assert_eq!((&report["kept"], &report["skipped"]), (&1.into(), &3.into()));
    let left_out = report["left_out"].as_array().unwrap();
    assert_eq!(left_out.iter().filter(|group| group["count"] == 1).count(), 5, "{left_out:?}");
    assert_eq!(left_out.iter().filter(|group| group["count"] == 2).count(), 1, "{left_out:?}");
    place.is_sound(2);

    for (more, code) in [("--strict", 7), ("--on-error stop", 7), ("--strict --on-error skip", 0)] {
        assert_eq!(place.call(&format!("index docs --into idx {more}")).code, code, "{more}");
    }
    place.refuses(&[
        ("index docs/e.txt --into idx", 7, &["docs/e.txt", "binary"]),
        ("index docs --into new --glob e.txt", 7, &["docs/e.txt", "binary"]),
        ("index docs --into idx --glob a[", 2, &["--glob 'a['"]),
        ("index docs --into idx --delimiter ,,", 2, &["--delimiter"]),
    ]);
}

#[test]
fn index_into_a_place_for_something_else_is_refused_and_changes_nothing() {
    let place = indexed(12);
    place.file("photos/cat.jpg", [0xff, 0xd8]);
    let model = golden().join("models/bge-like").display().to_string();
    place.refuses(&[
        ("index corpus.jsonl --into photos", 2, &["other files ('cat.jpg')", "new folder"]),
        ("index corpus.jsonl --into corpus.jsonl", 8, &["at corpus.jsonl: this is a file"]),
        ("index corpus.jsonl --into corpus.jsonl/idx", 8, &["a part of this path is a file"]),
        ("index corpus.jsonl --into idx --chunk", 2, &["idx", "records whole", "another folder"]),
    ]);
    let args = ["index", "corpus.jsonl", "--into", "idx", "--model", &model];
    place.run(&args).fails(2, &["idx", "24 dimensions", "another folder"]);
    assert_eq!(std::fs::read_dir(place.path("photos")).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(place.path("corpus.jsonl")).unwrap(), records(12));
    place.is_sound(12);
}

#[cfg(unix)]
#[test]
fn index_that_fails_before_its_first_row_leaves_no_folder_behind() {
    let place = Workplace::new();
    place.file("bad.txt", b"\x00\x01\x02\x03 no text at all \x00\xff");
    for (line, folder) in [("index bad.txt", ".warpseek"), ("index bad.txt --into a/b/idx", "a")] {
        let run = place.call(line);
        assert!(!run.stderr.contains("records before this one"), "{}", run.stderr);
        run.fails(7, &["bad.txt", "binary"]);
        assert!(!place.path(folder).exists(), "{line}");
    }
    // What others made stays, and so does what was committed.
    std::fs::create_dir(place.path("mine")).unwrap();
    place.refuses(&[("index bad.txt --into mine", 7, &["bad.txt"])]);
    assert!(place.path("mine").exists());
    place.file("cut.jsonl", records(3) + "broken\n");
    let parts = ["cut.jsonl, line 4", "records before this one are in the index"];
    place.refuses(&[("index cut.jsonl --into idx", 7, &parts)]);
    place.refuses(&[("index bad.txt --into idx", 7, &["bad.txt"])]);
    place.is_sound(3);
}

#[cfg(target_os = "linux")]
#[test]
fn index_folder_of_any_name_can_be_opened_again() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    for name in [&b"a b"[..], b"we?ird #%41", b"new\nline", b"\xc3\xa9", b"latin-\xe9"] {
        let name = OsStr::from_bytes(name);
        finish(place.command(&["index", "c.jsonl", "--into"]).arg(name)).ok();
        finish(place.command(&["verify"]).arg(name)).ok();
        let result = finish(place.command(&["search", "--json"]).arg(name).arg("river")).ok();
        assert_eq!(result.json()["total_rows"], 3, "{}", name.display());
    }
}

#[test]
fn index_tells_what_became_of_values_that_metadata_cannot_hold() {
    let place = Workplace::new();
    place.file("year=2023/c.jsonl", records(2).replacen('{', "{\"x\": NaN, ", 1));
    let run = place.call("index year=2023 --into idx --json").ok();
    let report = run.json();
    let told = [
        "year=2023/c.jsonl, field 'year': 2 records have another value than the folder 'year=2023",
        "year=2023/c.jsonl, field 'x': 1 value became null: NaN or infinity, which JSON cannot",
    ];
    assert_eq!(report["notes_total"], 2, "{report}");
    for (note, told) in report["notes"].as_array().unwrap().iter().zip(told) {
        assert!(note.as_str().unwrap().starts_with(told), "{note}");
    }
    assert_holds(&run.stderr, &["warning: year=2023/c.jsonl, field 'x'", told[0]]);
    // They are told as well if the run fails later.
    place.file("year=2023/d.jsonl", "broken\n");
    let parts = ["d.jsonl, line 1", "field 'x': 1 value became null"];
    place.refuses(&[("index year=2023 --into idx --strict", 7, &parts)]);
    place.file("table/_delta_log/0.json", "{}");
    place.file("table/part-0.parquet", "PAR1");
    let parts = ["table", "Delta Lake", "export its current version"];
    place.refuses(&[("index table --into idx", 7, &parts)]);
}

#[test]
fn records_before_a_bad_one_are_spoken_of_only_if_this_run_stored_some() {
    let place = indexed(12);
    let hint = "the records before this one are in the index";
    place.file("first.jsonl", "{bad\n{\"_id\": \"n1\", \"text\": \"new\"}\n");
    let failed = place.call("index first.jsonl --into idx").fails(7, &["first.jsonl, line 1"]);
    assert!(!failed.stderr.contains(hint), "{}", failed.stderr);
    place.file("second.jsonl", "{\"_id\": \"n1\", \"text\": \"new\"}\n{bad\n");
    place.call("index second.jsonl --into idx").fails(7, &["second.jsonl, line 2", hint]);
}
