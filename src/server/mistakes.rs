//! Messages about mistakes in requests: unknown fields, with the name that was probably meant, and
//! values of a wrong type, with field and type.

use super::error::{ApiError, ApiResult};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Names that other programs use for the fields of warpseek's own requests.
const SYNONYMS: [(&str, &str); 24] = [
    ("top_k", "k"),
    ("topk", "k"),
    ("top_n", "k"),
    ("n", "k"),
    ("limit", "k"),
    ("size", "k"),
    ("count", "k"),
    ("num_results", "k"),
    ("max_results", "k"),
    ("n_results", "k"),
    ("q", "query"),
    ("text", "query"),
    ("question", "query"),
    ("input", "query"),
    ("where", "filter"),
    ("filters", "filter"),
    ("collection", "index"),
    ("index_name", "index"),
    ("embedding", "vector"),
    ("rerank", "rerank_depth"),
    ("reranking", "rerank_depth"),
    ("include_text", "with_text"),
    ("include_vectors", "with_vector"),
    ("max_chunks_per_doc", "max_per_doc"),
];

/// The minimum Jaro-Winkler similarity of a misspelt name to the one that is suggested.
const SIMILAR: f64 = 0.8;

/// The largest number of fields of an object in which the wrong one is looked for.
const MAX_FIELDS: usize = 64;

/// The message about a field that a request does not have; `known` are those that it has.
pub(super) fn unknown_field(name: &str, known: &[&str]) -> String {
    let shown: String = name.chars().take(60).filter(|c| !c.is_control() && *c != '`').collect();
    match suggested_name(name, known) {
        Some(near) => format!("`{shown}` is unknown: did you mean `{near}`?"),
        None if known.is_empty() => format!("`{shown}` is unknown: leave it out"),
        None => format!("`{shown}` is unknown: use {}", known.join(", ")),
    }
}

/// Reads an object of JSON. The error names the field.
pub(super) fn read_object<T: DeserializeOwned>(object: Map<String, Value>) -> ApiResult<T> {
    T::deserialize(&Value::Object(object.clone()))
        .map_err(|e| object_type_error::<T>(&object, &e.to_string()))
}

/// The error about a value that is not a `T`; `message` is serde's. It names the field of an
/// object, and in a list the number of the entry.
pub(super) fn type_error<T: DeserializeOwned>(value: &Value, message: &str) -> ApiError {
    let Value::Array(entries) = value else {
        let nothing = Map::new();
        return object_type_error::<T>(value.as_object().unwrap_or(&nothing), message);
    };
    let alone = |entry: &Value| T::deserialize(&Value::Array(vec![entry.clone()]));
    let wrong = entries.iter().enumerate().find_map(|(number, entry)| {
        let message = alone(entry).err()?.to_string();
        let fits = |fields: &Map<String, Value>| alone(&Value::Object(fields.clone())).map(drop);
        let field = entry.as_object().and_then(|object| wrong_field(object, &message, &fits));
        let value = field.as_ref().and_then(|field| entry.get(field));
        Some(
            ApiError::invalid(wrong_type(field.as_deref().zip(value), &message)).of_request(number),
        )
    });
    wrong.unwrap_or_else(|| ApiError::invalid(wrong_type(None, message)))
}

fn object_type_error<T: DeserializeOwned>(object: &Map<String, Value>, message: &str) -> ApiError {
    let fits = |fields: &Map<String, Value>| T::deserialize(fields).map(drop);
    let field = wrong_field(object, message, &fits);
    let value = field.as_ref().and_then(|field| object.get(field));
    let error = ApiError::invalid(wrong_type(field.as_deref().zip(value), message));
    field.into_iter().fold(error, ApiError::param)
}

/// The field of an object that does not fit: the first one without which serde gives another error
/// than `message`.
fn wrong_field(
    object: &Map<String, Value>,
    message: &str,
    fits: &dyn Fn(&Map<String, Value>) -> serde_json::Result<()>,
) -> Option<String> {
    let bare = |message: &str| message.split(" at line ").next().unwrap_or_default().to_owned();
    let message = bare(message);
    if object.len() > MAX_FIELDS || message.starts_with("missing field") {
        return None;
    }
    let without = |name: &String| {
        let mut others = object.clone();
        others.remove(name);
        fits(&others).err().map(|e| bare(&e.to_string()))
    };
    let others = object.keys().map(|name| (name, without(name)));
    let others: Vec<(&String, Option<String>)> = others.collect();
    let is_cause = |other: &Option<String>| {
        other.as_ref().is_none_or(|other| *other != message && !other.starts_with("missing field"))
    };
    // Without a required field that does not fit, the error is that it is missing.
    let is_missed = |name: &str, other: &Option<String>| {
        other.as_ref().is_some_and(|other| *other == format!("missing field `{name}`"))
    };
    let cause = others.iter().find(|(_, other)| is_cause(other));
    let found = cause.or_else(|| others.iter().find(|(name, other)| is_missed(name, other)));
    found.map(|(name, _)| (*name).clone())
}

