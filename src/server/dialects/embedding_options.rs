//! Options of `/v1/embeddings` that Jina and Voyage have and OpenAI has not.

use super::openai::{EncodingFormat, WrittenVector};
use super::texts::Cut;
use super::vector_types::{base64, base64_bytes, bits, int8, offset_bits, uint8};
use crate::server::error::{ApiError, ApiResult};
use serde::Deserialize;
use utoipa::ToSchema;
use warpseek_bert::embedder::Embedder;

/// Options of other services than OpenAI.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct EmbeddingOptions {
    /// Encoding of the vectors, as Jina names it: `float`, `base64`, `binary`, `ubinary`.
    embedding_type: Option<String>,
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

/// The form in which vectors are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct VectorForm {
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
        let own = embedder.is_normalized();
        let message = format!("`normalized` can only be {own}: the model's vectors are so");
        ApiError::check(self.normalized.is_none_or(|asked| asked == own), "normalized", message)
    }

    /// The treatment of long texts.
    pub(super) fn cut(&self) -> Cut {
        match (self.truncate, self.truncation) {
            (Some(false), _) => Cut::Refused("set `truncate` to true"),
            (_, Some(false)) => Cut::Refused("set `truncation` to true"),
            _ => Cut::End,
        }
    }

    /// The form of the vectors, with OpenAI's `encoding_format`.
    pub(super) fn form(
        &self,
        format: Option<EncodingFormat>,
        embedder: &Embedder,
    ) -> ApiResult<VectorForm> {
        let (field, name) = match (&self.embedding_type, &self.output_dtype) {
            (Some(_), Some(_)) => {
                let message = "`embedding_type` and `output_dtype` were both given: give one";
                return Err(ApiError::invalid(message).param("output_dtype"));
            }
            (Some(name), None) => ("embedding_type", name.as_str()),
            (None, name) => ("output_dtype", name.as_deref().unwrap_or("float")),
        };
        let is_base64 = format == Some(EncodingFormat::Base64);
        let of = |values| Ok(VectorForm { values, is_base64 });
        let has_bytes = embedder.dim() % 8 == 0;
        let reason = match name {
            "float" => return of(ValueType::Float),
            "base64" if field == "embedding_type" => {
                return Ok(VectorForm { values: ValueType::Float, is_base64: true });
            }
            "int8" if embedder.is_normalized() => return of(ValueType::Int8),
            "uint8" if embedder.is_normalized() => return of(ValueType::Uint8),
            "int8" | "uint8" => "the model's vectors are not of unit length",
            "binary" if has_bytes => return of(ValueType::Binary),
            "ubinary" if has_bytes => return of(ValueType::Ubinary),
            "binary" | "ubinary" => "the model's dimensions fill no whole bytes",
            _ => "it can be float, int8, uint8, binary or ubinary",
        };
        Err(ApiError::invalid(format!("`{field}` cannot be '{name}': {reason}")).param(field))
    }
}

impl VectorForm {
    /// A vector in this form.
    pub(super) fn write(self, vector: &[f32]) -> WrittenVector {
        let integers = |values: Vec<i16>| WrittenVector::Integers(values);
        let signed = |values: Vec<i8>| match self.is_base64 {
            true => WrittenVector::Base64(base64_bytes(values.iter().map(|&v| v as u8))),
            false => integers(values.into_iter().map(i16::from).collect()),
        };
        let unsigned = |values: Vec<u8>| match self.is_base64 {
            true => WrittenVector::Base64(base64_bytes(values.into_iter())),
            false => integers(values.into_iter().map(i16::from).collect()),
        };
        match self.values {
            ValueType::Float if self.is_base64 => WrittenVector::Base64(base64(vector)),
            ValueType::Float => WrittenVector::Float(vector.to_vec()),
            ValueType::Int8 => signed(int8(vector)),
            ValueType::Uint8 => unsigned(uint8(vector)),
            ValueType::Binary => signed(offset_bits(vector)),
            ValueType::Ubinary => unsigned(bits(vector)),
        }
    }
}
