//! Metadata filters against a plain evaluation of the same condition, with SQL's three-valued
//! logic.

mod duckdb;
mod values;

use crate::support::cli::Workplace;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use warpseek::error::Place;
use warpseek::ingest::chunk::{Chunk, Chunking};
use warpseek::ingest::from_object;
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter};

/// A condition that can be written as a filter and evaluated on a record.
#[derive(Debug, Clone)]
enum Condition {
    Compare(&'static str, &'static str, Value),
    In(&'static str, Vec<Value>),
    Contains(Value),
    IsNull(&'static str),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

impl Condition {
    fn text(&self) -> String {
        match self {
            Self::Compare(field, op, value) => format!("{field} {op} {}", literal(value)),
            Self::In(field, values) => {
                let list: Vec<String> = values.iter().map(literal).collect();
                format!("{field} IN ({})", list.join(", "))
            }
            Self::Contains(value) => format!("{} IN tags", literal(value)),
            Self::IsNull(field) => format!("{field} IS NULL"),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(all) => join(all, " AND "),
            Self::Or(all) => join(all, " OR "),
        }
    }

    /// True, false, or unknown (`None`).
    fn holds(&self, record: &Map<String, Value>) -> Option<bool> {
        match self {
            Self::Compare(field, op, value) => {
                let Some(order) = compare(lookup(record, field)?, value) else {
                    // Values of two types are unequal, and have no order.
                    return matches!(*op, "=" | "<>").then_some(*op == "<>");
                };
                let holds = [("<", order.is_lt()), (">", order.is_gt()), ("=", order.is_eq())];
                Some(holds.iter().any(|(sign, holds)| op.contains(sign) && *holds))
            }
            Self::In(field, values) => {
                let here = lookup(record, field)?;
                Some(values.iter().any(|v| compare(here, v).is_some_and(|o| o.is_eq())))
            }
            Self::Contains(value) => Some(record.get("tags")?.as_array()?.contains(value)),
            Self::IsNull(field) => Some(lookup(record, field).is_none()),
            Self::Not(inner) => inner.holds(record).map(|b| !b),
            // False, unknown, true: AND is the least of them, OR the greatest.
            Self::And(all) => TRUTH[all.iter().map(|c| c.rank(record)).min()?],
            Self::Or(all) => TRUTH[all.iter().map(|c| c.rank(record)).max()?],
        }
    }

    /// Position of the result in `TRUTH`.
    fn rank(&self, record: &Map<String, Value>) -> usize {
        self.holds(record).map_or(1, |holds| 2 * usize::from(holds))
    }
}

const TRUTH: [Option<bool>; 3] = [Some(false), None, Some(true)];

fn join(all: &[Condition], word: &str) -> String {
    let parts: Vec<String> = all.iter().map(|c| format!("({})", c.text())).collect();
    parts.join(word)
}

fn lookup<'a>(record: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    let mut parts = field.split('.');
    let mut value = record.get(parts.next()?.trim_matches('"'))?;
    for part in parts {
        value = value.get(part)?;
    }
    (!value.is_null()).then_some(value)
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Records in which every field is of one type, mixed, null or missing.
fn records() -> Vec<Map<String, Value>> {
    let texts = ["cs.CL", "it's", "", "Zürich", "a\"b", "%_"];
    (0..60)
        .map(|i: usize| {
            let mixed = [json!(3), json!("3"), json!(true), json!(2.5), json!(["3"]), Value::Null];
            let mut record = json!({
                "year": if i % 7 == 0 { Value::Null } else { json!(2000 + i % 9) },
                "score": i as f64 / 8.0 - 2.0,
                "mixed": mixed[i % 6],
                "open-access": i % 3 == 0,
                "venue": { "name": texts[(i + 1) % 6], "rank": i % 4 },
            });
            if i % 5 != 0 {
                record["topic"] = json!(texts[i % 6]);
            }
            if i % 4 != 0 {
                record["tags"] = json!([texts[i % 6], i % 5, i % 2 == 0]);
            }
            record.as_object().unwrap().clone()
        })
        .collect()
}

struct Fixture {
    _dir: tempfile::TempDir,
    index: Index,
    records: Vec<Map<String, Value>>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: std::sync::OnceLock<Fixture> = std::sync::OnceLock::new();
    FIXTURE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("idx");
        let manifest = IndexManifest::new(4, None, Chunking::default());
        let mut writer = IndexWriter::open_or_create(&path, &manifest).unwrap();
        let records = records();
        for (i, metadata) in records.iter().enumerate() {
            let mut record = metadata.clone();
            record.insert("_id".into(), json!(format!("r{i}")));
            record.insert("text".into(), json!("x"));
            let document = from_object(record, Place::default()).unwrap();
            let chunk = Chunk { range: 0..1, tokens: 1, tokens_lost: 0 };
            writer.put(document, vec![chunk], &[0.5; 4]).unwrap();
        }
        writer.commit().unwrap();
        drop(writer);
        Fixture { index: Index::open(&path).unwrap(), _dir: dir, records }
    })
}

fn rows(filter: &str) -> Result<BTreeSet<u32>, String> {
    let index = &fixture().index;
    let filter = Filter::parse(filter).map_err(|e| e.to_string())?;
    let mask = index.rows_where(&filter).map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    mask.mask.collect_range(0..index.n_rows(), &mut rows);
    Ok(rows.into_iter().collect())
}

fn any_literal(field: &'static str) -> BoxedStrategy<Value> {
    let text = prop::sample::select(vec!["cs.CL", "it's", "", "Zürich", "a\"b", "3", "zz"]);
    let text = text.prop_map(|t| json!(t)).boxed();
    let number =
        prop_oneof![(1995i64..2012).prop_map(|n| json!(n)), (-3f64..6.0).prop_map(|n| json!(n))];
    let flag = any::<bool>().prop_map(|b| json!(b)).boxed();
    match field {
        "topic" | "venue.name" => text,
        "year" | "score" | "venue.rank" => number.boxed(),
        "open-access" => flag,
        _ => prop_oneof![text, number, (0i64..5).prop_map(|n| json!(n)), flag].boxed(),
    }
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let fields = vec!["topic", "year", "score", "mixed", "open-access", "venue.name", "venue.rank"];
    let field = prop::sample::select(fields);
    let op = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let compare = (field.clone(), op).prop_flat_map(|(field, op)| {
        any_literal(field).prop_map(move |v| Condition::Compare(field, op, v))
    });
    let list = field.clone().prop_flat_map(|field| {
        let same_type = |values: &Vec<Value>| {
            let first = std::mem::discriminant(&values[0]);
            values.iter().all(|v| std::mem::discriminant(v) == first)
        };
        prop::collection::vec(any_literal(field), 1..5)
            .prop_filter("values of one type", same_type)
            .prop_map(move |v| Condition::In(field, v))
    });
    let contains = prop_oneof![
        any_literal("topic").prop_map(Condition::Contains),
        (0i64..5).prop_map(|n| Condition::Contains(json!(n))),
        any::<bool>().prop_map(|b| Condition::Contains(json!(b))),
    ];
    let null = prop::sample::select(vec!["topic", "year", "mixed", "tags", "venue"])
        .prop_map(Condition::IsNull);
    let leaf = prop_oneof![4 => compare, 2 => list, 1 => contains, 1 => null];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|c| Condition::Not(Box::new(c))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::And),
            prop::collection::vec(inner, 2..4).prop_map(Condition::Or),
        ]
    })
}

