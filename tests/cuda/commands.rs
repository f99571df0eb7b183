//! The command line on a GPU, with the stand-in driver: the same answers, and the errors of the
//! driver.

use crate::support::cli::{ProgramRun, Workplace, finish, records, small_reranker};
use crate::support::cuda::stand_in;
use crate::support::server::Server;
use serde_json::Value;

const PORTABLE: (&str, &str) = ("WARPSEEK_GPU_KERNELS", "portable");

fn with_driver(place: &Workplace, faults: &[(&str, &str)], args: &[&str]) -> ProgramRun {
    let mut command = place.command(args);
    command.env("LD_LIBRARY_PATH", stand_in()).envs(faults.iter().copied());
    finish(&mut command)
}

/// Runs `batch` for `queries`. Returns its results and its messages.
fn batch(
    place: &Workplace,
    queries: &str,
    name: &str,
    faults: &[(&str, &str)],
    device: &str,
) -> (String, String) {
    let args = ["batch", "idx", queries, "--out", name, "--precision", "f32", "--device", device];
    let run = with_driver(place, faults, &args).ok();
    (std::fs::read_to_string(place.path(name)).unwrap(), run.stderr)
}

#[test]
fn searches_find_the_same_on_a_gpu() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(300));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    let search = |faults: &[(&str, &str)], device: &str, more: &[&str]| {
        let args = ["search", "idx", "river lamp", "--json", "--precision", "f32", "--device"];
        let run = with_driver(&place, faults, &[&args, &[device][..], more].concat());
        run.ok().json()["hits"].clone()
    };
    for more in [&[][..], &["--filter", "year >= 2015"], &["--hybrid"], &["--mmr"]] {
        assert_eq!(search(&[], "cpu", more), search(&[], "cuda", more), "{more:?}");
    }
    let run = with_driver(&place, &[], &["verify", "idx", "--sample", "20"]).ok();
    assert!(run.stdout.contains("cuda:0"), "{}", run.stdout);
    place.file("queries.txt", "1\triver\n2\tlamp garden\n");
    // One filter per query: equal ones, one that nothing passes, and none.
    let own = ["year >= 2015", "topic = 'a'", "year >= 2015", "year = 1900", "year IS NOT NULL"];
    let own = own.iter().enumerate().map(|(i, filter)| {
        serde_json::json!({ "_id": i, "text": "river", "filter": filter }).to_string() + "\n"
    });
    let plain = "{\"_id\": \"none\", \"text\": \"river\"}\n".to_owned();
    place.file("queries.jsonl", own.chain([plain]).collect::<String>());
    for queries in ["queries.txt", "queries.jsonl"] {
        let found = |device: &str| {
            let name = format!("{device}-{queries}.out");
            batch(&place, queries, &name, &[], device).0
        };
        assert_eq!(found("cpu"), found("auto"), "{queries}");
    }
    let args =
        ["bench", "--rows", "300", "--dim", "32", "--batch", "1,65", "--search-only", "--json"];
    let bench = with_driver(&place, &[("WARPSEEK_THREADS", "1")], &args).ok().json();
    assert!(bench["limits"]["gpu"]["copy_bytes"].as_f64().unwrap() > 0.0, "{bench}");
    assert!(bench["scan"][1]["gpu_seconds"].as_f64().unwrap() > 0.0, "{bench}");
    let doctor = with_driver(&place, &[], &["doctor", "--json"]).ok().json();
    assert_eq!((&doctor["gpu"]["name"], &doctor["device"]), (&"stand-in".into(), &"cuda:0".into()));
    assert_eq!(doctor["gpu"]["products"], "mma.sync, wgmma");
    let few = [("CUDA_SHIM_MEMORY", "2000000"), ("WARPSEEK_GPU_MEMORY", "0")];
    assert_eq!(search(&few, "cuda", &[]), search(&[], "cpu", &[]));
}

/// Warpgroup products are used if they are right; else the portable kernels are.
#[test]
fn any_kind_of_products_finds_the_same() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(300));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    place.file("queries.txt", (0..80).map(|i| format!("{i}\triver {i}\n")).collect::<String>());
    let expected = batch(&place, "queries.txt", "cpu.trec", &[], "cpu").0;
    for (name, faults, warned) in [
        ("hopper.trec", &[][..], 0),
        ("ampere.trec", &[("CUDA_SHIM_CAPABILITY", "80")], 0),
        ("portable.trec", &[PORTABLE], 0),
        ("wrong.trec", &[("CUDA_SHIM_WRONG_PRODUCTS", "1")], 1),
    ] {
        let (found, stderr) = batch(&place, "queries.txt", name, faults, "cuda");
        assert_eq!(found, expected, "{name}");
        let warnings = stderr.matches("using the portable kernels").count();
        assert_eq!(warnings, warned, "{name}: {stderr}");
    }
    let args = ["doctor", "--device", "cuda"];
    with_driver(&place, &[("WARPSEEK_GPU_KERNELS", "fast")], &args)
        .fails(2, &["WARPSEEK_GPU_KERNELS", "portable"]);
}

