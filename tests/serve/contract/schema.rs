//! Schemas of requests in the server's own description, its `api`.

use serde_json::Value;

/// Names and schemas of the fields that a schema has, also in its parts.
pub(super) fn properties<'a>(api: &'a Value, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let own = schema["properties"].as_object().into_iter().flatten();
    let own = own.map(|(name, schema)| (name.as_str(), schema));
    own.chain(parts(api, schema).into_iter().flat_map(|part| properties(api, part))).collect()
}

/// Schemas in a schema: the one that it refers to, its alternatives, and the items of its lists.
fn parts<'a>(api: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let named = name.map(|name| &api["components"]["schemas"][name]);
    let kinds = ["allOf", "oneOf", "anyOf", "prefixItems"].iter();
    let several = kinds.filter_map(|kind| schema[*kind].as_array()).flatten();
    several.chain(named).chain(schema.get("items")).collect()
}

/// True if a schema has the field at a path, or an object there that may have any field.
pub(super) fn describes(api: &Value, schema: &Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let found = properties(api, schema);
    let mut inner = found.iter().filter(|(name, _)| name == first).map(|(_, inner)| *inner);
    inner.any(|inner| describes(api, inner, rest) || (!rest.is_empty() && is_open(api, inner)))
}

/// True if a schema allows a value, by its types.
pub(super) fn allows(api: &Value, schema: &Value, value: &Value) -> bool {
    let is_of = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => value.is_null(),
    };
    let kinds = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is_of),
        kind => is_of(kind),
    };
    let whole: Vec<&Value> = schema["allOf"].as_array().into_iter().flatten().collect();
    let named = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let named = named.map(|name| &api["components"]["schemas"][name]);
    let one_of = |key: &str| {
        schema[key].as_array().is_none_or(|all| all.iter().any(|one| allows(api, one, value)))
    };
    let items = value.as_array().into_iter().flatten();
    let required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().collect();
    kinds
        && whole.into_iter().chain(named).all(|one| allows(api, one, value))
        && one_of("oneOf")
        && one_of("anyOf")
        && schema
            .get("items")
            .is_none_or(|item| items.into_iter().all(|one| allows(api, item, one)))
        && required.into_iter().all(|name| value.get(name.as_str().unwrap_or_default()).is_some())
}

/// True if a schema allows an object without saying which fields it has.
fn is_open(api: &Value, schema: &Value) -> bool {
    let is_bare = |schema: &Value| schema["type"] == "object" && schema.get("properties").is_none();
    is_bare(schema) || parts(api, schema).into_iter().any(|part| is_open(api, part))
}
