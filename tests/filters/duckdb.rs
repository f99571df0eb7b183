//! Filters over random tables, against DuckDB: every comparison of every kind of value.
//!
//! The table comes once from jsonl and once from csv. DuckDB gets the same values with declared
//! types. Intended differences, which the generator either avoids or writes out for DuckDB:
//!
//! - a mixed field: DuckDB has no such column. A value of another type is unequal to a literal, and
//!   has no order with it; DuckDB gets that rule as a CASE over one column per type
//! - a time with an offset and one without: unequal pairs are unknown here, while DuckDB reads the
//!   one without in its time zone
//! - a text literal that is no number, truth value or time, in a field of such: an error in both
//! - the number of a text field, written without quotes: an error here, a cast in DuckDB
//! - a literal of more than 38 digits: exact here, a double in DuckDB
//! - NaN: unknown here, the largest float in DuckDB (no column holds it)

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use warpseek::error::Place;
use warpseek::ingest::chunk::{Chunk, Chunking};
use warpseek::ingest::{Document, ReadOptions, from_object};
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter};

const ROWS: usize = 240;
const CONDITIONS: usize = 20_000;

/// A column: its name, DuckDB's expression over the raw text, and its values as they are written.
struct Column {
    name: &'static str,
    sql: &'static str,
    values: Vec<&'static str>,
    /// Literals that are compared with it, in SQL of both.
    literals: Vec<&'static str>,
    /// False for a column that csv cannot hold.
    in_csv: bool,
    /// True if jsonl writes the values as strings.
    is_text: bool,
}

fn columns() -> Vec<Column> {
    let column = |name, sql, values: &[&'static str], literals: &[&'static str], is_text| Column {
        name,
        sql,
        values: values.to_vec(),
        literals: literals.to_vec(),
        in_csv: true,
        is_text,
    };
    vec![
        column(
            "small",
            "small::BIGINT",
            &["-3", "0", "7", "7", "12", "2020"],
            &["0", "7", "7.0", "6.5", "-3", "2020", "1e3", "'7'"],
            false,
        ),
        column(
            "big",
            "big::UBIGINT",
            &[
                "17843725896483928171",
                "17843725896483928170",
                "9223372036854775807",
                "9223372036854775808",
                "5",
            ],
            &["17843725896483928170", "9223372036854775807", "9223372036854775808", "5", "-1"],
            false,
        ),
        column(
            "price",
            "price::DECIMAL(38, 10)",
            &["19.90", "19.95", "5.00", "7.25", "120.00", "0.10", "-0.10"],
            &["20", "19.9", "19.95", "5", "0.1", "-0.1", "100.0", "'7.250'"],
            true,
        ),
        column(
            "wide",
            "wide::DECIMAL(38, 2)",
            &[
                "123456789012345678901234567890123456.78",
                "123456789012345678901234567890123456.79",
                "-123456789012345678901234567890123456.78",
                "0.01",
            ],
            &[
                "123456789012345678901234567890123456.78",
                "-123456789012345678901234567890123456.79",
                "0.01",
                "0",
            ],
            true,
        ),
        column(
            "p",
            "p::DOUBLE",
            &["1e-05", "0.5", "0.25", "3e+20", "-2.5e-10"],
            &["0.1", "0.00001", "0.25", "1e20", "-1e-10", "0"],
            true,
        ),
        column(
            "flag",
            "flag::BOOLEAN",
            &["True", "False", "true"],
            &["TRUE", "FALSE", "'true'"],
            true,
        ),
        column(
            "zip",
            "zip",
            &["02139", "94110", "10001", "00501", "7"],
            &["'02139'", "'94110'", "'1'", "'9'", "'10001'"],
            true,
        ),
        column(
            "word",
            "word",
            &["abc", "ABC", "Zürich", "zürich", "it''s", "100%", "a_b", "", "Éa"],
            &["'abc'", "'ABC'", "'Zürich'", "'it''s'", "'b'", "''", "'100%'"],
            true,
        ),
        column(
            "day",
            "day::DATE",
            &["2024-01-01", "2024-02-29", "1999-12-31", "2024-01-02"],
            &["'2024-01-01'", "DATE '2024-02-29'", "'2000-01-01'", "DATE '1999-12-31'"],
            true,
        ),
        column(
            "ts",
            "ts::TIMESTAMP",
            &[
                "2024-01-02 01:00:00",
                "2024-01-02T12:00:00",
                "2024-01-02T12:00:00.000000",
                "2024-01-02 20:00:00.5",
                "2024-01-03",
            ],
            &[
                "'2024-01-02 12:00:00'",
                "'2024-01-02T12:00:00'",
                "TIMESTAMP '2024-01-02 20:00:00.5'",
                "'2024-01-03'",
                "DATE '2024-01-02'",
                "'2024-01-02 20:00:00.500001'",
            ],
            true,
        ),
        column(
            "zoned",
            "zoned::TIMESTAMPTZ",
            &[
                "2024-05-01T11:30:00+02:00",
                "2024-05-01T09:30:00Z",
                "2024-05-01 09:30:00+00",
                "2024-04-30T23:59:59.999-05:30",
            ],
            &[
                "'2024-05-01T09:30:00Z'",
                "'2024-05-01 11:30:00+02:00'",
                "'2024-05-01T05:29:59.999Z'",
                "TIMESTAMPTZ '2024-05-01 00:00:00+00'",
            ],
            true,
        ),
    ]
}

