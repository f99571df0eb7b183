//! Files of a model folder that decide its vectors: of the encoder, of the modules behind it, and
//! the weights.
//!
//! `modules.json` (sentence-transformers) names the modules and their sub folders. The encoder is
//! at the top of the folder, or in a sub folder of its own (`0_Transformer`, the older layout).
//! Behind it, pooling has a configuration, a dense layer has a configuration and weights. Weights
//! are one file, or several (shards) that an index file names. A folder without `modules.json` is
//! an encoder alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::checksum::{ChecksumCache, sha256};
use crate::manifest::{REQUIRED, WEIGHTS, is_name, is_plain_path};

/// The list of modules.
pub(crate) const MODULES: &str = "modules.json";

/// The list of shards.
pub(crate) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Other names of `sentence_bert_config.json`, from older versions of sentence-transformers.
const OLDER_SENTENCE_CONFIGS: [&str; 6] = [
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Largest `modules.json` and index of shards, in bytes.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// The folders of a model's modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Folder of the encoder with a slash at its end; empty if it is the model folder itself.
    encoder: String,
    /// Other modules with a folder of their own.
    modules: Vec<Module>,
}

/// A module behind the encoder.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    path: String,
    /// `Pooling`, `Dense`, `Normalize`, ...
    kind: String,
}

/// A file that a model may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WantedFile {
    /// Path inside the model folder, with `/`.
    pub(crate) path: String,
    /// True if the model cannot be opened without it.
    pub(crate) required: bool,
    /// Other names, to be tried in this order if the file does not exist.
    pub(crate) otherwise: Vec<String>,
}

/// The weights of the encoder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WeightFiles {
    One(String),
    /// The index file, and the files that it names, sorted.
    Shards(String, Vec<String>),
}

#[derive(Deserialize)]
struct ModuleEntry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

impl Layout {
    /// The layout that a `modules.json` describes. One that is not valid JSON is the encoder's to
    /// refuse, with its own message: the layout is then the usual one.
    pub(crate) fn parse(modules: &[u8]) -> Result<Self, String> {
        let Ok(entries) = serde_json::from_slice::<Vec<ModuleEntry>>(modules) else {
            return Ok(Self { encoder: String::new(), modules: vec![Module::usual_pooling()] });
        };
        let mut layout = Self::default();
        let mut has_encoder = false;
        for ModuleEntry { path, kind } in entries {
            let path = path.trim_end_matches('/').to_string();
            let kind = kind.rsplit('.').next().unwrap_or_default().to_string();
            if !path.is_empty() && !is_plain_path(&path) {
                return Err(format!(
                    "{MODULES}: the path '{}' of a module is not a plain relative path",
                    path.escape_default()
                ));
            }
            match (kind.as_str(), path.is_empty()) {
                ("Transformer", false) if !has_encoder => layout.encoder = format!("{path}/"),
                (_, false) => layout.modules.push(Module { path, kind: kind.clone() }),
                _ => {}
            }
            has_encoder |= kind == "Transformer";
        }
        Ok(layout)
    }

    /// The layout of a folder.
    pub(crate) fn of(folder: &Path) -> Result<Self, String> {
        match read_json(&folder.join(MODULES))? {
            Some(modules) => Self::parse(&modules),
            None => Ok(Self::default()),
        }
    }

    /// Path of a file of the encoder.
    pub(crate) fn encoder_file(&self, file: &str) -> String {
        format!("{}{file}", self.encoder)
    }

