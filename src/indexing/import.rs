//! Import of existing vectors into an index.

use crate::error::{Error, Place, Result};
use crate::store::{IndexMetric, IndexWriter};
use crate::vectors::langchain::LangchainStore;
use crate::vectors::{self, VectorFile};
use half::f16;
use std::collections::HashSet;
use warpseek_bert::embedder::normalize;
use warpseek_ingest::chunk::Chunk;
use warpseek_ingest::{self, Document};
use warpseek_topk::layout::MAX_DIM;

/// Rows that are committed together.
const COMMIT_ROWS: usize = 65_536;

/// Deviation from the length 1 up to which the orders by L2 distance and by inner product count as
/// equal. Vectors that were scaled in half precision deviate less.
const L2_TOLERANCE: f64 = 1e-3;

/// Deviation from the length 1 up to which a vector counts as one of unit length.
const UNIT_TOLERANCE: f64 = 0.01;

/// Vectors to import, with their documents.
pub struct Import {
    /// The vectors.
    pub vectors: Vectors,
    /// Their documents, in the same order, and the name of their file. Without any, documents have
    /// no text, and as ids those of the vector file, else the row numbers.
    pub documents: Option<(String, ImportedDocuments)>,
    /// True to scale the vectors to unit length.
    pub normalize: bool,
}

/// Vectors of a file or of a program.
#[derive(Debug)]
pub enum Vectors {
    /// A vector file.
    File(VectorFile),
    /// Rows in memory.
    Memory {
        /// Their name, for messages.
        name: String,
        /// Dimensions of a row, at least 1.
        dim: usize,
        /// `[n, dim]`, row-major.
        values: Vec<f32>,
    },
}

impl Vectors {
    /// The number of vectors.
    pub fn n_rows(&self) -> usize {
        match self {
            Self::File(file) => file.n_rows(),
            Self::Memory { dim, values, .. } => values.len() / dim,
        }
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        match self {
            Self::File(file) => file.dim(),
            Self::Memory { dim, .. } => *dim,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Memory { name, .. } => name.clone(),
        }
    }

    fn id(&self, row: usize) -> Option<i64> {
        match self {
            Self::File(file) => file.id(row),
            Self::Memory { .. } => None,
        }
    }

    fn metric(&self) -> Option<vectors::Metric> {
        match self {
            Self::File(file) => file.metric(),
            Self::Memory { .. } => None,
        }
    }

    fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match self {
            Self::File(file) => file.read(row, out)?,
            Self::Memory { dim, values, .. } => {
                out.copy_from_slice(&values[row * dim..(row + 1) * dim]);
            }
        }
        Ok(())
    }
}

/// The documents of imported vectors.
pub type ImportedDocuments = Box<dyn Iterator<Item = Result<Document>>>;

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Rows imported.
    pub rows: u64,
    /// Rows with new ids.
    pub added: u64,
    /// Rows that replaced one of the same id.
    pub updated: u64,
    /// Dimensions of the vectors.
    pub dim: usize,
    /// The first notes about the documents: columns left out, values that became null or text.
    pub notes: Vec<String>,
    /// Notes about the documents, those beyond `notes` included.
    pub notes_total: u64,
    /// Rows that are not of unit length.
    #[serde(skip)]
    pub not_unit: u64,
}

impl Import {
    /// The vectors and documents of a store that LangChain saved.
    pub fn of_langchain(store: LangchainStore, normalize: bool) -> Self {
        let LangchainStore { vectors, documents, .. } = store;
        let documents = Some((documents.name().to_owned(), Box::new(documents) as _));
        Self { vectors: Vectors::File(vectors), documents, normalize }
    }

    /// Checks that the vectors fit an index. Returns a warning if they are ranked in another order
    /// than the file's own metric has.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the file asks for L2 distances, the vectors are not of unit length and
    /// they are not scaled; [`Error::Input`] for too many dimensions.
    pub fn check(&self) -> Result<Option<String>> {
        let (dim, name) = (self.vectors.dim(), self.vectors.name());
        if dim > MAX_DIM {
            let reason = format!("{dim} dimensions; at most {MAX_DIM} are supported");
            return Err(Error::input(Place::file(name), reason));
        }
        if self.vectors.metric() != Some(vectors::Metric::L2) {
            return Ok(None);
        }
        let is_off = |_: &[f32], norm: f64| (norm - 1.0).abs() > L2_TOLERANCE;
        let Some((row, norm)) = self.first_whose_length(is_off)? else { return Ok(None) };
        let orders = format!(
            "{name}: the index ranks by L2 distance, warpseek by inner product. The two orders are \
             equal only for vectors of unit length, and vector {row} has the length {norm:.4}"
        );
        if self.normalize {
            return Ok(Some(format!("{orders}: scaled, they are ranked by cosine instead")));
        }
        Err(Error::usage(format!(
            "{orders}: use --normalize to rank by cosine instead, which is another order"
        )))
    }

    /// True if the vectors have unit length, which is not looked up if they are scaled to it. Zero
    /// vectors, which have no direction, do not count.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the vectors cannot be read.
    pub fn is_unit(&self) -> Result<bool> {
        Ok(self.normalize || self.first_not_unit()?.is_none())
    }

