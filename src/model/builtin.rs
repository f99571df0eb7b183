//! Models that are compiled into the program.
//!
//! They stand under paths that no file system has, `builtin:NAME/FILE`, so that whoever reads a
//! model's files need not care where they are.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// What the paths of such files begin with.
const SCHEME: &str = "builtin:";

/// A model's name and its files with their contents.
type BuiltinModel = (&'static str, &'static [(&'static str, &'static [u8])]);

#[cfg(feature = "builtin-reranker")]
macro_rules! builtin {
    ($name:literal, $($file:literal),+) => {
        ($name, &[$(($file, include_bytes!(concat!("../../models/", $name, "/", $file)))),+])
    };
}

/// Every model that this build carries.
const MODELS: &[BuiltinModel] = &[
    #[cfg(feature = "builtin-reranker")]
    builtin!("warpseek-rerank-mini", "config.json", "tokenizer.json", "model.safetensors"),
];

/// The folder of a compiled-in model, if this build carries it.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let known = MODELS.iter().any(|(known, _)| *known == name);
    known.then(|| PathBuf::from(format!("{SCHEME}{name}")))
}

/// The content of a compiled-in file; none for every other path.
pub(crate) fn content(path: &Path) -> Option<&'static [u8]> {
    let (name, file) = path.to_str()?.strip_prefix(SCHEME)?.split_once('/')?;
    let (_, files) = MODELS.iter().find(|(known, _)| *known == name)?;
    files.iter().find(|(known, _)| *known == file).map(|(_, bytes)| *bytes)
}

/// Reads a model's file, wherever it is.
///
/// # Errors
///
/// What reading it from the disk gives.
pub(crate) fn read(path: &Path) -> io::Result<Cow<'static, [u8]>> {
    match content(path) {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        None => std::fs::read(path).map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Manifest;
    use crate::model::checksum::sha256;

    #[test]
    fn compiled_in_files_are_those_that_the_manifest_names() {
        let manifest = Manifest::builtin().unwrap();
        for (name, files) in MODELS {
            let spec = manifest.get(name).unwrap();
            assert_eq!(files.len(), spec.files.len());
            for file in &spec.files {
                let bytes = content(&folder(name).unwrap().join(&file.path)).unwrap();
                assert_eq!(sha256(bytes), file.sha256, "{name}/{}", file.path);
            }
        }
        assert!(content(Path::new("builtin:nothing/config.json")).is_none());
        assert!(content(Path::new("config.json")).is_none());
    }
}