fn any_token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(TOKENS.split(' ').collect::<Vec<_>>())
}

const TOKENS: &str = "topic year tags 'x' 3 - ( ) AND OR NOT IN IS NULL LIKE BETWEEN CONTAINS = < \
    , TRUE id \" ; -- SELECT * FROM document UNION ESCAPE ANY json_extract /*";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn filter_passes_exactly_the_rows_whose_condition_is_true(condition in any_condition()) {
        let records = &fixture().records;
        let expected: BTreeSet<u32> = (0..records.len() as u32)
            .filter(|&i| condition.holds(&records[i as usize]) == Some(true))
            .collect();
        let text = condition.text();
        prop_assert_eq!(rows(&text), Ok(expected), "{}", text);
    }

    #[test]
    fn filter_of_any_text_is_an_error_or_a_set_of_rows(text in "\\PC{0,60}") {
        let _ = rows(&text);
    }

    #[test]
    fn filter_of_any_tokens_is_an_error_or_a_set_of_rows(
        tokens in prop::collection::vec(any_token(), 0..14),
    ) {
        let _ = rows(&tokens.join(" "));
    }
}

#[test]
fn filter_operators_beyond_the_generated_ones_follow_sql() {
    let count = |filter: &str| rows(filter).unwrap_or_else(|e| panic!("{e}")).len();
    let records = &fixture().records;
    let topics = |test: fn(&str) -> bool| {
        records.iter().filter(|r| r.get("topic").and_then(Value::as_str).is_some_and(test)).count()
    };
    assert_eq!(count("topic LIKE 'cs.%'"), topics(|t| t.starts_with("cs.")));
    assert_eq!(count("topic LIKE '!%!_' ESCAPE '!'"), topics(|t| t == "%_"));
    assert_eq!(count("topic NOT LIKE 'cs.%'"), topics(|t| !t.starts_with("cs.")));
    assert_eq!(
        count("year BETWEEN 2003 AND 2005") + count("year NOT BETWEEN 2003 AND 2005"),
        count("year IS NOT NULL")
    );
    assert_eq!(count("open-access"), 20);
    assert_eq!(count("NOT open-access AND \"open-access\" = FALSE"), 40);
    assert_eq!(count("open-access IS TRUE"), 20);
    assert_eq!(count("tags CONTAINS 'cs.CL'"), count("'cs.CL' IN tags"));
    assert_eq!(count("'cs.CL' NOT IN tags"), count("NOT tags CONTAINS 'cs.CL'"));
    assert_eq!(count("2005 < year"), count("year > 2005"));
    assert_eq!(count("score > -1.5"), count("NOT (score <= -1.5)"));
    assert_eq!(count("id IN ('r1', 'r2', 'nothing') OR doc_id = 'r3'"), 3);
    assert_eq!(count("metadata.year = 2003"), count("year = 2003"));
}