/// A mixed column. DuckDB has its numbers, texts and truth values in columns of their own.
const MIXED: [&str; 8] = ["1", "1.0", "2.5", "true", "\"1\"", "\"abc\"", "false", "[1,2]"];

/// One table in both notations.
struct Table {
    columns: Vec<Column>,
    /// Positions in the values of each column; `None` for a missing value.
    cells: Vec<Vec<Option<usize>>>,
    mixed: Vec<Option<usize>>,
}

impl Table {
    fn random(runner: &mut TestRunner) -> Self {
        let columns = columns();
        let mut pick = |n: usize| -> Vec<Option<usize>> {
            let cell = prop::option::weighted(0.85, 0..n);
            prop::collection::vec(cell, ROWS).new_tree(runner).unwrap().current()
        };
        let cells = columns.iter().map(|column| pick(column.values.len())).collect();
        Self { cells, mixed: pick(MIXED.len()), columns }
    }

    fn cell(&self, column: usize, row: usize) -> Option<&'static str> {
        self.cells[column][row].map(|at| self.columns[column].values[at])
    }

    fn documents(&self) -> Vec<Document> {
        let document = |row: usize| {
            let mut record = Map::new();
            record.insert("id".into(), json!(format!("r{row}")));
            record.insert("text".into(), json!("x"));
            for (i, column) in self.columns.iter().enumerate() {
                let value = match self.cell(i, row) {
                    None if row % 2 == 0 => continue,
                    None => Value::Null,
                    Some(text) if column.is_text => json!(text.replace("''", "'")),
                    Some(text) => serde_json::from_str(text).unwrap(),
                };
                record.insert(column.name.into(), value);
            }
            if let Some(at) = self.mixed[row] {
                record.insert("mixed".into(), serde_json::from_str(MIXED[at]).unwrap());
            }
            from_object(record, Place::default()).unwrap()
        };
        (0..ROWS).map(document).collect()
    }

    /// The same table as csv, without what csv cannot hold.
    fn csv_documents(&self, dir: &std::path::Path) -> Vec<Document> {
        let used: Vec<usize> =
            (0..self.columns.len()).filter(|&i| self.columns[i].in_csv).collect();
        let names: Vec<&str> = used.iter().map(|&i| self.columns[i].name).collect();
        let mut csv = format!("id,text,{}\n", names.join(","));
        for row in 0..ROWS {
            let cells = used.iter().map(|&i| self.cell(i, row).unwrap_or_default());
            let cells: Vec<String> = cells.map(|c| c.replace("''", "'")).collect();
            csv += &format!("r{row},x,{}\n", cells.join(","));
        }
        let path = dir.join("table.csv");
        std::fs::write(&path, csv).unwrap();
        read(&path)
    }

    fn duckdb(&self, conditions: Vec<String>, in_csv: bool) -> Value {
        let mut columns: Vec<Value> = self.columns.iter().map(|c| json!([c.name, c.sql])).collect();
        columns.push(json!(["m_number", "m_number::DOUBLE"]));
        columns.push(json!(["m_text", "m_text"]));
        columns.push(json!(["m_truth", "m_truth::BOOLEAN"]));
        columns.push(json!(["m_type", "m_type"]));
        let row = |row: usize| {
            let cells = (0..self.columns.len()).map(|i| self.cell(i, row));
            let mut cells: Vec<Option<String>> =
                cells.map(|cell| cell.map(|text| text.replace("''", "'"))).collect();
            // An empty cell of csv is null.
            cells.iter_mut().filter(|c| in_csv && c.as_deref() == Some("")).for_each(|c| *c = None);
            let mixed = self.mixed[row].map(|at| serde_json::from_str(MIXED[at]).unwrap());
            cells.extend(match mixed {
                None => [None, None, None, None],
                Some(Value::Number(n)) => {
                    [Some(n.to_string()), None, None, Some("number".to_owned())]
                }
                Some(Value::String(text)) => [None, Some(text), None, Some("text".to_owned())],
                Some(Value::Bool(b)) => [None, None, Some(b.to_string()), Some("truth".to_owned())],
                Some(_) => [None, None, None, Some("other".to_owned())],
            });
            cells
        };
        let rows: Vec<_> = (0..ROWS).map(row).collect();
        json!({ "columns": columns, "rows": rows, "conditions": conditions })
    }
}

