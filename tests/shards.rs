//! An index in shards answers as the whole index does, bit for bit, and damage is named.

use crate::support::cli::{Workplace, records, small_reranker};
use serde_json::Value;
use std::fmt::Write;
use warpseek::error::{Error, Place};
use warpseek::ingest::Document;
use warpseek::ingest::chunk::{Chunk, Chunking};
use warpseek::store::{IndexManifest, IndexWriter, begin_shard};

/// Documents whose scores tie across any cut, with chunks, and with fields that only some have.
fn corpus() -> String {
    let mut lines = records(60);
    for (i, kind) in (0..40).zip([3, 1, 4, 1, 5].into_iter().cycle()) {
        let text = format!("storm bread {} paper", "lamp ".repeat(kind));
        let fields =
            if i < 20 { ", \"early\": 7, \"when\": \"2020-01-02\"" } else { ", \"late\": true" };
        writeln!(lines, "{{\"_id\": \"t{i}\", \"text\": \"{text}\"{fields}}}").unwrap();
    }
    for i in 0..6 {
        let text = format!("{} window garden {i}. ", "river clock train. ".repeat(20 + 9 * i));
        writeln!(lines, "{{\"_id\": \"long{i}\", \"text\": \"{text}\", \"year\": 1999}}").unwrap();
    }
    lines
}

fn indexed() -> Workplace {
    let place = Workplace::new();
    place.file("corpus.jsonl", corpus());
    place.call("index corpus.jsonl --into idx --chunk --chunk-tokens 24 --chunk-overlap 4").ok();
    place
}

/// The output without times.
fn timeless(mut value: Value) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let is_time = |name: &str| {
                    ["took_ms", "latency_ms", "seconds", "queries_per_second"].contains(&name)
                };
                fields.retain(|name, _| !is_time(name));
                fields.values_mut().for_each(clean);
            }
            Value::Array(values) => values.iter_mut().for_each(clean),
            _ => {}
        }
    }
    clean(&mut value);
    value
}

#[test]
fn every_command_answers_from_shards_as_from_the_whole_index() {
    let place = indexed();
    let rows = place.call("info idx --json").ok().json()["stats"]["rows"].as_u64().unwrap();
    assert!(rows > 130, "{rows}");
    let reranker = small_reranker();
    let queries: String = (0..30)
        .map(|i| {
            let filter =
                ["", ", \"filter\": \"early = 7\"", ", \"filter\": \"year < 2005\""][i % 3];
            let words = ["storm bread", "river clock", "paper", "lamp lamp window"][i % 4];
            format!("{{\"_id\": \"q{i}\", \"text\": \"{words} {i}\"{filter}}}\n")
        })
        .collect();
    place.file("queries.jsonl", queries);
    let judged: String = (0..30).map(|i| format!("q{i} 0 d{i} 1\nq{i} 0 t{i} 1\n")).collect();
    place.file("qrels.txt", judged);
    let outputs = |index: &str| -> Vec<Value> {
        let searches = [
            format!("search {index} 'storm bread' -k 100 --no-rerank"),
            format!("search {index} 'river clock' -k 7 --reranker '{reranker}'"),
            format!("search {index} 'lamp paper' -k 12 --max-per-doc 1 --no-rerank"),
            format!("search {index} 'garden' -k 9 --mmr --no-rerank"),
            format!("search {index} 'bread' --filter 'early = 7 OR year > 2010' --no-rerank"),
            format!("search {index} bread --filter 'when IS NOT NULL OR late' -k 50 --no-rerank"),
            format!("search {index} 'bread' --min-score 0.5 -k 200 --no-rerank"),
            format!("compare {index} 'storm bread' --reranker '{reranker}'"),
            format!("eval {index} --queries queries.jsonl --qrels qrels.txt --no-rerank"),
        ];
        let mut found: Vec<Value> = searches
            .iter()
            .map(|line| timeless(place.call(&format!("{line} --json")).ok().json()))
            .collect();
        for (format, more) in [("jsonl", "--with-text"), ("trec", "")] {
            let out = format!("out.{format}");
            let line = format!("batch {index} queries.jsonl --out {out} -k 25 {more} --json");
            found.push(timeless(place.call(&line).ok().json()));
            found.push(std::fs::read_to_string(place.path(&out)).unwrap().into());
        }
        place.call(&format!("export {index} --vectors v.npy --documents d.jsonl")).ok();
        found.push(std::fs::read_to_string(place.path("d.jsonl")).unwrap().into());
        found.push(std::fs::read(place.path("v.npy")).unwrap().into());
        found
    };
    let expected = outputs("idx");
    for (per_shard, least) in [(1, 90), (17, 8), (50, 3), (1000, 1)] {
        let line = format!("shard idx --rows {per_shard} --into s{per_shard} --json");
        let made = place.call(&line).ok().json();
        assert_eq!(made["rows"], rows);
        assert!(made["shards"].as_u64().unwrap() >= least, "{made}");
        let index = format!("s{per_shard}");
        for (i, (found, expected)) in outputs(&index).iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "output {i} with {per_shard} rows per shard");
        }
        place.call(&format!("verify {index} --sample 60")).ok();
    }
    // The list itself names the index too, and shards can be cut again.
    let [a, b] = ["s17/shards.json", "idx"].map(|index| {
        timeless(place.call(&format!("search {index} river --json --no-rerank")).ok().json())
    });
    assert_eq!(a, b);
    place.call("shard s17 --rows 40 --into s40").ok();
    assert_eq!(&outputs("s40"), &expected);
    let info = place.call("info s40 --json").ok().json();
    assert_eq!(info["stats"]["rows"], rows);
    let shards = info["shards"].as_array().unwrap();
    assert_eq!(shards[1]["first_row"], shards[0]["rows"]);
}

