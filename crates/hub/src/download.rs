//! Choice of the files of a hub repository that a model needs, and their download.

use warpseek_error::{Error, Result};

use crate::layout::{Layout, MODULES, WEIGHTS_INDEX, WantedFile};
use crate::manifest::{FileSpec, ModelSpec, WEIGHTS};
use crate::progress::FetchContext;
use crate::record::Record;
use crate::repository::{RepoFile, Repository, length};

/// Downloads a pinned model's missing files.
pub(crate) fn download_pinned(spec: &ModelSpec, fetch: FetchContext<'_>) -> Result<()> {
    let (Some(repo), Some(revision)) = (&spec.repo, &spec.revision) else {
        return Err(Error::usage(format!("model '{}' is not on the hub", spec.name)));
    };
    Repository::open(repo, fetch)?.download_all(revision, &spec.files)
}

/// Downloads the files of a repository that decide vectors, from its main branch, and records
/// their checksums. What an earlier record lists is downloaded as it was.
pub(crate) fn download_unpinned(repo: &str, fetch: FetchContext<'_>) -> Result<()> {
    let repository = Repository::open(repo, fetch)?;
    if let [(_, snapshot)] = repository.cache.current().as_slice()
        && let Some(record) = Record::read(snapshot).map_err(|flaw| repository.refuse(flaw))?
    {
        return repository.download_all(&record.commit, &record.files);
    }
    Pull { repository: &repository, commit: None, files: Vec::new() }.run()
}

/// A download from the main branch.
struct Pull<'a> {
    repository: &'a Repository<'a>,
    /// The commit of the main branch, as the first answer names it. All other files come from it.
    commit: Option<String>,
    /// The files so far.
    files: Vec<FileSpec>,
}

impl Pull<'_> {
    /// Downloads the files in an order in which a folder with weights is complete: the weights come
    /// last. The record follows when all are there.
    fn run(mut self) -> Result<()> {
        let repository = self.repository;
        let refuse = |reason| repository.refuse(reason);
        let layout = match self.take(MODULES, false)? {
            true => Layout::parse(&self.read(MODULES)?).map_err(refuse)?,
            false => Layout::default(),
        };
        for WantedFile { path, required, otherwise } in layout.wanted() {
            let is_there = self.take(&path, required)?;
            for other in otherwise.iter().filter(|_| !is_there) {
                if self.take(other, false)? {
                    break;
                }
            }
        }
        let (weights, index) = (layout.encoder_file(WEIGHTS), layout.encoder_file(WEIGHTS_INDEX));
        if !self.take(&weights, false)? {
            if !self.take(&index, false)? {
                return Err(refuse(no_safetensors(repository, &self.revision(), &weights)));
            }
            for shard in layout.shards(&self.read(&index)?).map_err(refuse)? {
                self.take(&shard, true)?;
            }
        }
        let commit = self.revision();
        let record = Record::new(repository.id, commit.clone(), self.files);
        record.write(&repository.cache.snapshot(&commit))?;
        repository.cache.set_main(&commit)
    }

    /// Downloads a file, and notes its checksum. False if it is optional and does not exist.
    fn take(&mut self, path: &str, required: bool) -> Result<bool> {
        let file = RepoFile { path, size: None, sha256: None, required };
        let Some(commit) = self.repository.download(&self.revision(), &file)? else {
            return Ok(false);
        };
        let place = self.repository.cache.snapshot(&commit).join(path);
        let sha256 = self.repository.fetch.checksums.sha256(&place)?;
        self.files.push(FileSpec { path: path.into(), size: Some(length(&place)), sha256 });
        self.commit.get_or_insert(commit);
        Ok(true)
    }

    /// A downloaded file's content.
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let place = self.repository.cache.snapshot(&self.revision()).join(path);
        std::fs::read(&place).map_err(Error::io("read", &place))
    }

    fn revision(&self) -> String {
        self.commit.clone().unwrap_or_else(|| "main".into())
    }
}

/// Reason why a repository without safetensors cannot be used, with the remedy.
fn no_safetensors(repository: &Repository<'_>, revision: &str, weights: &str) -> String {
    let (id, folder) = (repository.id, weights.trim_end_matches(WEIGHTS));
    let has = |name: &str| repository.has(revision, &format!("{folder}{name}"));
    let short = id.rsplit('/').next().unwrap_or(id);
    let convert = format!(
        "python -c \"from sentence_transformers import SentenceTransformer as M; \
         M('{id}').save_pretrained('{short}')\" (of a reranker: CrossEncoder as M), and pass the \
         folder ./{short}"
    );
    let other = || ["onnx/model.onnx", "model.onnx", "tf_model.h5"].into_iter().find(|it| has(it));
    let hint = if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        format!("there is a pytorch_model.bin, convert that: {convert}")
    } else if let Some(other) = other() {
        format!(
            "there is {other}, which is not loaded: name the repository of the original model, or \
             convert that: {convert}"
        )
    } else {
        "check that it is an embedding model or a cross-encoder".into()
    };
    format!(
        "at revision {revision}, {weights}: no such file, and no {WEIGHTS_INDEX}; only safetensors \
         are loaded; {hint}"
    )
}