fn read(path: &std::path::Path) -> Vec<Document> {
    let documents = warpseek::ingest::open(&[path.to_path_buf()], &ReadOptions::default()).unwrap();
    documents.map(Result::unwrap).collect()
}

/// A condition in our notation and in DuckDB's.
type Condition = (String, String);

fn both(text: String) -> Condition {
    (text.clone(), text)
}

fn any_comparison(in_csv: bool) -> BoxedStrategy<Condition> {
    let columns = columns();
    let op = || prop::sample::select(vec!["=", "<>", "!=", "<", "<=", ">", ">="]);
    let mut leaves: Vec<BoxedStrategy<Condition>> = Vec::new();
    for column in columns {
        let (name, literals) = (column.name, column.literals);
        let literal = move || prop::sample::select(literals.clone());
        leaves.push(
            (op(), literal()).prop_map(move |(op, l)| both(format!("{name} {op} {l}"))).boxed(),
        );
        leaves.push(
            (op(), literal()).prop_map(move |(op, l)| both(format!("{l} {op} {name}"))).boxed(),
        );
        let between = (literal(), literal(), any::<bool>());
        leaves.push(
            between
                .prop_filter("ends of one type", |(low, high, _)| kind(low) == kind(high))
                .prop_map(move |(low, high, not)| {
                    both(format!(
                        "{name} {}BETWEEN {low} AND {high}",
                        if not { "NOT " } else { "" }
                    ))
                })
                .boxed(),
        );
        let list = (prop::collection::vec(literal(), 1..5), any::<bool>());
        leaves.push(
            list.prop_filter("values of one type", |(list, _)| {
                list.iter().all(|l| kind(l) == kind(list[0]))
            })
            .prop_map(move |(list, not)| {
                both(format!("{name} {}IN ({})", if not { "NOT " } else { "" }, list.join(", ")))
            })
            .boxed(),
        );
        leaves.push(
            any::<bool>()
                .prop_map(move |not| {
                    both(format!("{name} IS {}NULL", if not { "NOT " } else { "" }))
                })
                .boxed(),
        );
    }
    let pattern = prop::sample::select(vec![
        "'%b%'", "'abc'", "'a_c'", "'Z%'", "'%ü%'", "'_'", "''", "'100!%'", "'%!_b'", "'É%'", "'%'",
    ]);
    let like = (pattern, any::<bool>(), any::<bool>(), prop::sample::select(vec!["word", "zip"]));
    leaves.push(
        like.prop_map(|(pattern, not, ignores, name)| {
            let (not, like) =
                (if not { "NOT " } else { "" }, if ignores { "ILIKE" } else { "LIKE" });
            both(format!("{name} {not}{like} {pattern} ESCAPE '!'"))
        })
        .boxed(),
    );
    if !in_csv {
        leaves.push(any_mixed(op().boxed()));
    }
    prop::strategy::Union::new(leaves).boxed()
}

