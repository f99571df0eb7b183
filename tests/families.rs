//! Families of encoders and the settings of model folders, against transformers and
//! sentence-transformers; `tests/golden/make_families.py` and `make_settings.py` made the data.

use crate::golden::{golden, lines, matrix, texts};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use warpseek::bert::embedder::{Embedder, EmbedderOptions, Normalize, Role};
use warpseek::bert::encoder::describe;
use warpseek::bert::keys::{self, Key, Treatment};
use warpseek::bert::reranker::Reranker;
use warpseek::bert::tokenizer::Tokenizer;
use warpseek::compute::device::{ComputeOptions, Device, Precision};

pub(crate) const EMBEDDERS: [&str; 7] =
    ["xlm-roberta", "roberta", "mpnet", "distilbert", "electra", "modernbert", "modules"];

pub(crate) const RERANKERS: [&str; 6] = [
    "xlm-roberta-reranker",
    "mpnet-reranker",
    "distilbert-reranker",
    "electra-reranker",
    "modernbert-reranker",
    "bert-reranker-without-types",
];

fn cpu(precision: Precision) -> ComputeOptions {
    ComputeOptions { device: Device::Cpu, precision, ..ComputeOptions::default() }
}

/// A tensor of a small model: `centre + scale * u`, with u from the SplitMix64 stream of its name;
/// `families.py` has the formula.
fn values(name: &str, n: usize, scale: f32, centre: f32) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let value = |i: usize| {
        let mut z = seed.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        centre + scale * ((z >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..n).map(value).collect()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors that `tensors.json` lists.
fn tensors(folder: &Path) -> Tensors {
    let table: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(folder.join("tensors.json")).unwrap()).unwrap();
    let tensors = table.into_iter().map(|(name, row)| {
        let number = |i: usize| row[i].as_f64().unwrap() as f32;
        let shape: Vec<usize> = serde_json::from_value(row[0].clone()).unwrap();
        let values = values(&name, shape.iter().product(), number(1), number(2));
        (name, (shape, values))
    });
    tensors.collect()
}

fn write_tensors(tensors: &Tensors, file: &Path) {
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.as_str(), shape.as_slice(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
    if to.join("tensors.json").exists() {
        write_tensors(&tensors(to), &to.join("model.safetensors"));
    }
}

/// A copy of a small model, with its weights.
pub(crate) struct Model(TempDir);

impl Model {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(&golden().join("families").join(name), dir.path());
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes settings of a file; null takes one away.
    fn set(&self, file: &str, changes: &Value) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = std::fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
        let mut settings: Map<String, Value> = serde_json::from_slice(&text).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(settings.remove(key)),
                value => drop(settings.insert(key.clone(), value.clone())),
            }
        }
        std::fs::write(&path, serde_json::to_vec(&settings).unwrap()).unwrap();
    }

    fn embedder(&self, options: EmbedderOptions, precision: Precision) -> Embedder {
        Embedder::open(self.path(), options, Normalize::AsConfigured, cpu(precision)).unwrap()
    }

    fn reranker(&self, precision: Precision) -> Reranker {
        Reranker::open(self.path(), None, cpu(precision)).unwrap()
    }

    /// The error of opening the folder as an embedder or a reranker.
    fn refusal(&self) -> String {
        let open = EmbedderOptions::default();
        let compute = cpu(Precision::F32);
        let error = match Embedder::open(self.path(), open, Normalize::AsConfigured, compute) {
            Err(e) => e,
            Ok(_) => return "opened".to_owned(),
        };
        assert_eq!(error.exit_code(), 3, "{error}");
        error.to_string()
    }
}

