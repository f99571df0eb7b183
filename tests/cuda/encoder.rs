//! The encoder on the GPU against the CPU's in float32: models of every shape, sequences of every
//! length, every output, and the same bits in any batch.

use crate::families::{EMBEDDERS, Model, RERANKERS, cosine};
use crate::golden::{golden, lines, matrix, texts};
use crate::parity::{Corpus, Random, assert_same};
use crate::support::cuda::{gpu_kernels, load, replays};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;
use warpseek::bert::config::EncoderConfig;
use warpseek::bert::embedder::{Embedder, EmbedderOptions, Normalize, Role};
use warpseek::bert::reranker::Reranker;
use warpseek::bert::tokenizer::Sequence;
use warpseek::bert::{Encoder, Output};
use warpseek::compute::device::{ComputeOptions, Device, Precision};
use warpseek::models::open_embedder;
use warpseek::search::embed_queries;
use warpseek::topk::{GpuOptions, QueryBatch, Scanner};

fn cpu() -> ComputeOptions {
    let (device, precision) = (Device::Cpu, Precision::F32);
    ComputeOptions { device, precision, ..ComputeOptions::default() }
}

fn gpu() -> ComputeOptions {
    load();
    let (device, gpu_kernels) = (Device::Cuda(0), gpu_kernels());
    ComputeOptions { device, gpu_kernels, ..ComputeOptions::default() }
}

/// Size of a small model's vocabulary.
const VOCABULARY: usize = 97;

#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    heads: usize,
    inner: usize,
    layers: usize,
    activation: &'static str,
}

