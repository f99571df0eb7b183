//! Vector files of other tools, read and written: NumPy's npy, fvecs, fbin, and FAISS
//! IndexFlat (read with the ids of an IndexIDMap). Vector stores of LangChain, with documents.

mod faiss;
mod format;
pub mod langchain;
mod layout;
mod npy;
mod pickle;
mod reader;
mod writer;

pub use format::VectorFormat;
pub use layout::Metric;
pub use reader::VectorFile;
pub use writer::VectorWriter;
