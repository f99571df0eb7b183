//! Layout of the Hugging Face cache, shared with `huggingface_hub` and `hf-hub`.
//!
//! A repository's folder has the contents in `blobs/<etag>`. `snapshots/<commit>/<file>` links to
//! them. `refs/main` names the commit last seen on the main branch.

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use warpseek_error::{Error, Result};

/// Name of the record of a download, in the model folder.
pub(crate) const RECORD: &str = "warpseek-record.json";

/// Folder of one model repository in the cache.
pub(crate) struct RepoCache {
    folder: PathBuf,
    layout: CacheRepo,
}

impl RepoCache {
    /// The folder of `repo` in the cache at `cache_dir`. It need not exist.
    pub(crate) fn new(cache_dir: &Path, repo: &str) -> Self {
        let repo = Repo::new(repo.to_string(), RepoType::Model);
        let folder = cache_dir.join(repo.folder_name());
        Self { folder, layout: Cache::new(cache_dir.to_path_buf()).repo(repo) }
    }

    /// Snapshot folder of `commit`, which contains the files under their own names.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// Commits that have a snapshot folder, with these folders, sorted by commit.
    pub(crate) fn snapshots(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(self.snapshots_dir());
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

    /// The snapshot to use if no revision is asked for: the one that was pulled and has a record,
    /// else the one that `refs/main` names. Several if neither decides.
    pub(crate) fn current(&self) -> Vec<(String, PathBuf)> {
        let (mut all, main) = (self.snapshots(), self.main());
        let is_main = |commit: &String| Some(commit) == main.as_ref();
        let recorded = all.iter().filter(|(_, path)| path.join(RECORD).exists());
        let recorded: Vec<_> = recorded.cloned().collect();
        if let [one] = recorded.as_slice() {
            return vec![one.clone()];
        }
        if main.is_some() {
            all.retain(|(commit, _)| is_main(commit));
        }
        all
    }

    /// The folder of all snapshots.
    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.folder.join("snapshots")
    }

    /// Returns the commit that `refs/main` names.
    pub(crate) fn main(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.folder.join("refs/main")).ok()?;
        Some(commit.trim().to_string()).filter(|commit| is_plain(commit))
    }

    /// Writes `commit` to `refs/main`.
    pub(crate) fn set_main(&self, commit: &str) -> Result<()> {
        self.layout.create_ref(commit).map_err(Error::io("write", self.folder.join("refs/main")))
    }

    /// The blob with this etag.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Links `file` of `commit` to the blob `etag`: a relative symbolic link, else a hard link,
    /// else a copy. Replaces an existing file in one step.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let link = self.snapshot(commit).join(file);
        create_parent(&link)?;
        let fresh = with_suffix(&link, &format!(".{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        // From the file's folder up to the commit, to `snapshots`, to the repository.
        let ups = std::iter::repeat_n("..", file.split('/').count() + 1);
        let target: PathBuf = ups.chain(["blobs", etag]).collect();
        let blob = self.blob(etag);
        symlink(&target, &fresh)
            .or_else(|_| std::fs::hard_link(&blob, &fresh))
            .or_else(|_| std::fs::copy(&blob, &fresh).map(drop))
            .and_then(|()| std::fs::rename(&fresh, &link))
            .map_err(Error::io("create", &link))?;
        // Renaming a hard link over another one of the same file leaves both.
        let _ = std::fs::remove_file(&fresh);
        Ok(())
    }
}

/// True for a plain file name. A name from a server or a ref file must not lead out of the folder.
pub(crate) fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `path` with `suffix` appended to its last part.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the parent folder of `path`.
pub(crate) fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))
}
