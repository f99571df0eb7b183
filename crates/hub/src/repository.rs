//! Resumable download of a hub repository's files into the Hugging Face cache.
//!
//! A download goes into `blobs/<etag>.part` under the lock `blobs/<etag>.lock`, both named as
//! `hf-hub` names them. Bytes that arrived stay in the part file. The next request, of this call or
//! of another process, asks for the rest. A part file becomes the blob when it is complete and its
//! checksum matches.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::http::Method;
use ureq::http::header::ETAG;
use warpseek_error::{Error, Result};

use crate::cache::{RepoCache, create_parent, is_plain, with_suffix};
use crate::checksum::sha256_file;
use crate::http::{HttpClient, HttpError, HttpErrorKind, HttpOptions, HttpResponse};
use crate::manifest::{FileSpec, WEIGHTS, is_hex};
use crate::progress::{FetchContext, FetchEvent};

/// This many new bytes reset the number of failures.
const HEADWAY: u64 = 1 << 20;

/// A hub repository and its place in the cache.
pub(crate) struct Repository<'a> {
    pub(crate) fetch: FetchContext<'a>,
    client: HttpClient,
    pub(crate) id: &'a str,
    pub(crate) cache: RepoCache,
}

/// A file to download.
pub(crate) struct RepoFile<'a> {
    pub(crate) path: &'a str,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<&'a str>,
    /// True if its absence is an error.
    pub(crate) required: bool,
}

/// The hub's description of a file.
#[derive(Default)]
struct RemoteFile {
    /// The commit of the requested revision.
    commit: Option<String>,
    /// The content's name: its SHA-256 for large files.
    etag: Option<String>,
    /// Size in bytes.
    size: Option<u64>,
}

/// A failed download: the server's fault, or a local one (a file, or a request to stop).
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Local(#[from] Error),
}

impl<'a> Repository<'a> {
    pub(crate) fn open(id: &'a str, fetch: FetchContext<'a>) -> Result<Self> {
        let sources = fetch.sources;
        let refuse = |reason| refuse(id, reason);
        if sources.hub_offline {
            return Err(refuse("not asked: HF_HUB_OFFLINE is set".into()));
        }
        let options = HttpOptions {
            secret: sources.token.clone(),
            offline: sources.offline,
            proxy: sources.proxy,
            timeouts: sources.timeouts,
            settings: ["HF_ENDPOINT", "HF_TOKEN"],
        };
        let client = HttpClient::new(&sources.endpoint, options).map_err(refuse)?;
        if client.has_secret() && client.is_exposed() {
            return Err(refuse(format!(
                "{} is not asked: the access token would be sent unencrypted; use https in \
                 HF_ENDPOINT, or unset HF_TOKEN and HF_TOKEN_PATH",
                client.name()
            )));
        }
        let no_cache = || refuse("there is no home directory: set HF_HUB_CACHE".into());
        let cache_dir = sources.cache_dir.as_ref().ok_or_else(no_cache)?;
        Ok(Self { fetch, client, id, cache: RepoCache::new(cache_dir, id) })
    }

    /// Downloads those of these files that are not there or damaged.
    pub(crate) fn download_all(&self, revision: &str, files: &[FileSpec]) -> Result<()> {
        let snapshot = self.cache.snapshot(revision);
        for file in files {
            let there = self.fetch.checksums.sha256(&snapshot.join(&file.path));
            if there.is_ok_and(|sha256| sha256 == file.sha256) {
                continue;
            }
            let (path, sha256) = (file.path.as_str(), Some(file.sha256.as_str()));
            let file = RepoFile { path, size: file.size, sha256, required: true };
            self.download(revision, &file)?;
        }
        Ok(())
    }

    /// The error for a repository that cannot be used.
    pub(crate) fn refuse(&self, reason: String) -> Error {
        refuse(self.id, reason)
    }

    /// True if the repository has a file at `revision`.
    pub(crate) fn has(&self, revision: &str, path: &str) -> bool {
        let url = format!("/{}/resolve/{revision}/{path}", self.id);
        let head = self.client.follow(&Method::HEAD, &url, 0, |_, is_own| is_own);
        head.is_ok_and(|response| response.status() < 400)
    }

