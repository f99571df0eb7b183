//! The encoder against Python peers' outputs, and the vector files of other tools.

use crate::support::cli::{Workplace, small_model};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use warpseek::bert::embedder::{Embedder, EmbedderOptions, Normalize, Role};
use warpseek::bert::encoder::describe;
use warpseek::bert::reranker::Reranker;
use warpseek::bert::tokenizer::Tokenizer;
use warpseek::compute::device::{ComputeOptions, Device, Precision};
use warpseek::models::open_embedder;
use warpseek::vectors::{Metric, VectorFile, VectorFormat, VectorWriter};

fn cpu(precision: Precision) -> ComputeOptions {
    ComputeOptions { device: Device::Cpu, precision, ..ComputeOptions::default() }
}

/// The precisions below float32 that this CPU has.
fn low_precisions() -> Vec<Precision> {
    let (here, absent): (Vec<_>, Vec<_>) = [Precision::Auto, Precision::Bf16, Precision::Int8]
        .into_iter()
        .partition(|&precision| describe(cpu(precision)).is_ok());
    for precision in absent {
        eprintln!("this CPU cannot compute in {precision:?}");
    }
    here
}

/// The folder of the golden files. The environment names it on a machine that did not build the
/// tests.
pub(crate) fn golden() -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    PathBuf::from(root.unwrap_or(env!("CARGO_MANIFEST_DIR").into())).join("tests/golden")
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

pub(crate) fn matrix(path: &Path) -> Vec<Vec<f32>> {
    let file = VectorFile::open(path, None).unwrap();
    (0..file.n_rows())
        .map(|i| {
            let mut row = vec![0.0; file.dim()];
            file.read(i, &mut row).unwrap();
            row
        })
        .collect()
}

pub(crate) fn texts(path: &Path) -> Vec<String> {
    lines(path).iter().map(|l| l["text"].as_str().unwrap().to_owned()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn assert_close(got: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= bound, "{what}: off by {worst}, allowed {bound}");
}

#[test]
fn minilm_tokens_equal_those_of_sentence_transformers() {
    let folder = golden().join("embeddings");
    let tokenizer = Tokenizer::open(&crate::support::minilm().path).unwrap();
    let expected = lines(&folder.join("tokens.jsonl"));
    assert_eq!(expected.len(), 64);
    for (text, line) in texts(&folder.join("texts.jsonl")).iter().zip(expected) {
        let got = tokenizer.single(text, 256).unwrap();
        assert_eq!(got.sequence.ids, ids(&line["ids"]), "{}", line["name"]);
        let total = line["tokens"].as_u64().unwrap() as usize;
        assert_eq!(got.sequence.ids.len() + got.lost, total, "{}", line["name"]);
        assert_eq!(tokenizer.count(text) + 2, total, "{}", line["name"]);
    }
}

#[test]
fn minilm_vectors_equal_those_of_sentence_transformers() {
    let folder = golden().join("embeddings");
    let embedder =
        open_embedder(crate::support::minilm(), Normalize::AsConfigured, cpu(Precision::F32))
            .unwrap();
    let texts = texts(&folder.join("texts.jsonl"));
    let expected = matrix(&folder.join("minilm.npy"));
    let batch = embedder.embed(&texts, Role::Passage).unwrap();
    let long = texts.iter().position(|t| t.split(' ').count() >= 1000).unwrap();
    assert_eq!((batch.tokens[long], embedder.max_tokens()), (256, 256));
    assert!(batch.lost[long] > 700);
    for (i, (text, expected)) in texts.iter().zip(&expected).enumerate() {
        let row = &batch.vectors[i * 384..(i + 1) * 384];
        // A cosine of 0.9999 would not show a wrong GELU; 1e-5 in every element does.
        assert_close(row, expected, 1e-5, &format!("text {i} in a batch"));
        let cosine: f32 = row.iter().zip(expected).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.9999, "text {i}: cosine {cosine}");
        let alone = embedder.embed(&[text], Role::Passage).unwrap();
        assert_close(&alone.vectors, expected, 1e-5, &format!("text {i} alone"));
    }
}

