//! Models, rerankers, devices and flags that cannot be used.

use crate::golden::golden;
use crate::support::cli::{
    Workplace, finish, indexed, records, small_model, small_reranker, words,
};
use std::path::Path;

/// A copy of the model folder `from` as `name`, in which `file` is changed.
fn model(
    place: &Workplace,
    from: impl AsRef<Path>,
    name: &str,
    file: &str,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> String {
    let from = from.as_ref();
    for folder in ["", "1_Pooling"] {
        let Ok(entries) = std::fs::read_dir(from.join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let to = Path::new(name).join(folder).join(path.file_name().unwrap());
            place.file(to.to_str().unwrap(), std::fs::read(path).unwrap());
        }
    }
    let changed = change(std::fs::read(place.path(name).join(file)).unwrap());
    place.file(&format!("{name}/{file}"), changed);
    format!("./{name}")
}

/// The bytes of a JSON file with one text in place of another.
fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn model_that_cannot_be_used_is_named_with_the_cure() {
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    std::fs::create_dir(place.path("hollow")).unwrap();
    place.file("pickle/config.json", "{}");
    place.file("pickle/tokenizer.json", "{}");
    place.file("pickle/pytorch_model.bin", "x");
    let small = small_model();
    let copy = |name: &str, file: &str, change: fn(Vec<u8>) -> Vec<u8>| {
        model(&place, &small, name, file, change)
    };
    let cases: &[(String, &[&str])] = &[
        ("all-MiniLM-L6".into(), &["did you mean 'all-MiniLM-L6-v2'", "remedy"]),
        ("nix".into(), &["'nix'", "all-MiniLM-L6-v2", "remedy"]),
        ("./gone".into(), &["./gone: no such folder", "model.safetensors"]),
        ("./hollow".into(), &["./hollow: contains no model", "no config.json"]),
        ("./pickle".into(), &["pytorch_model.bin, a pickle", "safetensors.torch", "./pickle"]),
        ("./c.jsonl".into(), &["./c.jsonl: is a file"]),
        (small_reranker(), &["cross-encoder", "--reranker"]),
        (
            copy("halved", "model.safetensors", |b| b[..b.len() / 2].to_vec()),
            &["halved/model.safetensors", "not a valid safetensors", "download it again"],
        ),
        (
            copy("emptied", "model.safetensors", |_| Vec::new()),
            &["emptied/model.safetensors", "download it again"],
        ),
        (
            copy("noise", "model.safetensors", |b| vec![0xa5; b.len()]),
            &["noise/model.safetensors", "download it again"],
        ),
        (
            copy("gpt", "config.json", |b| {
                replaced(b, "\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"")
            }),
            &["gpt/config.json", "'gpt2' is not supported", "bert, roberta"],
        ),
        (
            copy("wider", "config.json", |b| {
                replaced(b, "\"hidden_size\": 24", "\"hidden_size\": 32")
            }),
            &["wider/1_Pooling/config.json", "'word_embedding_dimension' is 24", "gives 32"],
        ),
        (
            copy("deeper", "config.json", |b| {
                replaced(b, "hidden_layers\": 3", "hidden_layers\": 30")
            }),
            &["deeper/model.safetensors", "layer.3", "missing"],
        ),
        (copy("torn", "config.json", |_| b"{".to_vec()), &["torn/config.json"]),
        (copy("speechless", "tokenizer.json", |_| b"{}".to_vec()), &["speechless/tokenizer.json"]),
    ];
    for (name, parts) in cases {
        place.refuses(&[(&format!("index c.jsonl --into new --model '{name}'"), 3, parts)]);
        assert!(!place.path("new").exists(), "{name}");
        place.pipe(&["embed", "--model", name], "river\n").fails(3, parts);
    }
    place.refuses(&[
        ("models path all-MiniLM-L6", 3, &["did you mean 'all-MiniLM-L6-v2'"]),
        ("models pull all-MiniLM-L6", 3, &["did you mean 'all-MiniLM-L6-v2'"]),
    ]);
}

#[test]
fn model_of_another_index_is_refused_by_its_checksum() {
    let place = indexed(12);
    let other = golden().join("models/bge-like").display().to_string();
    place.run(&["search", "idx", "river", "--model", &other]).fails(3, &["sha256", "--model"]);
    let index = ["index", "corpus.jsonl", "--into", "idx", "--model", &other];
    place.run(&index).fails(2, &["idx", "another folder"]);
    place.is_sound(12);
}

#[test]
fn reranker_that_is_none_is_named_with_the_reason() {
    let place = indexed(12);
    std::fs::create_dir(place.path("hollow")).unwrap();
    let embedder = small_model().display().to_string();
    let labels = |b| replaced(b, "\"LABEL_0\": 0", "\"LABEL_0\": 0, \"LABEL_1\": 1");
    let labels =
        |b| replaced(labels(b), "\"0\": \"LABEL_0\"", "\"0\": \"LABEL_0\", \"1\": \"LABEL_1\"");
    let cases: &[(String, &[&str])] = &[
        (embedder, &["no classifier", "not a cross-encoder"]),
        ("nix".into(), &["'nix'", "ms-marco-MiniLM-L6-v2"]),
        ("ms-marco-MiniLM".into(), &["did you mean 'ms-marco-MiniLM-L6-v2'"]),
        ("./hollow".into(), &["./hollow: contains no model"]),
        (
            model(&place, small_reranker(), "three", "config.json", labels),
            &["2 outputs", "a reranker has one"],
        ),
        (
            model(&place, small_reranker(), "cut", "model.safetensors", |b| b[..1000].to_vec()),
            &["cut/model.safetensors", "download it again"],
        ),
    ];
    for (name, parts) in cases {
        place.run(&["search", "idx", "river", "--reranker", name]).fails(3, parts);
        place.run(&["rerank", "river", "lamp", "--reranker", name]).fails(3, parts);
    }
    place.is_sound(12);
}

#[test]
fn flag_that_makes_no_sense_is_refused_by_name() {
    let place = indexed(12);
    place.refuses(&[
        ("search idx river --threads 0", 2, &["--threads", "threads 0", "1 to 1024"]),
        ("search idx river --threads 99999", 2, &["--threads", "99999", "1 to 1024"]),
        ("search idx river --threads many", 2, &["'many'", "--threads"]),
        ("search idx river --device cuda:99", 4, &["cuda:99"]),
        ("search idx river --device tpu", 2, &["--device", "'tpu'", "auto, cpu or cuda:N"]),
        ("search idx river --device cuda:x", 2, &["'cuda:x'"]),
        ("search idx river --precision f64", 2, &["--precision", "'f64'"]),
        ("search idx river --gpu-memory much", 2, &["--gpu-memory", "'much'"]),
        ("search idx river --offline=maybe", 2, &["--offline", "'maybe'", "1 or 0"]),
        ("search idx river --rernak", 2, &["--rernak"]),
        ("search idx river 'and more'", 2, &["and more"]),
        ("serach idx river", 2, &["'serach'", "'search'"]),
        ("frobnicate", 2, &["'frobnicate'"]),
        ("search idx", 2, &["query is missing"]),
        ("index --into idx", 2, &["<INPUT>"]),
        ("index corpus.jsonl --into idx --on-error weep", 2, &["stop, skip"]),
        ("compare idx river --queries q", 2, &["--queries"]),
        ("compare idx --queries q", 2, &["--qrels"]),
        ("eval idx --queries q", 2, &["--qrels"]),
        ("verify idx --sample some", 2, &["'some'", "--sample"]),
        ("serve --max-inputs 0", 2, &["'0'", "--max-inputs"]),
        ("serve --timeout 0", 2, &["'0'", "--timeout", "0.001 to 86400"]),
        ("models list more", 2, &["'more'"]),
    ]);
    place.is_sound(12);
}

#[test]
fn environment_that_makes_no_sense_is_refused_by_name() {
    let place = indexed(12);
    let cases: [(&str, &str, i32, &[&str]); 11] = [
        ("WARPSEEK_TIER", "nonsense", 2, &["'nonsense'", "avx2"]),
        ("WARPSEEK_ENCODER", "nonsense", 2, &["'nonsense'", "packed or reference"]),
        ("WARPSEEK_GPU_KERNELS", "fast", 2, &["'fast'", "portable"]),
        ("WARPSEEK_THREADS", "0", 2, &["threads 0", "1 to 1024"]),
        ("WARPSEEK_GPU_MEMORY", "-1", 2, &["'-1'"]),
        ("WARPSEEK_OFFLINE", "maybe", 2, &["'maybe'", "1 or 0"]),
        ("WARPSEEK_DEVICE", "tpu", 2, &["'tpu'", "cuda:N"]),
        ("WARPSEEK_PRECISION", "f64", 2, &["'f64'", "auto, f32, f16, bf16, int8"]),
        ("WARPSEEK_SERVE_PORT", "99999", 2, &["'99999'", "--port"]),
        ("WARPSEEK_RERANKER", "nix", 3, &["'nix'"]),
        ("WARPSEEK_CONFIG", "gone.toml", 8, &["gone.toml"]),
    ];
    for (name, value, code, parts) in cases {
        eprintln!("case: {name}={value}");
        let is_serve = name.contains("SERVE");
        let line = if is_serve { "serve idx" } else { "search idx river" };
        let run = finish(place.command(&words(line)).env(name, value)).fails(code, parts);
        assert!(code > 2 || is_serve || run.stderr.contains(name), "{}", run.stderr);
    }
    let files: [(&[u8], &[&str]); 6] = [
        (b"threads = \"many\"\n", &["line 1", "threads", "many"]),
        (b"\nthreads = 0\n", &["line 2", "threads 0", "1 to 1024"]),
        (b"offline = true\ndevice = [1]\n", &["line 2", "device", "array"]),
        (b"tier = \"generic\"\n", &["line 1", "tier", "unknown setting"]),
        (b"threads = \n", &["line 1"]),
        (b"# caf\xe9\n", &["UTF-8"]),
    ];
    for (content, parts) in files {
        place.file(".private/config.toml", content);
        place.refuses(&[("info idx", 2, &[&["config.toml"][..], parts].concat())]);
    }
}