/// A cross-encoder with random weights.
fn model(shape: Shape, seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let Shape { hidden, heads, inner, layers, activation } = shape;
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
        "hidden_act": activation, "max_position_embeddings": 512, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "num_labels": 1,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    // Layer norms, and linear layers as name, outputs and inputs.
    let mut norms = vec!["bert.embeddings.LayerNorm".to_owned()];
    let mut linears = vec![
        ("bert.pooler.dense".to_owned(), hidden, hidden),
        ("classifier".to_owned(), 1, hidden),
    ];
    for at in (0..layers).map(|i| format!("bert.encoder.layer.{i}")) {
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linears.push((format!("{at}.attention.{part}"), hidden, hidden));
        }
        linears.push((format!("{at}.intermediate.dense"), inner, hidden));
        linears.push((format!("{at}.output.dense"), hidden, inner));
        norms.extend(["attention.output", "output"].map(|name| format!("{at}.{name}.LayerNorm")));
    }
    // Name, shape, and mean and spread of the values.
    let mut tensors: Vec<(String, Vec<usize>, f32, f32)> = Vec::new();
    for (name, n) in [("word", VOCABULARY), ("position", 512), ("token_type", 2)] {
        let name = format!("bert.embeddings.{name}_embeddings.weight");
        tensors.push((name, vec![n, hidden], 0.0, 1.0));
    }
    for name in norms {
        tensors.push((format!("{name}.weight"), vec![hidden], 1.0, 0.2));
        tensors.push((format!("{name}.bias"), vec![hidden], 0.0, 0.2));
    }
    for (name, out, of) in linears {
        tensors.push((format!("{name}.weight"), vec![out, of], 0.0, 2.0 / (of as f32).sqrt()));
        tensors.push((format!("{name}.bias"), vec![out], 0.0, 0.2));
    }
    let mut random = Random(seed);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, mean, spread)| {
            let n: usize = shape.iter().product();
            let values = (0..n).flat_map(|_| (mean + random.unit() * spread).to_le_bytes());
            let values = values.collect();
            (name, shape, values)
        })
        .collect();
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(n, d, v)| (n.as_str(), TensorView::new(Dtype::F32, d.clone(), v).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn open(folder: &Path, compute: ComputeOptions) -> Encoder {
    Encoder::open(folder, &EncoderConfig::read(folder).unwrap(), compute).unwrap()
}

fn sequences(lengths: &[usize], seed: u64) -> Vec<Sequence> {
    let mut random = Random(seed);
    let mut sequence = |&n: &usize| Sequence {
        ids: (0..n).map(|_| (random.next() % VOCABULARY as u64) as u32).collect(),
        // One segment if it is the length.
        second_from: n.min(1 + random.next() as usize % (n + 1)),
    };
    lengths.iter().map(&mut sequence).collect()
}

/// Returns the largest difference, and the least cosine of the rows.
fn difference(got: &[f32], expected: &[f32], width: usize) -> (f32, f32) {
    assert_eq!(got.len(), expected.len());
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let cosines = got.chunks(width).zip(expected.chunks(width)).map(|(a, b)| {
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths == 0.0 { 1.0 } else { dot(a, b) / lengths }
    });
    (worst, cosines.fold(1.0, f32::min))
}

#[test]
fn models_of_every_shape_equal_the_cpu() {
    let gelu = "gelu";
    for (i, (hidden, heads, inner, layers, activation)) in [
        (32, 1, 64, 1, gelu),
        (24, 2, 20, 3, "relu"),
        (48, 12, 96, 2, "gelu_new"),
        (130, 5, 150, 2, gelu),
        (192, 3, 256, 2, gelu),
        (96, 1, 32, 2, gelu),
        (384, 12, 512, 1, gelu),
    ]
    .into_iter()
    .enumerate()
    {
        let shape = Shape { hidden, heads, inner, layers, activation };
        let folder = model(shape, i as u64 + 1);
        let (cpu, gpu) = (open(folder.path(), cpu()), open(folder.path(), gpu()));
        let batch = sequences(&[1, 3, 64, 17, 65, 2, 40, 1], i as u64);
        let steps = |encoder: &Encoder| encoder.profile(&batch).unwrap().len();
        assert_eq!((steps(&cpu), steps(&gpu)), (0, 8));
        for output in [Output::Tokens, Output::Mean, Output::Cls, Output::Logit] {
            let width = if output == Output::Logit { 1 } else { hidden };
            let [expected, got] = [&cpu, &gpu].map(|e| e.forward(&batch, output).unwrap());
            let (worst, cosine) = difference(&got, &expected, width);
            let what = format!("{hidden} {heads} {inner} {output:?}: off by {worst}, {cosine}");
            assert!(worst < 0.01 && (width == 1 || cosine > 0.9999), "{what}");
        }
    }
}

/// Lengths up to beyond two tiles of keys, and the longest.
#[test]
fn sequences_of_every_length_equal_the_cpu() {
    let shape = Shape { hidden: 64, heads: 2, inner: 96, layers: 1, activation: "gelu" };
    let folder = model(shape, 3);
    let (cpu, gpu) = (open(folder.path(), cpu()), open(folder.path(), gpu()));
    let lengths: Vec<usize> =
        (1..=16).chain((17..140).step_by(9)).chain([63, 64, 65, 127, 128, 129, 511, 512]).collect();
    let batch = sequences(&lengths, 9);
    for output in [Output::Mean, Output::Cls] {
        let [expected, got] = [&cpu, &gpu].map(|encoder| encoder.forward(&batch, output).unwrap());
        let (worst, cosine) = difference(&got, &expected, 64);
        assert!(worst < 0.01 && cosine > 0.9999, "{output:?}: off by {worst}, cosine {cosine}");
    }
}

/// A sequence's output has the same bits alone, in a batch, in another order, and again.
#[test]
fn outputs_do_not_depend_on_the_batch() {
    let shape = Shape { hidden: 64, heads: 2, inner: 96, layers: 2, activation: "gelu" };
    let folder = model(shape, 4);
    let gpu = open(folder.path(), gpu());
    let batch = sequences(&[5, 70, 1, 33, 5, 129, 64, 2], 12);
    for output in [Output::Tokens, Output::Mean, Output::Cls, Output::Logit] {
        let all = gpu.forward(&batch, output).unwrap();
        assert!(all == gpu.forward(&batch, output).unwrap(), "{output:?} twice");
        let width = all.len() / batch.len();
        let reversed: Vec<Sequence> = batch.iter().rev().cloned().collect();
        let back = gpu.forward(&reversed, output).unwrap();
        for (i, sequence) in batch.iter().enumerate() {
            let expected = &all[i * width..(i + 1) * width];
            let alone = gpu.forward(std::slice::from_ref(sequence), output).unwrap();
            assert!(alone == expected[..alone.len()], "{output:?}, sequence {i} alone");
            let padding = &expected[alone.len()..];
            assert!(padding.iter().all(|&v| v == 0.0), "{output:?}, padding of sequence {i}");
            let other = &back[(batch.len() - 1 - i) * width..][..width];
            assert!(other == expected, "{output:?}, sequence {i} in another order");
        }
    }
    assert!(gpu.forward(&[], Output::Mean).unwrap().is_empty());
}

/// Vectors that stay on the device equal those that come back: both scanners find the same with
/// them, alone and in a batch.
#[test]
fn queries_that_stay_on_the_device_are_the_same() {
    let folder = golden().join("models/e5-like");
    let mut random = Random(14);
    let before = replays();
    for normalize in [Normalize::Always, Normalize::AsConfigured] {
        let embedder =
            Embedder::open(&folder, EmbedderOptions::default(), normalize, gpu()).unwrap();
        let dim = embedder.dim();
        let corpus = Corpus::new(700, dim, |_, _| random.unit());
        let scanners = [crate::support::cuda::open(GpuOptions::default()), Scanner::cpu()];
        let texts: Vec<String> = (0..9).map(|i| "river lamp ".repeat(1 + i * 5 % 9)).collect();
        let one_by_one = texts.iter().cycle().take(27).map(std::slice::from_ref);
        for texts in std::iter::once(&texts[..]).chain(one_by_one) {
            let embedded = embedder.embed(texts, Role::Query).unwrap();
            let expected = QueryBatch::new(&embedded.vectors, dim).unwrap();
            let (got, numbers) = embed_queries(&embedder, texts).unwrap();
            assert_eq!((&numbers.tokens, numbers.vectors.len()), (&embedded.tokens, 0));
            for scanner in &scanners {
                let find = |batch: &QueryBatch| scanner.top_k(&corpus.view(), batch, 700, None);
                assert_same(&find(&got).unwrap(), &find(&expected).unwrap(), "on the device");
            }
        }
        let (none, _) = embed_queries::<&str>(&embedder, &[]).unwrap();
        assert!(scanners[0].top_k(&corpus.view(), &none, 5, None).unwrap().is_empty());
    }
    if let (Some(before), Some(after)) = (before, replays()) {
        assert!(after > before + 40, "{} replays", after - before);
    }
}

/// The GPU refuses what the CPU refuses, with the same messages.
#[test]
fn sequences_that_do_not_fit_are_refused() {
    let shape = Shape { hidden: 32, heads: 2, inner: 32, layers: 1, activation: "gelu" };
    let folder = model(shape, 5);
    let gpu = open(folder.path(), gpu());
    let said = |ids: Vec<u32>| {
        let sequence = Sequence { second_from: ids.len(), ids };
        gpu.forward(&[sequence], Output::Mean).unwrap_err().to_string()
    };
    assert!(said(Vec::new()).contains("takes 1 to 512"));
    assert!(said(vec![1; 513]).contains("takes 1 to 512"));
    assert!(said(vec![VOCABULARY as u32]).contains("vocabulary"));
}

/// Heads that are too wide for the kernels are computed on the CPU.
#[test]
fn a_model_that_no_kernel_computes_runs_on_the_cpu() {
    let shape = Shape { hidden: 160, heads: 1, inner: 32, layers: 1, activation: "gelu" };
    let folder = model(shape, 6);
    let gpu = open(folder.path(), gpu());
    assert!(!gpu.is_on_device());
    assert_eq!(gpu.forward(&sequences(&[4], 1), Output::Mean).unwrap().len(), 160);
}

/// Weights and activations beyond the range of half precision are clamped.
#[test]
fn values_beyond_half_precision_stay_finite() {
    let shape = Shape { hidden: 32, heads: 1, inner: 32, layers: 1, activation: "relu" };
    let folder = model(shape, 7);
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let large: Vec<u8> = std::iter::repeat_n(3e5f32.to_le_bytes(), 32 * 32).flatten().collect();
    let views: Vec<(String, TensorView<'_>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| match name.ends_with("intermediate.dense.weight") {
            true => (name, TensorView::new(Dtype::F32, vec![32, 32], &large).unwrap()),
            false => (name, view),
        })
        .collect();
    let changed = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, changed).unwrap();
    let gpu = open(folder.path(), gpu());
    let states = gpu.forward(&sequences(&[40, 3], 2), Output::Tokens).unwrap();
    assert!(states.iter().all(|v| v.is_finite()));
}

