//! Query files: records with id and text, lines of text, or vectors.

use crate::error::{Error, Place, Result};
use crate::vectors::{VectorFile, VectorFormat};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use warpseek_ingest::{
    DEFAULT_MAX_RECORD_BYTES, Document, FieldMap, HeaderRule, QueryFile, ReadOptions, json_kind,
};

/// One query of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The id; a number if the file has no ids.
    pub id: String,
    /// The text; empty if there is only a vector.
    pub text: String,
    /// The title of a record, for texts that are passages and not queries.
    pub title: String,
    /// The vector, if the file has one.
    pub vector: Option<Vec<f32>>,
    /// The query's own filter.
    pub filter: Option<String>,
    /// The position in the file, for messages.
    pub place: Place,
}

/// Options of reading a query file.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryOptions {
    /// The field of the id; else the first known name ([`QueryFile`]).
    pub id_field: Option<String>,
    /// The field of the text; else the first known name.
    pub text_field: Option<String>,
    /// The rule by which the first line of csv and tsv is a header or a query.
    pub header: HeaderRule,
    /// Maximum size of a record in bytes after decompression, at least 1.
    pub max_record_bytes: u64,
    /// The word for a query in messages: `query`, `passage`, `text`.
    pub noun: &'static str,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            id_field: None,
            text_field: None,
            header: HeaderRule::Auto,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            noun: "query",
        }
    }
}

/// Iterator over the queries of a file.
pub struct QueryReader {
    source: QuerySource,
    noun: &'static str,
    /// The position of each id.
    seen: HashMap<String, String>,
}

enum QuerySource {
    Records(QueryFile),
    Vectors { file: VectorFile, name: String, next: usize },
}

impl QueryReader {
    /// Opens a query file, plain or gzip; `-` is standard input.
    ///
    /// Files that end in `.npy`, `.fvecs`, `.fbin` or `.faiss` hold vectors, whose numbers from 0
    /// are the ids. All others are read as [`QueryFile`] says.
    ///
    /// # Errors
    ///
    /// As [`QueryFile::open`]; [`Error::Input`] for a damaged vector file, [`Error::Usage`] for
    /// named fields in one.
    pub fn open(path: &Path, options: &QueryOptions) -> Result<Self> {
        let source = match VectorFormat::of_path(path) {
            None => QuerySource::Records(QueryFile::open(path, &options.read_options())?),
            Some(_) if options.id_field.is_some() || options.text_field.is_some() => {
                let name = path.display();
                return Err(Error::usage(format!("{name}: vectors have no fields to name")));
            }
            Some(format) => {
                let file = VectorFile::open(path, Some(format))?;
                QuerySource::Vectors { file, name: path.display().to_string(), next: 0 }
            }
        };
        Ok(Self { source, noun: options.noun, seen: HashMap::new() })
    }

    /// Reads queries from any reader, as from standard input; `name` is its name in messages.
    ///
    /// # Errors
    ///
    /// As [`QueryFile::from_reader`].
    pub fn from_reader(reader: impl Read + Send + 'static, name: &str) -> Result<Self> {
        let options = QueryOptions::default();
        let file = QueryFile::from_reader(reader, name, &options.read_options())?;
        Ok(Self { source: QuerySource::Records(file), noun: options.noun, seen: HashMap::new() })
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        match &self.source {
            QuerySource::Records(file) => file.name(),
            QuerySource::Vectors { name, .. } => name,
        }
    }

    /// The decision about format, header and fields, for the user to know.
    pub fn note(&self) -> Option<&str> {
        match &self.source {
            QuerySource::Records(file) => file.note(),
            QuerySource::Vectors { .. } => None,
        }
    }

    /// The number of blank lines skipped so far.
    pub fn blank_lines(&self) -> u64 {
        match &self.source {
            QuerySource::Records(file) => file.blank_lines(),
            QuerySource::Vectors { .. } => 0,
        }
    }

    fn read(&mut self) -> Result<Option<Query>> {
        match &mut self.source {
            QuerySource::Records(file) => file.next().transpose()?.map(Query::of).transpose(),
            QuerySource::Vectors { file, name, next } => {
                if *next == file.n_rows() {
                    return Ok(None);
                }
                let mut vector = vec![0.0; file.dim()];
                file.read(*next, &mut vector)?;
                let id = file.id(*next).map_or_else(|| next.to_string(), |id| id.to_string());
                let query = Query {
                    id,
                    text: String::new(),
                    title: String::new(),
                    vector: Some(vector),
                    filter: None,
                    place: Place::record(name.clone(), format!("vector {next}")),
                };
                *next += 1;
                Ok(Some(query))
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
        let position = query.place.record.clone().unwrap_or_default();
        if let Some(first) = self.seen.get(&query.id) {
            let (id, noun) = (&query.id, self.noun);
            let reason = format!(
                "the {noun} id '{id}' occurs twice, first in {first}: give each {noun} a unique id"
            );
            return Some(Err(Error::input(query.place, reason)));
        }
        self.seen.insert(query.id.clone(), position);
        Some(Ok(query))
    }
}

impl QueryOptions {
    fn read_options(&self) -> ReadOptions {
        ReadOptions {
            fields: FieldMap {
                id: self.id_field.clone(),
                text: self.text_field.clone(),
                ..FieldMap::default()
            },
            header: self.header,
            max_record_bytes: self.max_record_bytes,
            ..ReadOptions::default()
        }
    }
}

impl Query {
    /// The query of a record, with its vector and its filter.
    fn of(record: Document) -> Result<Self> {
        let Document { id, text, title, metadata, place, .. } = record;
        let wrong = |field: &str, wanted: &str, got: &Value| {
            let reason = format!("expected {wanted}, not {}", json_kind(got));
            Error::input(place.clone().field(field), reason)
        };
        let filter = match metadata.get("filter") {
            // An empty cell of a table is null.
            None | Some(Value::Null) => None,
            Some(Value::String(filter)) => Some(filter.clone()),
            Some(other) => return Err(wrong("filter", "text", other)),
        };
        let vector = match metadata.get("vector") {
            None | Some(Value::Null) => None,
            Some(Value::Array(values)) => Some(components(values)),
            // The cell of a table.
            Some(Value::String(cell)) => match serde_json::from_str::<Vec<Value>>(cell) {
                Ok(values) => Some(components(&values)),
                Err(_) => {
                    return Err(wrong("vector", "an array of numbers", &metadata["vector"]));
                }
            },
            Some(other) => return Err(wrong("vector", "an array of numbers", other)),
        };
        let vector = vector.map(|vector| {
            let reason = "a component is not a number";
            vector.ok_or_else(|| Error::input(place.clone().field("vector"), reason))
        });
        let vector = vector.transpose()?;
        Ok(Self { id, text, title, vector, filter, place })
    }
}

/// The components of a vector; `None` if one is not a number.
fn components(values: &[Value]) -> Option<Vec<f32>> {
    values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
}
