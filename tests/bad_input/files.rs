//! Files, folders and places that cannot be indexed.

use super::{index, indexed, refused, sound};
use crate::golden::golden;
use crate::support::cli::{Workplace, records};
use std::io::Write;

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn index_of_a_file_that_is_not_what_it_seems_names_it_and_the_cure() {
    let place = indexed(12);
    let good = records(2);
    let wide = format!("{{\"_id\": \"w\", \"text\": \"{}\"}}\n", "a".repeat(3000));
    type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], i32, &'a [&'a str]);
    let cases: &[Case] = &[
        ("empty.jsonl", b"", &[], 7, &["empty.jsonl", "no records"]),
        ("blank.jsonl", b"\n \n\n", &[], 7, &["blank.jsonl", "no records"]),
        ("empty.csv", b"", &[], 7, &["empty.csv", "no records"]),
        ("empty.txt", b"", &[], 7, &["empty.txt", "no records"]),
        ("empty.parquet", b"", &[], 7, &["empty.parquet", "no records"]),
        ("bare.html", b"<html><body></body></html>", &[], 7, &["bare.html", "no text"]),
        ("bin.jsonl", b"\x7fELF\0\x01\x02\0\0", &[], 7, &["bin.jsonl", "binary file"]),
        ("bin.txt", b"PK\x03\x04\0\0\0\0", &[], 7, &["bin.txt", "binary file"]),
        ("junk.parquet", b"no parquet at all", &[], 7, &["junk.parquet", "not a parquet file"]),
        (
            "latin.jsonl",
            b"{\"_id\": \"a\", \"text\": \"x\"}\n{\"_id\": \"b\", \"text\": \"caf\xe9\"}\n",
            &["--on-duplicate", "last"],
            7,
            &["latin.jsonl, line 2", "not valid UTF-8 at byte", "iconv"],
        ),
        ("latin.txt", b"caf\xe9", &[], 7, &["latin.txt", "byte 4", "iconv -f LATIN1"]),
        ("wide.txt", b"\xff\xfeh\0i\0", &[], 7, &["wide.txt", "UTF-16", "iconv -f UTF-16"]),
        ("plain.jsonl.gz", good.as_bytes(), &[], 7, &["plain.jsonl.gz", "not gzip", "rename"]),
        (
            "long.jsonl",
            wide.as_bytes(),
            &["--max-record-bytes", "1000"],
            7,
            &["long.jsonl, line 1", "longer than 1000 bytes", "raise --max-record-bytes"],
        ),
        ("short.csv", b"id,title,text\n1,a,b\n2,c\n", &[], 7, &["short.csv, line 3", "2 fields"]),
        ("more.csv", b"id,text\n1,a\n2,b,c\n", &[], 7, &["more.csv, line 3", "more than 2"]),
        ("quote.csv", b"id,text\n1,\"a\n", &[], 7, &["quote.csv, line 2", "closing quote"]),
        ("twice.csv", b"id,id,text\n1,2,a\n", &[], 7, &["twice.csv, line 1, field 'id'", "rename"]),
        ("semi.csv", b"id;text\n1;a\n", &[], 7, &["semi.csv, line 1", "';'", "commas"]),
        ("head.csv", b"id,text\n", &[], 7, &["head.csv", "no records"]),
        ("blank.csv", b"id,text\n1,\n", &[], 7, &["blank.csv, line 2, field 'text'", "empty"]),
        (
            "array.json",
            b"[{\"_id\": \"1\", \"text\": \"x\"}]",
            &[],
            7,
            &["array.json", "jq -c '.[]'"],
        ),
        (
            "pretty.json",
            b"{\n\"_id\": \"1\",\n\"text\": \"x\"}",
            &[],
            7,
            &["pretty.json", "jq -c '.'"],
        ),
        (
            "other.jsonl",
            b"{\"id\": \"1\", \"words\": \"x\"}\n",
            &[],
            7,
            &["other.jsonl", "'words'", "--text-field"],
        ),
        ("data.dat", good.as_bytes(), &[], 2, &["data.dat", "'.dat'", "--format", ".jsonl"]),
        ("data", good.as_bytes(), &[], 2, &["data: no file name ending", "--format"]),
        ("data.jsonl.zst", good.as_bytes(), &[], 2, &["'.zst'", "decompress it first"]),
        ("a.jsonl", good.as_bytes(), &["--format", "yaml"], 2, &["'yaml'", "jsonl, csv"]),
        ("b.jsonl", good.as_bytes(), &["--format", "csv"], 7, &["b.jsonl", "--text-field"]),
        (
            "c.jsonl",
            good.as_bytes(),
            &["--text-field", "txet"],
            7,
            &["c.jsonl, field 'txet'", "--text-field", "did you mean 'text'"],
        ),
        (
            "d.jsonl",
            good.as_bytes(),
            &["--id-field", "key"],
            7,
            &["d.jsonl, field 'key'", "--id-field", "it has '_id', 'title', 'text'"],
        ),
        (
            "e.jsonl",
            good.as_bytes(),
            &["--metadata-fields", "topic,yaer"],
            7,
            &["e.jsonl, field 'yaer'", "did you mean 'year'"],
        ),
        ("f.jsonl", good.as_bytes(), &["--max-record-bytes", "0"], 2, &["--max-record-bytes"]),
        ("g.jsonl", good.as_bytes(), &["--chunk-tokens", "0"], 2, &["0 tokens", "1 to 124"]),
        ("h.jsonl", good.as_bytes(), &["--chunk-tokens", "9"], 2, &["overlap of 32", "smaller"]),
    ];
    for (name, content, more, code, parts) in cases {
        place.file(name, content);
        let run = place.run(&[&["index", *name, "--into", "idx"][..], more].concat());
        refused(&run, name, *code, parts);
    }
    // The good line before the one in Latin-1 went in; all else left the index alone.
    sound(&place, 13);
}