    /// Files besides the encoder's weights, without `modules.json`. Weights of other modules are
    /// the last ones.
    pub(crate) fn wanted(&self) -> Vec<WantedFile> {
        let file = |path: String, required| WantedFile { path, required, otherwise: Vec::new() };
        let encoder = |name: &str, required| file(self.encoder_file(name), required);
        let older = OLDER_SENTENCE_CONFIGS.iter().filter(|_| !self.modules.is_empty());
        let mut all = vec![
            encoder("config.json", true),
            encoder("tokenizer.json", true),
            encoder("tokenizer_config.json", false),
            encoder("special_tokens_map.json", false),
            WantedFile {
                otherwise: older.map(|name| self.encoder_file(name)).collect(),
                ..encoder("sentence_bert_config.json", false)
            },
            file("config_sentence_transformers.json".into(), false),
        ];
        for Module { path, kind } in &self.modules {
            let required = matches!(kind.as_str(), "Pooling" | "Dense");
            all.push(file(format!("{path}/config.json"), required));
        }
        for Module { path, kind } in &self.modules {
            if !matches!(kind.as_str(), "Pooling" | "Normalize" | "Dropout" | "") {
                all.push(file(format!("{path}/{WEIGHTS}"), kind == "Dense"));
            }
        }
        all
    }

    /// The weights of the encoder in `folder`; None if there are none.
    pub(crate) fn encoder_weights(&self, folder: &Path) -> Result<Option<WeightFiles>, String> {
        let (one, index) = (self.encoder_file(WEIGHTS), self.encoder_file(WEIGHTS_INDEX));
        if folder.join(&one).is_file() {
            return Ok(Some(WeightFiles::One(one)));
        }
        match read_json(&folder.join(&index))? {
            Some(text) => {
                let shards = self.shards(&text)?;
                Ok(Some(WeightFiles::Shards(index, shards)))
            }
            None => Ok(None),
        }
    }

    /// The files that an index of shards names, sorted, each a plain name.
    pub(crate) fn shards(&self, index: &[u8]) -> Result<Vec<String>, String> {
        let place = self.encoder_file(WEIGHTS_INDEX);
        let read: IndexFile = serde_json::from_slice(index).map_err(|error| {
            format!(
                "has its weights split into several files, and {place} does not name them \
                 ({error}): download the model again"
            )
        })?;
        let names: BTreeSet<String> = read.weight_map.into_values().collect();
        if let Some(bad) = names.iter().find(|name| !is_name(name) || !is_safetensors(name)) {
            let bad = bad.escape_default();
            return Err(format!("{place}: '{bad}' is not the plain name of a safetensors file"));
        }
        if names.is_empty() {
            return Err(format!("{place} names no files: download the model again"));
        }
        Ok(names.iter().map(|name| self.encoder_file(name)).collect())
    }

    /// The files of `folder`, with the required ones even if they are missing, weights last.
    pub(crate) fn files(&self, folder: &Path) -> Result<Vec<String>, String> {
        let exists = |path: &String| folder.join(path).is_file();
        let mut all = Vec::new();
        let mut weights = Vec::new();
        for WantedFile { path, required, otherwise } in self.wanted() {
            let found = std::iter::once(&path).chain(&otherwise).find(|path| exists(path));
            let found = found.cloned().or(required.then_some(path));
            let into =
                if found.as_deref().is_some_and(is_safetensors) { &mut weights } else { &mut all };
            into.extend(found);
        }
        let modules = Some(MODULES.to_string()).filter(exists);
        all.splice(2..2, modules);
        match self.encoder_weights(folder)? {
            Some(WeightFiles::One(one)) => weights.push(one),
            Some(WeightFiles::Shards(index, shards)) => {
                all.push(index);
                weights.extend(shards);
            }
            None => weights.push(self.encoder_file(WEIGHTS)),
        }
        all.extend(weights);
        Ok(all)
    }
}

impl Module {
    fn usual_pooling() -> Self {
        // Not "Pooling": its configuration is not required of a list that cannot be understood.
        Self { path: "1_Pooling".into(), kind: String::new() }
    }
}

