//! Names of files for ids and sources: the same however a path was written.

use std::fs;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use warpseek_error::{Error, Result};

/// The source of documents from standard input, a pipe, or another stream. No file has this name.
pub const STREAM_SOURCE: &str = "//stdin";

/// The source of records that a program passes on. No input of a command covers it.
pub const RECORDS_SOURCE: &str = "//records";

/// The folder from which relative names start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base(PathBuf);

impl Base {
    /// Resolves the folder, which need not exist; `None` is the working directory.
    pub(crate) fn new(folder: Option<&Path>) -> Result<Self> {
        let folder = folder.unwrap_or(Path::new("."));
        let resolved = fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
        resolved.map(Self).map_err(Error::io("read", folder))
    }

    /// The name of a resolved path: from this folder if the file is below it, else absolute. The
    /// folder itself is `.`.
    pub(crate) fn name(&self, resolved: &Path) -> String {
        match resolved.strip_prefix(&self.0) {
            Ok(below) if below == Path::new("") => ".".to_owned(),
            Ok(below) => text(below),
            Err(_) => text(resolved),
        }
    }
}

/// The files and folders that were read, to tell which documents of an index come from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputRoots {
    base: String,
    /// Absolute names of files and folders.
    roots: Vec<String>,
    /// Those below the roots that belong to other inputs.
    others: Vec<String>,
    has_stream: bool,
    /// Those of the roots that no path can be made from: names that are not UTF-8.
    nameless: Vec<String>,
}

impl InputRoots {
    pub(crate) fn new(base: &Base, others: &Self) -> Self {
        let others = others.roots.clone();
        Self { base: text(&base.0), others, ..Self::default() }
    }

    /// Adds a resolved file or folder.
    pub(crate) fn add(&mut self, resolved: &Path) {
        let root = text(resolved);
        if resolved.to_str().is_none() {
            self.nameless.push(root.clone());
        }
        self.roots.push(root);
    }

    /// The given files and folders, named as in a [source](crate::Document::source): from the
    /// folder `base`, or absolute. Nothing is looked up on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the working directory is needed and gone.
    pub fn named(names: &[String], base: &Path) -> Result<Self> {
        let base = Base::new(Some(base))?;
        let mut roots = Self::new(&base, &Self::default());
        names.iter().for_each(|name| roots.add(&input_path(&base.0, name)));
        Ok(roots)
    }

    /// Other files and folders, named from the same folder.
    pub fn others(&self, names: &[String]) -> Self {
        let mut roots = Self { base: self.base.clone(), ..Self::default() };
        names.iter().for_each(|name| roots.add(&input_path(self.base.as_ref(), name)));
        roots
    }

    /// The names of the files and folders, as those of [sources](crate::Document::source), but for
    /// those that are not UTF-8.
    pub fn names(&self) -> Vec<String> {
        let base = Base(PathBuf::from(&self.base));
        let named = self.roots.iter().filter(|root| !self.nameless.contains(root));
        named.map(|root| base.name(root.as_ref())).collect()
    }

    /// The files and folders whose names are not UTF-8, as they are written in messages.
    pub fn nameless(&self) -> &[String] {
        &self.nameless
    }

    pub(crate) fn add_stream(&mut self) {
        self.has_stream = true;
    }

    /// True if documents of this [source](crate::Document::source) come from the named files, from
    /// below the named folders, or from a stream if one was read. Not if another input, which was
    /// named as [`KnownFiles::elsewhere`](crate::KnownFiles::elsewhere), is closer to them.
    pub fn covers(&self, source: &str) -> bool {
        if source == STREAM_SOURCE {
            return self.has_stream;
        }
        if source == RECORDS_SOURCE {
            return false;
        }
        let absolute;
        let source = match Path::new(source).is_absolute() {
            true => source,
            false => {
                absolute = format!("{}/{source}", self.base.trim_end_matches('/'));
                &absolute
            }
        };
        let is_below = |root: &str| {
            source.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let closest = |roots: &[String]| {
            let roots = roots.iter().map(|root| root.trim_end_matches('/'));
            roots.filter(|root| is_below(root)).map(str::len).max()
        };
        closest(&self.roots).is_some_and(|own| closest(&self.others).is_none_or(|c| own > c))
    }
}

/// The path of what has this name from the folder `base`: `.` is the folder itself.
pub fn input_path(base: &Path, name: &str) -> PathBuf {
    match name {
        "." => base.to_path_buf(),
        name => base.join(name),
    }
}

/// Resolves the folder that holds a file or folder, but not that itself: a link can be given
/// another target later.
///
/// # Errors
///
/// [`Error::Io`] naming a folder that cannot be read.
pub fn resolve_folder(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return fs::canonicalize(path).map_err(Error::io("read", path));
    };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let resolved = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
    Ok(resolved.join(name))
}

