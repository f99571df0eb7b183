//! Queries, numbers and filters that cannot be answered, or look as if they could not.

use crate::support::cli::{indexed, small_reranker};

#[test]
fn search_with_a_number_out_of_range_is_refused() {
    let place = indexed(12);
    let reranker = small_reranker();
    let weight = format!("search idx river --retriever-weight 1.5 --reranker '{reranker}'");
    place.refuses(&[
        (&weight, 2, &["weight", "1.5", "0..1"]),
        ("search idx river -k 0", 2, &["k must be at least 1"]),
        ("search idx river -k -1", 2, &["-1"]),
        ("search idx river -k 1.5", 2, &["1.5", "-k"]),
        ("search idx river -k 99999999999999999999", 2, &["99999999999999999999", "-k"]),
        ("search idx river --rerank-depth=-1", 2, &["-1", "--rerank-depth"]),
        ("search idx river --rerank-depth 3 --no-rerank", 2, &["--rerank-depth", "--no-rerank"]),
        ("search idx river --retriever-weight 0.5 --no-rerank", 2, &["--retriever-weight"]),
        ("search idx river --mmr-lambda 2", 2, &["MMR lambda is 2", "0..1"]),
        ("search idx river --mmr-lambda=-1", 2, &["MMR lambda is -1", "0..1"]),
        ("search idx river --mmr-lambda nan", 2, &["MMR lambda", "0..1"]),
        ("search idx river --mmr-lambda much", 2, &["much", "--mmr-lambda"]),
        ("search idx river --json --jsonl", 2, &["--json", "--jsonl"]),
        ("compare idx river --show 0", 2, &["'0'", "--show"]),
        ("batch idx corpus.jsonl --out out.jsonl -k 0", 2, &["at least 1"]),
        ("eval idx --queries q --qrels q --depth 0", 2, &["'0'", "--depth"]),
    ]);
    place.is_sound(12);
}

#[test]
fn search_for_more_hits_than_there_are_rows_returns_them_all() {
    let place = indexed(12);
    let most = usize::MAX.to_string();
    let reranker = small_reranker();
    for more in [
        format!("-k {most}"),
        format!("-k {most} --mmr-lambda 0.3"),
        format!("-k {most} --hybrid"),
        "-k 4000000000 --hybrid".to_owned(),
        format!("-k 12 --reranker '{reranker}' --rerank-depth {most}"),
        format!("-k {most} --hybrid --mmr --reranker '{reranker}' --rerank-depth {most}"),
    ] {
        let run = place.call(&format!("search idx river --json {more}")).unbroken();
        assert_eq!(run.ok().json()["hits"].as_array().unwrap().len(), 12, "{more}");
    }
}

#[test]
fn search_for_nothing_is_refused() {
    let place = indexed(12);
    for query in ["", "   ", "\t\n"] {
        place.run(&["search", "idx", query]).fails(2, &["the query is empty: write what"]);
        place.run(&["compare", "idx", query]).fails(2, &["the query is empty"]);
        place.pipe(&["search", "idx", "-"], query).fails(2, &["the query is empty"]);
    }
    place.pipe(&["search", "idx", "-"], b"caf\xe9").fails(7, &["<stdin>", "UTF-8"]);
}

#[test]
fn search_for_a_megabyte_answers_and_says_what_was_left_out() {
    let place = indexed(12);
    let query = "river lamp ".repeat(95_000);
    let run = place.pipe(&["search", "idx", "-", "-k", "3", "--hybrid", "--json"], query).ok();
    assert!(run.stderr.contains("warning: the query has ") && run.stderr.contains("were left out"));
    let result = run.json();
    assert_eq!(result["hits"].as_array().unwrap().len(), 3);
    assert!(result["warnings"][0].as_str().unwrap().contains("the embedder takes 128"), "{result}");
}