    /// Downloads one file. Returns its commit; None if the file is optional and does not exist.
    pub(crate) fn download(&self, revision: &str, file: &RepoFile<'_>) -> Result<Option<String>> {
        let url = format!("/{}/resolve/{revision}/{}", self.id, file.path);
        let remote = self.describe(&url, file);
        match remote.and_then(|remote| self.store(&url, revision, file, remote)) {
            Ok(commit) => Ok(Some(commit)),
            Err(DownloadError::Local(error)) => Err(error),
            Err(DownloadError::Http(error)) if !file.required && error.is_no_entry() => Ok(None),
            Err(DownloadError::Http(error)) => Err(Error::Remote {
                service: self.client.scrub(self.client.name()),
                reason: self.client.scrub(&self.explain(&error, revision, file.path)),
            }),
        }
    }

    /// Asks the hub about a file. Follows redirects on the hub only.
    fn describe(&self, url: &str, file: &RepoFile<'_>) -> Result<RemoteFile, DownloadError> {
        self.retry(file.path, None, || {
            let mut remote = RemoteFile::default();
            let response = self.client.follow(&Method::HEAD, url, 0, |response, is_own| {
                remote.update(response);
                is_own
            })?;
            // A plain file server may not know HEAD. A known checksum is enough.
            if matches!(response.status(), 405 | 501) && file.sha256.is_some() {
                return Ok(remote);
            }
            check_status(&response)?;
            remote.update(&response);
            if !response.is_redirect() {
                remote.size = remote.size.or(response.length());
            }
            Ok(remote)
        })
    }

    /// Ensures that the blob is in the cache and correct, and links the snapshot's file to it.
    /// Returns the commit.
    fn store(
        &self,
        url: &str,
        revision: &str,
        file: &RepoFile<'_>,
        remote: RemoteFile,
    ) -> Result<String, DownloadError> {
        let refuse = |reason: &str| Err(HttpError::permanent(reason).into());
        let commit = match remote.commit {
            _ if is_hex(revision, 40) => revision.to_string(),
            Some(commit) if is_plain(&commit) => commit,
            _ => {
                return refuse(
                    "the server does not say which commit it answers from, as a Hugging Face hub \
                     does: check HF_ENDPOINT",
                );
            }
        };
        if let (Some(expected), Some(size)) = (file.size, remote.size)
            && expected != size
        {
            return refuse(&format!("{} has {size} bytes there, expected {expected}", file.path));
        }
        let etag = remote.etag.as_deref();
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let Some(name) = etag.filter(|etag| is_plain(etag)).or(file.sha256) else {
            return refuse("the server names no etag: check HF_ENDPOINT");
        };
        let sha256 = file.sha256.or(is_hex(name, 64).then_some(name));
        let file = RepoFile { size: file.size.or(remote.size), sha256, ..*file };

        let blob = self.cache.blob(name);
        create_parent(&blob)?;
        let _lock = self.lock(&blob)?;
        if !self.is_complete(&blob, &file) {
            self.download_blob(url, &blob, &file)?;
        }
        self.cache.link(&commit, file.path, name)?;
        self.fetch.tell(FetchEvent::Finished { file: file.path.to_string() })?;
        Ok(commit)
    }

    /// True if the blob is in the cache and correct. Without a known checksum its size decides.
    fn is_complete(&self, blob: &Path, file: &RepoFile<'_>) -> bool {
        match file.sha256 {
            Some(expected) => self.fetch.checksums.sha256(blob).is_ok_and(|got| got == expected),
            None => file.size.is_some_and(|size| length(blob) == size),
        }
    }