#[test]
fn minilm_vectors_of_low_precision_stay_near_those_of_sentence_transformers() {
    let folder = golden().join("embeddings");
    let texts = texts(&folder.join("texts.jsonl"));
    let expected = matrix(&folder.join("minilm.npy"));
    for precision in low_precisions() {
        let compute = cpu(precision);
        let embedder =
            open_embedder(crate::support::minilm(), Normalize::AsConfigured, compute).unwrap();
        let batch = embedder.embed(&texts, Role::Passage).unwrap();
        let bound = if precision == Precision::Bf16 { 0.999 } else { 0.99 };
        let mut lowest = 1f32;
        for (i, (text, expected)) in texts.iter().zip(&expected).enumerate() {
            let row = &batch.vectors[i * 384..(i + 1) * 384];
            let cosine: f32 = row.iter().zip(expected).map(|(a, b)| a * b).sum();
            lowest = lowest.min(cosine);
            assert!(cosine >= bound, "{precision:?}, text {i}: cosine {cosine}");
            // A text's vector does not depend on what else is in the batch.
            let alone = embedder.embed(&[text], Role::Passage).unwrap();
            assert_close(&alone.vectors, row, 1e-5, &format!("{precision:?}, text {i} alone"));
        }
        eprintln!("{precision:?}, {}: lowest cosine {lowest}", embedder.precision());
    }
}

#[test]
fn small_models_of_every_layout_equal_sentence_transformers() {
    let folder = golden().join("models");
    let texts = texts(&folder.join("texts.jsonl"));
    for name in ["bge-like", "e5-like", "tinybert-like", "l12-like"] {
        let model = folder.join(name);
        let embedder = Embedder::open(
            &model,
            EmbedderOptions::default(),
            Normalize::AsConfigured,
            cpu(Precision::F32),
        )
        .unwrap();
        for (role, file) in
            [(Role::Query, "expected_query.npy"), (Role::Passage, "expected_passage.npy")]
        {
            let expected = matrix(&model.join(file));
            let got = embedder.embed(&texts, role).unwrap();
            for (i, expected) in expected.iter().enumerate() {
                let row = &got.vectors[i * embedder.dim()..(i + 1) * embedder.dim()];
                assert_close(row, expected, 5e-5, &format!("{name}, {role:?}, text {i}"));
            }
        }
        let always = Embedder::open(
            &model,
            EmbedderOptions::default(),
            Normalize::Always,
            cpu(Precision::F32),
        )
        .unwrap();
        let row = always.embed(&texts[..1], Role::Query).unwrap().vectors;
        let norm: f32 = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() < 1e-5, "{name}: norm {norm}");
    }
}

#[test]
fn embed_puts_the_prompt_of_the_role_in_front_of_a_text_once() {
    let place = Workplace::new();
    let texts = texts(&golden().join("models/texts.jsonl"));
    for role in ["query", "passage"] {
        let expected = matrix(&small_model().join(format!("expected_{role}.npy")));
        for prompt in [String::new(), format!("{role}: ")] {
            let line = |(i, text): (usize, &String)| {
                format!("{}\n", json!({"id": i.to_string(), "text": format!("{prompt}{text}")}))
            };
            let content: String = texts.iter().enumerate().map(line).collect();
            let file = place.file("texts.jsonl", content);
            let run = place.run(&["embed", &file, "--role", role, "--precision", "f32"]).ok();
            place.file("vectors.jsonl", &run.stdout);
            let embedded = place.lines("vectors.jsonl");
            assert_eq!(embedded.len(), texts.len());
            for (line, expected) in embedded.iter().zip(&expected) {
                let vector = line["vector"].as_array().unwrap().iter();
                let vector: Vec<f32> = vector.map(|v| v.as_f64().unwrap() as f32).collect();
                assert_close(&vector, expected, 5e-5, &format!("{role}, '{prompt}', {line}"));
            }
        }
    }
}

