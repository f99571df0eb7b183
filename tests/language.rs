//! Languages of the lexical index: stems, pairs of characters, and what becomes of the setting.

use crate::support::cli::{Workplace, assert_holds};
use serde_json::{Value, json};
use std::path::Path;
use warpseek::compute::cpu::Tier;
use warpseek::error::{Error, Place};
use warpseek::ingest::Document;
use warpseek::ingest::chunk::{Chunk, Chunking};
use warpseek::search::{QueryInput, SearchOptions, Searcher, Timings};
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter, Language, verify};
use warpseek::topk::scanner::Scanner;

fn language(code: &str) -> Option<Language> {
    Some(code.parse().unwrap())
}

fn document(id: &str, title: &str, text: &str) -> Document {
    let mut document = Document::new(id, text, Place::record("t", id));
    document.title = title.to_owned();
    document.metadata.insert("even".to_owned(), json!(id.len() % 2 == 0));
    document
}

fn put(writer: &mut IndexWriter, document: Document) {
    let chunk = Chunk { range: 0..document.text.len(), tokens: 1, tokens_lost: 0 };
    writer.put(document, vec![chunk], &[0.5; 4]).unwrap();
}

/// An index of texts, whose ids are their numbers in words.
fn index(dir: &Path, code: Option<Language>, texts: &[&str]) -> Index {
    let manifest = IndexManifest::new(4, None, Chunking::default()).with_language(code);
    let mut writer = IndexWriter::open_or_create(dir, &manifest).unwrap();
    for (number, text) in texts.iter().enumerate() {
        put(&mut writer, document(&format!("d{number}"), "", text));
    }
    writer.commit().unwrap();
    drop(writer);
    Index::open(dir).unwrap()
}

/// The rows that a query finds, ascending.
fn found(index: &Index, query: &str) -> Vec<u32> {
    let mut rows: Vec<u32> =
        index.lexical(query, 100, None).unwrap().iter().map(|hit| hit.row).collect();
    rows.sort_unstable();
    rows
}

fn assert_sound(dir: &Path) {
    for finding in verify(dir).unwrap() {
        assert_eq!(finding.problem, None, "{}", finding.check);
    }
}

#[test]
fn words_of_a_language_find_their_other_forms() {
    for (code, texts, queries) in [
        (
            "de",
            ["Die Häuser am Fluss", "Ein Haus in der Straße", "Der Garten"],
            &[
                ("Haus", &[0, 1][..]),
                ("häusern", &[0, 1]),
                ("HAEUSER", &[0, 1]),
                ("Strassen", &[1]),
                ("Ha\u{308}user", &[0, 1]),
                ("Gärten", &[2]),
            ][..],
        ),
        (
            "fr",
            ["L'élève lit", "Les chevaux des élèves", "La société"],
            &[("eleve", &[0, 1]), ("cheval", &[1]), ("sociétés", &[2]), ("societe", &[2])],
        ),
        (
            "es",
            ["Una canción triste", "Canciones de niños", "El niño corre"],
            &[("canciones", &[0, 1]), ("cancion", &[0, 1]), ("niña niños", &[1, 2])],
        ),
        (
            "ru",
            ["Старые книги", "Новая книга о ёлке", "Большой дом"],
            &[("книгами", &[0, 1]), ("елка", &[1]), ("ДОМОВ", &[2])],
        ),
        (
            "en",
            ["Running models", "A model runs", "generously café"],
            &[("model", &[0, 1]), ("run", &[0, 1]), ("cafe", &[2])],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), language(code), &texts);
        for (query, expected) in queries {
            assert_eq!(found(&index, query), *expected, "{code}: {query}");
        }
        assert_sound(dir.path());
    }
}