    /// Locks `blob` for writing. Waits as long as the process that has the lock makes progress.
    fn lock(&self, blob: &Path) -> Result<File> {
        let path = with_suffix(blob, ".lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        let part = with_suffix(blob, ".part");
        let mut last = (length(&part), Instant::now());
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                // This file system has no locks. A file written by two fails its checksum.
                Err(TryLockError::Error(_)) => return Ok(lock),
                Err(TryLockError::WouldBlock) => {}
            }
            let now = length(&part);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > self.fetch.sources.timeouts.stall {
                return Err(Error::Locked { path: blob.to_path_buf(), holder: None });
            }
            self.fetch.pause(Duration::from_millis(100))?;
        }
    }

    /// Downloads the part file, verifies it, and renames it to the blob. After a wrong checksum the
    /// file is downloaded once more from the beginning: the part may have come from another server.
    fn download_blob(
        &self,
        url: &str,
        blob: &Path,
        file: &RepoFile<'_>,
    ) -> Result<(), DownloadError> {
        let part = with_suffix(blob, ".part");
        for is_last in [false, true] {
            self.retry(file.path, Some(&part), || self.transfer(url, &part, file))?;
            let got = file.sha256.map(|_| sha256_file(&part)).transpose()?;
            if got.as_deref() == file.sha256 {
                std::fs::rename(&part, blob).map_err(Error::io("write", blob))?;
                if let Some(got) = got {
                    self.fetch.checksums.insert(blob, got);
                }
                return Ok(());
            }
            std::fs::remove_file(&part).map_err(Error::io("remove", &part))?;
            let (got, expected) = (got.unwrap_or_default(), file.sha256.unwrap_or_default());
            let reason = format!("{}: sha256 is {got}, expected {expected}", file.path);
            if is_last {
                return Err(HttpError::permanent(reason).into());
            }
            self.fetch.note(format!("{reason}; downloading it once more"))?;
        }
        Ok(())
    }

    /// Repeats `attempt` after transient errors. Progress of the part file resets the number of
    /// failures.
    fn retry<T>(
        &self,
        file: &str,
        part: Option<&Path>,
        attempt: impl Fn() -> Result<T, DownloadError>,
    ) -> Result<T, DownloadError> {
        let policy = self.fetch.sources.retry;
        let arrived = || part.map_or(0, length);
        let (mut failures, mut furthest) = (0, arrived());
        loop {
            let before = arrived();
            let error = match attempt() {
                Err(DownloadError::Http(error)) => error,
                done => return done,
            };
            let after = arrived();
            if after >= furthest + HEADWAY {
                (failures, furthest) = (0, after);
            }
            let is_hopeless = match error.kind {
                HttpErrorKind::Stalled => after <= before,
                HttpErrorKind::Unreachable => part.is_none(),
                _ => false,
            };
            let Some(pause) = policy.pause(failures, &error).filter(|_| !is_hopeless) else {
                return Err(error.into());
            };
            failures += 1;
            let reason = self.client.scrub(&error.to_string());
            self.fetch.note(format!("{file}: {reason}; retry {failures} of {}", policy.retries))?;
            self.fetch.pause(pause)?;
        }
    }

    /// Sends one request for the missing bytes of a part file, and appends them.
    fn transfer(&self, url: &str, part: &Path, file: &RepoFile<'_>) -> Result<(), DownloadError> {
        let open = OpenOptions::new().create(true).append(true).open(part);
        let mut output = open.map_err(Error::io("create", part))?;
        let empty = |output: &File| output.set_len(0).map_err(Error::io("write", part));
        let (path, mut have) = (file.path, length(part));
        if file.size.is_some_and(|size| have > size) {
            empty(&output)?;
            have = 0;
        }
        if have > 0 && file.size == Some(have) {
            return Ok(());
        }
        let mut response = self.client.follow(&Method::GET, url, have, |_, _| true)?;
        if response.status() == 416 && have > 0 {
            empty(&output)?;
            let reason = format!("{} cannot resume at byte {have}", response.host);
            return Err(HttpError::broken(reason).into());
        }
        check_status(&response)?;
        let (start, total) = response.range()?;
        if start != have {
            empty(&output)?;
            if start != 0 {
                let reason = format!("the server sent byte {start} and following, not {have}");
                return Err(HttpError::broken(reason).into());
            }
            have = 0;
            self.fetch.note(format!("{path}: the server cannot resume; starting from zero"))?;
        }
        let total = total.or(file.size);
        if let (Some(expected), Some(total)) = (file.size, total)
            && expected != total
        {
            empty(&output)?;
            let reason = format!("{path} has {total} bytes there, expected {expected}");
            return Err(HttpError::permanent(reason).into());
        }
        self.fetch.tell(FetchEvent::Started { file: path.into(), size: total, resumed: have })?;
        let cut = |have: u64, reason: &str| {
            let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
            HttpError::broken(format!("the transfer was cut at byte {have}{of}: {reason}"))
        };
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = match response.read(&mut buffer).map_err(HttpError::from) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind == HttpErrorKind::Broken => {
                    return Err(cut(have, &error.reason).into());
                }
                Err(error) => return Err(error.into()),
            };
            have += read as u64;
            if total.is_some_and(|total| have > total) {
                empty(&output)?;
                let reason = format!("the server sends too many bytes for {path}");
                return Err(HttpError::permanent(reason).into());
            }
            output.write_all(&buffer[..read]).map_err(Error::io("write", part))?;
            self.fetch.tell(FetchEvent::Advanced { bytes: read as u64 })?;
        }
        if total.is_some_and(|total| have < total) {
            return Err(cut(have, "the body ended").into());
        }
        output.sync_all().map_err(Error::io("write", part))?;
        Ok(())
    }

    /// Message for a file that could not be downloaded, with the remedy.
    fn explain(&self, error: &HttpError, revision: &str, file: &str) -> String {
        let (repo, hub) = (self.id, self.client.name());
        let (status, code) = match &error.kind {
            HttpErrorKind::Status { status, code } => (*status, code.as_str()),
            // Without a connection the file does not matter.
            HttpErrorKind::Unreachable => return error.to_string(),
            _ => (0, ""),
        };
        let token = match self.client.has_secret() {
            true => "the access token in use does not permit it",
            false => "no access token is set: set HF_TOKEN",
        };
        let hint = match (status, code) {
            (401 | 403, "GatedRepo") => {
                format!(": the model is gated; accept its licence on {hub}/{repo}; {token}")
            }
            (401, _) => format!(": it is private or gated, or does not exist; {token}"),
            (403, _) => format!(": it is gated or private; {token}"),
            (404, "RepoNotFound") => ": no such repository".into(),
            (404, "RevisionNotFound") => ": no such revision".into(),
            (404, _) if file.ends_with(WEIGHTS) => ": no such file, and only safetensors are \
                loaded; if there is a pytorch_model.bin, convert that (save_pretrained of \
                sentence-transformers writes safetensors)"
                .into(),
            (404, _) if file.ends_with("tokenizer.json") => format!(
                ": no such file; make one: python -c \"from transformers import AutoTokenizer as \
                 T; T.from_pretrained('{repo}').save_pretrained('tokenizer')\", and put it into a \
                 folder with the model's other files"
            ),
            (404, _) => ": no such file".into(),
            (429, _) => ": too many requests; try again later".into(),
            _ => String::new(),
        };
        format!("{repo} at revision {revision}, {file}: {error}{hint}")
    }
}