fn far(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn golden_texts() -> Vec<String> {
    texts(&golden().join("models/texts.jsonl"))
}

#[test]
fn tokens_of_every_family_equal_those_of_transformers() {
    let texts = golden_texts();
    for name in EMBEDDERS {
        let model = Model::new(name);
        let tokenizer = Tokenizer::open(model.path()).unwrap();
        let file = golden().join("families").join(name).join("tokens.json");
        let expected: Vec<Vec<u32>> =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for (text, expected) in texts.iter().zip(&expected) {
            let got = tokenizer.single(text, expected.len()).unwrap().sequence;
            assert_eq!(got.ids, *expected, "{name}: {text}");
            assert_eq!(got.second_from, got.ids.len());
        }
    }
}

#[test]
fn vectors_of_every_family_equal_those_of_sentence_transformers() {
    let texts = golden_texts();
    for name in EMBEDDERS {
        let model = Model::new(name);
        let embedder = model.embedder(EmbedderOptions::default(), Precision::F32);
        for (role, file) in
            [(Role::Query, "expected_query.npy"), (Role::Passage, "expected_passage.npy")]
        {
            let expected = matrix(&golden().join("families").join(name).join(file));
            assert_eq!(embedder.dim(), expected[0].len(), "{name}");
            let got = embedder.embed(&texts, role).unwrap().vectors;
            for (i, (got, expected)) in got.chunks(embedder.dim()).zip(&expected).enumerate() {
                let off = far(got, expected);
                assert!(off < 5e-5, "{name}, {role:?}, text {i}: off by {off}");
            }
        }
    }
}

#[test]
fn vectors_of_every_family_in_low_precision_stay_near() {
    let texts = golden_texts();
    for name in EMBEDDERS {
        let model = Model::new(name);
        let expected = matrix(&golden().join("families").join(name).join("expected_passage.npy"));
        // Random weights make attention and dense layers steeper than trained ones are.
        for (precision, least) in [(Precision::Bf16, 0.99), (Precision::Int8, 0.9)] {
            if describe(cpu(precision)).is_err() {
                eprintln!("this CPU cannot compute in {precision:?}");
                continue;
            }
            let embedder = model.embedder(EmbedderOptions::default(), precision);
            let batch = embedder.embed(&texts, Role::Passage).unwrap().vectors;
            let mut sum = 0.0;
            for (i, (got, expected)) in batch.chunks(embedder.dim()).zip(&expected).enumerate() {
                let near = cosine(got, expected);
                assert!(near > least, "{name}, {precision:?}, text {i}: cosine {near}");
                sum += near;
                // A text's vector does not depend on the batch.
                let alone = embedder.embed(&texts[i..=i], Role::Passage).unwrap().vectors;
                assert!(far(&alone, got) < 1e-4, "{name}, {precision:?}, text {i} alone");
            }
            eprintln!("{name}, {precision:?}: mean cosine {}", sum / texts.len() as f32);
        }
    }
}

#[test]
fn logits_of_every_family_equal_those_of_transformers() {
    for name in RERANKERS {
        let model = Model::new(name);
        let reranker = model.reranker(Precision::F32);
        let tokenizer = Tokenizer::open(model.path()).unwrap();
        for pair in lines(&golden().join("families").join(name).join("pairs.jsonl")) {
            let (query, passage) =
                (pair["query"].as_str().unwrap(), pair["passage"].as_str().unwrap());
            let ids = |text: &str| tokenizer.spans(text).unwrap().ids;
            let sequence = tokenizer.pair(&ids(query), &ids(passage));
            assert_eq!(json!(sequence.ids), pair["ids"], "{name}: {query}");
            let types: Vec<u32> =
                (0..sequence.ids.len()).map(|i| u32::from(i >= sequence.second_from)).collect();
            assert_eq!(json!(types), pair["types"], "{name}: {query}");
            let got = reranker.score(query, &[passage]).unwrap().scores.remove(0).logit;
            let expected = pair["logit"].as_f64().unwrap() as f32;
            let bound = 5e-5 + 5e-6 * expected.abs();
            assert!((got - expected).abs() < bound, "{name}, {query}: {got}, not {expected}");
        }
    }
}

fn golden_settings() -> Vec<Value> {
    let file = std::fs::read(golden().join("settings.json")).unwrap();
    serde_json::from_slice(&file).unwrap()
}

#[test]
fn changed_settings_give_what_sentence_transformers_gives() {
    const LONG: usize = 60;
    let texts = [
        "The NIGHT train leaves \u{6771}\u{4eac}, caf\u{e9} cre\u{300}me",
        &"old bridge ".repeat(LONG),
    ];
    let cases = golden_settings();
    assert!(cases.len() > 40);
    for case in &cases[1..] {
        let model = Model::new(case["model"].as_str().unwrap());
        model.set(case["file"].as_str().unwrap(), &case["set"]);
        let what = format!("{}, {}", case["model"], case["set"]);
        if let Some(logit) = case["logit"].as_f64() {
            let scores = model.reranker(Precision::F32).score("Old bridge", &["A NIGHT train"]);
            let got = scores.unwrap().scores[0].logit;
            assert!((got - logit as f32).abs() < 2e-4, "{what}: {got}, not {logit}");
            continue;
        }
        let expected: Vec<Vec<f32>> = serde_json::from_value(case["vectors"].clone()).unwrap();
        let embedder = model.embedder(EmbedderOptions::default(), Precision::F32);
        let mut got = embedder.embed(&texts[..1], Role::Query).unwrap().vectors;
        got.extend(embedder.embed(&texts, Role::Passage).unwrap().vectors);
        for (got, expected) in got.chunks(embedder.dim()).zip(&expected) {
            let off = far(got, expected);
            assert!(off < 5e-5, "{what}: off by {off}");
        }
    }
}

/// The tables of keys, with the name by which `settings.json` lists each file.
fn tables() -> [(&'static str, &'static [Key]); 8] {
    [
        ("config.json", keys::CONFIG),
        ("tokenizer_config.json", keys::TOKENIZER),
        ("sentence_bert_config.json", keys::SENTENCE),
        ("config_sentence_transformers.json", keys::SENTENCE_TRANSFORMERS),
        ("Pooling", keys::POOLING),
        ("Dense", keys::DENSE),
        ("Normalize", keys::NORMALIZE),
        ("LayerNorm", keys::LAYER_NORM),
    ]
}

#[test]
fn every_published_key_is_obeyed_refused_or_without_effect() {
    let published = golden_settings()[0]["keys"].clone();
    assert_eq!(published.as_object().unwrap().len(), tables().len());
    for (file, table) in tables() {
        let known: Vec<&str> = table.iter().map(|(key, _)| *key).collect();
        for key in published[file].as_array().unwrap() {
            assert!(known.contains(&key.as_str().unwrap()), "{file}: {key} is not in the table");
        }
        for (key, treatment) in table {
            assert_eq!(known.iter().filter(|k| *k == key).count(), 1, "{file}: {key} twice");
            if let Treatment::NoEffect(because) = treatment {
                assert!(because.len() > 10, "{file}: {key} has no reason");
            }
        }
    }
}

#[test]
fn settings_that_are_not_supported_are_refused_by_name() {
    for (file, table) in tables() {
        let file = match file {
            "Pooling" => "1_Pooling/config.json",
            "Dense" => "3_Dense/config.json",
            "LayerNorm" => "2_LayerNorm/config.json",
            "Normalize" => "5_Normalize/config.json",
            other => other,
        };
        for (key, treatment) in table {
            let Treatment::Only(accepted) = treatment else { continue };
            let model = Model::new("modules");
            model.set(file, &json!({ *key: "something else" }));
            let message = model.refusal();
            assert!(message.contains(&format!("'{key}'")), "{file}, {key}: {message}");
            assert!(message.contains(file), "{file}, {key}: {message}");
            for value in *accepted {
                let model = Model::new("modules");
                let value: Value = serde_json::from_str(value).unwrap();
                model.set(file, &json!({ *key: value }));
                assert_eq!(model.refusal(), "opened", "{file}, {key}: {value}");
            }
        }
    }
}

#[test]
fn values_that_no_folder_may_have_are_refused_by_name() {
    let cases = [
        ("modules", "config.json", json!({ "model_type": "t5" }), "t5"),
        ("modules", "config.json", json!({ "hidden_act": "mish" }), "hidden_act"),
        ("modules", "config.json", json!({ "num_attention_heads": 3 }), "num_attention_heads"),
        ("modules", "config.json", json!({ "num_attention_heads": "2" }), "num_attention_heads"),
        ("modules", "config.json", json!({ "intermediate_size": 0 }), "intermediate_size"),
        ("modules", "config.json", json!({ "hidden_size": 32 }), "word_embedding"),
        ("mpnet", "config.json", json!({ "relative_attention_num_buckets": 8 }), "num_buckets"),
        ("modernbert", "config.json", json!({ "layer_types": ["full_attention"] }), "layer_types"),
        (
            "modernbert",
            "config.json",
            json!({ "global_attn_every_n_layers": 0, "layer_types": null }),
            "every_n",
        ),
        (
            "modernbert",
            "config.json",
            json!({ "rope_parameters": { "full_attention": { "rope_type": "yarn" } } }),
            "yarn",
        ),
        ("modules", "1_Pooling/config.json", json!({ "pooling_mode": "median" }), "median"),
        (
            "modules",
            "1_Pooling/config.json",
            json!({ "word_embedding_dimension": 32 }),
            "dimension",
        ),
        ("modules", "3_Dense/config.json", json!({ "in_features": 8 }), "in_features"),
        (
            "modules",
            "3_Dense/config.json",
            json!({ "activation_function": "mine.Act" }),
            "mine.Act",
        ),
        ("modules", "4_Dense/config.json", json!({ "bias": true }), "linear.bias"),
        ("modules", "3_Dense/config.json", json!({ "bias": false }), "bias"),
        (
            "modules",
            "config_sentence_transformers.json",
            json!({ "similarity_fn_name": "manhattan" }),
            "manhattan",
        ),
        (
            "modules",
            "config_sentence_transformers.json",
            json!({ "default_prompt_name": "no" }),
            "default_prompt_name",
        ),
        (
            "modules",
            "config_sentence_transformers.json",
            json!({ "truncate_dim": 0 }),
            "truncate_dim",
        ),
        (
            "modules",
            "config_sentence_transformers.json",
            json!({ "truncate_dim": 33 }),
            "truncate_dim",
        ),
        (
            "modules",
            "tokenizer_config.json",
            json!({ "truncation_side": "middle" }),
            "truncation_side",
        ),
        ("modules", "tokenizer_config.json", json!({ "unk_token": "<unk>" }), "unk_token"),
        ("modules", "tokenizer_config.json", json!({ "cls_token": "[NONE]" }), "[NONE]"),
        (
            "modules",
            "tokenizer_config.json",
            json!({ "tokenizer_class": "T5TokenizerFast" }),
            "T5TokenizerFast",
        ),
        ("modules", "tokenizer_config.json", json!({ "extra_special_tokens": ["<new>"] }), "<new>"),
        (
            "modules",
            "tokenizer_config.json",
            json!({ "added_tokens_decoder": { "9000": { "content": "[CLS]" } } }),
            "added_tokens_decoder",
        ),
        (
            "modules",
            "sentence_bert_config.json",
            json!({ "processing_kwargs": { "text": { "truncation": false } } }),
            "truncation",
        ),
        (
            "modules",
            "sentence_bert_config.json",
            json!({ "processing_kwargs": { "image": {} } }),
            "image",
        ),
        (
            "modules",
            "sentence_bert_config.json",
            json!({ "modality_config": { "image": { "method": "forward" } } }),
            "modality_config",
        ),
        ("modules", "sentence_bert_config.json", json!({ "max_seq_length": 2 }), "2 tokens"),
    ];
    for (model, file, set, part) in cases {
        let model = Model::new(model);
        model.set(file, &set);
        let message = model.refusal();
        assert!(message.contains(part), "{file}, {set}: {message}");
    }
}

#[test]
fn limits_of_every_file_are_obeyed() {
    let file = "sentence_bert_config.json";
    for (set, limit) in [
        (json!({ "processing_kwargs": { "text": { "max_length": 9 } } }), 9),
        (json!({ "processing_kwargs": { "common": { "max_length": 8, "truncation": true } } }), 8),
        (json!({ "max_seq_length": null, "processor_kwargs": { "model_max_length": 11 } }), 11),
        (json!({ "max_seq_length": null, "tokenizer_args": { "model_max_length": 12 } }), 12),
        (json!({ "max_seq_length": 4000 }), 256),
    ] {
        let model = Model::new("modules");
        model.set(file, &set);
        let embedder = model.embedder(EmbedderOptions::default(), Precision::F32);
        assert_eq!(embedder.max_tokens(), limit, "{set}");
    }
    // The older names of the file, and a reranker's own limit.
    let model = Model::new("xlm-roberta");
    std::fs::rename(model.path().join(file), model.path().join("sentence_xlm-roberta_config.json"))
        .unwrap();
    model.set("sentence_xlm-roberta_config.json", &json!({ "max_seq_length": 31 }));
    assert_eq!(model.embedder(EmbedderOptions::default(), Precision::F32).max_tokens(), 31);
    let model = Model::new("electra-reranker");
    assert_eq!(model.reranker(Precision::F32).max_tokens(), 512);
    model.set("tokenizer_config.json", &json!({ "model_max_length": 40 }));
    let reranker = model.reranker(Precision::F32);
    assert_eq!(reranker.max_tokens(), 40);
    let long = "old bridge ".repeat(60);
    let score = reranker.score("bridge", &[&long]).unwrap().scores.remove(0);
    assert!(score.n_windows > 3);
}

#[test]
fn older_layouts_and_sharded_weights_give_the_same_vectors() {
    let texts = golden_texts();
    let expected = matrix(&golden().join("families/modules/expected_passage.npy"));
    let check = |model: &Model, what: &str| {
        let embedder = model.embedder(EmbedderOptions::default(), Precision::F32);
        let got = embedder.embed(&texts, Role::Passage).unwrap().vectors;
        for (got, expected) in got.chunks(embedder.dim()).zip(&expected) {
            assert!(far(got, expected) < 5e-5, "{what}");
        }
    };
    let weights = |model: &Model| -> PathBuf { model.path().join("model.safetensors") };
    // The encoder in a folder of its own.
    let model = Model::new("modules");
    let inner = model.path().join("0_Transformer");
    std::fs::create_dir(&inner).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::rename(model.path().join(file), inner.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(model.path().join("modules.json")).unwrap();
    let text = text.replacen("\"path\": \"\"", "\"path\": \"0_Transformer\"", 1);
    std::fs::write(model.path().join("modules.json"), text).unwrap();
    check(&model, "0_Transformer");
    // TensorFlow's names of the layer norms, and the prefix of models with a head.
    let model = Model::new("modules");
    let renamed = tensors(model.path()).into_iter().map(|(name, tensor)| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        (format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")), tensor)
    });
    write_tensors(&renamed.collect(), &weights(&model));
    check(&model, "gamma and beta");
    // Shards.
    let model = Model::new("modules");
    std::fs::remove_file(weights(&model)).unwrap();
    let all = tensors(model.path());
    let mut map = Map::new();
    for part in 0..2 {
        let file = format!("model-0000{}-of-00002.safetensors", part + 1);
        let of_part = all.iter().enumerate().filter(|(i, _)| i % 2 == part);
        let some: Tensors = of_part.map(|(_, (n, t))| (n.clone(), t.clone())).collect();
        map.extend(some.keys().map(|name| (name.clone(), json!(file))));
        write_tensors(&some, &model.path().join(&file));
    }
    let index = "model.safetensors.index.json";
    model.set(index, &json!({ "weight_map": map }));
    check(&model, "shards");
    for (name, part) in [("../model.safetensors", "weight_map"), ("absent.safetensors", "absent")] {
        map.insert("embeddings.LayerNorm.bias".to_owned(), json!(name));
        model.set(index, &json!({ "weight_map": map }));
        let message = model.refusal();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn fewer_dimensions_are_the_first_ones_scaled_to_unit_length() {
    let texts = golden_texts();
    let model = Model::new("xlm-roberta");
    let whole = model.embedder(EmbedderOptions::default(), Precision::F32);
    let options = |n| EmbedderOptions { dimensions: Some(n), ..EmbedderOptions::default() };
    let short = model.embedder(options(16), Precision::F32);
    assert_eq!((whole.dim(), short.dim()), (64, 16));
    let [whole, short] =
        [whole, short].map(|embedder| embedder.embed(&texts, Role::Passage).unwrap().vectors);
    for (whole, short) in whole.chunks(64).zip(short.chunks(16)) {
        let norm = whole[..16].iter().map(|v| v * v).sum::<f32>().sqrt();
        let expected: Vec<f32> = whole[..16].iter().map(|v| v / norm).collect();
        assert!(far(short, &expected) < 1e-6);
    }
    for n in [0, 65] {
        let compute = cpu(Precision::F32);
        let opened = Embedder::open(model.path(), options(n), Normalize::AsConfigured, compute);
        assert!(opened.unwrap_err().to_string().contains("have 64"));
    }
}
