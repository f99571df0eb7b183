//! Options of `/v1/embeddings` that Jina, Voyage and Infinity have and OpenAI does not.

use super::texts::Truncation;
use super::vector_types::{base64, base64_bytes, bits, int8, offset_bits, uint8};
use crate::server::error::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warpseek_bert::embedder::Embedder;

/// Options of services other than OpenAI.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct EmbeddingOptions {
    /// Encoding of the vectors, as Jina names it: `float`, `base64`, `int8`, `uint8`, `binary`,
    /// `ubinary`.
    embedding_type: Option<TypeNames>,
    /// Type of the vectors' values, as Voyage names it: `float`, `int8`, `uint8`, `binary`,
    /// `ubinary`.
    output_dtype: Option<String>,
    /// The same as `dimensions`.
    pub(super) output_dimension: Option<usize>,
    /// Scale vectors to unit length; only the model's own choice is supported.
    normalized: Option<bool>,
    /// Truncate texts that are too long [default: true]; otherwise they are refused.
    truncate: Option<bool>,
    /// The same as `truncate`.
    truncation: Option<bool>,
    /// Refused: every text is embedded by itself.
    late_chunking: Option<bool>,
    /// Refused: a text has one vector.
    return_multivector: Option<bool>,
    /// Refused: `/tokenize` shows the tokens of a text.
    return_tokenized_input: Option<bool>,
    /// `text`, as Infinity's clients send it; others are refused.
    #[schema(example = "text")]
    modality: Option<String>,
}

/// The name of a type, alone or in a list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`embedding_type` must be a text")]
enum TypeNames {
    /// A name.
    One(String),
    /// A list of one name; others are refused.
    Many(Vec<String>),
}

/// Encoding of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    /// Numbers.
    Float,
    /// Little-endian float32 in base64.
    Base64,
}

/// An encoded vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum EncodedVector {
    /// Numbers.
    Float(Vec<f32>),
    /// Integers, or bytes of eight signs.
    Integers(Vec<i16>),
    /// Little-endian float32 in base64.
    Base64(String),
}

/// The type of a vector's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    Float,
    Int8,
    Uint8,
    Binary,
    Ubinary,
}

/// The encoding of the vectors of a reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct VectorEncoding {
    values: ValueType,
    is_base64: bool,
}

impl EmbeddingOptions {
    /// Refuses what the model does not do.
    pub(super) fn check(&self, embedder: &Embedder) -> ApiResult<()> {
        let late = self.late_chunking != Some(true);
        let message = "`late_chunking` is not supported: every text is embedded by itself";
        ApiError::check(late, "late_chunking", message)?;
        let single = self.return_multivector != Some(true);
        let message = "`return_multivector` is not supported: the model makes one vector of a text";
        ApiError::check(single, "return_multivector", message)?;
        let plain = self.return_tokenized_input != Some(true);
        let message = "`return_tokenized_input` is not supported: /tokenize shows the tokens";
        ApiError::check(plain, "return_tokenized_input", message)?;
        let is_text = self.modality.as_deref().is_none_or(|modality| modality == "text");
        let message = "`modality` can only be text: the model reads nothing else";
        ApiError::check(is_text, "modality", message)?;
        let own = embedder.is_normalized();
        let message = format!("`normalized` can only be {own}, as the model's vectors are");
        ApiError::check(self.normalized.is_none_or(|asked| asked == own), "normalized", message)
    }

    /// The treatment of long texts.
    pub(super) fn truncation(&self) -> Truncation {
        match (self.truncate, self.truncation) {
            (Some(false), _) => Truncation::Refused("set `truncate` to true"),
            (_, Some(false)) => Truncation::Refused("set `truncation` to true"),
            _ => Truncation::End,
        }
    }

    /// The encoding of the vectors, with OpenAI's `encoding_format`.
    pub(super) fn encoding(
        &self,
        format: Option<EncodingFormat>,
        embedder: &Embedder,
    ) -> ApiResult<VectorEncoding> {
        let jina = match &self.embedding_type {
            Some(TypeNames::Many(names)) => match &names[..] {
                [name] => Some(name),
                _ => {
                    let message = "`embedding_type` can be one type at a time: a reply has one \
                                   encoding";
                    return Err(ApiError::invalid(message).param("embedding_type"));
                }
            },
            Some(TypeNames::One(name)) => Some(name),
            None => None,
        };
        let (field, name) = match (jina, &self.output_dtype) {
            (Some(_), Some(_)) => {
                let message = "`embedding_type` and `output_dtype` were both given: give one";
                return Err(ApiError::invalid(message).param("output_dtype"));
            }
            (Some(name), None) => ("embedding_type", name.as_str()),
            (None, name) => ("output_dtype", name.as_deref().unwrap_or("float")),
        };
        let is_base64 = format == Some(EncodingFormat::Base64);
        let of = |values| Ok(VectorEncoding { values, is_base64 });
        let has_bytes = embedder.dim().is_multiple_of(8);
        let reason = match name {
            "float" => return of(ValueType::Float),
            "base64" if field == "embedding_type" => {
                return Ok(VectorEncoding { values: ValueType::Float, is_base64: true });
            }
            "int8" if embedder.is_normalized() => return of(ValueType::Int8),
            "uint8" if embedder.is_normalized() => return of(ValueType::Uint8),
            "int8" | "uint8" => "the model's vectors are not of unit length",
            "binary" if has_bytes => return of(ValueType::Binary),
            "ubinary" if has_bytes => return of(ValueType::Ubinary),
            "binary" | "ubinary" => "the model's dimensions are not a multiple of 8",
            _ if field == "embedding_type" => {
                "it can be float, base64, int8, uint8, binary or ubinary"
            }
            _ => "it can be float, int8, uint8, binary or ubinary",
        };
        Err(ApiError::invalid(format!("`{field}` cannot be '{name}': {reason}")).param(field))
    }
}

impl VectorEncoding {
    /// A vector in this encoding.
    pub(super) fn encode(self, vector: &[f32]) -> EncodedVector {
        let integers = |values: Vec<i16>| EncodedVector::Integers(values);
        let signed = |values: Vec<i8>| match self.is_base64 {
            true => EncodedVector::Base64(base64_bytes(values.iter().map(|&v| v as u8))),
            false => integers(values.into_iter().map(i16::from).collect()),
        };
        let unsigned = |values: Vec<u8>| match self.is_base64 {
            true => EncodedVector::Base64(base64_bytes(values.into_iter())),
            false => integers(values.into_iter().map(i16::from).collect()),
        };
        match self.values {
            ValueType::Float if self.is_base64 => EncodedVector::Base64(base64(vector)),
            ValueType::Float => EncodedVector::Float(vector.to_vec()),
            ValueType::Int8 => signed(int8(vector)),
            ValueType::Uint8 => unsigned(uint8(vector)),
            ValueType::Binary => signed(offset_bits(vector)),
            ValueType::Ubinary => unsigned(bits(vector)),
        }
    }
}
