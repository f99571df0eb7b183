//! Files of a hub repository into the Hugging Face cache, whole and checked or not at all.
//!
//! A download goes into `blobs/<etag>.part` under the lock `blobs/<etag>.lock`, both named as
//! `hf-hub` names them.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::checksum::sha256_file;
use super::download::{Download, back_off, length};
use super::failure::{Failure, Refusal};
use super::fetch::{Fetch, FetchEvent};
use super::hub_cache::{RepoCache, create_parent, is_plain, with_suffix};
use super::manifest::{FileSpec, ModelSpec, WEIGHTS, is_hex};
use super::transfer::{Client, Head};

/// The files of a model that no manifest lists: what is needed, then what describes pooling and
/// prompts, and the weights last, so that a folder with weights is a complete one.
const UNLISTED: [(&str, bool); 7] = [
    ("config.json", true),
    ("tokenizer.json", true),
    ("modules.json", false),
    ("1_Pooling/config.json", false),
    ("sentence_bert_config.json", false),
    ("config_sentence_transformers.json", false),
    (WEIGHTS, true),
];

/// Fetches a listed model's files that the cache does not hold, and returns its snapshot folder.
pub(crate) fn fetch_listed(spec: &ModelSpec, fetch: Fetch<'_>) -> Result<PathBuf> {
    let (Some(repo), Some(revision)) = (&spec.repo, &spec.revision) else {
        return Err(Error::usage(format!("model '{}' is not on the hub", spec.name)));
    };
    let hub = Hub::open(repo, fetch)?;
    for file in &spec.files {
        let there = hub.cache.snapshot(revision).join(&file.path);
        if fetch.stamps.sha256(&there).is_ok_and(|sha256| sha256 == file.sha256) {
            continue;
        }
        hub.fetch(revision, &Wanted::listed(file))?;
    }
    Ok(hub.cache.snapshot(revision))
}

/// Fetches an unlisted model's files from its main branch, and returns its snapshot folder.
pub(crate) fn fetch_unlisted(repo: &str, fetch: Fetch<'_>) -> Result<PathBuf> {
    let hub = Hub::open(repo, fetch)?;
    // The first answer says which commit "main" is; all other files come from that one.
    let mut commit: Option<String> = None;
    for (path, needed) in UNLISTED {
        let revision = commit.as_deref().unwrap_or("main");
        match hub.fetch(revision, &Wanted { path, size: None, sha256: None, needed })? {
            Some(found) => commit = Some(commit.unwrap_or(found)),
            None => continue,
        }
    }
    let commit = commit.unwrap_or_default();
    hub.cache.set_main(&commit)?;
    Ok(hub.cache.snapshot(&commit))
}

/// One repository and its place in the cache.
struct Hub<'a> {
    fetch: Fetch<'a>,
    client: Client,
    repo: &'a str,
    cache: RepoCache,
}

/// A file to fetch.
struct Wanted<'a> {
    path: &'a str,
    size: Option<u64>,
    sha256: Option<&'a str>,
    /// Whether its absence is an error.
    needed: bool,
}

impl<'a> Wanted<'a> {
    fn listed(file: &'a FileSpec) -> Self {
        Self { path: &file.path, size: file.size, sha256: Some(&file.sha256), needed: true }
    }
}

impl<'a> Hub<'a> {
    fn open(repo: &'a str, fetch: Fetch<'a>) -> Result<Self> {
        let refuse = |reason: &str| Error::Remote {
            service: format!("the hub, repository {repo}"),
            reason: reason.to_string(),
        };
        let client = Client::new(fetch.sources).map_err(|reason| refuse(&reason))?;
        let cache_dir = fetch.sources.cache_dir.as_ref();
        let cache_dir =
            cache_dir.ok_or_else(|| refuse("there is no home directory: set HF_HUB_CACHE"))?;
        Ok(Self { fetch, client, repo, cache: RepoCache::new(cache_dir, repo) })
    }

    /// Fetches one file and returns the commit it belongs to; None if it is not needed and the
    /// repository does not have it.
    fn fetch(&self, revision: &str, wanted: &Wanted<'_>) -> Result<Option<String>> {
        let url = format!(
            "{}/{}/resolve/{revision}/{}",
            self.fetch.sources.endpoint, self.repo, wanted.path
        );
        let done =
            self.head(&url, wanted).and_then(|head| self.bring(&url, revision, wanted, head));
        match done {
            Ok(commit) => Ok(Some(commit)),
            Err(Failure::Local(error)) => Err(error),
            Err(Failure::Refused(Refusal { status: 404, by_hub: true, .. })) if !wanted.needed => {
                Ok(None)
            }
            Err(failure) => {
                let has_token = self.client.has_token();
                let reason = failure.explain(self.repo, revision, wanted.path, has_token);
                let reason = self.client.scrub(&reason);
                Err(Error::Remote { service: self.client.name(), reason })
            }
        }
    }

