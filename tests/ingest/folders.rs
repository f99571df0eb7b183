//! Folders: what is found, what is left out and why.

use std::path::{Path, PathBuf};

use warpseek_error::Error;
use warpseek_ingest::{self as ingest, Document, ReadOptions, SkipCounts, SkipTable, WalkOptions};

use super::{Folder, assert_has, gzip};

/// The texts of all documents, and everything that was left out.
fn read(inputs: &[PathBuf], options: &ReadOptions) -> (Vec<Document>, SkipTable, SkipCounts) {
    let mut reader = ingest::open(inputs, options).expect("a reader");
    let (mut documents, mut table) = (Vec::new(), SkipTable::default());
    for file in reader.skipped_files() {
        table.add_file(&file.path.display().to_string(), &file.reason);
    }
    let found = reader.found_files().clone();
    for result in reader.by_ref() {
        match result {
            Ok(document) => documents.push(document),
            Err(Error::Input { place, reason }) if found.source(&place.file).is_some() => {
                table.add(&place.to_string(), &reason);
            }
            Err(error) => panic!("{error}"),
        }
    }
    (documents, table, reader.skip_counts())
}

fn names(documents: &[Document], folder: &Path) -> Vec<String> {
    let below = |document: &Document| {
        let path = Path::new(&document.place.file).strip_prefix(folder).expect("below the folder");
        path.display().to_string()
    };
    documents.iter().map(below).collect()
}

