//! Query files: jsonl, tab-separated, plain lines, or vectors.

use crate::error::{Error, Place, Result};
use crate::vectors::{VectorFile, VectorFormat};
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use warpseek_ingest::lines::Lines;

/// The longest line of a query file, in bytes.
const MAX_LINE: usize = 8 << 20;

/// Names of the id field in jsonl.
const ID_FIELDS: [&str; 5] = ["_id", "id", "query_id", "query-id", "qid"];

/// Names of the text field in jsonl.
const TEXT_FIELDS: [&str; 3] = ["text", "query", "question"];

/// One query of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The id; the line number if the file has no ids.
    pub id: String,
    /// The text; empty if there is only a vector.
    pub text: String,
    /// The title of a jsonl line, for texts that are passages and not queries.
    pub title: String,
    /// The vector, if the file has one.
    pub vector: Option<Vec<f32>>,
    /// The query's own filter.
    pub filter: Option<String>,
    /// The position in the file, for messages.
    pub place: Place,
}

/// Iterator over the queries of a file.
pub struct QueryReader {
    source: QuerySource,
    seen: HashSet<String>,
}

enum QuerySource {
    Lines { lines: Lines<'static>, file: String, format: Option<TextFormat> },
    Vectors { file: VectorFile, name: String, next: usize },
}

#[derive(Clone, Copy)]
enum TextFormat {
    Jsonl,
    Tabs,
    Plain,
}

impl QueryReader {
    /// Opens a query file, plain or gzip; `-` is standard input.
    ///
    /// Files that end in `.npy`, `.fvecs`, `.fbin` or `.faiss` hold vectors. Otherwise the first
    /// line decides. If it begins with `{`, the file is jsonl (`_id`, `id` or `query_id`; `text`,
    /// `query` or `question`; optionally `filter` and `vector`). If it has a single tab, lines are
    /// `id <tab> text`. Otherwise every line is a query, and its number is the id.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::Input`] for a damaged vector file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let source = if let Some(format) = VectorFormat::of_path(path) {
            QuerySource::Vectors { file: VectorFile::open(path, Some(format))?, name, next: 0 }
        } else if name == "-" {
            return Self::from_reader(std::io::stdin(), "<stdin>");
        } else {
            QuerySource::Lines { lines: Lines::open(path, MAX_LINE)?, file: name, format: None }
        };
        Ok(Self { source, seen: HashSet::new() })
    }

    /// Reads queries as text from any reader; `name` is its name in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the first bytes cannot be read.
    pub fn from_reader(reader: impl Read + 'static, name: &str) -> Result<Self> {
        let lines = Lines::new(reader, name, MAX_LINE)?;
        let source = QuerySource::Lines { lines, file: name.to_owned(), format: None };
        Ok(Self { source, seen: HashSet::new() })
    }

    /// The number of blank lines skipped so far.
    pub fn blank_lines(&self) -> u64 {
        match &self.source {
            QuerySource::Lines { lines, .. } => lines.blank(),
            QuerySource::Vectors { .. } => 0,
        }
    }

    fn read(&mut self) -> Result<Option<Query>> {
        match &mut self.source {
            QuerySource::Vectors { file, name, next } => {
                if *next == file.n_rows() {
                    return Ok(None);
                }
                let mut vector = vec![0.0; file.dim()];
                file.read(*next, &mut vector)?;
                let place = Place::record(name.clone(), format!("vector {next}"));
                let query = Query::new(next.to_string(), place);
                *next += 1;
                Ok(Some(Query { vector: Some(vector), ..query }))
            }
            QuerySource::Lines { lines, file, format } => {
                // The line borrows the reader, which also has the number: copy the line first.
                let Some(line) = lines.next()?.map(str::to_owned) else { return Ok(None) };
                let number = lines.number();
                let place = Place::record(file.clone(), format!("line {number}"));
                let format = *format.get_or_insert_with(|| TextFormat::of(&line));
                parse(format, &line, Query::new(number.to_string(), place)).map(Some)
            }
        }
    }
}

impl Iterator for QueryReader {
    type Item = Result<Query>;

