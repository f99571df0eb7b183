//! The GPU's encoder against the CPU's in float32: models of every shape, sequences of every length, all that may be
//! made of them, and the same numbers in any company.

use crate::golden::{golden, lines, matrix, texts};
use crate::parity::{Corpus, Random, assert_same};
use crate::support::cuda::{load, replays};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;
use warpseek::device::{Compute, Device, Precision};
use warpseek::embed::{Embedder, Normalize, Role};
use warpseek::model::encoder::config::BertConfig;
use warpseek::model::encoder::{Encoder, Output};
use warpseek::model::tokenize::Sequence;
use warpseek::models::open_embedder;
use warpseek::rerank::Reranker;
use warpseek::scan::{GpuOptions, QueryBatch, Scanner};
use warpseek::search::embed_queries;

const FLOAT: Compute = Compute { device: Device::Cpu, precision: Precision::F32 };
const GPU: Compute = Compute { device: Device::Cuda(0), precision: Precision::Auto };

/// Entries of a small model's word embedding.
const VOCABULARY: usize = 97;

#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    heads: usize,
    inner: usize,
    layers: usize,
    activation: &'static str,
}

/// Takes a tensor's name and shape, and the middle and the reach of its values.
type Add<'a> = &'a mut dyn FnMut(&str, &[usize], f32, f32);

/// A cross-encoder of random weights.
fn model(shape: Shape, seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let Shape { hidden, heads, inner, layers, activation } = shape;
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "hidden_act": activation,
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "num_labels": 1,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut random = Random(seed);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, dims: &[usize], centre: f32, spread: f32| {
        let n: usize = dims.iter().product();
        let value = |_| (centre + random.unit() * spread).to_le_bytes();
        let name = match name {
            "classifier.weight" | "classifier.bias" => name.to_owned(),
            name => format!("bert.{name}"),
        };
        tensors.push((name, dims.to_vec(), (0..n).flat_map(value).collect()));
    };
    let norm = |add: Add<'_>, name: &str| {
        add(&format!("{name}.weight"), &[hidden], 1.0, 0.2);
        add(&format!("{name}.bias"), &[hidden], 0.0, 0.2);
    };
    let linear = |add: Add<'_>, name: &str, out: usize, of: usize| {
        add(&format!("{name}.weight"), &[out, of], 0.0, 2.0 / (of as f32).sqrt());
        add(&format!("{name}.bias"), &[out], 0.0, 0.2);
    };
    for (name, n) in [("word", VOCABULARY), ("position", 512), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[n, hidden], 0.0, 1.0);
    }
    norm(&mut add, "embeddings.LayerNorm");
    for i in 0..layers {
        let at = format!("encoder.layer.{i}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(&mut add, &format!("{at}.attention.{part}"), hidden, hidden);
        }
        norm(&mut add, &format!("{at}.attention.output.LayerNorm"));
        linear(&mut add, &format!("{at}.intermediate.dense"), inner, hidden);
        linear(&mut add, &format!("{at}.output.dense"), hidden, inner);
        norm(&mut add, &format!("{at}.output.LayerNorm"));
    }
    linear(&mut add, "pooler.dense", hidden, hidden);
    linear(&mut add, "classifier", 1, hidden);
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(n, d, v)| (n.as_str(), TensorView::new(Dtype::F32, d.clone(), v).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn open(folder: &Path, compute: Compute) -> Encoder {
    if compute.device != Device::Cpu {
        load();
    }
    Encoder::open(folder, &BertConfig::read(folder).unwrap(), compute).unwrap()
}

fn sequences(lengths: &[usize], seed: u64) -> Vec<Sequence> {
    let mut random = Random(seed);
    let mut sequence = |&n: &usize| Sequence {
        ids: (0..n).map(|_| (random.next() % VOCABULARY as u64) as u32).collect(),
        // One segment where it is the length.
        second_from: n.min(1 + random.next() as usize % (n + 1)),
    };
    lengths.iter().map(&mut sequence).collect()
}

/// The largest difference, and the least cosine of the rows.
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
        let (cpu, gpu) = (open(folder.path(), FLOAT), open(folder.path(), GPU));
        let batch = sequences(&[1, 3, 64, 17, 65, 2, 40, 1], i as u64);
        assert_eq!(
            (cpu.profile(&batch).unwrap().len(), gpu.profile(&batch).unwrap().len()),
            (0, 8)
        );
        for output in [Output::Tokens, Output::Mean, Output::First, Output::Logit] {
            let width = if output == Output::Logit { 1 } else { hidden };
            let expected = cpu.forward(&batch, output).unwrap();
            let got = gpu.forward(&batch, output).unwrap();
            let (worst, cosine) = difference(&got, &expected, width);
            eprintln!(
                "{hidden} {heads} {inner} {layers} {activation} {output:?}: {worst} {cosine}"
            );
            assert!(worst < 0.01, "{hidden} {heads} {inner}, {output:?}: off by {worst}");
            assert!(
                width == 1 || cosine > 0.9999,
                "{hidden} {heads} {inner}, {output:?}: {cosine}"
            );
        }
    }
}