#[test]
fn cross_encoder_logits_equal_those_of_transformers() {
    let folder = golden().join("cross-encoder");
    let reranker = Reranker::open(&folder, None, cpu(Precision::F32)).unwrap();
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let pairs = lines(&folder.join("pairs.jsonl"));
    let mut compared = 0;
    for pair in &pairs {
        let text = |key: &str| pair[key].as_str().unwrap();
        let (query, passage) = (text("query"), text("passage"));
        let scores = reranker.score(query, &[passage]).unwrap();
        let score = &scores.scores[0];
        if pair["truncated"].as_bool().unwrap() {
            let cut_query = scores.query_tokens_lost > 0;
            assert!(score.n_windows > 1 || cut_query, "{}", pair["name"]);
            continue;
        }
        compared += 1;
        let query_ids = tokenizer.spans(query).unwrap().ids;
        let sequence = tokenizer.pair(&query_ids, &tokenizer.spans(passage).unwrap().ids);
        assert_eq!(sequence.ids, ids(&pair["ids"]), "{}", pair["name"]);
        assert_eq!(sequence.second_from as u64, pair["segment_a"].as_u64().unwrap());
        let expected = pair["logit"].as_f64().unwrap() as f32;
        assert_close(&[score.logit], &[expected], 1e-4, &pair["name"].to_string());
        assert_eq!((score.n_windows, score.window.clone()), (1, 0..passage.len()));
        assert!((score.score - 1.0 / (1.0 + (-score.logit).exp())).abs() < 1e-6);
    }
    assert_eq!((compared, pairs.len()), (36, 41));
}

#[test]
fn cross_encoder_windows_cover_a_long_passage_and_the_best_one_counts() {
    let folder = golden().join("cross-encoder");
    let reranker = Reranker::open(&folder, None, cpu(Precision::F32)).unwrap();
    let pairs = lines(&folder.join("pairs.jsonl"));
    let long = pairs.iter().find(|p| p["name"] == "passage_1000_words").unwrap();
    let (query, passage) = (long["query"].as_str().unwrap(), long["passage"].as_str().unwrap());
    let whole = reranker.score(query, &[passage]).unwrap().scores.remove(0);
    assert!(whole.n_windows >= 3 && whole.window.len() < passage.len());
    // The window alone is a pair that fits, and scores the same.
    let window = &passage[whole.window.clone()];
    let alone = reranker.score(query, &[window]).unwrap().scores.remove(0);
    assert_eq!(alone.n_windows, 1);
    assert_close(&[alone.logit], &[whole.logit], 1e-4, "the best window alone");
    // A batch gives what single calls give.
    let texts: Vec<&str> = pairs.iter().map(|p| p["passage"].as_str().unwrap()).collect();
    let batch = reranker.score(query, &texts).unwrap().scores;
    for (text, score) in texts.iter().zip(batch) {
        let single = reranker.score(query, &[text]).unwrap().scores.remove(0);
        assert_close(&[score.logit], &[single.logit], 1e-5, "batch against single");
        assert_eq!(score.window, single.window);
    }
}

/// A copy of a model folder with its matrices in int8, a scale a row, as `models/train/export.py`
/// makes it; `spoil` may change the tensors.
fn int8_copy(
    folder: &Path,
    spoil: impl Fn(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>),
) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let shape = view.shape().to_vec();
        if view.dtype() != Dtype::F32 || shape.len() != 2 || shape[0] == 1 {
            tensors.push((name, view.dtype(), shape, view.data().to_vec()));
            continue;
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let (mut small, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks_exact(shape[1]) {
            let scale = row.iter().fold(1e-12f32, |m, v| m.max(v.abs())) / 127.0;
            small.extend(row.iter().map(|v| (v / scale).round() as i8 as u8));
            scales.extend(scale.to_le_bytes());
        }
        tensors.push((format!("{name}.scale"), Dtype::F32, vec![shape[0]], scales));
        tensors.push((name, Dtype::I8, shape, small));
    }
    spoil(&mut tensors);
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(n, t, s, d)| (n.as_str(), TensorView::new(*t, s.clone(), d).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, &copy.path().join("model.safetensors")).unwrap();
    copy
}