    /// The first vector that is neither zero nor of unit length, with its length. Vectors that half
    /// precision cannot hold are left to [`Import::run`].
    fn first_not_unit(&self) -> Result<Option<(usize, f64)>> {
        self.first_whose_length(|vector, norm| {
            (norm - 1.0).abs() > UNIT_TOLERANCE
                && norm != 0.0
                && vector.iter().all(|v| f16::from_f32(*v).is_finite())
        })
    }

    /// The first vector whose length is as asked for, with its length. Vectors that are not finite
    /// are left to [`Import::run`].
    fn first_whose_length(
        &self,
        is_it: impl Fn(&[f32], f64) -> bool,
    ) -> Result<Option<(usize, f64)>> {
        let mut vector = vec![0f32; self.vectors.dim()];
        for row in 0..self.vectors.n_rows() {
            self.vectors.read(row, &mut vector)?;
            let norm = norm(&vector);
            if norm.is_finite() && is_it(&vector, norm) {
                return Ok(Some((row, norm)));
            }
        }
        Ok(None)
    }

    /// Writes all rows. `progress` gets the number of rows written; it returns false to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for vectors that are not finite or cannot be scaled, or are not of unit
    /// length for an index that ranks by the cosine, an id that occurs twice, and more or fewer
    /// documents than vectors; [`Error::Interrupted`] if `progress` stops the import; the errors of
    /// the store and of the documents' reader.
    pub fn run(
        mut self,
        writer: &mut IndexWriter,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<ImportReport> {
        let (n_rows, dim) = (self.vectors.n_rows(), self.vectors.dim());
        let manifest = writer.manifest();
        if manifest.metric == IndexMetric::Cosine
            && manifest.states_metric
            && !self.normalize
            && let Some((row, norm)) = self.first_not_unit()?
        {
            // A file that cannot be read to its end is the better reason.
            let mut vector = vec![0f32; dim];
            (row..n_rows).try_for_each(|row| self.vectors.read(row, &mut vector))?;
            let reason = format!(
                "the index ranks by the cosine of vectors of unit length, and this one has the \
                 length {norm:.4}: scale the vectors with --normalize, or import them into another \
                 folder"
            );
            return Err(Error::input(self.place(row), reason));
        }
        let mut report = ImportReport { rows: n_rows as u64, dim, ..Default::default() };
        let (mut seen, mut vector) = (HashSet::new(), vec![0f32; dim]);
        for row in 0..n_rows {
            let document = self.document(row)?;
            if !seen.insert(document.id.clone()) {
                let reason = format!("the id '{}' occurs twice: make ids unique", document.id);
                return Err(Error::input(document.place, reason));
            }
            let norm = self.read(row, &mut vector)?;
            report.not_unit += u64::from((norm - 1.0).abs() > UNIT_TOLERANCE);
            report.updated += u64::from(writer.find(&document.id)?.is_some());
            let chunk = Chunk { range: 0..document.text.len(), tokens: 0, tokens_lost: 0 };
            // The vectors are not in the file of the documents, which `--prune` looks at.
            let document = Document { place: self.place(row), source: None, ..document };
            writer.put(document, vec![chunk], &vector)?;
            if writer.n_pending_rows() >= COMMIT_ROWS {
                writer.commit()?;
            }
            if !progress(row + 1) {
                return Err(Error::Interrupted(
                    "committed rows stay; run the same command again to import all".to_owned(),
                ));
            }
        }
        if let Some((file, documents)) = &mut self.documents
            && documents.next().is_some()
        {
            let reason = format!("more entries than vectors ({n_rows}): they must match");
            return Err(Error::input(Place::file(file.as_str()), reason));
        }
        writer.commit()?;
        report.added = report.rows - report.updated;
        Ok(report)
    }

    fn document(&mut self, row: usize) -> Result<Document> {
        let Some((file, documents)) = &mut self.documents else {
            let id = self.vectors.id(row).map_or_else(|| row.to_string(), |id| id.to_string());
            return Ok(Document::new(id, "", self.place(row)));
        };
        documents.next().unwrap_or_else(|| {
            let reason = format!("only {row} entries, and there are more vectors: they must match");
            Err(Error::input(Place::file(file.as_str()), reason))
        })
    }

    /// Reads a vector, scaled if it is to be; returns its norm.
    fn read(&self, row: usize, vector: &mut [f32]) -> Result<f64> {
        self.vectors.read(row, vector)?;
        // Checked before scaling, which would turn an infinity into something else.
        if let Some(at) = vector.iter().position(|v| !v.is_finite()) {
            let reason = format!("component {at} is {}; vectors must be finite", vector[at]);
            return Err(Error::input(self.place(row), reason));
        }
        let norm = norm(vector);
        if !self.normalize {
            return Ok(norm);
        }
        if norm == 0.0 {
            let reason = "the vector is zero and cannot be scaled to unit length: leave it out";
            return Err(Error::input(self.place(row), reason));
        }
        normalize(vector);
        Ok(1.0)
    }

    fn place(&self, row: usize) -> Place {
        Place::record(self.vectors.name(), format!("vector {row}"))
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Documents without text, with ids from the lines of a text; `file` is its name in messages.
///
/// # Errors
///
/// [`Error::Input`] with the line of an invalid id.
pub fn bare_documents(file: &str, text: &str) -> Result<Vec<Document>> {
    let document = |(i, line): (usize, &str)| {
        let place = Place::record(file, format!("line {}", i + 1));
        warpseek_ingest::check_id(line.trim(), &place)?;
        Ok(Document::new(line.trim(), "", place))
    };
    text.lines().enumerate().map(document).collect()
}