#[test]
fn search_for_signs_without_words_still_answers() {
    let place = indexed(12);
    let signs = [
        "!!! ... ???",
        "\u{1f980}\u{1f525}",
        "\u{1}\u{2}\u{1b}[31m",
        "\"",
        "'; DROP TABLE document; --",
        "NEAR( * ^",
        "AND OR NOT",
        "-x",
        "\u{202e}\u{200b}",
    ];
    for query in signs {
        let run = place.run(&["search", "idx", "--hybrid", "--json", "--", query]).unbroken();
        assert_eq!(run.ok().json()["hits"].as_array().unwrap().len(), 10, "{query:?}");
        let text = place.run(&["compare", "idx", "--", query]).ok().stdout;
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
    let run = place.pipe(&["search", "idx", "-", "--hybrid", "--json"], "a\0b").ok();
    assert_eq!(run.json()["hits"].as_array().unwrap().len(), 10);
    place.is_sound(12);
}

#[test]
fn filter_that_cannot_hold_is_refused_with_the_cure() {
    let place = indexed(12);
    let long = format!("topic = '{}'", "x".repeat(40_000));
    let many = format!("{}year = 1", "year = 1 OR ".repeat(400));
    let cases: &[(&str, &[&str])] = &[
        ("", &["it is empty", "leave the filter out"]),
        ("  ", &["it is empty", "leave the filter out"]),
        ("yaer > 2000", &["no field is called 'yaer'", "did you mean year"]),
        ("colour = 1", &["no field is called 'colour'", "id, doc_id, title, tags, topic, year"]),
        ("year >", &["filter `year >`", "Expected"]),
        ("year = 2001)", &["Column: 12"]),
        ("topic = 'a' topic = 'b'", &["Column: 13"]),
        ("year = 'last'", &["field 'year' holds numbers", "'last' is none"]),
        ("topic = 1", &["field 'topic'", "never a number", "in single quotes"]),
        ("topic = \"a\"", &["compares two fields", "single quotes"]),
        ("topic = a", &["compares two fields", "single quotes"]),
        ("topic LIKE 5", &["pattern of LIKE", "single quotes"]),
        ("id = 5", &["field 'id' holds text", "single quotes"]),
        ("tags = 'all'", &["field 'tags'", "tags CONTAINS"]),
        ("'a' IN topic", &["field 'topic' holds text", "use ="]),
        ("year", &["field 'year'", "never a boolean"]),
        ("year BETWEEN 1 AND 'x'", &["BETWEEN", "differ in type"]),
        ("year IN (1, 'a')", &["IN list", "differ in type"]),
        ("year = NULL", &["IS NULL"]),
        (&long, &["40010 bytes", "32768"]),
        (&many, &["more than 400 comparisons", "IN (...)"]),
    ];
    for (filter, parts) in cases {
        let run = place.run(&["search", "idx", "river", "--filter", filter]);
        run.fails(2, &[&["filter `"][..], parts].concat());
    }
}

#[test]
fn filter_that_tries_to_be_sql_is_refused_or_harmless() {
    let place = indexed(12);
    let refusals = [
        "topic = 'a'; DROP TABLE document",
        "topic = 'zz'; DELETE FROM document; --",
        "1 = 1 OR '' = ''",
        "id = 'x' OR 1 = 1",
        "TRUE",
        "id = 'x' UNION SELECT * FROM document",
        "year = (SELECT 1)",
        "EXISTS (SELECT 1 FROM document)",
        "topic IN (SELECT id FROM document)",
        "load_extension('x')",
        "readfile('x') = 'x'",
        "year = ?1",
        "year = $1",
        "rowid > 0",
        "d.dead = 0",
        "document.text = 'x'",
        "lower(topic) = 'a'",
        "CASE WHEN 1 THEN 1 END",
        "CAST(year AS int) > 0",
        "year + 1 > 0",
        "topic || 'x' = 'ax'",
        "tags[0] = 'all'",
        "topic COLLATE NOCASE = 'A'",
        "topic LIKE '%' ESCAPE 'ab'",
        "topic = 'unclosed",
        "((((year = 1",
    ];
    for filter in refusals {
        place.run(&["search", "idx", "river", "--filter", filter]).fails(2, &["filter"]);
        place.run(&["delete", "idx", "--filter", filter]).fails(2, &["filter"]);
    }
    let harmless = [
        "id = '''; DROP TABLE document; --'",
        "topic = '\" OR 1=1 --'",
        "topic LIKE '%''%'",
        "topic IN ('a'') OR (1=1', 'json_each')",
    ];
    for filter in harmless {
        let run = place.run(&["search", "idx", "river", "--json", "--filter", filter]).unbroken();
        assert_eq!((run.code, &run.json()["matched_rows"]), (1, &0.into()), "{filter}");
        place.run(&["delete", "idx", "--filter", filter]).ok();
    }
    place.is_sound(12);
}

#[test]
fn filter_of_thousands_of_links_is_refused_in_a_short_message() {
    let place = indexed(12);
    let cases = [
        "(".repeat(16_000) + "year = 1" + &")".repeat(16_000),
        "NOT ".repeat(8000) + "year = 1",
        format!("year = {}1", "- ".repeat(15_000)),
        "year = ".repeat(4500) + "1",
        "year + ".repeat(4500) + "1",
        "year IN ".repeat(4000) + "year",
        "year CONTAINS ".repeat(2300) + "year",
        format!("year{}", " IS NULL".repeat(4000)),
        "year.".repeat(6000) + "year",
        "year::".repeat(5000) + "int",
    ];
    for filter in cases {
        let run = place.run(&["search", "idx", "river", "--quiet", "--filter", &filter]);
        let run = run.fails(2, &["filter"]);
        assert!(run.stderr.len() < 1000, "{} bytes: {}", run.stderr.len(), &filter[..30]);
    }
}

#[test]
fn command_where_no_index_is_says_what_is_there_instead() {
    let place = indexed(12);
    place.file("q.tsv", "q1\triver\n");
    place.file("qrels.txt", "q1 0 d1 1\n");
    place.file("others/photo.jpg", [0xff, 0xd8]);
    std::fs::create_dir(place.path("empty")).unwrap();
    let commands = [
        "search DIR river",
        "compare DIR river",
        "batch DIR q.tsv --out out.jsonl",
        "eval DIR --queries q.tsv --qrels qrels.txt",
        "info DIR",
        "verify DIR",
        "compact DIR",
        "delete DIR d1",
        "export DIR --documents out.jsonl",
    ];
    let folders = [
        ("missing", "the folder does not exist"),
        ("corpus.jsonl", "this is a file"),
        ("empty", "manifest.json is missing"),
        ("others", "manifest.json is missing"),
        (".", "manifest.json is missing"),
    ];
    for (folder, found) in folders {
        for command in commands {
            let named = format!("{folder}: no index here");
            place.refuses(&[(&command.replace("DIR", folder), 8, &[&named, found])]);
        }
    }
    assert!(!place.path("missing").exists() && !place.path("out.jsonl").exists());
    assert_eq!(std::fs::read_dir(place.path("empty")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(place.path("others")).unwrap().count(), 1);
    place.is_sound(12);
}