#[test]
fn filter_that_cannot_hold_is_refused_with_the_cure() {
    let reason = |filter: &str| rows(filter).unwrap_err();
    for (filter, parts) in [
        ("yaer = 3", &["no field is called 'yaer'", "did you mean year?"][..]),
        ("zzz = 3", &["the fields are id, doc_id, title"]),
        ("topic = \"cs.CL\"", &["compares two fields", "single quotes"]),
        ("topic > 3", &["field 'topic' holds text, never a number", "single quotes"]),
        ("year = 'x'", &["field 'year' holds numbers, and 'x' is none"]),
        ("tags = 'x'", &["holds array", "tags CONTAINS value"]),
        ("'x' IN topic", &["not arrays", "use = instead"]),
        ("year = NULL", &["IS NULL"]),
        ("year = topic", &["compares two fields"]),
        ("3 = 3", &["names no field"]),
        ("lower(topic) = 'x'", &["`lower(topic)` is not a field and not a value"]),
        ("year + 1 = 3", &["`year + 1` is not a field and not a value"]),
        ("topic IN (SELECT id FROM document)", &["not supported"]),
        ("EXISTS (SELECT 1)", &["not supported"]),
        ("year = 3; DROP TABLE document", &["Expected: EOF"]),
        ("year =", &["Expected"]),
        ("topic IN ('a', 3)", &["differ in type"]),
        ("", &["it is empty"]),
        ("topic LIKE 3", &["must be text"]),
        ("topic LIKE 'a' ESCAPE 'ab'", &["one character"]),
        ("title = 3", &["field 'title' holds text", "single quotes"]),
    ] {
        let got = reason(filter);
        for part in parts {
            assert!(got.contains(part), "{filter}: no '{part}' in: {got}");
        }
    }
    let long = format!("topic = '{}'", "x".repeat(40_000));
    assert!(reason(&long).contains("at most 32768"), "{}", reason(&long));
    let many = vec!["year = 1"; 500].join(" OR ");
    assert!(reason(&many).contains("IN (...)"));
    let deep = format!("{}year = 1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(reason(&deep).contains("nested too deeply"), "{}", reason(&deep));
    let list: Vec<String> = (0..3000).map(|i| i.to_string()).collect();
    assert_eq!(rows(&format!("year IN ({})", list.join(","))).unwrap().len(), 51);
}

/// A query of a batch, with a filter of its own, finds the same as alone.
#[test]
fn a_batch_of_many_filters_finds_what_single_searches_find() {
    let place = Workplace::new();
    let record = |i: usize| {
        let words = ["river", "lamp", "bread", "clock", "storm", "garden", "paper"];
        let text: Vec<&str> = (0..5 + i % 6).map(|j| words[(i * 5 + j * j) % 7]).collect();
        json!({
            "id": format!("p{}", i % 20), "chunk-id": i.to_string(), "chunk": text.join(" "),
            "year": 2000 + i % 25, "topic": (["a", "b", "c"][i % 3]), "tags": [words[i % 7]],
        })
    };
    let corpus: Vec<String> = (0..250).map(|i| record(i).to_string()).collect();
    place.file("corpus.jsonl", corpus.join("\n"));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    place.run(&["delete", "idx", "p3-3", "p17-77"]).ok();
    let filters = ["year >= 2015", "topic = 'a'", "", "year = 2003", "year = 1900", "topic = 'a'"];
    let filters = [&filters[..], &["'river' IN tags"]].concat();
    let text = |i: usize| format!("river {} storm", ["lamp", "bread", "clock"][i % 3]);
    let query = |(i, filter): (usize, &&str)| match filter.is_empty() {
        true => json!({ "_id": i.to_string(), "text": text(i) }),
        false => json!({ "_id": i.to_string(), "text": text(i), "filter": filter }),
    };
    let queries: Vec<String> = filters.iter().enumerate().map(|q| query(q).to_string()).collect();
    place.file("queries.jsonl", queries.join("\n"));
    for more in [&[][..], &["--hybrid"], &["--mmr"], &["--hybrid", "--max-per-doc", "1"]] {
        let args = ["batch", "idx", "queries.jsonl", "--out", "out.jsonl", "-k", "12"];
        let _ = std::fs::remove_file(place.path("out.jsonl"));
        place.run(&[&args[..], more].concat()).ok();
        let found = std::fs::read_to_string(place.path("out.jsonl")).unwrap();
        assert_eq!(found.lines().count(), filters.len());
        for (line, (i, filter)) in found.lines().zip(filters.iter().enumerate()) {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = text(i);
            let mut args = vec!["search", "idx", &text, "-k", "12", "--json"];
            if !filter.is_empty() {
                args.extend(["--filter", filter]);
            }
            args.extend(more);
            let run = place.run(&args);
            assert!(run.code <= 1, "{}", run.stderr);
            let alone = run.json();
            let hits = |found: &Value| found["hits"].as_array().unwrap().clone();
            assert_eq!(hits(&line).len(), hits(&alone).len(), "{filter} {more:?}");
            for (got, expected) in hits(&line).iter().zip(hits(&alone)) {
                assert_eq!(got["id"], expected["id"], "{filter} {more:?}");
                let score = |hit: &Value| hit["final_score"].as_f64().unwrap();
                assert!((score(got) - score(&expected)).abs() < 1e-5, "{got} {expected}");
            }
            assert_eq!(line["matched_rows"], alone["matched_rows"], "{filter}");
        }
    }
}

/// The types of a column reach every command, and its warnings every user.
#[test]
fn commands_tell_the_rows_that_a_filter_does_not_compare() {
    let place = Workplace::new();
    place.file("goods.csv", "id,text,price,zip\na,red mug,19.90,02139\nb,blue mug,5.00,94110\n");
    place.run(&["index", "goods.csv", "--into", "idx"]).ok();
    let search = |filter: &str| {
        let run = place.run(&["search", "idx", "mug", "--filter", filter, "--json"]).ok();
        let found = run.json();
        let hits = found["hits"].as_array().unwrap();
        let mut ids: Vec<&str> = hits.iter().map(|hit| hit["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        (ids.join(","), found["warnings"].clone(), hits[0]["metadata"].clone())
    };
    let (ids, warnings, _) = search("price < 20");
    assert_eq!((ids.as_str(), warnings), ("a,b", json!([])));
    let (ids, warnings, metadata) = search("zip > 5");
    let warning = "field 'zip': 1 row holds text and was not compared with a number";
    assert_eq!((ids.as_str(), warnings), ("b", json!([warning])));
    assert_eq!(metadata, json!({ "price": 5.0, "zip": "94110" }));
    let shown = place.run(&["search", "idx", "mug", "--filter", "zip > 5"]).ok();
    assert!(shown.stderr.contains(warning), "{}", shown.stderr);
    let info = place.run(&["info", "idx"]).ok();
    assert!(info.stdout.contains("text, compared as numbers"), "{}", info.stdout);
    let deleted = place.run(&["delete", "idx", "--filter", "zip > 5", "--json"]).ok().json();
    assert_eq!((&deleted["deleted"], &deleted["warnings"]), (&json!(1), &json!([warning])));
}
