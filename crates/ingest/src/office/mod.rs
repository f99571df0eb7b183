//! PDF, Office and EPUB files: pages, slides, sheets and sections.
//!
//! ```text
//! reader.rs     the iterator over the documents of one file
//! worker.rs     starts the extraction: in a process of its own, or on a thread
//! request.rs    the extraction itself: what the process or the thread runs (limits.rs)
//! event.rs      the lines that it writes: one JSON value per section, and one at the end
//! pdf.rs        pages; pages.rs joins sentences that continue on the next page
//! ooxml.rs      sections of DOCX, slides of PPTX
//! sheet.rs      blocks of rows of XLSX, XLSB, XLS and ODS
//! odt.rs        sections of ODT
//! epub.rs       chapters of EPUB
//! outline.rs    headings and paragraphs to sections
//! table.rs      rows of a table to lines `header: value`
//! hidden.rs     hidden text of DOCX
//! cells.rs      the memory that the cells of XLS and ODS need
//! archive.rs    the entries of a zip archive, within limits
//! ```
//!
//! Each page, slide, sheet or section is a document of its own. Its id is `<path>#page=3`, its
//! `doc_id` the path, so that a search for one hit per document shows each file once. A page that
//! changed is embedded again and the others are not.
//!
//! # Hostile files
//!
//! These formats are large and their files come from anywhere, so a parser may crash, run forever
//! or fill the memory. With [`ExtractOptions::command`] a file is read in a process of its own,
//! within [`ExtractLimits`]: a crash there, or an exceeded limit, is an error about that file.
//! Without it, a file is read on a thread: a panic is an error about that file, and a thread that
//! exceeds the time continues in the background to the end of its page. A stack overflow or a
//! failed allocation ends the process; of the memory only what grows beyond measure is limited,
//! the decompressed entries and the cells of XLS and ODS.

mod archive;
mod cells;
mod epub;
mod event;
mod hidden;
mod limits;
mod odt;
mod ooxml;
mod outline;
mod pages;
mod pdf;
mod reader;
mod request;
mod sheet;
mod table;
mod title;
mod worker;
mod xml;

pub use limits::{ExtractLimits, ExtractOptions, StopFlag};
pub(crate) use reader::OfficeReader;
pub use request::ExtractRequest;