#[test]
fn deleted_rows_are_left_out_and_shards_are_replaced_as_a_whole() {
    let place = indexed();
    place.call("delete idx t3 d7 long2").ok();
    place.call("shard idx --rows 30 --into s").ok();
    let search = |index: &str| {
        let line = format!("search {index} 'storm bread' -k 60 --no-rerank --json");
        let found = place.call(&line).ok().json();
        let hits = found["hits"].as_array().unwrap().clone();
        let of = |hit: &Value| (hit["id"].clone(), hit["final_score"].clone(), hit["text"].clone());
        hits.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(search("s"), search("idx"));
    let names = || {
        let entries = std::fs::read_dir(place.path("s")).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".ws"));
        names.sort();
        names
    };
    assert!(names().iter().all(|name| name.len() == 8), "{:?}", names());
    // Remains of an interrupted run, and a folder that only looks like it.
    std::fs::create_dir(place.path("s/00099-1.ws")).unwrap();
    place.file("s/.shards.partial", "00099-1.ws\n../idx\n");
    place.file("s/00077-1.ws/notes.txt", "mine");
    place.file("s/notes.txt", "mine");
    place.call("delete idx t4").ok();
    let made = place.call("shard idx --rows 1000 --into s --json").ok().json();
    assert_eq!(made["generation"], 1);
    assert_eq!(names(), ["00000-1.ws", "00077-1.ws"]);
    assert_eq!(search("s"), search("idx"));
    assert!(place.path("s/notes.txt").exists());
    std::fs::remove_dir_all(place.path("s/00077-1.ws")).unwrap();
    // A folder of the name that the next shard would have is not overwritten.
    place.file("s/00000-2.ws/notes.txt", "mine");
    place.call("shard idx --rows 20 --into s").fails(2, &["00000-2.ws is there already"]);
    std::fs::remove_dir_all(place.path("s/00000-2.ws")).unwrap();
    // A run that fails leaves the shards as they were, and no folder of its own.
    let mut bytes = std::fs::read(place.path("idx/vectors-0.f16")).unwrap();
    let end = bytes.len() - 3;
    bytes[end] ^= 1;
    std::fs::write(place.path("idx/vectors-0.f16"), bytes).unwrap();
    place.refuses(&[
        ("shard idx --rows 20 --into s", 5, &["vectors-0.f16: row", "is damaged"]),
        ("shard idx --rows 20 --into fresh/s", 5, &["is damaged"]),
    ]);
    assert_eq!(names(), ["00000-1.ws"]);
    assert!(!place.path("fresh").exists());
}

#[test]
fn impossible_requests_are_refused_by_name() {
    let place = indexed();
    place.call("shard idx --rows 60 --into s").ok();
    let changes = "holds the shards of an index, which do not change";
    place.refuses(&[
        ("search s river --hybrid", 2, &["shards has no BM25", "hybrid"]),
        ("shard idx --rows 0 --into t", 2, &["--rows"]),
        ("shard idx --rows 5 --into idx", 2, &["is the folder of an index"]),
        ("shard none --rows 5 --into t", 8, &["none"]),
        ("delete s t3", 2, &[changes, "warpseek shard"]),
        ("compact s", 2, &[changes]),
        ("sync s", 2, &[changes]),
        ("delete s/00001.ws t3", 2, &["is a shard, which does not change"]),
        ("index corpus.jsonl --into s/00001.ws", 2, &["is a shard, which does not change"]),
        ("compact s/00001.ws", 2, &["is a shard, which does not change"]),
        ("index corpus.jsonl --into s", 2, &[changes]),
        ("search s", 2, &["is an index folder, and the query is missing"]),
        ("search t/shards.json river", 8, &["t: no index here", "shards.json is missing"]),
    ]);
    assert!(!place.path("t").exists());
}