#[test]
fn minilm_in_half_precision_equals_sentence_transformers() {
    let folder = golden().join("embeddings");
    let embedder = open_embedder(crate::support::minilm(), Normalize::AsConfigured, gpu()).unwrap();
    assert_eq!(embedder.precision(), "float16 (cuda:0)");
    let all = texts(&folder.join("texts.jsonl"));
    let expected = matrix(&folder.join("minilm.npy"));
    // One text per length: few enough for the stand-in.
    let mut seen = std::collections::HashSet::new();
    let chosen: Vec<usize> = (0..all.len())
        .filter(|&i| seen.insert(embedder.tokenizer().count(&all[i]).min(256)))
        .collect();
    let texts: Vec<&String> = chosen.iter().map(|&i| &all[i]).collect();
    let got = embedder.embed(&texts, Role::Passage).unwrap();
    let expected: Vec<f32> = chosen.iter().flat_map(|&i| expected[i].clone()).collect();
    let (worst, cosine) = difference(&got.vectors, &expected, 384);
    assert!(worst < 1e-3 && cosine > 0.99999, "off by {worst}, cosine {cosine}");
}

#[test]
fn cross_encoder_in_half_precision_equals_sentence_transformers() {
    let folder = golden().join("cross-encoder");
    let reranker = Reranker::open(&folder, None, gpu()).unwrap();
    let (mut compared, mut worst) = (0, 0f32);
    for pair in lines(&folder.join("pairs.jsonl")) {
        if pair["truncated"].as_bool().unwrap() {
            continue;
        }
        let text = |key: &str| pair[key].as_str().unwrap();
        let score = reranker.score(text("query"), &[text("passage")]).unwrap().scores.remove(0);
        worst = worst.max((score.logit - pair["logit"].as_f64().unwrap() as f32).abs());
        compared += 1;
    }
    assert!(compared == 36 && worst < 2e-2, "{compared} compared, off by {worst}");
}