#[test]
fn a_gpu_that_cannot_be_used_is_named_with_the_reason() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(20));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    let search = ["search", "idx", "river", "--precision", "f32", "--device", "cuda"];
    place.run(&search).fails(4, &["cuda:0", "no NVIDIA driver"]);
    for (faults, reason) in [
        ([("CUDA_SHIM_DRIVER", "11080")], "CUDA 11.8"),
        ([("CUDA_SHIM_DEVICES", "0")], "finds no GPU"),
        ([("CUDA_SHIM_FAIL", "cuInit")], "unknown error"),
        ([("CUDA_SHIM_FAIL", "cuDevicePrimaryCtxRetain")], "unknown error"),
        ([("CUDA_SHIM_FAIL", "cuModuleLoadData")], "unknown error"),
        ([("CUDA_SHIM_FAIL", "cuLaunchKernel")], "the GPU failed"),
        ([("CUDA_SHIM_FAIL", "cuLaunchKernel:3")], "the GPU failed"),
        ([("CUDA_SHIM_FAIL", "cuStreamSynchronize:3")], "the GPU failed"),
        ([("CUDA_SHIM_FAIL", "cuMemcpyDtoHAsync_v2")], "the GPU failed"),
        ([("CUDA_SHIM_MEMORY", "4000")], "out of memory"),
    ] {
        // The test product would count as a call.
        with_driver(&place, &[PORTABLE, faults[0]], &search).fails(4, &[reason]);
    }
    let run = with_driver(&place, &[("CUDA_SHIM_FAIL", "cuLaunchKernel")], &search);
    run.fails(4, &["cuda:0", "warpgroup products", "WARPSEEK_GPU_KERNELS=portable"]);
    with_driver(&place, &[], &["search", "idx", "river", "--device", "cuda:7"])
        .fails(4, &["cuda:7", "1 GPU"]);
    // By default commands use the CPU then, and say why once.
    place.file("queries.txt", "1\triver\n");
    let run = place.run(&["batch", "idx", "queries.txt", "--out", "out.trec"]).ok();
    assert_eq!(run.stderr.matches("using the CPU").count(), 1, "{}", run.stderr);
}

/// Parses the vectors that `embed` prints.
fn vectors(run: ProgramRun) -> Vec<Vec<f64>> {
    let run = run.ok();
    let numbers =
        |line: &Value| line.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let lines = run.stdout.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.map(|line| numbers(&line["vector"])).collect()
}

fn assert_near(got: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len());
    let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off <= bound, "off by {off}");
}

#[test]
fn models_compute_nearly_the_same_on_a_gpu() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(60));
    let cuda = ["--device", "cuda", "--json"];
    let cpu = ["--device", "cpu", "--precision", "f32", "--json"];
    let both = |args: &[&str]| {
        let run = |more: &[&str]| with_driver(&place, &[], &[args, more].concat());
        (run(&cuda), run(&cpu))
    };
    let (got, expected) = both(&["embed", "corpus.jsonl"]);
    let (got, expected) = (vectors(got), vectors(expected));
    assert_eq!((got.len(), expected.len()), (60, 60));
    got.iter().zip(&expected).for_each(|(a, b)| assert_near(a, b, 2e-3));
    assert_ne!(got, expected, "the GPU was not used");

    for (dir, device) in [("on-gpu", &cuda[..]), ("on-cpu", &cpu)] {
        let args = [&["index", "corpus.jsonl", "--into", dir][..], device].concat();
        with_driver(&place, &[], &args).ok();
    }
    let scores = |dir: &str, more: &[&str]| -> Vec<f64> {
        let args = [&["search", dir, "river lamp", "-k", "60"][..], more].concat();
        let found = with_driver(&place, &[], &args).ok().json();
        let mut hits = found["hits"].as_array().unwrap().clone();
        hits.sort_by_key(|hit| hit["id"].to_string());
        hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
    };
    assert_near(&scores("on-gpu", &cuda), &scores("on-cpu", &cpu), 5e-3);

    let reranker = small_reranker();
    let (got, expected) =
        both(&["rerank", "river", "--passages", "corpus.jsonl", "--reranker", &reranker]);
    let logits = |run: ProgramRun| -> Vec<f64> {
        let mut found = run.ok().json()["results"].as_array().unwrap().clone();
        found.sort_by_key(|result| result["index"].as_u64());
        found.iter().map(|result| result["rerank_logit"].as_f64().unwrap()).collect()
    };
    assert_near(&logits(got), &logits(expected), 2e-2);

    // Float32 is computed on the CPU.
    let args = ["embed", "corpus.jsonl", "--device", "cuda", "--precision", "f32"];
    assert_eq!(vectors(with_driver(&place, &[], &args)), expected_vectors(&place));
    let doctor = with_driver(&place, &[], &["doctor", "--json"]).ok().json();
    assert_eq!(doctor["encoder"], "float16 (cuda:0)");
    place.run(&["embed", "corpus.jsonl", "--precision", "f16"]).fails(4, &["f16", "--device cuda"]);
}