/// The identity of a model: the SHA-256 of its weights if they are one file; of several files
/// (shards, dense layers) that of the text which `sha256sum` prints for them, sorted by path.
pub(crate) fn weights_identity<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let weights = files.into_iter().filter(|(path, _)| is_safetensors(path));
    let weights: BTreeMap<&str, &str> = weights.collect();
    match weights.len() {
        1 => weights.into_values().next().unwrap_or_default().to_string(),
        _ => {
            let lines = weights.iter().map(|(path, sha256)| format!("{sha256}  {path}\n"));
            sha256(lines.collect::<String>().as_bytes())
        }
    }
}

/// [`weights_identity`] of these files of a folder.
pub(crate) fn identity_of(
    folder: &Path,
    files: &[String],
    checksums: &ChecksumCache,
) -> warpseek_error::Result<String> {
    let weights = files.iter().filter(|path| is_safetensors(path));
    let hashed: Vec<(&str, String)> = weights
        .map(|path| Ok((path.as_str(), checksums.sha256(&folder.join(path))?)))
        .collect::<warpseek_error::Result<_>>()?;
    Ok(weights_identity(hashed.iter().map(|(path, sha256)| (*path, sha256.as_str()))))
}

/// True for the name of a file of weights.
pub(crate) fn is_safetensors(path: &str) -> bool {
    path.ends_with(".safetensors")
}

/// The content of a JSON file of moderate size; None if it does not exist.
fn read_json(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    if metadata.len() > MAX_JSON_BYTES {
        let limit = MAX_JSON_BYTES >> 20;
        return Err(format!("{} is larger than {limit} MiB", path.display()));
    }
    std::fs::read(path).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reason why a folder without the file `missing` cannot be opened, with the remedy.
pub(crate) fn explain_missing(folder: &Path, missing: &str) -> String {
    const PICKLE: &str = "pytorch_model.bin";
    let exists = |file: &str| folder.join(file).exists();
    let (place, file) = missing.rsplit_once('/').unwrap_or(("", missing));
    let in_sub_folder = !place.is_empty();
    // The weights decide, even if another file is missing too.
    let has_weights =
        file != WEIGHTS && (in_sub_folder || exists(WEIGHTS) || exists(WEIGHTS_INDEX));
    let place = folder.join(place);
    if !has_weights && place.join(PICKLE).exists() {
        return format!(
            "has its weights only as {PICKLE}, a pickle, and a pickle can run code when it is \
             loaded; convert it: cd {} && python -c \"import torch, safetensors.torch as s; \
             s.save_file({{k: v.clone().contiguous() for k, v in torch.load('{PICKLE}', \
             weights_only=True).items()}}, '{WEIGHTS}', metadata={{'format': 'pt'}})\"",
            place.display()
        );
    }
    let kinds = ["onnx", "gguf", "h5", "msgpack", "bin"];
    let other = kinds.iter().find_map(|kind| Some((kind, any_file(&place, kind)?)));
    match other.filter(|_| !has_weights) {
        Some((kind, file)) => format!(
            "has its weights only as {file}, and {kind} files are not loaded: name the repository \
             or the folder of the original model, or convert it to safetensors (save_pretrained of \
             transformers or sentence-transformers writes them)"
        ),
        None if !REQUIRED.into_iter().any(exists) && !exists(MODULES) => {
            format!("contains no model (no {})", REQUIRED.join(", no "))
        }
        None if file == "tokenizer.json" => format!(
            "has no {missing}: create it, in that folder, with python -c \"from transformers \
             import AutoTokenizer as T; T.from_pretrained('.').save_pretrained('.')\""
        ),
        None => format!("has no {missing}"),
    }
}

/// A file with this extension in a folder or its folder `onnx`.
fn any_file(folder: &Path, extension: &str) -> Option<String> {
    ["", "onnx"].iter().find_map(|sub| {
        let entries = std::fs::read_dir(folder.join(sub)).ok()?;
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it.eq_ignore_ascii_case(extension)))
            .filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_str()?.to_string()))
            .collect();
        names.sort();
        names.into_iter().next()
    })
}