#[test]
fn families_equal_the_cpu() {
    let texts = texts(&golden().join("models/texts.jsonl"));
    for name in EMBEDDERS {
        let model = Model::new(name);
        let embedder = |compute| {
            let options = EmbedderOptions::default();
            Embedder::open(model.path(), options, Normalize::AsConfigured, compute).unwrap()
        };
        let (cpu, gpu) = (embedder(cpu()), embedder(gpu()));
        assert!(gpu.is_on_device(), "{name}");
        let [expected, got] =
            [&cpu, &gpu].map(|model| model.embed(&texts, Role::Passage).unwrap().vectors);
        for (i, (got, expected)) in
            got.chunks(gpu.dim()).zip(expected.chunks(cpu.dim())).enumerate()
        {
            let near = cosine(got, expected);
            assert!(near > 0.999, "{name}, text {i}: cosine {near}");
            let alone = gpu.embed(&texts[i..=i], Role::Passage).unwrap().vectors;
            assert_eq!(alone, got, "{name}, text {i} alone");
        }
    }
    for name in RERANKERS {
        let model = Model::new(name);
        let reranker = |compute| Reranker::open(model.path(), None, compute).unwrap();
        let (cpu, gpu) = (reranker(cpu()), reranker(gpu()));
        assert!(gpu.is_on_device(), "{name}");
        let passages: Vec<&str> = texts.iter().map(String::as_str).collect();
        let [expected, got] =
            [&cpu, &gpu].map(|model| model.score("old bridge", &passages).unwrap().scores);
        for (got, expected) in got.iter().zip(&expected) {
            // The logits of random heads are large, and steep in every state.
            let bound = 0.2 + 0.05 * expected.logit.abs();
            let off = (got.logit - expected.logit).abs();
            assert!(off < bound, "{name}: {}, not {}", got.logit, expected.logit);
        }
    }
}