    fn next(&mut self) -> Option<Self::Item> {
        let query = match self.read() {
            Ok(query) => query?,
            Err(e) => return Some(Err(e)),
        };
        if !self.seen.insert(query.id.clone()) {
            let reason =
                format!("the query id '{}' occurs twice: give each query a unique id", query.id);
            return Some(Err(Error::input(query.place, reason)));
        }
        Some(Ok(query))
    }
}

impl TextFormat {
    fn of(line: &str) -> Self {
        if line.trim_start().starts_with('{') {
            Self::Jsonl
        } else if line.matches('\t').count() == 1 {
            Self::Tabs
        } else {
            Self::Plain
        }
    }
}

impl Query {
    fn new(id: String, place: Place) -> Self {
        let (text, title) = (String::new(), String::new());
        Self { id, text, title, vector: None, filter: None, place }
    }
}

/// Parses a line into `query`, which has the line number as its id.
fn parse(format: TextFormat, line: &str, mut query: Query) -> Result<Query> {
    match format {
        TextFormat::Plain => query.text = line.to_owned(),
        TextFormat::Tabs => {
            let (id, text) = line.split_once('\t').ok_or_else(|| {
                Error::input(query.place.clone(), "no tab: lines are `id <tab> text` in this file")
            })?;
            query.id = id.trim().to_owned();
            query.text = text.to_owned();
        }
        TextFormat::Jsonl => parse_object(line, &mut query)?,
    }
    if query.id.is_empty() {
        return Err(Error::input(query.place.field("id"), "the id is empty"));
    }
    if query.vector.is_none() && query.text.trim().is_empty() {
        return Err(Error::input(query.place.field("text"), "the query has no text"));
    }
    Ok(query)
}

fn parse_object(line: &str, query: &mut Query) -> Result<()> {
    let place = query.place.clone();
    let value: Value =
        serde_json::from_str(line).map_err(|e| Error::input(place.clone(), not_json(&e)))?;
    let Value::Object(object) = value else {
        return Err(Error::input(
            place,
            "not a JSON object: a line is {\"_id\": .., \"text\": ..}",
        ));
    };
    let find = |names: &[&'static str]| {
        names.iter().find_map(|&name| object.get(name).map(|value| (name, value)))
    };
    let wrong = |field: &str, wanted: &str, got: &Value| {
        let reason = format!("expected {wanted}, not {}", kind(got));
        Error::input(place.clone().field(field), reason)
    };
    match find(&ID_FIELDS) {
        None => {}
        Some((_, Value::String(id))) => query.id = id.trim().to_owned(),
        Some((_, Value::Number(id))) if !id.is_f64() => query.id = id.to_string(),
        Some((name, other)) => return Err(wrong(name, "text or an integer", other)),
    }
    match find(&TEXT_FIELDS) {
        Some((_, Value::String(text))) => query.text = text.clone(),
        Some((name, other)) => return Err(wrong(name, "text", other)),
        None if object.contains_key("vector") => {}
        None => {
            let have: Vec<&str> = object.keys().map(String::as_str).collect();
            return Err(Error::input(
                place,
                format!("no field 'text', 'query' or 'question'; it has {}", have.join(", ")),
            ));
        }
    }
    if let Some(Value::String(title)) = object.get("title") {
        query.title = title.clone();
    }
    match object.get("filter") {
        None | Some(Value::Null) => {}
        Some(Value::String(filter)) => query.filter = Some(filter.clone()),
        Some(other) => return Err(wrong("filter", "text", other)),
    }
    match object.get("vector") {
        None | Some(Value::Null) => {}
        Some(Value::Array(values)) => {
            let vector: Option<Vec<f32>> =
                values.iter().map(|v| v.as_f64().map(|v| v as f32)).collect();
            query.vector = Some(vector.ok_or_else(|| {
                Error::input(place.clone().field("vector"), "a component is not a number")
            })?);
        }
        Some(other) => return Err(wrong("vector", "an array of numbers", other)),
    }
    Ok(())
}

/// A JSON error with its column only: the text has one line.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    format!("not valid JSON: {message} (column {})", error.column())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