fn expected_vectors(place: &Workplace) -> Vec<Vec<f64>> {
    vectors(place.run(&["embed", "corpus.jsonl", "--device", "cpu", "--precision", "f32"]))
}

/// With little memory micro-batches are small, down to one text, and the vectors are the same.
#[test]
fn models_make_do_with_little_memory() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(900));
    let embed = ["embed", "corpus.jsonl", "--device", "cuda"];
    let whole = vectors(with_driver(&place, &[], &embed));
    let tight = with_driver(&place, &[("CUDA_SHIM_MEMORY", "700000")], &embed);
    assert_eq!(whole, vectors(tight));
    let full = [PORTABLE, ("CUDA_SHIM_MEMORY", "50000")];
    with_driver(&place, &full, &embed).fails(4, &["out of memory"]);
    // By default a command uses the CPU then.
    let run = with_driver(&place, &full, &embed[..2]);
    assert_eq!(run.stderr.matches("using the CPU for a model").count(), 1, "{}", run.stderr);
    assert_eq!(vectors(run), vectors(place.run(&["embed", "corpus.jsonl", "--device", "cpu"])));
}

#[test]
fn models_on_a_gpu_that_fails_leave_nothing_half_done() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(30));
    let embed = ["embed", "corpus.jsonl", "--device", "cuda", "--out", "out.npy"];
    for fault in [
        "cuModuleLoadData:2",
        "cuLaunchKernel",
        "cuLaunchKernel:9",
        "cuMemcpyHtoDAsync_v2:5",
        "cuMemHostAlloc",
        "cuMemHostAlloc:2",
        "cuMemcpyDtoHAsync_v2",
        "cuEventSynchronize",
        "cuStreamSynchronize",
    ] {
        let run = with_driver(&place, &[PORTABLE, ("CUDA_SHIM_FAIL", fault)], &embed);
        run.fails(4, &["unknown error"]);
        assert!(!place.path("out.npy").exists(), "{fault}");
    }
    let index = ["index", "corpus.jsonl", "--into", "idx", "--device", "cuda"];
    with_driver(&place, &[PORTABLE, ("CUDA_SHIM_FAIL", "cuLaunchKernel:3")], &index)
        .fails(4, &["the GPU failed"]);
    with_driver(&place, &[], &index).ok();
    assert_eq!(place.run(&["info", "idx", "--json"]).ok().json()["stats"]["documents"], 30);
}

#[test]
fn a_server_embeds_and_reranks_on_a_gpu() {
    let place = Workplace::new();
    let reranker = small_reranker();
    let mut command =
        place.command(&["serve", "--port", "0", "--device", "cuda", "--reranker", &reranker]);
    command.env("LD_LIBRARY_PATH", stand_in());
    let server = Server::from_command(command);
    let texts = ["river", "a lamp in the garden"];
    let record = |text| serde_json::json!({ "_id": text, "text": text }).to_string() + "\n";
    let corpus = texts.map(record);
    place.file("corpus.jsonl", corpus.concat());
    let input = serde_json::json!({ "model": "e5-like", "input": texts, "input_type": "passage" });
    let embedded = server.post("/v1/embeddings", &input).ok();
    let data = embedded["data"].as_array().unwrap();
    for (item, expected) in data.iter().zip(expected_vectors(&place)) {
        let got: Vec<f64> = serde_json::from_value(item["embedding"].clone()).unwrap();
        assert_near(&got, &expected, 2e-3);
    }
    let query = serde_json::json!({ "query": "river", "texts": texts });
    assert_eq!(server.post("/rerank", &query).ok().as_array().unwrap().len(), 2);
}