#[test]
fn missing_changed_and_foreign_shards_are_named() {
    let place = indexed();
    place.call("shard idx --rows 60 --into s").ok();
    place.file("other.jsonl", records(80));
    place.call("index other.jsonl --into o").ok();
    let list = std::fs::read_to_string(place.path("s/shards.json")).unwrap();
    let is_refused = |code: i32, parts: &[&str]| {
        place.call("search s river --no-rerank").fails(code, parts);
        let verified = place.call("verify s").fails(5.min(code), &[]);
        drop(verified);
    };
    let restore = || place.file("s/shards.json", &list);
    // A digit of the list.
    place.file("s/shards.json", list.replacen("\"rows\": ", "\"rows\": 1", 1));
    is_refused(5, &["shards.json: the list is damaged (its checksum differs)"]);
    place.file("s/shards.json", &list[..list.len() / 2]);
    is_refused(5, &["shards.json: the list is damaged"]);
    place.file("s/shards.json", list.replacen("\"format_version\": 1", "\"format_version\": 9", 1));
    is_refused(5, &["version 9", "update warpseek"]);
    restore();
    // One with the same vectors and other ids.
    place.file("renamed.jsonl", corpus().replace("\"t3", "\"u3"));
    let line = "index renamed.jsonl --into r --chunk --chunk-tokens 24 --chunk-overlap 4";
    place.call(line).ok();
    place.call("shard r --rows 60 --into sr").ok();
    for number in 0..2 {
        let name = format!("0000{number}.ws");
        let ids = |folder: &str| {
            place.call(&format!("export {folder}/{name} --documents d.jsonl")).ok();
            std::fs::read_to_string(place.path("d.jsonl")).unwrap()
        };
        if ids("s") == ids("sr") {
            continue;
        }
        std::fs::rename(place.path(&format!("s/{name}")), place.path("kept")).unwrap();
        std::fs::rename(place.path(&format!("sr/{name}")), place.path(&format!("s/{name}")))
            .unwrap();
        is_refused(5, &[&name, "its rows or documents are others"]);
        std::fs::rename(place.path(&format!("s/{name}")), place.path("sr/back")).unwrap();
        std::fs::rename(place.path("kept"), place.path(&format!("s/{name}"))).unwrap();
    }
    place.call("search s river --no-rerank").ok();
    // Its documents changed by another program.
    let conn = crate::support::database(&place.path("s/00000.ws"));
    conn.execute("UPDATE state SET value = value + 1 WHERE name = 'content'", []).unwrap();
    drop(conn);
    is_refused(5, &["00000.ws: this is not the shard that shards.json lists"]);
    place.call("verify s/00000.ws").fails(5, &[]);
    // One of another index.
    std::fs::rename(place.path("s/00000.ws"), place.path("away")).unwrap();
    std::fs::rename(place.path("o"), place.path("s/00000.ws")).unwrap();
    is_refused(5, &["00000.ws: this is not the shard that shards.json lists: it has 80 rows"]);
    std::fs::rename(place.path("s/00000.ws"), place.path("o")).unwrap();
    place.call("search s river --no-rerank").fails(8, &["00000.ws", "this shard is missing"]);
    let report = place.call("verify s --json");
    assert_eq!(report.code, 5);
    let problems: Vec<String> = report.json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|check| check["problem"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_shard_of_another_run_is_not_taken_for_an_own_one() {
    let place = Workplace::new();
    let path = place.path("s/00000.ws");
    let settings = |dim| IndexManifest::new(dim, None, Chunking::default());
    let write = |id: &str| {
        let mut writer = IndexWriter::open_or_create(&path, &settings(4)).unwrap();
        let document = Document::new(id, "text", Place::file("x"));
        let chunk = Chunk { range: 0..4, tokens: 1, tokens_lost: 0 };
        writer.put(document, vec![chunk], &[0.5; 4]).unwrap();
        writer.commit().unwrap();
        drop(writer);
    };
    let has = |id: &str| {
        let writer = IndexWriter::open_or_create(&path, &settings(4)).unwrap();
        writer.find(id).unwrap().is_some()
    };
    begin_shard(&path, "one", &settings(4)).unwrap();
    write("a");
    // The same run goes on; another one begins anew, and so does one of other settings.
    begin_shard(&path, "one", &settings(4)).unwrap();
    assert!(has("a"));
    begin_shard(&path, "two", &settings(4)).unwrap();
    assert!(!has("a"));
    write("b");
    begin_shard(&path, "two", &settings(5)).unwrap();
    begin_shard(&path, "two", &settings(4)).unwrap();
    assert!(!has("b"));
    // One that is written to is left alone, and so is what no run has made.
    let writer = IndexWriter::open_or_create(&path, &settings(4)).unwrap();
    assert!(matches!(begin_shard(&path, "three", &settings(4)), Err(Error::Locked { .. })));
    drop(writer);
    place.file("s/00001.ws/notes.txt", "mine");
    let refused = begin_shard(&place.path("s/00001.ws"), "two", &settings(4));
    assert!(refused.unwrap_err().to_string().contains("is there already"));
    // `shard` leaves an unfinished run alone.
    place.file("t/.shards.plan", "{}");
    place.file("t/.shards.partial", "00000.ws\n");
    place.file("t/00000.ws/notes.txt", "mine");
    let index = indexed();
    let into = place.path("t").display().to_string();
    index.call(&format!("shard idx --rows 20 --into {into}")).fails(2, &["has not finished"]);
    assert!(place.path("t/00000.ws/notes.txt").exists());
}