/// The known name to suggest for an unknown one: a synonym, or the most similar.
fn suggested_name<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase().replace('-', "_");
    let synonyms = SYNONYMS.iter().filter(|(other, _)| *other == lower);
    let mut meant = synonyms.flat_map(|(_, own)| known.iter().find(|known| *known == own));
    let similarity = |known: &&&str| strsim::jaro_winkler(&lower, known);
    let nearest = || known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let found = meant.next().or_else(|| nearest().filter(|near| similarity(near) >= SIMILAR));
    found.copied()
}

/// The message about a value of a wrong type, made of serde's; `field` is the field that holds it,
/// with its value.
fn wrong_type(field: Option<(&str, &Value)>, message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let is_inside = |value: &Value| match value {
        Value::Array(_) => !message.contains(": sequence,"),
        Value::Object(_) => !message.contains(": map,"),
        _ => false,
    };
    let subject = match field {
        Some((field, value)) if is_inside(value) => format!("a value in `{field}`"),
        Some((field, _)) => format!("`{field}`"),
        None => "a value".to_owned(),
    };
    let field = field.map(|(field, _)| field);
    let parts = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
    if let Some((given, wanted)) = parts.and_then(|parts| parts.rsplit_once(", expected ")) {
        return format!("{subject} must be {}, not {}", wanted_type(wanted), given_value(given));
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("{name} is missing");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ")
        && let Some((given, known)) = rest.split_once(", expected ")
    {
        let known = known.trim_start_matches("one of ");
        return format!("{subject} can be {known}, not {given}");
    }
    match field {
        Some(name) if !message.contains(&format!("`{name}`")) => format!("`{name}`: {message}"),
        _ => message.to_owned(),
    }
}

/// The words for a type that serde expects.
fn wanted_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "str" | "string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        // An enum of plain names.
        "string or map" => "a text",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// The words for a value that serde was given.
fn given_value(given: &str) -> String {
    let bare = |text: &str| text.trim_matches('`').to_owned();
    match given.split_once(' ') {
        Some(("string", text)) => format!("the text {}", shorten(text)),
        Some(("integer" | "boolean", value)) => bare(value),
        Some(("floating", value)) => bare(value.trim_start_matches("point ")),
        _ => match given {
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            other => shorten(other),
        },
    }
}

/// The beginning of a text that may be long.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[test]
    fn suggested_names_are_found_by_meaning_and_by_spelling() {
        let known = ["query", "k", "filter", "rerank_depth", "index"];
        for (given, near) in [
            ("top_k", "k"),
            ("Limit", "k"),
            ("q", "query"),
            ("qurey", "query"),
            ("filtre", "filter"),
            ("rerank-depth", "rerank_depth"),
        ] {
            let expected = format!("`{given}` is unknown: did you mean `{near}`?");
            assert_eq!(unknown_field(given, &known), expected);
        }
        let far = unknown_field("zzz", &known);
        assert_eq!(far, "`zzz` is unknown: use query, k, filter, rerank_depth, index");
    }

    #[test]
    fn wrong_types_are_told_in_plain_words() {
        for (field, message, expected) in [
            (
                Some("k"),
                "invalid type: string \"5\", expected usize at line 1 column 30",
                "`k` must be a whole number from 0, not the text \"5\"",
            ),
            (
                Some("k"),
                "invalid value: integer `-1`, expected usize",
                "`k` must be a whole number from 0, not -1",
            ),
            (
                Some("query"),
                "invalid type: floating point `2.5`, expected a string",
                "`query` must be a text, not 2.5",
            ),
            (
                None,
                "invalid type: map, expected a sequence",
                "a value must be a list, not an object",
            ),
            (None, "missing field `query` at line 1 column 2", "`query` is missing"),
            (
                Some("fusion"),
                "unknown variant `x`, expected `weighted` or `rrf`",
                "`fusion` can be `weighted` or `rrf`, not `x`",
            ),
            (
                Some("x"),
                "invalid type: sequence, expected a string",
                "`x` must be a text, not a list",
            ),
            (
                Some("input"),
                "`input` must be a text or a list of texts",
                "`input` must be a text or a list of texts",
            ),
        ] {
            let value = Value::Null;
            assert_eq!(wrong_type(field.map(|field| (field, &value)), message), expected);
        }
    }

    #[test]
    fn wrong_values_are_told_with_their_field() {
        #[derive(Debug, Deserialize)]
        struct Body {
            #[expect(dead_code, reason = "only read")]
            k: usize,
            #[expect(dead_code, reason = "only read")]
            words: Vec<String>,
        }
        let error = |value: Value| {
            let message = Body::deserialize(&value).unwrap_err().to_string();
            type_error::<Body>(&value, &message).message().to_owned()
        };
        let wrong_k = "`k` must be a whole number from 0, not the text \"a\"";
        assert_eq!(error(json!({"words": [], "k": "a"})), wrong_k);
        assert_eq!(
            error(json!({"k": 1, "words": [5]})),
            "a value in `words` must be a text, not 5"
        );
        assert_eq!(error(json!({"k": 1, "words": 5})), "`words` must be a list, not 5");
        assert_eq!(error(json!({"k": 1})), "`words` is missing");
        let list = json!([{"k": 1, "words": []}, {"k": "a", "words": []}]);
        let message = Vec::<Body>::deserialize(&list).unwrap_err().to_string();
        let error = type_error::<Vec<Body>>(&list, &message);
        assert_eq!(error.message(), format!("request 1: {wrong_k}"));
    }
}