/// A path as text, with `/` between its parts. A byte that is not UTF-8 is written as `\xFF`.
pub(crate) fn text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid().iter();
        text.extend(invalid.map(|byte| format!("\\x{byte:02X}")));
    }
    match MAIN_SEPARATOR {
        '/' => text,
        separator => text.replace(separator, "/").replace("//?/", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(roots: &[&str]) -> InputRoots {
        let mut all = InputRoots::new(&Base("/home/me".into()), &InputRoots::default());
        roots.iter().for_each(|root| all.add(root.as_ref()));
        all
    }

    #[test]
    fn closest_input_has_the_file() {
        let others = InputRoots { roots: vec!["/home/me/docs/sub".into()], ..roots(&[]) };
        let mut own = InputRoots::new(&Base("/home/me".into()), &others);
        own.add("/home/me/docs".as_ref());
        assert!(own.covers("docs/a") && own.covers("docs/subway/a"));
        assert!(!own.covers("docs/sub/a") && !own.covers("docs/sub"));
        own.add("/home/me/docs/sub/own".as_ref());
        assert!(own.covers("docs/sub/own/a") && !own.covers("docs/sub/a"));
        assert_eq!(own.names(), ["docs", "docs/sub/own"]);
    }

    #[test]
    fn name_is_relative_below_the_base_and_absolute_elsewhere() {
        let base = Base("/home/me".into());
        let name = |path: &str| base.name(path.as_ref());
        assert_eq!(name("/home/me/docs/a.txt"), "docs/a.txt");
        assert_eq!(name("/home/me2/a.txt"), "/home/me2/a.txt");
        assert_eq!(name("/home/me"), ".");
        assert_eq!(input_path("/home/me".as_ref(), "."), Path::new("/home/me"));
        assert_eq!(Base("/".into()).name("/a".as_ref()), "a");
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_stay_different() {
        use std::os::unix::ffi::OsStrExt;
        let name = |bytes: &[u8]| text(std::ffi::OsStr::from_bytes(bytes).as_ref());
        assert_eq!(name(b"caf\xe9.txt"), "caf\\xE9.txt");
        assert_ne!(name(b"caf\xe9.txt"), name(b"caf\xe8.txt"));
    }

    #[test]
    fn roots_cover_what_is_below_them_and_nothing_else() {
        let docs = roots(&["/home/me/docs", "/data/x.jsonl"]);
        let covered = ["docs/a.txt", "docs/sub/b.md", "/home/me/docs/c", "/data/x.jsonl"];
        assert!(covered.iter().all(|source| docs.covers(source)));
        let others = ["docs2/a.txt", "a.txt", "/docs/a.txt", "/data/x.jsonl.gz", STREAM_SOURCE];
        assert!(!others.iter().any(|source| docs.covers(source)));
        let all = roots(&["/"]);
        assert!(all.covers("a.txt") && all.covers("/x") && !all.covers(STREAM_SOURCE));
        assert!(!all.covers(RECORDS_SOURCE));
        let base = roots(&["/home/me"]);
        assert!(base.covers("a.txt") && base.names() == ["."]);
        let named = InputRoots::named(&base.names(), "/home/me".as_ref()).unwrap();
        assert!(named.covers("a.txt") && named.covers("/home/me/a") && !named.covers("/home/a"));
        let mut stream = roots(&[]);
        stream.add_stream();
        assert!(stream.covers(STREAM_SOURCE) && !stream.covers("a.txt"));
    }
}
