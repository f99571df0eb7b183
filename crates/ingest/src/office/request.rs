//! The extraction of the text of one file.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use warpseek_error::{Error, Result};

use super::event::{ExtractError, Sink};
use super::limits::ExtractLimits;
use super::{epub, odt, ooxml, pdf, sheet};
use crate::format::FileFormat;
use crate::message::size;

/// The task of a process that reads one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractRequest {
    /// The name of the file's [`FileFormat`].
    pub(super) format: String,
    /// The limits.
    pub limits: ExtractLimits,
}

impl ExtractRequest {
    /// Reads the argument of [`ExtractOptions::command`](super::limits::ExtractOptions::command).
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is not a request.
    pub fn parse(argument: &str) -> Result<Self> {
        serde_json::from_str(argument)
            .map_err(|e| Error::usage(format!("invalid request to extract text: {e}")))
    }

    /// Reads the file from `input` and writes its sections to `output`, one JSON value per line.
    /// The last line, `"end"`, tells that nothing is cut off. Errors about the file are lines too.
    ///
    /// Everything but the time and the memory is limited here.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if `output` cannot be written.
    pub fn run(&self, input: impl Read, output: &mut dyn Write) -> Result<()> {
        let mut sink = Sink::new(output, &self.limits);
        // The state that a panic leaves is dropped.
        let read = catch_unwind(AssertUnwindSafe(|| self.extract(input, &mut sink)));
        let outcome = read.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("no message");
            Err(ExtractError::new(format!(
                "the reader of {} files failed ({text}): save the file anew, or convert it to text",
                self.format
            )))
        });
        let written = match outcome {
            Ok(()) => sink.end(),
            Err(ExtractError::Input { part, reason }) => {
                sink.failed(part, reason).and_then(|()| sink.end())
            }
            Err(error) => Err(error),
        };
        match written {
            Err(ExtractError::Output(error)) => Err(Error::io("write", "<stdout>")(error)),
            Ok(()) | Err(ExtractError::Input { .. }) => Ok(()),
        }
    }

    fn extract(&self, input: impl Read, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
        let limit = self.limits.file_bytes;
        let mut bytes = Vec::new();
        let read = input.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| ExtractError::new(format!("cannot be read: {e}")))?;
        if bytes.len() as u64 > limit {
            let limit = size(limit);
            return Err(ExtractError::new(format!("the file is larger than {limit}: split it")));
        }
        if bytes.is_empty() {
            return Err(ExtractError::new("the file is empty: copy it again, or leave it out"));
        }
        match self.format.parse() {
            Ok(FileFormat::Pdf) => pdf::extract(&bytes, sink),
            Ok(FileFormat::Docx) => ooxml::extract_docx(bytes, sink),
            Ok(FileFormat::Pptx) => ooxml::extract_pptx(bytes, sink),
            Ok(FileFormat::Xlsx) => sheet::extract(bytes, sink),
            Ok(FileFormat::Odt) => odt::extract(bytes, sink),
            Ok(FileFormat::Epub) => epub::extract(bytes, sink),
            _ => Err(ExtractError::new(format!("'{}' files hold no sections", self.format))),
        }
    }
}