/// All lengths up to beyond two tiles of keys, and the longest.
#[test]
fn sequences_of_every_length_equal_the_cpu() {
    let shape = Shape { hidden: 64, heads: 2, inner: 96, layers: 1, activation: "gelu" };
    let folder = model(shape, 3);
    let (cpu, gpu) = (open(folder.path(), FLOAT), open(folder.path(), GPU));
    let lengths: Vec<usize> =
        (1..=16).chain((17..140).step_by(9)).chain([63, 64, 65, 127, 128, 129, 511, 512]).collect();
    let batch = sequences(&lengths, 9);
    for output in [Output::Mean, Output::First] {
        let (expected, got) =
            (cpu.forward(&batch, output).unwrap(), gpu.forward(&batch, output).unwrap());
        let (worst, cosine) = difference(&got, &expected, 64);
        assert!(worst < 0.01 && cosine > 0.9999, "{output:?}: off by {worst}, cosine {cosine}");
    }
}

/// A sequence's numbers are the same bits alone, in a batch, in another order, and again.
#[test]
fn numbers_do_not_depend_on_the_company() {
    let shape = Shape { hidden: 64, heads: 2, inner: 96, layers: 2, activation: "gelu" };
    let folder = model(shape, 4);
    let gpu = open(folder.path(), GPU);
    let batch = sequences(&[5, 70, 1, 33, 5, 129, 64, 2], 12);
    for output in [Output::Tokens, Output::Mean, Output::First, Output::Logit] {
        let all = gpu.forward(&batch, output).unwrap();
        assert!(all == gpu.forward(&batch, output).unwrap(), "{output:?} twice");
        let width = all.len() / batch.len();
        let mut turned = batch.clone();
        turned.reverse();
        let back = gpu.forward(&turned, output).unwrap();
        for (i, sequence) in batch.iter().enumerate() {
            let expected = &all[i * width..(i + 1) * width];
            let alone = gpu.forward(std::slice::from_ref(sequence), output).unwrap();
            assert!(alone == expected[..alone.len()], "{output:?}, sequence {i} alone");
            assert!(
                expected[alone.len()..].iter().all(|&v| v == 0.0),
                "{output:?}: behind sequence {i}"
            );
            let from = (batch.len() - 1 - i) * width;
            assert!(
                back[from..from + width] == *expected,
                "{output:?}, sequence {i} in another order"
            );
        }
    }
    assert!(gpu.forward(&[], Output::Mean).unwrap().is_empty());
}

/// Vectors that stay on the device are those that come back: both scanners find the same with them, alone and in a batch.
#[test]
fn queries_that_stay_on_the_device_are_the_same() {
    let folder = golden().join("models/e5-like");
    let mut random = Random(14);
    let before = replays();
    for normalize in [Normalize::Always, Normalize::AsConfigured] {
        load();
        let embedder = Embedder::open(&folder, None, normalize, GPU).unwrap();
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

/// What the CPU refuses the GPU refuses, in the same words.
#[test]
fn sequences_that_do_not_fit_are_refused() {
    let shape = Shape { hidden: 32, heads: 2, inner: 32, layers: 1, activation: "gelu" };
    let folder = model(shape, 5);
    let gpu = open(folder.path(), GPU);
    let said = |ids: Vec<u32>| {
        let sequence = Sequence { second_from: ids.len(), ids };
        gpu.forward(&[sequence], Output::Mean).unwrap_err().to_string()
    };
    assert!(said(Vec::new()).contains("takes 1 to 512"));
    assert!(said(vec![1; 513]).contains("takes 1 to 512"));
    assert!(said(vec![VOCABULARY as u32]).contains("vocabulary"));
}

/// Heads wider than any kernel takes are computed on the CPU.
#[test]
fn a_model_that_no_kernel_computes_runs_on_the_cpu() {
    let shape = Shape { hidden: 160, heads: 1, inner: 32, layers: 1, activation: "gelu" };
    let folder = model(shape, 6);
    let gpu = open(folder.path(), GPU);
    assert!(!gpu.is_on_device());
    assert_eq!(gpu.forward(&sequences(&[4], 1), Output::Mean).unwrap().len(), 160);
}

/// Weights and activations beyond the range of halves become the largest of them, and no infinity.
#[test]
fn numbers_beyond_half_precision_stay_numbers() {
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
    let gpu = open(folder.path(), GPU);
    let states = gpu.forward(&sequences(&[40, 3], 2), Output::Tokens).unwrap();
    assert!(states.iter().all(|v| v.is_finite()));
}

#[test]
fn minilm_in_half_precision_equals_sentence_transformers() {
    load();
    let folder = golden().join("embeddings");
    let embedder = open_embedder(crate::support::minilm(), Normalize::AsConfigured, GPU).unwrap();
    assert_eq!(embedder.precision(), "float16 (cuda:0)");
    let all = texts(&folder.join("texts.jsonl"));
    let expected = matrix(&folder.join("minilm.npy"));
    // Each of a length of its own, and few enough for the stand-in.
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
    load();
    let folder = golden().join("cross-encoder");
    let reranker = Reranker::open(&folder, 512, GPU).unwrap();
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