#[test]
fn texts_without_blanks_are_found_by_one_two_and_three_characters() {
    for (code, texts, queries) in [
        (
            "ja",
            ["東京都の天気はGPT-4で予測", "京都のカフェ", "ｶﾌｪと水"],
            &[
                ("東京", &[0][..]),
                ("東京都", &[0, 1]),
                ("京都", &[0, 1]),
                ("カフェ", &[1, 2]),
                ("水", &[2]),
                ("天", &[0]),
                ("ＧＰＴ", &[0]),
                ("予測 gpt", &[0]),
                ("大阪", &[]),
            ][..],
        ),
        (
            "zh",
            ["北京大学的BERT模型", "大学生", "模式 2023年"],
            &[
                ("大学", &[0, 1]),
                ("大学生", &[0, 1]),
                ("模型", &[0]),
                ("bert", &[0]),
                ("BER", &[]),
                ("模", &[0, 2]),
                ("生", &[1]),
                ("2023", &[2]),
            ],
        ),
        (
            "th",
            ["ฉันดื่มน้ำเย็น", "ประเทศไทย", "แมวกินปลา"],
            &[("น้ำ", &[0]), ("ไทย", &[1]), ("แมว", &[2]), ("กินปลา", &[2])],
        ),
        (
            "ko",
            ["학교에서 책을 읽다", "학교가 크다", "책상"],
            &[("학교", &[0, 1]), ("책", &[0, 2]), ("책을", &[0])],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), language(code), &texts);
        for (query, expected) in queries {
            assert_eq!(found(&index, query), *expected, "{code}: {query}");
        }
        // The longer match comes first, and texts are shown as they were given.
        let best = index.lexical(queries[1].0, 1, None).unwrap()[0].row;
        assert_eq!(index.rows(&[best]).unwrap()[0].text, texts[best as usize]);
        assert_sound(dir.path());
    }
}

/// Without a language scores are those of FTS5's own tokenizers, to the last bit.
#[test]
fn without_a_language_scores_stay_those_of_fts5() {
    let texts = ["Rivers and the river's banks", "A river, RIVER!", "Häuser café naïve", "東京都"];
    let plain = rusqlite::Connection::open_in_memory().unwrap();
    plain
        .execute_batch(
            "CREATE VIRTUAL TABLE t USING fts5 (
                title, body, tokenize = 'porter unicode61 remove_diacritics 2');",
        )
        .unwrap();
    for (row, text) in texts.iter().enumerate() {
        let sql = "INSERT INTO t (rowid, title, body) VALUES (?1, '', ?2)";
        plain.execute(sql, (row as i64, text)).unwrap();
    }
    for code in [None, language("none")] {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), code, &texts);
        for (query, expression) in [
            ("river banks", "\"river\" OR \"banks\""),
            ("Rivers", "\"rivers\""),
            ("haus cafe", "\"haus\" OR \"cafe\""),
            ("東京都", "\"東京都\""),
        ] {
            let sql = "SELECT rowid, -bm25(t) FROM t WHERE t MATCH ?1 ORDER BY bm25(t), rowid";
            let mut statement = plain.prepare(sql).unwrap();
            let pair = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?));
            let expected: Vec<(u32, f64)> =
                statement.query_map([expression], pair).unwrap().map(Result::unwrap).collect();
            let hits = index.lexical(query, 10, None).unwrap();
            let hits: Vec<(u32, f64)> = hits.iter().map(|hit| (hit.row, hit.score)).collect();
            assert_eq!(hits, expected, "{query}");
        }
        let manifest = std::fs::read_to_string(dir.path().join("manifest.json")).unwrap();
        assert!(!manifest.contains("language"), "{manifest}");
        assert_holds(&manifest, &["\"format_version\": 2"]);
        assert_sound(dir.path());
    }
}

#[test]
fn hybrid_searches_with_a_filter_use_the_language() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..30).map(|i| format!("Satz Nummer {i} der Reihe")).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts[7] = "Viele Häuser";
    texts[17] = "Ein Haus";
    let index = index(dir.path(), language("de"), &texts);
    let scanner = Scanner::Cpu(Tier::default());
    let searcher =
        Searcher { index: index.into(), embedder: None, reranker: None, scanner, stop: None };
    let search = |filter: Option<&str>| -> Vec<u32> {
        let filter = filter.map(|filter| Filter::parse(filter).unwrap());
        let options = SearchOptions { k: 2, hybrid: true, filter, ..SearchOptions::default() };
        let vector = [0.5; 4];
        let query = QueryInput { text: "häusern", vector: Some(&vector), ..QueryInput::default() };
        let found = searcher.retrieve(&[query], &options, &mut Timings::default()).unwrap();
        found[0].candidates.iter().map(|candidate| candidate.row).collect()
    };
    assert_eq!(search(None), [7, 17]);
    // Ids of two characters are those of the first ten.
    assert_eq!(search(Some("even = true"))[0], 7);
    assert_eq!(search(Some("even = false"))[0], 17);
    let found = searcher.search_lexical("Hauses", 5, None).unwrap();
    let shown: Vec<&str> = found.hits.iter().map(|hit| hit.text.as_str()).collect();
    assert_eq!(shown.len(), 2);
    assert!(shown.contains(&"Viele Häuser"), "{shown:?}");
}

