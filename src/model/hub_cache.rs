//! The Hugging Face cache on disk, shared with `huggingface_hub` and `hf-hub`.
//!
//! A repository's folder holds the bytes in `blobs/<etag>`; `snapshots/<commit>/<file>` points
//! there, and `refs/main` names the commit last seen on the main branch.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::error::{Error, Result};

/// One model repository's place in the cache.
pub(crate) struct RepoCache {
    folder: PathBuf,
    layout: CacheRepo,
}

impl RepoCache {
    /// The place of `repo` in the cache at `cache_dir`. It need not exist yet.
    pub(crate) fn new(cache_dir: &Path, repo: &str) -> Self {
        let repo = Repo::new(repo.to_string(), RepoType::Model);
        let folder = cache_dir.join(repo.folder_name());
        Self { folder, layout: Cache::new(cache_dir.to_path_buf()).repo(repo) }
    }

    /// The folder of `commit`, which holds its files under their own names.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The commits that something is held of, with their folders.
    pub(crate) fn snapshots(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(self.folder.join("snapshots"));
        let mut all: Vec<_> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| Some((entry.file_name().to_str()?.to_string(), entry.path())))
            .collect();
        all.sort();
        all
    }

    /// The commit that `refs/main` names.
    pub(crate) fn main(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.folder.join("refs/main")).ok()?;
        Some(commit.trim().to_string()).filter(|commit| is_plain(commit))
    }

    /// Makes `refs/main` name `commit`.
    pub(crate) fn set_main(&self, commit: &str) -> Result<()> {
        self.layout.create_ref(commit).map_err(Error::io("write", self.folder.join("refs/main")))
    }

    /// Where the bytes of this etag are kept.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Makes `file` of `commit` stand for the blob `etag`: a relative link, else a hard link, else
    /// a copy. Whatever stood there before is replaced in one step.
    pub(crate) fn point(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let pointer = self.snapshot(commit).join(file);
        create_parent(&pointer)?;
        let fresh = with_suffix(&pointer, &format!(".{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        // Up from the file's folder to the commit, to `snapshots`, to the repository.
        let ups = std::iter::repeat_n("..", file.split('/').count() + 1);
        let target: PathBuf = ups.chain(["blobs", etag]).collect();
        let blob = self.blob(etag);
        symlink(&target, &fresh)
            .or_else(|_| std::fs::hard_link(&blob, &fresh))
            .or_else(|_| std::fs::copy(&blob, &fresh).map(drop))
            .and_then(|()| std::fs::rename(&fresh, &pointer))
            .map_err(Error::io("create", &pointer))?;
        // Renaming one hard link of a file over another leaves both.
        let _ = std::fs::remove_file(&fresh);
        Ok(())
    }
}

/// Fit to be a file name: what a server or a ref file says must not lead anywhere else.
pub(crate) fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `path` with `suffix` behind its last part.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the folder that `path` is to stand in.
pub(crate) fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
