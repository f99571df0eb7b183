//! Indexes that rank by the inner product, and the stamp of the model that made an index.

use crate::golden::{golden, lines, matrix};
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::Server;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::path::Path;

const SETTINGS: &str = "config_sentence_transformers.json";

/// The model without normalization, whose reference vectors have different lengths.
const PLAIN: &str = "models/tinybert-like";

/// A copy of a model of the golden data in the place, as the folder `name`.
fn copy_model(place: &Workplace, model: &str, name: &str) {
    let from = golden().join(model);
    for file in [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        SETTINGS,
    ] {
        place.file(&format!("{name}/{file}"), std::fs::read(from.join(file)).unwrap());
    }
}

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// A place with the folder `dot`, a model that is compared by the inner product, the documents
/// `docs.jsonl`, and the index `idx` of both, embedded in float32.
fn dot_place() -> Workplace {
    let place = Workplace::new();
    copy_model(&place, PLAIN, "dot");
    edit(&place.path("dot").join(SETTINGS), |s| s["similarity_fn_name"] = json!("dot"));
    let texts = lines(&golden().join("models/texts.jsonl"));
    let documents = texts.iter().enumerate().map(|(i, text)| {
        let group = if i % 2 == 0 { "even" } else { "odd" };
        json!({"id": text["name"], "text": text["text"], "group": group}).to_string() + "\n"
    });
    place.file("docs.jsonl", documents.collect::<String>());
    place.call("index docs.jsonl --into idx --model dot --precision f32").ok();
    place
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn search(place: &Workplace, query: &str, more: &str) -> Value {
    let mut args = vec!["search", "idx", query, "--json", "--precision", "f32"];
    args.extend(more.split_whitespace());
    place.run(&args).ok().json()
}

/// A text, the ids and inner products of all passages, and the ids by cosine.
type Expected = (String, Vec<(String, f64)>, Vec<String>);

/// The texts, and per text the ids and inner products of all passages, best first, and the ids by
/// cosine, of the vectors that sentence-transformers made.
fn expected() -> Vec<Expected> {
    let texts = lines(&golden().join("models/texts.jsonl"));
    let folder = golden().join(PLAIN);
    let queries = matrix(&folder.join("expected_query.npy"));
    let passages = matrix(&folder.join("expected_passage.npy"));
    let ranked = |key: &dyn Fn(&[f32]) -> f64| {
        let named = texts.iter().zip(&passages);
        let mut all: Vec<(String, f64)> =
            named.map(|(t, p)| (t["name"].as_str().unwrap().to_owned(), key(p))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    };
    let expect = |(text, query): (&Value, &Vec<f32>)| {
        let products = ranked(&|p| dot(query, p));
        let cosines = ranked(&|p| dot(query, p) / dot(p, p).sqrt());
        let cosines = cosines.into_iter().map(|(id, _)| id).collect();
        (text["text"].as_str().unwrap().to_owned(), products, cosines)
    };
    texts.iter().zip(&queries).map(expect).collect()
}

fn ids(result: &Value) -> Vec<String> {
    let hits = result["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn index_of_a_dot_model_ranks_by_the_inner_product_of_its_vectors() {
    let place = dot_place();
    let info = place.call("info idx --json").ok().json();
    assert_eq!(info["manifest"]["metric"], "inner_product");
    assert!(place.call("info idx").ok().stdout.contains("inner product"));
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(place.path("idx/manifest.json")).unwrap()).unwrap();
    // An earlier version, which would scale vectors to unit length, refuses the format version.
    assert_eq!(manifest["format_version"], 3);
    assert_eq!(
        (&manifest["metric"], &manifest["normalized"]),
        (&json!("inner_product"), &json!(false))
    );
    let mut different = 0;
    for (text, products, cosines) in expected() {
        let result = search(&place, &text, "-k 12");
        for (hit, (id, score)) in result["hits"].as_array().unwrap().iter().zip(&products) {
            assert_eq!(hit["id"], json!(id), "{text:.20}");
            let got = hit["score"].as_f64().unwrap();
            assert!((got - score).abs() < 2e-3 * score.abs().max(1.0), "{got} {score}");
        }
        different += usize::from(ids(&result) != cosines);
        // Filters, a least score, and MMR by relevance alone keep the order.
        let odd = ids(&search(&place, &text, "-k 12 --filter group='odd'"));
        let all = ids(&result);
        let passing: Vec<&String> = all.iter().filter(|id| odd.contains(id)).collect();
        assert_eq!((odd.len(), passing), (6, odd.iter().collect()));
        assert_eq!(ids(&search(&place, &text, "-k 12 --mmr --mmr-lambda 1")), all);
        assert_ne!(ids(&search(&place, &text, "-k 12 --mmr --mmr-lambda 0.1")), all);
    }
    assert!(different > 3, "the orders by inner product and by cosine differ {different} times");
    place.call("verify idx --sample 40").ok();
}

#[test]
fn hybrid_and_rerank_of_inner_products_do_not_depend_on_their_scale() {
    let place = dot_place();
    let text = "Why does the harbour stay open in winter?";
    let hybrid = search(&place, text, "-k 12 --hybrid --no-rerank");
    let best = hybrid["hits"][0]["score"].as_f64().unwrap();
    // Both sides are scaled to 0..1 over the candidates.
    assert!((0.5..=1.0 + 1e-6).contains(&best), "{best}");
    let fused = search(&place, text, "-k 12 --hybrid --fusion rrf --no-rerank");
    let best = fused["hits"][0]["score"].as_f64().unwrap();
    assert!((best - 2.0 / 61.0).abs() < 1e-3, "{best}");
    let diverse = search(&place, text, "-k 12 --hybrid --mmr --mmr-lambda 0.5 --no-rerank");
    assert_eq!(diverse["hits"].as_array().unwrap().len(), 12);
    let reranker = small_reranker();
    let with = |weight: &str| {
        search(&place, text, &format!("-k 12 --reranker {reranker} --retriever-weight {weight}"))
    };
    // The blend is of standard scores: at 1 it has the retrieval order, whatever the scale.
    assert_eq!(ids(&with("1")), ids(&search(&place, text, "-k 12 --no-rerank")));
    for hit in with("0.5")["hits"].as_array().unwrap() {
        assert!(hit["final_score"].as_f64().unwrap().abs() < 4.0, "{hit}");
        assert!((0.0..=1.0).contains(&hit["rerank_score"].as_f64().unwrap()), "{hit}");
    }
    let compared = place.run(&["compare", "idx", text, "--reranker", &reranker, "--json"]).ok();
    assert_eq!(compared.json()["before"][0]["id"], search(&place, text, "-k 1")["hits"][0]["id"]);
}

#[test]
fn server_of_a_dot_model_searches_embeds_and_writes_as_the_commands_do() {
    let place = dot_place();
    let server = Server::start(&place, &["idx", "--precision", "f32"]);
    assert_eq!(server.get("/info").ok()["indexes"][0]["metric"], "inner_product");
    let (text, products, _) = expected().swap_remove(3);
    let body = json!({"query": text, "k": 12, "rerank": false});
    let here = server.post("/v1/search", &body).ok();
    let there = search(&place, &text, "-k 12 --no-rerank");
    assert_eq!(ids(&here), ids(&there));
    assert_eq!(here["hits"][0]["score"], there["hits"][0]["score"]);
    // Embeddings are those of the model, of any length.
    let body = json!({"input": text, "model": "dot"});
    let embedded = server.post("/v1/embeddings", &body).ok();
    let vector = embedded["data"][0]["embedding"].as_array().unwrap();
    let vector: Vec<f32> = vector.iter().map(|v| v.as_f64().unwrap() as f32).collect();
    let own = products.iter().find(|(id, _)| id == "numbers").unwrap().1;
    assert!((dot(&vector, &vector) - own).abs() < 2e-3 * own, "{own}");
    // A document that is written over HTTP has the vector that `index` makes.
    let body = json!({"documents": [{"id": "copy", "text": text}]});
    server.post("/v1/documents", &body).ok();
    let found = server.post("/v1/search", &json!({"query": text, "k": 13, "rerank": false})).ok();
    let score = |id: &str| {
        let hits = found["hits"].as_array().unwrap();
        hits.iter().find(|hit| hit["id"] == id).unwrap()["score"].clone()
    };
    assert_eq!(score("copy"), score("numbers"));
}

#[test]
fn export_and_import_keep_vectors_of_any_length() {
    let place = dot_place();
    place.call("export idx --vectors v.npy --documents d.jsonl").ok();
    let lengths: Vec<f64> = matrix(&place.path("v.npy")).iter().map(|v| dot(v, v).sqrt()).collect();
    assert!(lengths.iter().all(|length| (length - 1.0).abs() > 0.1), "{lengths:?}");
    let text = "THE Night TRAIN leaves PLATFORM Seven";
    let query = |index: &str| {
        let args = ["search", index, text, "-k", "12", "--json", "--model", "dot"];
        place.run(&[&args[..], &["--precision", "f32"]].concat()).ok().json()
    };
    let scores = |result: &Value| -> Vec<f64> {
        result["hits"].as_array().unwrap().iter().map(|h| h["score"].as_f64().unwrap()).collect()
    };
    let metric = |index: &str| {
        place.run(&["info", index, "--json"]).ok().json()["manifest"]["metric"].clone()
    };
    let original = query("idx");
    for (i, more) in ["", "--model dot", "--metric inner_product"].iter().enumerate() {
        let index = format!("copy{i}");
        place.call(&format!("import v.npy --documents d.jsonl --into {index} {more}")).ok();
        assert_eq!(metric(&index), "inner_product", "{more}");
        assert_eq!(ids(&query(&index)), ids(&original), "{more}");
        assert_eq!(scores(&query(&index)), scores(&original), "{more}");
    }
    // Scaled, they are ranked by the cosine.
    place.call("import v.npy --documents d.jsonl --into unit --metric cosine").ok();
    assert_eq!(metric("unit"), "cosine");
    let cosines = expected().into_iter().find(|(t, ..)| t == text).unwrap().2;
    assert_eq!(ids(&query("unit")), cosines);
    let manifest = std::fs::read_to_string(place.path("unit/manifest.json")).unwrap();
    assert!(manifest.contains("\"format_version\": 2"), "{manifest}");
    place.refuses(&[
        ("import v.npy --documents d.jsonl --into unit", 7, &["vector 0", "length", "--normalize"]),
        (
            "import v.npy --into unit --metric inner_product",
            2,
            &["'cosine', not the metric 'inner_product'"],
        ),
        ("import v.npy --into copy0 --metric cosine", 2, &["'inner_product', not", "'cosine'"]),
        ("import v.npy --into x --metric inner_product --normalize", 2, &["--normalize"]),
        ("import v.npy --into x --metric euclidean", 2, &["euclidean", "inner_product"]),
    ]);
    // Without --metric an import follows the index.
    place.call("import v.npy --documents d.jsonl --into unit --normalize").ok();
    assert_eq!(place.stats("unit")["documents"], 12);
}

#[test]
fn l2_files_are_ranked_in_their_own_order_or_refused() {
    let place = Workplace::new();
    let golden = golden();
    let file = golden.join("vectors/small_l2.faiss").display().to_string();
    for metric in ["cosine", "inner_product"] {
        place.run(&["import", &file, "--into", metric, "--metric", metric]).ok();
    }
    let store = golden.join("langchain/current-distances").display().to_string();
    for more in [&["--metric", "inner_product"][..], &[]] {
        let args = [&["import", &store, "--into", "long", "--index-name", "papers"], more].concat();
        place.run(&args).fails(2, &["L2", "has the length 2.0000"]);
    }
    let args = ["import", &store, "--into", "l", "--index-name", "papers", "--metric", "cosine"];
    assert!(place.run(&args).ok().stderr.contains("ranked by cosine instead"));
}

#[test]
fn similarities_other_than_cosine_and_dot_are_refused_by_name() {
    let place = Workplace::new();
    copy_model(&place, PLAIN, "model");
    place.file("docs.jsonl", "{\"id\": \"a\", \"text\": \"a river\"}\n");
    for name in ["euclidean", "manhattan", "maxsim", "dot_score", "cos_sim", "Cosine", ""] {
        edit(&place.path("model").join(SETTINGS), |s| s["similarity_fn_name"] = json!(name));
        let parts = [SETTINGS, "similarity_fn_name", &format!("'{name}', which is not"), "dot"];
        place.call("index docs.jsonl --into idx --model model").fails(3, &parts);
        assert!(!place.path("idx").exists(), "{name}");
    }
    for name in [json!(null), json!("cosine")] {
        edit(&place.path("model").join(SETTINGS), |s| s["similarity_fn_name"] = name);
        place.call("index docs.jsonl --into idx --model model").ok();
        let info = place.call("info idx --json").ok().json();
        assert_eq!(info["manifest"]["metric"], "cosine");
        let hit = &search(&place, "a river", "-k 1")["hits"][0];
        assert!((hit["score"].as_f64().unwrap() - 1.0).abs() < 0.01, "{hit}");
    }
}

#[test]
fn vectors_beyond_half_precision_are_refused_by_their_document() {
    let place = dot_place();
    let file = place.path("dot/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let changed: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = (tensors.tensors().into_iter())
        .map(|(name, view)| {
            let mut data = view.data().to_vec();
            if name.ends_with("layer.3.output.LayerNorm.weight") {
                let large = half::f16::from_f32(60000.0).to_le_bytes();
                data.chunks_exact_mut(2).for_each(|v| v.copy_from_slice(&large));
            }
            (name, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    let views = changed.iter().map(|(name, dtype, shape, data)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &file).unwrap();
    let line = "index docs.jsonl --into large --model dot --precision f32";
    place.call(line).fails(7, &["docs.jsonl", "vector", "half precision cannot hold", "±65504"]);
    let run =
        place.run(&[&line.split(' ').collect::<Vec<_>>()[..], &["--on-error", "skip"]].concat());
    let run = run.ok();
    assert!(run.stderr.contains("half precision cannot hold"), "{}", run.stderr);
    place.call("verify large").ok();
}

#[test]
fn every_property_that_changes_vectors_is_named_if_it_differs() {
    let place = dot_place();
    let json_file = |file: &'static str, change: fn(&mut Value)| {
        move |folder: &Path| edit(&folder.join(file), change)
    };
    type Change = Box<dyn Fn(&Path)>;
    let cases: Vec<(Change, &str, &str)> = vec![
        (
            Box::new(json_file("sentence_bert_config.json", |s| s["max_seq_length"] = json!(48))),
            "token limit: 64 in the index, 48 in the model",
            "",
        ),
        (
            Box::new(json_file(SETTINGS, |s| s["prompts"] = json!({"query": "find: "}))),
            "query prompt: none in the index, 'find: ' in the model",
            "",
        ),
        (
            Box::new(json_file(SETTINGS, |s| s["prompts"] = json!({"passage": "text: "}))),
            "passage prompt: none in the index, 'text: ' in the model",
            "",
        ),
        (
            Box::new(json_file(SETTINGS, |s| s["similarity_fn_name"] = json!("cosine"))),
            "similarity: dot in the index, cosine in the model",
            "",
        ),
        (
            Box::new(json_file("1_Pooling/config.json", |s| {
                s["pooling_mode_mean_tokens"] = json!(false);
                s["pooling_mode_cls_token"] = json!(true);
            })),
            "pooling: mean in the index, cls in the model",
            "",
        ),
        (
            Box::new(json_file("modules.json", |s| {
                let kind = "sentence_transformers.models.Normalize";
                let module = json!({"idx": 2, "name": "2", "path": "2_Normalize", "type": kind});
                s.as_array_mut().unwrap().push(module);
            })),
            "normalization: off in the index, on in the model",
            "",
        ),
        (
            Box::new(json_file("tokenizer.json", |t| t["normalizer"]["lowercase"] = json!(false))),
            "tokenizer: sha256 ",
            "",
        ),
        (
            Box::new(|folder: &Path| {
                let other = golden().join("models/e5-like");
                for file in ["config.json", "model.safetensors", SETTINGS, "1_Pooling/config.json"]
                {
                    std::fs::copy(other.join(file), folder.join(file)).unwrap();
                }
            }),
            "weights: sha256 ",
            "passage prompt: none in the index, 'passage: ' in the model",
        ),
    ];
    for (change, first, second) in &cases {
        copy_model(&place, PLAIN, "other");
        edit(&place.path("other").join(SETTINGS), |s| s["similarity_fn_name"] = json!("dot"));
        let same = ["search", "idx", "river", "--model", "other", "--json"];
        place.run(&same).ok();
        change(&place.path("other"));
        place.run(&same).fails(3, &[first, second, "--model"]);
        let again = "index docs.jsonl --into idx --model other --precision f32";
        let parts: &[&str] =
            if second.is_empty() { &[first] } else { &["the index was made with"] };
        place.call(again).fails(2, parts);
    }
    // Several differences are all named.
    copy_model(&place, PLAIN, "other");
    edit(&place.path("other/sentence_bert_config.json"), |s| s["max_seq_length"] = json!(48));
    let parts = ["token limit: 64 in the index, 48", "similarity: dot in the index, cosine"];
    place.run(&["search", "idx", "river", "--model", "other"]).fails(3, &parts);
    assert_eq!(place.stats("idx")["documents"], 12);
}

#[test]
fn another_number_format_is_told_when_rows_are_added_and_never_refused() {
    let place = dot_place();
    let info = place.call("info idx --json").ok().json();
    assert_eq!(info["manifest"]["model"]["precision"], "float32");
    let told = "the index was embedded in float32, and these 1 rows in int8";
    let query = ["search", "idx", "a river", "--precision", "int8", "--json"];
    assert!(!place.run(&query).ok().stderr.contains("embedded in"));
    place.file("more.jsonl", "{\"id\": \"more\", \"text\": \"a river\"}\n");
    let run = place.call("index more.jsonl --into idx --model dot --precision int8").ok();
    assert_eq!(run.stderr.matches(told).count(), 1, "{}", run.stderr);
    // Nothing is embedded in a second run, and so nothing is told.
    let run = place.call("index more.jsonl --into idx --model dot --precision int8").ok();
    assert!(!run.stderr.contains("embedded in"), "{}", run.stderr);
}

#[test]
fn index_of_fewer_dimensions_keeps_them() {
    let place = Workplace::new();
    copy_model(&place, "models/bge-like", "model");
    let texts = lines(&golden().join("models/texts.jsonl"));
    let document =
        |text: &Value| json!({"id": text["name"], "text": text["text"]}).to_string() + "\n";
    place.file("docs.jsonl", texts[..6].iter().map(document).collect::<String>());
    place.file("more.jsonl", texts[6..9].iter().map(document).collect::<String>());
    place.call("index docs.jsonl --into idx --model model --dimensions 8").ok();
    place.call("index more.jsonl --into idx --model model").ok();
    let info = place.call("info idx --json").ok().json();
    assert_eq!(info["manifest"]["dim"], 8);
    assert_eq!(info["manifest"]["model"]["properties"]["dimensions"], "8 of 32");
    assert_eq!(info["stats"]["documents"], 9);
    let query = texts[2]["text"].as_str().unwrap();
    let found = place.run(&["search", "idx", query, "--json", "--no-rerank"]).ok().json();
    assert_eq!(found["hits"].as_array().unwrap().len(), 9);
    let best = &found["hits"][0];
    assert!(best["score"].as_f64().unwrap() <= 1.001, "{best}");
    place
        .call("index more.jsonl --into idx --model model --dimensions 16")
        .fails(2, &["8 dimensions, not 16"]);
    place
        .call("index more.jsonl --into new --model model --dimensions 33")
        .fails(2, &["33 dimensions", "have 32"]);
    let short = place.call("embed docs.jsonl --model model --dimensions 8").ok();
    let first: Value = serde_json::from_str(short.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["vector"].as_array().unwrap().len(), 8);
}