#[test]
fn cross_encoder_in_int8_scores_nearly_as_in_float32() {
    let folder = golden().join("cross-encoder");
    let whole = Reranker::open(&folder, None, cpu(Precision::F32)).unwrap();
    let copy = int8_copy(&folder, |_| {});
    let small = Reranker::open(copy.path(), None, cpu(Precision::F32)).unwrap();
    let mut different = 0;
    for pair in lines(&folder.join("pairs.jsonl")) {
        let (query, passage) = (pair["query"].as_str().unwrap(), pair["passage"].as_str().unwrap());
        let expected = whole.score(query, &[passage]).unwrap().scores.remove(0).logit;
        let got = small.score(query, &[passage]).unwrap().scores.remove(0).logit;
        assert!((got - expected).abs() < 0.2, "{}: {got}, in float32 {expected}", pair["name"]);
        different += usize::from(got != expected);
    }
    assert!(different > 10, "the int8 weights were not used");
}

#[test]
fn int8_matrix_without_its_scales_is_refused() {
    let folder = golden().join("cross-encoder");
    let lost = "bert.encoder.layer.0.output.dense.weight.scale";
    let copy = int8_copy(&folder, |tensors| tensors.retain(|t| t.0 != lost));
    let message = Reranker::open(copy.path(), None, cpu(Precision::F32)).unwrap_err().to_string();
    assert!(message.contains(lost), "{message}");
}

#[test]
fn models_of_the_wrong_kind_are_refused_with_a_reason() {
    let message = |folder: &str| {
        let error = Reranker::open(&golden().join(folder), None, cpu(Precision::F32)).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    assert!(message("models/bge-like").contains("no classifier"));
    assert!(message("vectors").contains("config.json"));
}

#[test]
fn vector_files_of_every_format_hold_the_same_matrix() {
    let folder = golden().join("vectors");
    let expected = matrix(&folder.join("small.npy"));
    assert_eq!((expected.len(), expected[0].len()), (37, 8));
    for (name, bound) in [
        ("small_fortran.npy", 0.0),
        ("small_f64.npy", 1e-7),
        ("small_f16.npy", 5e-4),
        ("small.fvecs", 0.0),
        ("small.fbin", 0.0),
        ("small_ip.faiss", 0.0),
        ("small_l2.faiss", 0.0),
    ] {
        for (i, (got, expected)) in matrix(&folder.join(name)).iter().zip(&expected).enumerate() {
            assert_close(got, expected, bound, &format!("{name}, row {i}"));
        }
    }
    let metric = |name: &str| VectorFile::open(&folder.join(name), None).unwrap().metric();
    assert_eq!(metric("small_ip.faiss"), Some(Metric::InnerProduct));
    assert_eq!(metric("small_l2.faiss"), Some(Metric::L2));
    let refused = VectorFile::open(&folder.join("small_hnsw.faiss"), None).unwrap_err();
    assert_eq!(refused.exit_code(), 7);
    assert!(refused.to_string().contains("IHNf"), "{refused}");
}

#[test]
fn vector_files_we_write_equal_those_of_the_tools() {
    let folder = golden().join("vectors");
    let expected = matrix(&folder.join("small.npy"));
    let dir = tempfile::tempdir().unwrap();
    for (format, theirs) in [
        (VectorFormat::Npy, "small.npy"),
        (VectorFormat::Fvecs, "small.fvecs"),
        (VectorFormat::Fbin, "small.fbin"),
        (VectorFormat::Faiss, "small_ip.faiss"),
    ] {
        let path = dir.path().join(format!("ours.{format:?}"));
        let mut writer = VectorWriter::create(&path, format, 8).unwrap();
        expected.iter().for_each(|row| writer.push(row).unwrap());
        assert_eq!(writer.finish().unwrap(), 37);
        assert_eq!(matrix(&path), expected, "{format:?}");
        let (ours, theirs) = (std::fs::read(&path), std::fs::read(folder.join(theirs)));
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{format:?}");
    }
}

#[test]
fn vector_files_cut_off_anywhere_are_refused() {
    let folder = golden().join("vectors");
    let dir = tempfile::tempdir().unwrap();
    for name in ["small.npy", "small.fvecs", "small.fbin", "small_ip.faiss"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        for len in (0..bytes.len()).step_by(7) {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes[..len]).unwrap();
            match VectorFile::open(&path, None) {
                Err(e) => assert_eq!(e.exit_code(), 7, "{name} cut at {len}: {e}"),
                // Only fvecs has no count: a cut between two vectors is a shorter file.
                Ok(file) => assert!(name == "small.fvecs" && len == file.n_rows() * 36),
            }
        }
    }
}
