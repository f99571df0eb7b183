//! Paths, folders, streams, and several files in a row.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use warpseek_error::Error;
use warpseek_ingest::{self as ingest, DocumentReader, FileFormat, ReadOptions, SkippedFile};

use super::{Folder, assert_has, gzip};

fn open(inputs: &[PathBuf]) -> Result<DocumentReader, Error> {
    ingest::open(inputs, &ReadOptions::default())
}

fn texts(reader: DocumentReader) -> Vec<String> {
    reader.map(|document| document.expect("a document").text).collect()
}

#[test]
fn folder_is_read_in_order_without_hidden_and_unknown_files() {
    let folder = Folder::new();
    folder.file("b.txt", "b");
    folder.file("a/z.md", "a/z");
    folder.file("a/k.jsonl", "{\"text\":\"a/k\"}");
    folder.file("c.html", "c");
    folder.file("c.xyz", "no");
    folder.file("a/Makefile", "no");
    folder.file("x.txt.zst", "no");
    folder.file(".hidden.txt", "no");
    folder.file(".git/x.txt", "no");
    let reader = open(&[folder.path().into()]).expect("a reader");
    let skipped = |file: &SkippedFile| {
        let path = file.path.strip_prefix(folder.path()).expect("below the folder");
        format!("{}: {}", path.display(), file.reason)
    };
    let expected = [
        "a/Makefile: no file name ending that tells the type",
        "c.xyz: unknown type '.xyz'",
        "x.txt.zst: unknown type '.zst' (decompress it first)",
    ];
    assert_eq!(reader.skipped_files().iter().map(skipped).collect::<Vec<_>>(), expected);
    assert_eq!(texts(reader), ["a/k", "a/z", "b", "c"]);
}

#[test]
fn format_is_known_by_the_ending_and_the_name() {
    let endings = [
        ("jsonl", "a.jsonl a.b/c.NDJSON.gz x.json"),
        ("csv", "x.csv"),
        ("tsv", "x.tsv.gz"),
        ("parquet", "x.parquet"),
        ("text", "x.text x.txt"),
        ("markdown", "README.md x.markdown"),
        ("html", "x.htm x.html"),
        ("pdf", "x.PDF x.pdf.gz"),
        ("docx", "x.docx"),
        ("pptx", "x.pptx"),
        ("xlsx", "x.xlsx x.xls x.ods"),
        ("odt", "x.odt"),
        ("epub", "x.epub"),
        ("", "x.gz csv x.jsonl.zst"),
    ];
    for (name, paths) in endings {
        for path in paths.split(' ') {
            let format = FileFormat::of_path(path.as_ref());
            assert_eq!(format.map_or("", FileFormat::name), name, "{path}");
        }
    }
    for format in FileFormat::ALL {
        assert_eq!(format.name().parse::<FileFormat>().expect("a format"), format);
    }
    assert_eq!("NDJSON".parse::<FileFormat>().expect("a format"), FileFormat::Jsonl);
    let error = "xyz".parse::<FileFormat>().expect_err("not a format").to_string();
    assert_has(&error, &["'xyz'", "jsonl, csv, tsv"]);
}

