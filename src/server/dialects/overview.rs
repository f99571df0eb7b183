//! `/v1/overview`: the content of an index, as the page shows it before the first search.

use super::warnings::Warned;
use crate::search::Searcher;
use crate::server::error::ApiResult;
use crate::server::own::{OwnBody, UnknownFields, check_unknown, read_strict};
use crate::server::scheduled::blocking;
use crate::server::state::AppState;
use crate::store::Row;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The number of rows, evenly spread over the index, from which titles and values are taken.
const SAMPLED_ROWS: usize = 500;

/// The maximum number of values of a field, and of titles.
const MAX_VALUES: usize = 6;
const MAX_TITLES: usize = 6;

/// The longest value and the longest title, in characters.
const MAX_VALUE_CHARS: usize = 40;
const MAX_TITLE_CHARS: usize = 90;

/// Query parameters of an overview.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[serde(default)]
pub(super) struct OverviewParams {
    /// The index [default: that of `--default-index`, or the only one].
    index: Option<String>,
    /// Refuse unknown parameters.
    #[param(value_type = Option<bool>)]
    strict: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    #[schema(ignore)]
    unknown: UnknownFields,
}

impl OwnBody for OverviewParams {
    fn unknown_fields(&self) -> Vec<String> {
        self.unknown.warnings::<Self>()
    }
}

/// The content of an index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overview {
    /// The index.
    index: String,
    /// The number of live rows.
    rows: usize,
    /// The number of rows that titles and values are taken from.
    sampled_rows: usize,
    /// The metadata fields.
    fields: Vec<FieldOverview>,
    /// Titles of some documents, evenly spread over the index.
    titles: Vec<String>,
}

/// A metadata field.
#[derive(Debug, Serialize, ToSchema)]
struct FieldOverview {
    name: String,
    /// The types seen, most frequent first.
    types: String,
    /// The most frequent of the values that occur more than once in the sampled rows.
    values: Vec<ValueCount>,
}

/// A value of a metadata field.
#[derive(Debug, Serialize, ToSchema)]
struct ValueCount {
    /// A text, number or boolean; of a list, one of its entries.
    value: Value,
    /// The number of sampled rows with it.
    rows: usize,
}

/// Describe the content of an index: fields, frequent values, titles
#[utoipa::path(get, path = "/v1/overview", tag = "search", params(OverviewParams),
    responses((status = 200, body = Overview)))]
pub(super) async fn overview(
    Extract(state): Extract<Arc<AppState>>,
    params: Result<Query<OverviewParams>, QueryRejection>,
) -> ApiResult<Warned<Overview>> {
    let Query(params) = params?;
    let is_strict = params.strict.as_deref().map_or(Ok(false), read_strict)?;
    let warnings = check_unknown(&params, is_strict)?;
    let _permit = state.start_work()?;
    let served = &state.index(params.index.as_deref())?.served;
    let (name, searcher) = (served.name.clone(), served.searcher());
    let look = move || {
        let sample = searcher.index.rows(&spread_rows(&searcher))?;
        Ok(Overview {
            index: name,
            rows: searcher.index.live().count(),
            sampled_rows: sample.len(),
            fields: fields(&searcher, &sample),
            titles: titles(&sample),
        })
    };
    Ok(Warned(warnings, blocking(look).await?))
}

/// Live rows, evenly spread.
fn spread_rows(searcher: &Searcher) -> Vec<u32> {
    let mut live = Vec::new();
    searcher.index.live().collect_range(0..searcher.index.n_rows(), &mut live);
    let n = live.len().min(SAMPLED_ROWS);
    (0..n).map(|i| live[i * live.len() / n]).collect()
}

fn fields(searcher: &Searcher, sample: &[Row]) -> Vec<FieldOverview> {
    let mut counts: HashMap<&str, BTreeMap<String, (usize, &Value)>> = HashMap::new();
    for row in sample {
        for (name, value) in &row.metadata {
            let values = match value {
                Value::Array(entries) => entries.as_slice(),
                value => std::slice::from_ref(value),
            };
            // An entry that a list repeats counts once.
            let mut seen = HashSet::new();
            for value in values.iter().filter(|value| is_short(value)) {
                let text = value.to_string();
                if seen.insert(text.clone()) {
                    counts.entry(name).or_default().entry(text).or_insert((0, value)).0 += 1;
                }
            }
        }
    }
    let of_field = |(name, types): (&str, &crate::store::FieldTypes)| {
        let counts = counts.remove(name).unwrap_or_default();
        let mut values: Vec<(usize, &Value)> = counts.into_values().collect();
        values.retain(|(rows, _)| *rows > 1);
        // The sort is stable: equally frequent values stay in alphabetical order.
        values.sort_by_key(|(rows, _)| std::cmp::Reverse(*rows));
        values.truncate(MAX_VALUES);
        let value = |(rows, value): (usize, &Value)| ValueCount { value: value.clone(), rows };
        let values = values.into_iter().map(value).collect();
        FieldOverview { name: name.to_owned(), types: types.describe(), values }
    };
    searcher.index.fields().iter().map(of_field).collect()
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty() && text.chars().nth(MAX_VALUE_CHARS).is_none(),
        Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Titles of the sampled rows, evenly spread.
fn titles(sample: &[Row]) -> Vec<String> {
    let mut seen = HashSet::new();
    let is_usable =
        |title: &&str| !title.is_empty() && title.chars().nth(MAX_TITLE_CHARS).is_none();
    let usable = sample.iter().map(|row| row.title.trim()).filter(is_usable);
    let usable: Vec<&str> = usable.filter(|title| seen.insert(*title)).collect();
    let n = usable.len().min(MAX_TITLES);
    (0..n).map(|i| usable[i * usable.len() / n].to_owned()).collect()
}
