//! Requests of warpseek's own routes: fields that they do not have are warnings, or errors with
//! `?strict=true`.

use super::body::JsonRequest;
use super::error::{ApiError, ApiResult};
use super::mistakes::unknown_field;
use super::state::{AppState, WorkPermit};
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// A request with a JSON body, permission to work on it, and warnings about unknown fields.
pub(super) struct OwnRequest<T> {
    pub(super) state: Arc<AppState>,
    pub(super) body: T,
    pub(super) permit: WorkPermit,
    pub(super) warnings: Vec<String>,
}

/// A body that knows which of its fields are unknown.
pub(super) trait OwnBody: DeserializeOwned {
    /// A warning about each unknown field.
    fn unknown_fields(&self) -> Vec<String>;
}

impl<T: OwnBody> FromRequest<Arc<AppState>> for OwnRequest<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> ApiResult<Self> {
        let is_strict = is_strict(request.uri().query().unwrap_or_default())?;
        let JsonRequest { state, body, permit } =
            JsonRequest::<T>::from_request(request, state).await?;
        let warnings = check_unknown(&body, is_strict)?;
        Ok(Self { state, body, permit, warnings })
    }
}

/// Warnings about the unknown fields of a body. With `is_strict` the first one is an error.
pub(super) fn check_unknown(body: &impl OwnBody, is_strict: bool) -> ApiResult<Vec<String>> {
    let warnings = body.unknown_fields();
    match warnings.first() {
        Some(first) if is_strict => Err(ApiError::invalid(first)),
        _ => Ok(warnings),
    }
}

/// Reads the value of the parameter `strict`.
pub(super) fn read_strict(value: &str) -> ApiResult<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::invalid("`strict` can be true or false").param("strict")),
    }
}

/// Reads `strict` from the query of a URL.
fn is_strict(query: &str) -> ApiResult<bool> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(name, _)| *name == "strict").map_or(Ok(false), |(_, value)| read_strict(value))
}

/// The fields of a request that its type does not have.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct UnknownFields(Map<String, Value>);

impl From<Map<String, Value>> for UnknownFields {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl UnknownFields {
    /// A warning about each field, which suggests the field of `T` that was probably meant.
    pub(super) fn warnings<T: ToSchema>(&self) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let known = fields::<T>();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        self.0.keys().map(|name| unknown_field(name, &known)).collect()
    }
}

/// The names of the fields of a type.
pub(super) fn fields<T: ToSchema>() -> Vec<String> {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let mut names = Vec::new();
    add_fields(&json!(T::schema()), &json!(parts), &mut names);
    names
}

/// Adds the fields of a schema, and of the parts that it is made of.
fn add_fields(schema: &Value, parts: &Value, names: &mut Vec<String>) {
    let fields = schema["properties"].as_object();
    names.extend(fields.into_iter().flat_map(|fields| fields.keys().cloned()));
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let named = part["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let parts_of_type = parts.as_array().into_iter().flatten();
        let found = parts_of_type.filter(|part| part[0].as_str() == named).map(|part| &part[1]);
        match named {
            Some(_) => found.take(1).for_each(|found| add_fields(found, parts, names)),
            None => add_fields(part, parts, names),
        }
    }
}