impl RemoteFile {
    /// Takes over the headers of an answer. The first commit counts, and the last etag and size.
    fn update(&mut self, response: &HttpResponse) {
        let header = |name: &str| response.header(name).map(str::to_string);
        self.commit = self.commit.take().or(header("x-repo-commit"));
        self.etag = header("x-linked-etag").or(header(ETAG.as_str())).or(self.etag.take());
        let size = response.header("x-linked-size").and_then(|size| size.parse().ok());
        self.size = size.or(self.size);
    }
}

/// The error for a repository that cannot be used.
fn refuse(id: &str, reason: String) -> Error {
    Error::Remote { service: format!("the hub, repository {id}"), reason }
}

/// Turns an error status into an error. The error of another server than the hub is transient: a
/// link that the hub signed may have expired, and the next try gets a new one.
fn check_status(response: &HttpResponse) -> Result<(), HttpError> {
    let status = response.status();
    if status < 400 {
        return Ok(());
    }
    let mut error = HttpError::broken(format!("{} answered with status {status}", response.host));
    error.retry_after = response.retry_after();
    if response.is_own {
        let code = response.header("x-error-code").unwrap_or_default().to_string();
        error.kind = HttpErrorKind::Status { status, code };
    }
    Err(error)
}

/// Size of a file in bytes; 0 if it does not exist.
pub(crate) fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