#[test]
fn index_of_a_cut_off_gzip_keeps_the_records_before_the_cut() {
    let place = Workplace::new();
    let whole = gzip(&records(400));
    place.file("c.jsonl.gz", &whole[..whole.len() / 2]);
    let run = place.run(&["index", "c.jsonl.gz", "--into", "idx"]);
    refused(&run, "half a gzip", 7, &["c.jsonl.gz, line ", "cut off", "gzip -t"]);
    let stats = place.run(&["info", "idx", "--json"]).ok().json()["stats"].clone();
    let kept = stats["rows"].as_u64().unwrap();
    assert!((1..400).contains(&kept), "{kept}");
    place.file("c.jsonl.gz", &whole);
    let report = index(&place, "c.jsonl.gz", &[]);
    assert_eq!((&report["unchanged"], &report["added"]), (&kept.into(), &(400 - kept).into()));
    sound(&place, 400);
}

#[test]
fn index_of_what_is_not_there_names_it_and_stores_nothing() {
    let place = Workplace::new();
    place.file("good.jsonl", records(3));
    std::fs::create_dir_all(place.path("hollow/deeper")).unwrap();
    place.file("other/photo.jpg", [0xff, 0xd8]);
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["none.jsonl"], 8, &["none.jsonl"]),
        (&["good.jsonl", "none.jsonl"], 8, &["none.jsonl"]),
        (&["hollow"], 7, &["hollow", "no readable file", ".jsonl"]),
        (&["other"], 7, &["other", "1 left out", "--format"]),
        (&["-", "-"], 2, &["standard input", "once"]),
        (&["-"], 7, &["<stdin>", "no records"]),
    ];
    for (inputs, code, parts) in cases {
        let run = place.run(&[&["index", "--into", "new"][..], inputs].concat());
        refused(&run, &inputs.join(" "), *code, parts);
        let rows = place.run(&["info", "new", "--json"]);
        assert!(rows.code == 8 || rows.json()["stats"]["rows"] == 0, "{inputs:?}");
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
        println!("this user may read everything: nothing to see here");
        return;
    }
    for input in ["secret/a.txt", "secret"] {
        let run = place.run(&["index", input, "--into", "idx"]);
        refused(&run, input, 8, &["cannot read secret/a.txt"]);
    }
    sound(&place, 12);
}

#[test]
fn index_of_a_folder_that_holds_the_index_reads_the_documents_alone() {
    let place = indexed(12);
    let report = index(&place, ".", &["--prune"]);
    assert_eq!((&report["unchanged"], &report["pruned"]), (&12.into(), &0.into()));
    sound(&place, 12);
}

#[cfg(unix)]
#[test]
fn index_of_a_folder_with_a_link_to_itself_reads_the_rest() {
    let place = indexed(12);
    place.file("docs/a.txt", "river");
    for (to, name) in [("loop", "docs/loop"), ("nowhere", "docs/lost"), ("../docs", "docs/up")] {
        std::os::unix::fs::symlink(to, place.path(name)).unwrap();
    }
    let run = place.run(&["index", "docs", "--into", "idx"]).ok();
    for name in ["docs/loop", "docs/lost", "docs/up"] {
        assert!(run.stderr.contains(name), "no {name} in {}", run.stderr);
    }
    sound(&place, 13);
}

#[test]
fn index_into_a_place_for_something_else_is_refused_and_changes_nothing() {
    let place = indexed(12);
    place.file("photos/cat.jpg", [0xff, 0xd8]);
    let model = golden().join("models/bge-like").display().to_string();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--into", "photos"], 2, &["photos holds other files ('cat.jpg')", "new folder"]),
        (&["--into", "corpus.jsonl"], 8, &["corpus.jsonl"]),
        (&["--into", "corpus.jsonl/idx"], 8, &["corpus.jsonl/idx"]),
        (&["--into", "idx", "--chunk"], 2, &["idx", "records whole", "another folder"]),
        (&["--into", "idx", "--model", &model], 2, &["idx", "24 dimensions", "another folder"]),
    ];
    for (more, code, parts) in cases {
        let run = place.run(&[&["index", "corpus.jsonl"][..], more].concat());
        refused(&run, &more.join(" "), *code, parts);
    }
    assert_eq!(std::fs::read_dir(place.path("photos")).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(place.path("corpus.jsonl")).unwrap(), records(12));
    sound(&place, 12);
}

#[cfg(target_os = "linux")]
#[test]
fn index_folder_of_any_name_can_be_opened_again() {
    use crate::support::cli::finish;
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