    fn head(&self, url: &str, wanted: &Wanted<'_>) -> Result<Head, Failure> {
        let mut failures = 0;
        loop {
            match self.client.head(url) {
                // A plain file server may know nothing of HEAD; a known sha256 is enough.
                Err(Failure::Refused(Refusal { status: 405 | 501, .. }))
                    if wanted.sha256.is_some() =>
                {
                    return Ok(Head::default());
                }
                Err(failure @ (Failure::Broken(_) | Failure::Refused(_)))
                    if failure.is_passing() && failures < self.fetch.sources.patience.retries =>
                {
                    failures += 1;
                    back_off(self.fetch, &self.client, wanted.path, &failure, failures)?;
                }
                done => return done,
            }
        }
    }

    /// Makes sure the blob is there and right, and points the snapshot at it.
    fn bring(
        &self,
        url: &str,
        revision: &str,
        wanted: &Wanted<'_>,
        head: Head,
    ) -> Result<String, Failure> {
        let commit = match head.commit {
            _ if is_hex(revision, 40) => revision.to_string(),
            Some(commit) if is_plain(&commit) => commit,
            _ => {
                return Err(Failure::Rejected(
                    "the server does not say which commit it answers from, as a Hugging Face hub \
                     does: check HF_ENDPOINT"
                        .into(),
                ));
            }
        };
        if let (Some(expected), Some(size)) = (wanted.size, head.size)
            && expected != size
        {
            let reason = format!("{} has {size} bytes there, expected {expected}", wanted.path);
            return Err(Failure::Rejected(reason));
        }
        let etag = head
            .etag
            .as_deref()
            .map(|etag| etag.trim().trim_start_matches("W/").trim_matches('"').to_string());
        let Some(name) = etag.filter(|etag| is_plain(etag)).or(wanted.sha256.map(str::to_string))
        else {
            return Err(Failure::Rejected("the server names no etag: check HF_ENDPOINT".into()));
        };
        let expected = wanted.sha256.or(is_hex(&name, 64).then_some(name.as_str()));
        let size = wanted.size.or(head.size);

        let blob = self.cache.blob(&name);
        create_parent(&blob)?;
        let _lock = self.lock(&blob)?;
        if !self.is_right(&blob, size, expected) {
            self.download(url, &blob, wanted.path, size, expected)?;
        }
        self.cache.point(&commit, wanted.path, &name)?;
        self.fetch.tell(FetchEvent::Finished { file: wanted.path.to_string() })?;
        Ok(commit)
    }

    /// Whether a blob from earlier can be used. Without a known sha256 its size must do.
    fn is_right(&self, blob: &Path, size: Option<u64>, expected: Option<&str>) -> bool {
        match (blob.metadata(), expected) {
            (Err(_), _) => false,
            (_, Some(expected)) => {
                self.fetch.stamps.sha256(blob).is_ok_and(|sha256| sha256 == expected)
            }
            (Ok(there), None) => size == Some(there.len()),
        }
    }

    /// Waits for the right to write `blob`, as long as whoever has it gets on.
    fn lock(&self, blob: &Path) -> Result<File> {
        let path = with_suffix(blob, ".lock");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let part = with_suffix(blob, ".part");
        let mut last = (length(&part), Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // No locks on this file system: a torn file fails its checksum.
                Err(TryLockError::Error(_)) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
            }
            let now = length(&part);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > self.fetch.sources.patience.stall {
                return Err(Error::Locked { path: blob.to_path_buf(), holder: None });
            }
            self.fetch.pause(Duration::from_millis(100))?;
        }
    }

    /// Downloads into the part file, checks it, and makes it the blob. A wrong checksum is given
    /// one more chance from zero: the part may have been another server's, or torn.
    fn download(
        &self,
        url: &str,
        blob: &Path,
        file: &str,
        size: Option<u64>,
        expected: Option<&str>,
    ) -> Result<(), Failure> {
        let part = with_suffix(blob, ".part");
        let (fetch, client) = (self.fetch, &self.client);
        let download = Download { fetch, client, url, file, part: &part, size };
        let mut first = true;
        loop {
            download.run()?;
            let Some(expected) = expected else {
                std::fs::rename(&part, blob).map_err(Error::io("write", blob))?;
                return Ok(());
            };
            let got = sha256_file(&part)?;
            if got == expected {
                std::fs::rename(&part, blob).map_err(Error::io("write", blob))?;
                self.fetch.stamps.note(blob, got);
                return Ok(());
            }
            std::fs::remove_file(&part).map_err(Error::io("remove", &part))?;
            let reason = format!("{file}: sha256 is {got}, expected {expected}");
            if !first {
                return Err(Failure::Rejected(reason));
            }
            self.fetch.note(format!("{reason}; fetching it once more"))?;
            first = false;
        }
    }
}