#[test]
fn id_of_a_text_is_its_path_however_that_is_written() {
    // Tests run in the folder of the crate.
    let options = ReadOptions { format: Some(FileFormat::Text), ..ReadOptions::default() };
    for (path, id) in [
        ("./src//lib.rs", "src/lib.rs"),
        ("src/./lib.rs", "src/lib.rs"),
        ("../ingest/src/lib.rs", "src/lib.rs"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs"), "src/lib.rs"),
        ("Cargo.toml", "Cargo.toml"),
    ] {
        let mut reader = ingest::open(&[path.into()], &options).expect("a reader");
        assert_eq!(reader.next().expect("a result").expect("a document").id, id);
    }
}

#[test]
fn inputs_with_a_format_are_read_whatever_their_name() {
    let folder = Folder::new();
    folder.file("app.log", "one");
    folder.file("b.csv", "id,text");
    let other = Folder::new();
    let lines = other.file("data.txt", "{\"id\":1,\"text\":\"a\"}");
    let read = |path: &Path, format: FileFormat| {
        let options = ReadOptions { format: Some(format), ..ReadOptions::default() };
        texts(ingest::open(&[path.into()], &options).expect("a reader"))
    };
    assert_eq!(read(folder.path(), FileFormat::Text), ["one", "id,text"]);
    assert_eq!(read(&lines, FileFormat::Jsonl), ["a"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_read_and_told_apart() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let path = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    std::fs::create_dir(path(b"caf\xe9")).expect("a folder");
    for name in [&b"a\xff.txt"[..], b"a\xfe.txt", b"caf\xe9/b.txt", b"c\xc3.TXT", b"d\xff.csv"] {
        std::fs::write(path(name), "text\none").expect("a file");
    }
    std::fs::write(path(b"left.\xff"), "").expect("a file");
    std::fs::write(path(b"left\xff.xyz"), "").expect("a file");
    let reader = open(&[folder.path().into()]).expect("a reader");
    let reasons: Vec<_> = reader.skipped_files().iter().map(|f| f.reason.clone()).collect();
    assert_eq!(reasons, ["unknown type '.\u{fffd}'", "unknown type '.xyz'"]);
    let prefix = format!("{}/", folder.path().display());
    let documents: Vec<_> = reader.map(|document| document.expect("a document")).collect();
    let ids: Vec<_> =
        documents.iter().map(|d| d.id.strip_prefix(&prefix).expect("a path")).collect();
    let right = ["a\\xFE.txt", "a\\xFF.txt", "caf\\xE9/b.txt", "c\\xC3.TXT", "d\\xFF.csv:1"];
    assert_eq!(ids, right);
    let error = open(&[path(b"caf\xe9/b.txt"), path(b"gone\xff.txt")]).err().expect("an error");
    assert_has(&error.to_string(), &["gone", ".txt"]);
    std::fs::write(path(b"bad\xff.jsonl"), "{").expect("a file");
    let mut reader = open(&[path(b"bad\xff.jsonl")]).expect("a reader");
    let error = reader.next().expect("a result").expect_err("not JSON").to_string();
    assert_has(&error, &["bad\\xFF.jsonl, line 1"]);
}

#[cfg(unix)]
#[test]
fn folder_with_links_is_read_once() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let file = folder.file("sub/a.txt", "a");
    symlink(folder.path(), folder.path().join("sub/up")).expect("a link");
    symlink(&file, folder.path().join("b.txt")).expect("a link");
    symlink("nowhere", folder.path().join("c.txt")).expect("a link");
    let reader = open(&[folder.path().into(), file.clone()]).expect("a reader");
    let mut reasons: Vec<_> = reader.skipped_files().iter().map(|f| f.reason.as_str()).collect();
    reasons.sort_unstable();
    let twice = "is already among the inputs";
    let links = ["a link back to a folder above it", "a link that leads nowhere"];
    assert_eq!(reasons, [&links[..], &[twice, twice]].concat());
    let ids: Vec<_> = reader.map(|document| document.expect("a document").id).collect();
    // The id is that of the file, not of the link that was found first.
    assert_eq!(ids, [file.display().to_string()]);
}

#[test]
fn paths_start_at_the_base_and_sources_at_the_input() {
    let folder = Folder::new();
    folder.file("docs/a.txt", "a");
    folder.file("docs/b.jsonl", "{\"text\":\"b\"}\n{\"text\":\"c\"}");
    folder.file("docs2/b.jsonl", "{\"text\":\"b\"}");
    let read = |base: &Path, input: &str| {
        let options = ReadOptions { base: Some(base.into()), ..ReadOptions::default() };
        let reader = ingest::open(&[folder.path().join(input)], &options).expect("a reader");
        let covered = |source: &str| reader.roots().covers(source);
        assert!(!covered("other/a.txt") && !covered(ingest::STREAM_SOURCE));
        let roots = reader.roots().clone();
        let documents = reader.map(|document| document.expect("a document"));
        let id = |document: ingest::Document| {
            assert!(!document.has_own_id);
            assert!(roots.covers(&document.source.expect("a source")));
            document.id
        };
        documents.map(id).collect::<Vec<_>>()
    };
    let expected = ["docs/a.txt", "docs/b.jsonl:1", "docs/b.jsonl:2"];
    assert_eq!(read(folder.path(), "docs"), expected);
    assert_eq!(read(&folder.path().join("docs2/.."), "docs/"), expected);
    assert_eq!(read(folder.path(), "docs2/b.jsonl"), ["docs2/b.jsonl:1"]);
    // Outside of the base, and with a base that does not exist, paths are absolute.
    for base in ["docs2", "missing/folder"] {
        let absolute = folder.path().join("docs/a.txt").display().to_string();
        assert_eq!(read(&folder.path().join(base), "docs/a.txt"), [absolute]);
    }
}

#[test]
fn file_given_twice_is_read_once() {
    let folder = Folder::new();
    let file = folder.file("a.txt", "a");
    let reader = open(&[file, folder.path().into()]).expect("a reader");
    assert_eq!(reader.progress().files_total, 1);
    assert_eq!(texts(reader), ["a"]);
}

#[test]
fn inputs_that_cannot_be_read_are_refused_beforehand() {
    let folder = Folder::new();
    let good = folder.file("a.txt", "a");
    let missing = folder.path().join("missing.jsonl");
    let unknown = folder.file("a.xyz", "x");
    let packed = folder.file("a.jsonl.xz", "x");
    let bare = folder.file("README", "x");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let other = folder.path().join("other");
    folder.file("other/b.xyz", "x");

    let refuse = |path: &PathBuf| open(&[good.clone(), path.clone()]).err().expect("refused");
    let error = refuse(&missing);
    assert!(matches!(error, Error::Io { .. }) && error.exit_code() == 8);
    assert_has(&error.to_string(), &["cannot read", "missing.jsonl"]);
    for (path, parts) in [
        (&unknown, ["a.xyz", "unknown type '.xyz'"]),
        (&packed, ["a.jsonl.xz", "unknown type '.xz' (decompress it first)"]),
        (&bare, ["README", "no file name ending"]),
    ] {
        let error = refuse(path);
        assert!(matches!(error, Error::Usage(_)));
        assert_has(&error.to_string(), &parts);
        let cures = [
            "--format (jsonl, csv, tsv, parquet, text, markdown, html,",
            "pdf, ",
            ".ndjson",
            ".gz",
        ];
        assert_has(&error.to_string(), &cures);
    }
    for (path, count) in
        [(&empty, "(0 left out)"), (&other, "(1 left out, first 'b.xyz', unknown type '.xyz')")]
    {
        let error = refuse(path);
        assert!(matches!(error, Error::Input { .. }));
        assert_has(&error.to_string(), &["no readable file in this folder", count]);
    }
    assert!(matches!(open(&[]), Err(Error::Usage(_))));
    assert!(matches!(open(&["-".into(), "-".into()]), Err(Error::Usage(_))));
    let nothing = ReadOptions { max_record_bytes: 0, ..ReadOptions::default() };
    assert!(matches!(ingest::open(&[good], &nothing), Err(Error::Usage(_))));
}

#[cfg(unix)]
#[test]
fn file_without_permission_is_refused_beforehand() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.file("a.txt", "a");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("permissions");
    if fs::File::open(&file).is_ok() {
        println!("this user may read everything: nothing to see here");
        return;
    }
    for input in [file.clone(), folder.path().to_path_buf()] {
        let error = open(&[input]).err().expect("refused");
        assert!(matches!(&error, Error::Io { path, .. } if *path == file));
    }
}

#[test]
fn reading_goes_on_with_the_next_file() {
    let folder = Folder::new();
    let inputs = [
        folder.file("1.jsonl", "[1]\n{\"id\":1,\"text\":\"never read\"}"),
        folder.file("2.csv", "no,such\n1,2"),
        folder.file("3.parquet", "PAR1 this is not parquet PAR1"),
        folder.file("4.jsonl.gz", &gzip("{\"id\":4,\"text\":\"x\"}")[..15]),
        folder.file("5.html", b"\xff\xfe"),
        folder.file("6.txt", ""),
        folder.file("7.txt", "seven"),
    ];
    let all: Vec<_> = open(&inputs).expect("a reader").collect();
    assert_eq!(all.len(), 7, "{all:?}");
    for (number, result) in all.iter().enumerate() {
        let name = format!("{}.", number + 1);
        match result {
            Ok(document) => assert_eq!(document.text, "seven"),
            Err(error) => assert_has(&error.to_string(), &[name.as_str()]),
        }
    }
    assert!(all[6].is_ok());
}

#[test]
fn file_that_vanishes_is_an_error_in_its_turn() {
    let folder = Folder::new();
    let inputs = [folder.file("a.txt", "a"), folder.file("b.txt", "b"), folder.file("c.txt", "c")];
    let mut reader = open(&inputs).expect("a reader");
    assert!(reader.next().is_some_and(|document| document.is_ok()));
    fs::remove_file(&inputs[1]).expect("removed");
    let error = reader.next().expect("a result").expect_err("b is gone");
    assert!(matches!(&error, Error::Io { path, .. } if *path == inputs[1]));
    assert_eq!(reader.next().expect("a result").expect("a document").text, "c");
    assert!(reader.next().is_none());
}

#[test]
fn progress_counts_bytes_as_they_lie_on_disk() {
    let lines: String =
        (0..20_000).map(|n| format!("{{\"id\":{n},\"text\":\"some words {n}\"}}\n")).collect();
    let folder = Folder::new();
    let packed = gzip(&lines);
    let inputs =
        [folder.file("a.jsonl.gz", &packed), folder.file("b.txt", "bb"), folder.file("c.txt", "")];
    let mut reader = open(&inputs).expect("a reader");
    let total = packed.len() as u64 + 2;
    let start = reader.progress();
    assert_eq!((start.bytes_read, start.bytes_total, start.files_total), (0, Some(total), 3));
    assert_eq!((start.files_done, start.file), (0, None));
    let mut before = 0;
    let mut steps = 0;
    for _ in 0..20_000 {
        reader.next().expect("a result").expect("a document");
        let now = reader.progress();
        assert!(now.bytes_read >= before && now.bytes_read <= packed.len() as u64);
        steps += usize::from(now.bytes_read > before);
        before = now.bytes_read;
        assert_eq!(now.file.as_deref(), inputs[0].to_str());
    }
    assert!(steps > 1 || packed.len() < 100_000, "{steps} steps");
    assert_eq!(reader.by_ref().filter(Result::is_err).count(), 1);
    let end = reader.progress();
    assert_eq!((end.bytes_read, end.files_done, end.file), (total, 3, None));
}

#[test]
fn stream_is_json_lines_unless_told_otherwise() {
    let lines = "{\"id\":1,\"text\":\"a\"}\n{\"text\":\"b\"}\nx\n";
    for bytes in [lines.as_bytes().to_vec(), gzip(lines)] {
        let reader = ingest::read_stream(Cursor::new(bytes), "<stdin>", &ReadOptions::default());
        let mut reader = reader.expect("a reader");
        assert_eq!(reader.progress().bytes_total, None);
        assert_eq!(reader.next().expect("a result").expect("a document").id, "1");
        let error = reader.next().expect("a result").expect_err("no id");
        assert_has(&error.to_string(), &["<stdin>, line 2, field 'id'"]);
        let error = reader.next().expect("a result").expect_err("no JSON");
        assert_has(
            &error.to_string(),
            &["<stdin>, line 3: not valid JSON: expected value (column 1)"],
        );
        assert!(reader.next().is_none());
    }
    let options = ReadOptions { format: Some(FileFormat::Csv), ..ReadOptions::default() };
    for (name, id) in [("upload", "upload:1"), ("<stdin>", "stdin:1")] {
        let reader = ingest::read_stream(Cursor::new("text\na\n"), name, &options);
        let document = reader.expect("a reader").next().expect("a result").expect("a document");
        assert_eq!((document.id.as_str(), document.place.file.as_str()), (id, name));
    }
}

#[test]
fn stream_that_fails_ends_with_an_error() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the wire is cut"))
        }
    }
    let options = ReadOptions::default();
    for lines in [0, 1, 5, 1000] {
        let content = "{\"id\":1,\"text\":\"a\"}\n".repeat(lines);
        let wire = Cursor::new(content).chain(Failing);
        let all: Vec<_> = ingest::read_stream(wire, "wire", &options).expect("a reader").collect();
        let (last, good) = all.split_last().expect("something");
        assert_eq!(good.iter().filter(|result| result.is_ok()).count(), lines);
        let error = last.as_ref().expect_err("an error");
        assert!(matches!(error, Error::Io { .. }));
        assert_has(&error.to_string(), &["wire", "the wire is cut"]);
    }
}

#[cfg(unix)]
#[test]
fn named_pipe_is_read_as_a_stream() {
    let folder = Folder::new();
    let pipe = folder.path().join("pipe.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::write(pipe, "{\"id\":1,\"text\":\"a\"}\n"))
    };
    let reader = open(&[pipe]).expect("a reader");
    assert_eq!(reader.progress().bytes_total, None);
    assert_eq!(texts(reader), ["a"]);
    writer.join().expect("the writer").expect("written");
}

#[test]
fn reader_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<DocumentReader>();
}