fn kind(literal: &str) -> u8 {
    match literal.as_bytes()[0] {
        b'\'' => 0,
        b'D' => 1,
        b'T' if literal.starts_with("TIMESTAMP") => 1,
        b'T' | b'F' => 2,
        _ => 3,
    }
}

fn any_mixed(op: BoxedStrategy<&'static str>) -> BoxedStrategy<Condition> {
    let literal = prop::sample::select(vec![
        ("number", "1"),
        ("number", "2.50"),
        ("number", "0"),
        ("text", "'1'"),
        ("text", "'abc'"),
        ("text", "'b'"),
        ("truth", "TRUE"),
        ("truth", "FALSE"),
    ]);
    (op, literal)
        .prop_map(|(op, (column, literal))| {
            let other = match op {
                "=" => "WHEN m_type IS NOT NULL THEN FALSE",
                "<>" | "!=" => "WHEN m_type IS NOT NULL THEN TRUE",
                _ => "",
            };
            let theirs =
                format!("CASE WHEN m_type = '{column}' THEN m_{column} {op} {literal} {other} END");
            (format!("mixed {op} {literal}"), theirs)
        })
        .boxed()
}

fn any_condition(in_csv: bool) -> impl Strategy<Value = Condition> {
    any_comparison(in_csv).prop_recursive(2, 6, 3, |inner| {
        let join = |word: &'static str| {
            move |(a, b): (Condition, Condition)| {
                (format!("({}) {word} ({})", a.0, b.0), format!("({}) {word} ({})", a.1, b.1))
            }
        };
        prop_oneof![
            inner.clone().prop_map(|c| (format!("NOT ({})", c.0), format!("NOT ({})", c.1))),
            (inner.clone(), inner.clone()).prop_map(join("AND")),
            (inner.clone(), inner).prop_map(join("OR")),
        ]
    })
}

fn index(dir: &std::path::Path, documents: Vec<Document>) -> Index {
    let manifest = IndexManifest::new(4, None, Chunking::default());
    let mut writer = IndexWriter::open_or_create(dir, &manifest).unwrap();
    for document in documents {
        let chunk = Chunk { range: 0..1, tokens: 1, tokens_lost: 0 };
        writer.put(document, vec![chunk], &[0.5; 4]).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    Index::open(dir).unwrap()
}

fn rows(index: &Index, condition: &str) -> Result<Vec<u32>, String> {
    let filter = Filter::parse(condition).map_err(|e| e.to_string())?;
    let passing = index.rows_where(&filter).map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    passing.mask.collect_range(0..index.n_rows(), &mut rows);
    Ok(rows)
}

#[test]
fn filters_over_random_tables_pass_the_rows_that_duckdb_passes() {
    let Some(python) = std::env::var_os("WARPSEEK_SERVE_PYTHON") else {
        eprintln!(
            "filters against DuckDB not tested: WARPSEEK_SERVE_PYTHON names no Python with the \
             packages of tests/serve/requirements.txt"
        );
        return;
    };
    let seed = [7; 32];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let dir = tempfile::tempdir().unwrap();
    for (number, in_csv) in [(0, false), (1, true)] {
        let table = Table::random(&mut runner);
        let documents = match in_csv {
            true => table.csv_documents(dir.path()),
            false => table.documents(),
        };
        let index = index(&dir.path().join(format!("idx{number}")), documents);
        let strategy = any_condition(in_csv);
        let conditions: Vec<Condition> = (0..CONDITIONS / 2)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .collect();
        let theirs = conditions.iter().map(|c| c.1.clone()).collect();
        let mut command = Command::new(&python);
        let script =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filters/evaluate.py");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = table.duckdb(theirs, in_csv).to_string();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let output = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.lines().count(), conditions.len());
        let mut differences = Vec::new();
        for ((ours, theirs), line) in conditions.iter().zip(output.lines()) {
            let expected: Value = serde_json::from_str(line).unwrap();
            let found = rows(&index, ours);
            if json!(found.as_ref().ok()) != expected {
                differences.push(format!("{ours}\n  {theirs}\n  {found:?}\n  {expected}"));
            }
        }
        let n = differences.len();
        differences.truncate(5);
        assert!(n == 0, "{n} differences (csv: {in_csv}):\n{}", differences.join("\n"));
    }
}
