//! Lookup, download and verification of models, against a stand-in hub and a local wheel folder.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod download;
mod lookup;
mod manifest;
mod network;
mod pip;
mod server;
mod sources;
mod unpinned;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use server::{Faults, Hub, HubFile, Request};
use sha2::{Digest, Sha256};
use warpseek_error::{Error, Result};
use warpseek_hub::http::{RetryPolicy, Secret, Timeouts};
use warpseek_hub::{FetchEvent, ModelFolder, ModelManifest, Models, Sources, no_progress};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const REPO: &str = "stand-in/tiny";
const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
const TOKEN: &str = "hf_verysecrettoken";

/// A listed model of a few kilobytes, and empty places for its copies.
struct World {
    folder: tempfile::TempDir,
    files: Vec<(&'static str, Vec<u8>)>,
    models: Models,
}

impl World {
    /// With weights of 40 000 bytes.
    fn new() -> Self {
        Self::with_weights(40_000)
    }

    fn with_weights(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![
            (CONFIG, b"{\"hidden_size\": 4}".to_vec()),
            (TOKENIZER, noise(3_000, 1)),
            (WEIGHTS, noise(size, 2)),
        ];
        let manifest = ModelManifest::parse(&manifest_of(&files), "test.toml").unwrap();
        let at = |name: &str| Some(folder.path().join(name));
        let sources = Sources {
            model_dirs: at("models").into_iter().collect(),
            download_dir: at("models"),
            cache_dir: at("hub"),
            endpoint: "http://127.0.0.1:9".into(),
            token: None,
            builtin: true,
            hub_offline: false,
            offline: false,
            proxy: false,
            pythons: Vec::new(),
            pip_vars: Vec::new(),
            checksum_file: at("cache/checksums.json"),
            timeouts: Timeouts { stall: Duration::from_secs(20), ..Timeouts::default() },
            retry: RetryPolicy { backoff: Duration::from_millis(1), ..RetryPolicy::default() },
            pip_timeout: Duration::from_secs(600),
        };
        Self { folder, files, models: Models { manifest, sources } }
    }

    /// With a hub that serves the model.
    fn with_hub() -> (Self, Hub) {
        let mut world = Self::new();
        let hub = Hub::start();
        world.models.sources.endpoint = hub.url();
        world.publish(&hub);
        (world, hub)
    }

    /// With a hub that has these faults.
    fn with_faults(faults: Faults) -> (Self, Hub) {
        let (world, hub) = Self::with_hub();
        hub.faults(faults);
        (world, hub)
    }

    /// Serves the small files under an etag of 40 digits, the weights under their SHA-256, as the
    /// public hub does.
    fn publish(&self, hub: &Hub) {
        for (file, bytes) in &self.files {
            let digits = if *file == WEIGHTS { 64 } else { 40 };
            hub.publish(REPO, file, HubFile::new(bytes, &sha256(bytes)[..digits], COMMIT));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn snapshot(&self) -> PathBuf {
        self.path(&format!("hub/models--stand-in--tiny/snapshots/{COMMIT}"))
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.path("hub/models--stand-in--tiny/blobs").join(name)
    }

    /// The part file of the weights.
    fn part(&self) -> PathBuf {
        self.blob(&format!("{}.part", self.sha256()))
    }

    fn weights(&self) -> &[u8] {
        &self.files[2].1
    }

    /// SHA-256 of the weights.
    fn sha256(&self) -> String {
        sha256(self.weights())
    }

    /// The weights as the hub serves them.
    fn served(&self) -> HubFile {
        HubFile::new(self.weights(), &self.sha256(), COMMIT)
    }

    /// The weights, redirected to another address.
    fn moved(&self, to: String) -> HubFile {
        HubFile { moved: Some(to), ..self.served() }
    }

    /// Writes the model's files into a folder.
    fn write_to(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for (file, bytes) in &self.files {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
    }

    fn find(&self) -> Result<ModelFolder> {
        self.models.find("tiny")
    }

    fn get(&self) -> Result<ModelFolder> {
        self.models.get_or_download("tiny", &no_progress)
    }

    /// [`World::get`] with all events. `stop_at` ends it.
    fn watch(
        &self,
        stop_at: impl Fn(&FetchEvent) -> bool,
    ) -> (Result<ModelFolder>, Vec<FetchEvent>) {
        let events = RefCell::new(Vec::new());
        let result = self.models.get_or_download("tiny", &|event| {
            let stop = stop_at(&event);
            events.borrow_mut().push(event);
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (result, events.into_inner())
    }

    /// Asserts that the model is complete, and found again without the network.
    fn assert_complete(&self, folder: &ModelFolder) {
        for (file, bytes) in &self.files {
            assert_eq!(std::fs::read(folder.path.join(file)).unwrap(), *bytes, "{file}");
        }
        assert_eq!(folder.sha256, self.sha256());
        assert_eq!((folder.name.as_str(), folder.revision.as_deref()), ("tiny", Some(COMMIT)));
        assert_eq!(folder.spec.as_ref(), self.models.manifest.get("tiny"));
        assert_eq!(self.find().unwrap().path, folder.path);
    }
}

fn manifest_of(files: &[(&str, Vec<u8>)]) -> String {
    let file = |(path, bytes): &(&str, Vec<u8>)| {
        let (size, sha256) = (bytes.len(), sha256(bytes));
        format!("    {{ path = \"{path}\", size = {size}, sha256 = \"{sha256}\" }},\n")
    };
    let files: String = files.iter().map(file).collect();
    format!(
        "format = 1\n[[model]]\nname = \"tiny\"\nkind = \"embedder\"\nrepo = \"{REPO}\"\n\
         aliases = [\"stand-in/tiny-old\"]\nrevision = \"{COMMIT}\"\nlicense = \"MIT\"\n\
         dimension = 4\nmax_tokens = 8\npooling = \"mean\"\nnormalize = true\n\
         files = [\n{files}]\n"
    )
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pseudo-random bytes, the same for the same seed.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// The text of an [`Error::ModelUnavailable`].
fn reason(result: Result<ModelFolder>) -> String {
    match result {
        Err(error @ Error::ModelUnavailable { .. }) => error.to_string(),
        other => panic!("expected an unavailable model, got {other:?}"),
    }
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
}

/// Asserts that every byte of the weights was sent exactly once, in order.
fn assert_no_byte_twice(gets: &[Request], size: usize) {
    let mut next = 0;
    for request in gets {
        assert_eq!(request.sent.0, next, "{gets:#?}");
        next += request.sent.1;
    }
    assert_eq!(next, size as u64);
}