/// One file of every kind, each with a text that names it.
fn good(folder: &Folder, part: &str) -> usize {
    let path = |name: &str| format!("{part}/{name}");
    let latin = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let files: [(&str, Vec<u8>); 30] = [
        ("a.txt", b"plain words".to_vec()),
        ("b.md", b"# Head\n\nwords".to_vec()),
        ("c.html", b"<p>words <span hidden>no</span>".to_vec()),
        ("d.rst", b"Head\n====\n\nwords".to_vec()),
        ("e.org", b"* Head\nwords".to_vec()),
        ("f.tex", b"\\section{Head} words".to_vec()),
        ("g.py", b"def f():\n    return 1".to_vec()),
        ("h.rs", b"fn f() {}".to_vec()),
        ("i.ts", b"let x: number".to_vec()),
        ("j.go", b"func f() {}".to_vec()),
        ("k.java", b"class A {}".to_vec()),
        ("l.cpp", b"int f();".to_vec()),
        ("m.sql", b"SELECT 1".to_vec()),
        ("n.sh", b"ls".to_vec()),
        (
            "o.ipynb",
            br##"{"nbformat":4,"cells":[{"cell_type":"markdown","source":["words"]}]}"##.to_vec(),
        ),
        ("p.eml", b"From: a@b.c\r\nSubject: Hi\r\n\r\nwords\r\n".to_vec()),
        ("q.jsonl", br#"{"text":"words"}"#.to_vec()),
        ("r.json", br#"[{"text":"words"}]"#.to_vec()),
        ("s.json", b"{\n\"text\": \"words\"\n}\n".to_vec()),
        ("t.csv", b"id,text\nt,words\n".to_vec()),
        ("u.csv", b"title;text\nt;words\n".to_vec()),
        ("v.tsv", b"title\ttext\nt\twords\n".to_vec()),
        ("w.csv", latin("title;text\nt;Größe und Maß\n")),
        ("x.txt", latin("Größe und Maß für Mädchen")),
        ("y.txt", utf16("\u{feff}wide words")),
        ("z.txt", utf16("wide words without a mark")),
        ("za.csv", b"question,answer\nWhy?,So.\n".to_vec()),
        ("zb.jsonl.gz", gzip(br#"{"text":"words"}"#)),
        ("zc.r", b"x <- 1".to_vec()),
        ("zd.lua", b"x = 1".to_vec()),
    ];
    for (name, content) in &files {
        let content = match name.starts_with("t.") {
            // Ids of records are the record's own.
            true => format!("id,text\n{part},words\n").into_bytes(),
            false => content.clone(),
        };
        folder.file(&path(name), content);
    }
    files.len()
}

#[test]
fn folder_of_every_kind_is_read_but_for_the_broken_files() {
    let folder = Folder::new();
    let n: usize =
        ["one", "two/three", "four", "two/five"].map(|part| good(&folder, part)).iter().sum();
    assert_eq!(n, 120);
    let broken: [(&str, &[u8]); 10] = [
        ("two/binary.txt", b"\x7fELF\0\x01\x02\0\0"),
        ("two/cut.jsonl.gz", &gzip(vec![b'x'; 500])[..15]),
        ("two/notebook.ipynb", b"{\"cells\": "),
        ("two/package.json", b"{\n  \"name\": \"x\",\n  \"version\": \"1\"\n}\n"),
        ("two/numbers.json", b"[1, 2, 3]"),
        ("two/photo.jpg", b"\xff\xd8"),
        ("two/table.parquet", b"no parquet"),
        ("two/empty.txt", b""),
        ("two/letter.eml", b"no message\n\nat all"),
        ("two/other.csv", b"a,b\n1,2\n"),
    ];
    for (name, content) in broken {
        folder.file(name, content);
    }
    // A record that is bad does not cost its file.
    folder.file("six/mixed.jsonl", "{\"text\":\"a\"}\n{\"text\":\n{\"text\":\"c\"}\n");
    let (documents, table, left_out) = read(&[folder.path().into()], &ReadOptions::default());
    assert_eq!(documents.len(), 120 + 2);
    assert_eq!(left_out, SkipCounts::default());
    let count: u64 = table.groups().iter().map(|group| group.count).sum();
    assert_eq!(count, 10 + 1, "{table:?}");
    let told = format!("{table:?}");
    assert_has(&told, &broken.map(|(name, _)| name));
    assert_has(&told, &["mixed.jsonl, line 2"]);
    // Strict reading is the same, but for what cannot be opened.
    let strict = ReadOptions { strict: true, ..ReadOptions::default() };
    assert_eq!(read(&[folder.path().into()], &strict).0.len(), 120 + 2);
}

#[test]
fn ignore_files_and_folders_of_tools_are_left_out_and_counted() {
    let folder = Folder::new();
    for name in [
        "a.md",
        "b/c.md",
        "b/secret.md",
        "b/notes/d.md",
        "drafts/e.md",
        "node_modules/f/g.md",
        "crate/Cargo.toml",
        "crate/target/h.md",
        "target/i.md",
        "env/venv/pyvenv.cfg",
        "env/venv/j.md",
        "venv/k.md",
        ".hidden/l.md",
        ".hidden.md",
        "m.log.md",
        "b/__pycache__/n.md",
    ] {
        folder.file(name, "text");
    }
    folder.file(".gitignore", "secret.md\n*.log.md\n");
    folder.file("b/.ignore", "notes/\n");
    folder.file(".warpseekignore", "/drafts\n");
    let read_with = |walk: WalkOptions| {
        let options = ReadOptions { walk, ..ReadOptions::default() };
        let (documents, table, left_out) = read(&[folder.path().into()], &options);
        (names(&documents, folder.path()), table, left_out)
    };
    let (found, table, left_out) = read_with(WalkOptions::default());
    assert_eq!(found, ["a.md", "b/c.md", "target/i.md", "venv/k.md"]);
    // secret.md, notes, drafts and m.log.md; two ignore files of the folder and one of b, and
    // .hidden*.
    assert_eq!(left_out, SkipCounts { hidden: 5, ignored: 4, unmatched: 0 });
    let counts: Vec<_> = table.groups().iter().map(|g| (g.reason.as_str(), g.count)).collect();
    let tools = "a folder of a tool (node_modules, target, venv, __pycache__)";
    assert_eq!(counts, [(tools, 4), ("unknown type '.toml'", 1)]);

    let (found, _, left_out) = read_with(WalkOptions { no_ignore: true, ..WalkOptions::default() });
    assert_eq!((found.len(), left_out.ignored), (12, 0));
    let globs = |globs: &[&str]| WalkOptions {
        globs: globs.iter().map(|glob| (*glob).to_owned()).collect(),
        ..WalkOptions::default()
    };
    assert_eq!(read_with(globs(&["!b/"])).0, ["a.md", "target/i.md", "venv/k.md"]);
    assert_eq!(read_with(globs(&["c.md", "k.md"])).0, ["b/c.md", "venv/k.md"]);
    assert_eq!(read_with(globs(&["*.md", "!c.md"])).0[..2], ["a.md", "b/secret.md"]);
    let options =
        ReadOptions { walk: globs(&["a[".to_owned().as_str()]), ..ReadOptions::default() };
    let error = ingest::open(&[folder.path().into()], &options).err().expect("no pattern");
    assert!(matches!(&error, Error::Usage(reason) if reason.contains("--glob 'a['")), "{error}");
}

#[test]
fn folder_where_all_is_ignored_says_so() {
    let folder = Folder::new();
    folder.file("a.md", "text");
    folder.file(".ignore", "*");
    let error = ingest::open(&[folder.path().into()], &ReadOptions::default()).err();
    assert_has(
        &error.expect("nothing").to_string(),
        &["no readable file", "1 ignored", "1 hidden"],
    );
}

#[cfg(unix)]
#[test]
fn file_without_permission_in_a_folder_is_left_out_and_remembered() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.file("a.txt", "a");
    let secret = folder.file("secret.txt", "b");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    if std::fs::File::open(&secret).is_ok() {
        println!("this user may read everything: nothing to see here");
        return;
    }
    let (documents, table, _) = read(&[folder.path().into()], &ReadOptions::default());
    assert_eq!((documents.len(), table.groups()[0].count), (1, 1));
    assert_has(&table.groups()[0].reason, &["permission denied"]);
    let reader = ingest::open(&[folder.path().into()], &ReadOptions::default()).expect("a reader");
    let source = secret.canonicalize().expect("a path").display().to_string();
    assert!(reader.found_files().is_unread(&source));
    assert!(!reader.found_files().is_unread(&source.replace("secret", "a")));
    let strict = ReadOptions { strict: true, ..ReadOptions::default() };
    assert!(matches!(ingest::open(&[folder.path().into()], &strict), Err(Error::Io { .. })));
}

#[test]
fn glob_that_matches_nothing_names_the_patterns_and_the_files_they_left_out() {
    let folder = Folder::new();
    for name in ["a.md", "b/c.md", "b/d.txt", ".hidden.md"] {
        folder.file(name, "text");
    }
    let open = |globs: &[&str]| {
        let globs = globs.iter().map(|glob| (*glob).to_owned()).collect();
        let walk = WalkOptions { globs, ..WalkOptions::default() };
        ingest::open(&[folder.path().into()], &ReadOptions { walk, ..ReadOptions::default() })
    };
    let error = open(&["*.pdf", "*.docx"]).err().expect("nothing matches");
    assert!(matches!(error, Error::Input { .. }));
    let parts =
        ["no readable file", "--glob '*.pdf', '*.docx'", "left out 3 files", "1 hidden", "correct"];
    assert_has(&error.to_string(), &parts);
    for glob in ["", " ", "!", "! "] {
        let error = open(&["*.md", glob]).err().expect("no pattern");
        let expected = format!("--glob '{glob}' names no file: give a pattern like '*.md'");
        assert!(matches!(&error, Error::Usage(reason) if reason.contains(&expected)), "{error}");
    }
    let counts = open(&["*.txt"]).expect("a reader").skip_counts();
    assert_eq!(counts, SkipCounts { hidden: 1, ignored: 2, unmatched: 2 });
}

#[test]
fn file_named_itself_is_strict_wherever_its_folder_is_named() {
    let folder = Folder::new();
    let bad = folder.file("bad.jsonl", "{");
    folder.file("worse.jsonl", "{");
    let path = folder.path().to_path_buf();
    for inputs in [[path.clone(), bad.clone()], [bad.clone(), path.clone()]] {
        let reader = ingest::open(&inputs, &ReadOptions::default()).expect("a reader");
        let found = reader.found_files().clone();
        let errors: Vec<_> = reader.map(|result| result.expect_err("not JSON")).collect();
        let is_found = |error: &Error| match error {
            Error::Input { place, .. } => found.source(&place.file).is_some(),
            other => panic!("{other}"),
        };
        let strict: Vec<_> = errors.iter().filter(|error| !is_found(error)).collect();
        assert_eq!((errors.len(), strict.len()), (2, 1), "{errors:?}");
        assert_has(&strict[0].to_string(), &["bad.jsonl, line 1"]);
    }
    // The folder twice is still a folder.
    let reader = ingest::open(&[path.clone(), path], &ReadOptions::default()).expect("a reader");
    assert!(reader.found_files().source(&bad.display().to_string()).is_some());
}

#[cfg(unix)]
#[test]
fn names_with_control_characters_are_escaped_in_messages() {
    let folder = Folder::new();
    let bad = folder.file("a\nb\u{1b}[2J.jsonl", "{");
    folder.file("c\nd.x\ny", "unknown");
    folder.file("e\rf\u{202e}.txt", "text");
    let path = folder.path().to_path_buf();
    let (documents, table, _) = read(&[path], &ReadOptions::default());
    // Ids have no control characters.
    assert_eq!(documents.len(), 0);
    let names: Vec<_> = table.groups().iter().flat_map(|group| &group.first).collect();
    assert_eq!(names.len(), 3, "{table:?}");
    for group in table.groups() {
        for text in group.first.iter().chain([&group.reason, &group.detail]) {
            assert!(!text.chars().any(char::is_control) && !text.contains('\u{202e}'), "{text:?}");
        }
    }
    let names = format!("{names:?}").replace("\\\\", "\\");
    assert_has(&names, &["a\\nb\\u{1b}[2J.jsonl", "c\\nd.x\\ny", "e\\rf\\u{202e}.txt"]);
    let error = ingest::open(&[bad], &ReadOptions::default()).expect("a reader").next();
    let error = error.expect("a result").expect_err("not JSON").to_string();
    assert_has(&error, &["a\\nb\\u{1b}[2J.jsonl, line 1"]);
    let missing = ingest::open(&["no\nfile.txt".into()], &ReadOptions::default()).err();
    assert_has(&missing.expect("no such file").to_string(), &["cannot read no\\nfile.txt"]);
}