#[test]
fn updates_deletions_and_compaction_keep_the_language() {
    let dir = tempfile::tempdir().unwrap();
    drop(index(dir.path(), language("de"), &["Häuser", "Häuser und Gärten", "Bücher"]));
    let mut writer = IndexWriter::open(dir.path()).unwrap();
    put(&mut writer, document("d0", "Die Bäume", "im Wald"));
    let gone = writer.find("d2").unwrap().unwrap().seq;
    writer.delete(gone);
    writer.commit().unwrap();
    drop(writer);
    let check = || {
        let index = Index::open(dir.path()).unwrap();
        let ids = |query: &str| -> Vec<String> {
            let rows = index.rows(&found(&index, query)).unwrap();
            rows.into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids("haus"), ["d1"]);
        assert_eq!(ids("baum"), ["d0"]);
        assert!(ids("buch").is_empty());
        assert_eq!(index.manifest().language().code(), "de");
        assert_sound(dir.path());
    };
    check();
    let compaction = IndexWriter::open(dir.path()).unwrap().compact().unwrap();
    assert_eq!(compaction.rows_after, 2);
    check();
    // A lost manifest comes back with its language.
    std::fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let manifest = IndexManifest::new(4, None, Chunking::default());
    drop(IndexWriter::open_or_create(dir.path(), &manifest).unwrap());
    check();
    let other = manifest.with_language(language("fr"));
    let error = IndexWriter::open_or_create(dir.path(), &other).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error:?}");
    assert_holds(&error.to_string(), &["the language de, not the language fr"]);
}

fn manifest(place: &Workplace, index: &str) -> Value {
    place.run(&["info", index, "--json"]).ok().json()["manifest"].clone()
}

#[test]
fn commands_take_store_show_and_keep_a_language() {
    let place = Workplace::new();
    let line = |id: &str, text: &str| format!("{}\n", json!({"_id": id, "text": text}));
    place.file("a.jsonl", line("a", "Die Häuser am Fluss") + &line("b", "Der Garten"));
    place.call("index a.jsonl --into idx --language de").ok();
    let stored = manifest(&place, "idx");
    assert_eq!((&stored["language"], &stored["format_version"]), (&json!("de"), &json!(3)));
    assert_holds(&place.call("info idx").ok().stdout, &["language   de"]);
    // Without the option the index keeps its own.
    place.file("b.jsonl", line("c", "Ein Haus"));
    place.call("index b.jsonl --into idx").ok();
    place.call("index b.jsonl --into idx --language de").ok();
    let index = Index::open(&place.path("idx")).unwrap();
    assert_eq!(found(&index, "hauses"), [0, 2]);
    drop(index);
    let search = place.call("search idx häusern --hybrid -k 2 --json").ok().json();
    assert_eq!(search["hits"].as_array().unwrap().len(), 2);
    place.call("verify idx").ok();
    let other = "made with the language de, not the language";
    place.refuses(&[
        ("index b.jsonl --into idx --language fr", 2, &[other, "fr"]),
        ("index b.jsonl --into idx --language none", 2, &[other, "none"]),
        ("index b.jsonl --into new --language xx", 2, &["unknown language 'xx'", "none, ar"]),
    ]);
    assert!(!place.path("new").exists());
    // An export is of texts and vectors, and an import chooses again.
    place.call("export idx --vectors v.npy --documents d.jsonl").ok();
    assert_eq!(place.lines("d.jsonl")[0]["text"], "Die Häuser am Fluss");
    for (more, code, rows) in [("--language de", "de", &[0, 2][..]), ("", "none", &[])] {
        let into = format!("copy-{code}");
        let import = format!("import v.npy --into {into} --documents d.jsonl {more}");
        place.call(&import).ok();
        assert_eq!(manifest(&place, &into)["language"], code);
        assert_eq!(found(&Index::open(&place.path(&into)).unwrap(), "hauses"), rows);
        place.run(&["verify", &into]).ok();
    }
}

#[test]
fn index_of_a_language_that_is_not_known_is_refused_by_name() {
    let place = Workplace::new();
    place.file("a.jsonl", "{\"_id\": \"a\", \"text\": \"river\"}\n");
    place.call("index a.jsonl --into idx --language zh").ok();
    let path = place.path("idx/manifest.json");
    let manifest = std::fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"zh\"", "\"tlh\"", "unknown language 'tlh'"),
        ("\"format_version\": 3", "\"format_version\": 4", "format version 4"),
    ] {
        std::fs::write(&path, manifest.replace(from, to)).unwrap();
        for command in ["search idx river", "info idx", "index a.jsonl --into idx", "verify idx"] {
            place.call(command).fails(5, &["manifest.json", part, "update warpseek"]);
        }
    }
    std::fs::write(&path, &manifest).unwrap();
    place.call("verify idx").ok();
}
