//! Models that no manifest pins: the files that a pull brings, and their record.

use warpseek_hub::{ModelKind, ModelOrigin, VerifiedBy};

use super::*;

const REPO: &str = "some/body";
const RECORD: &str = "warpseek-record.json";
const POOLING: &str = "1_Pooling/config.json";
const MODULES: &str = "modules.json";
const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "c0ffee";

/// A modules.json of modules with these paths and types.
fn modules(list: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(path, kind): &(&str, &str)| {
        format!("{{\"path\": \"{path}\", \"type\": \"sentence_transformers.models.{kind}\"}}")
    };
    let entries: Vec<_> = list.iter().map(entry).collect();
    format!("[{}]", entries.join(", ")).into_bytes()
}

/// An index of shards.
fn index(shards: &[&str]) -> Vec<u8> {
    let entries = shards.iter().enumerate();
    let entries: Vec<_> = entries.map(|(i, file)| format!("\"layer.{i}\": \"{file}\"")).collect();
    let map = entries.join(", ");
    format!("{{\"metadata\": {{\"total_size\": 9}}, \"weight_map\": {{{map}}}}}").into_bytes()
}

/// Serves files at `commit`: large ones under their SHA-256, as the public hub does.
fn publish(hub: &Hub, commit: &str, files: &[(&str, Vec<u8>)]) {
    for (file, bytes) in files {
        let digits = if file.ends_with(".safetensors") { 64 } else { 40 };
        hub.publish(REPO, file, HubFile::new(bytes, &sha256(bytes)[..digits], commit));
    }
}

/// Serves small invented content at the first commit.
fn publish_names(hub: &Hub, files: &[&str]) {
    let files: Vec<_> = files.iter().map(|file| (*file, noise(500, file.len() as u64))).collect();
    publish(hub, FIRST, &files);
}

fn empty_world() -> (World, Hub) {
    let mut world = World::new();
    let hub = Hub::start();
    world.models.sources.endpoint = hub.url();
    (world, hub)
}

fn pull(world: &World, name: &str) -> Result<ModelFolder> {
    world.models.pull(name, &no_progress)
}

/// The manifest of one model that is not pinned.
fn unpinned(world: &mut World, kind: &str) {
    let dimension = if kind == "embedder" { "dimension = 4\n" } else { "" };
    let text = format!(
        "format = 1\n[[model]]\nname = \"body\"\nkind = \"{kind}\"\nrepo = \"{REPO}\"\n\
         license = \"MIT\"\nlanguages = [\"en\"]\n{dimension}max_tokens = 8\nabout_bytes = 1000\n"
    );
    world.models.manifest = ModelManifest::parse(&text, "test.toml").unwrap();
}

/// The files of a snapshot, without the record.
fn files_of(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => all.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    all.retain(|file| file != RECORD);
    all.sort();
    all
}

#[test]
fn pull_brings_every_file_that_decides_vectors_and_no_other() {
    let (world, hub) = empty_world();
    let wanted = [
        POOLING,
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "3_Normalize/config.json",
        CONFIG,
        "config_sentence_transformers.json",
        WEIGHTS,
        "sentence_bert_config.json",
        "special_tokens_map.json",
        TOKENIZER,
        "tokenizer_config.json",
    ];
    publish_names(&hub, &wanted);
    publish_names(&hub, &["pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/model.onnx"]);
    publish_names(
        &hub,
        &["openvino/openvino_model.bin", "README.md", "1_Pooling/model.safetensors"],
    );
    let list = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")];
    let list = modules(&[&list[..], &[("3_Normalize", "Normalize")]].concat());
    publish(&hub, FIRST, &[(MODULES, list)]);

    let found = pull(&world, REPO).unwrap();
    let mut expected: Vec<_> = wanted.iter().map(|file| file.to_string()).collect();
    expected.push(MODULES.into());
    expected.sort();
    assert_eq!(files_of(&found.path), expected);
    assert_eq!((found.origin, found.verified_by), (ModelOrigin::Hub, VerifiedBy::Record));
    assert_eq!(found.revision.as_deref(), Some(FIRST));
    // Of weights in several files: as `sha256sum` prints them, sorted by path.
    let line = |file: &str| format!("{}  {file}\n", sha256(&noise(500, file.len() as u64)));
    let lines = line("2_Dense/model.safetensors") + &line(WEIGHTS);
    assert_eq!(found.sha256, sha256(lines.as_bytes()));
    let last = hub.log().iter().rfind(|r| r.method == "GET").unwrap().path.clone();
    assert!(last.ends_with(&format!("/{WEIGHTS}")), "the weights come last: {last}");

    // The second use is offline.
    let mut world = world;
    world.models.sources.offline = true;
    let asked = hub.log().len();
    let again = world.models.find(REPO).unwrap();
    assert_eq!((again.sha256, again.verified_by), (found.sha256, VerifiedBy::Record));
    world.models.get_or_download(REPO, &no_progress).unwrap();
    pull(&world, REPO).unwrap();
    assert_eq!(hub.log().len(), asked);
}

#[test]
fn pull_of_shards_brings_those_that_the_index_names() {
    let (world, hub) = empty_world();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let shards: Vec<_> = names.iter().zip(5..).map(|(n, seed)| (*n, noise(900, seed))).collect();
    publish_names(&hub, &[CONFIG, TOKENIZER, "model-00003-of-00002.safetensors"]);
    publish(&hub, FIRST, &[(INDEX, index(&[names[1], names[0], names[1]]))]);
    publish(&hub, FIRST, &shards[..1]);
    // A shard that is missing is named, and nothing that is complete is downloaded again.
    let text = reason(pull(&world, REPO));
    assert_says(&text, &[names[1], "no such file"]);
    assert!(world.models.find(REPO).is_err());

    publish(&hub, FIRST, &shards[1..]);
    let found = pull(&world, REPO).unwrap();
    assert_eq!(files_of(&found.path), [CONFIG, names[0], names[1], INDEX, TOKENIZER]);
    assert_eq!(hub.gets(names[0]).len(), 1);
    let line = |(name, bytes): &(&str, Vec<u8>)| format!("{}  {name}\n", sha256(bytes));
    let lines: String = shards.iter().map(line).collect();
    assert_eq!(found.sha256, sha256(lines.as_bytes()));
    assert_eq!(world.models.find(REPO).unwrap().sha256, found.sha256);

    // A folder with the same files is the same model.
    let copy = world.path("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in files_of(&found.path) {
        std::fs::copy(found.path.join(&file), copy.join(&file)).unwrap();
    }
    let folder = world.models.find(copy.to_str().unwrap()).unwrap();
    assert_eq!((folder.sha256, folder.verified_by), (found.sha256, VerifiedBy::Nothing));
    std::fs::remove_file(copy.join(names[0])).unwrap();
    assert_says(&reason(world.models.find(copy.to_str().unwrap())), &[names[0], "copy"]);
}

#[test]
fn pull_refuses_paths_that_lead_out_of_the_folder() {
    for bad in ["../evil.safetensors", "/evil.safetensors", "a/b.safetensors", "..", "x.bin", ""] {
        let (world, hub) = empty_world();
        publish_names(&hub, &[CONFIG, TOKENIZER]);
        publish(&hub, FIRST, &[(INDEX, index(&["model-1.safetensors", bad]))]);
        publish_names(&hub, &["model-1.safetensors"]);
        let says = [INDEX, "not the plain name of a safetensors file"];
        assert_says(&reason(pull(&world, REPO)), &says);
        assert_eq!(hub.gets("model-1.safetensors").len(), 0, "{bad}");
    }
    for bad in ["../x", "/x", "1_Pooling/../..", "a\\\\b", ".git"] {
        let (world, hub) = empty_world();
        publish_names(&hub, &[CONFIG, TOKENIZER, WEIGHTS]);
        publish(&hub, FIRST, &[(MODULES, modules(&[("", "Transformer"), (bad, "Pooling")]))]);
        assert_says(&reason(pull(&world, REPO)), &[MODULES, "not a plain relative path"]);
        assert!(hub.gets(WEIGHTS).is_empty());
    }
    for broken in ["{}", "{\"weight_map\": {}}", "{\"weight_map\": [1]}", "x"] {
        let (world, hub) = empty_world();
        publish_names(&hub, &[CONFIG, TOKENIZER]);
        publish(&hub, FIRST, &[(INDEX, broken.into())]);
        assert_says(&reason(pull(&world, REPO)), &[INDEX, "download the model again"]);
    }
}

#[test]
fn pull_of_the_older_layout_takes_the_encoder_from_its_folder() {
    let (world, hub) = empty_world();
    let encoder = [CONFIG, WEIGHTS, "sentence_distilbert_config.json", TOKENIZER];
    let encoder = encoder.map(|file| format!("0_Transformer/{file}"));
    let names: Vec<&str> = encoder.iter().map(String::as_str).collect();
    publish_names(&hub, &names);
    publish_names(&hub, &[POOLING, CONFIG, "pytorch_model.bin"]);
    let list = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")];
    publish(&hub, FIRST, &[(MODULES, modules(&list))]);
    let found = pull(&world, REPO).unwrap();
    let mut expected = encoder.to_vec();
    expected.extend([POOLING.to_string(), MODULES.to_string()]);
    expected.sort();
    assert_eq!(files_of(&found.path), expected);
    assert_eq!(found.sha256, sha256(&noise(500, encoder[1].len() as u64)));
    assert_eq!(found.files().len(), 6);
}

#[test]
fn pull_without_a_required_file_names_it_and_the_remedy() {
    let dense = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")];
    let all = [CONFIG, TOKENIZER, POOLING, "2_Dense/config.json", "2_Dense/model.safetensors"];
    let cases: [(&str, &[&str]); 5] = [
        (CONFIG, &["config.json", "no such file"]),
        (TOKENIZER, &["tokenizer.json", "AutoTokenizer"]),
        (POOLING, &[POOLING, "no such file"]),
        ("2_Dense/model.safetensors", &["2_Dense/model.safetensors", "only safetensors"]),
        (WEIGHTS, &[WEIGHTS, "only safetensors are loaded", "onnx/model.onnx", "original model"]),
    ];
    for (missing, says) in cases {
        let (world, hub) = empty_world();
        publish(&hub, FIRST, &[(MODULES, modules(&dense))]);
        let there = all.iter().chain(&[WEIGHTS, "onnx/model.onnx"]);
        publish_names(&hub, &there.copied().filter(|file| *file != missing).collect::<Vec<_>>());
        let text = reason(pull(&world, REPO));
        assert_says(&text, says);
        assert_says(&text, &[REPO]);
        assert!(world.models.find(REPO).is_err(), "{missing}");
    }
}

#[test]
fn pull_of_a_pickle_tells_how_to_convert_it() {
    let (world, hub) = empty_world();
    publish_names(&hub, &[CONFIG, TOKENIZER, "pytorch_model.bin"]);
    let says = ["pytorch_model.bin, convert that", "M('some/body').save_pretrained('body')"];
    assert_says(&reason(pull(&world, REPO)), &says);
    assert!(hub.gets("pytorch_model.bin").is_empty());
}

#[test]
fn changed_file_is_refused_and_downloaded_again_as_it_was() {
    let (mut world, hub) = empty_world();
    publish_names(&hub, &[CONFIG, TOKENIZER, WEIGHTS]);
    let found = pull(&world, REPO).unwrap();

    // The main branch moves on. What was pulled stays.
    let second: Vec<_> = [CONFIG, TOKENIZER, WEIGHTS].map(|file| (file, noise(500, 99))).into();
    publish(&hub, "decaf", &second);
    for (file, bytes) in [(CONFIG, &b"{}"[..]), (WEIGHTS, &noise(500, 98))] {
        std::fs::write(found.path.join(file), bytes).unwrap();
        world.models.sources.hub_offline = true;
        let text = reason(world.models.get_or_download(REPO, &no_progress));
        assert_says(&text, &[file, "expected"]);
        assert!(world.models.find(REPO).is_err());
        world.models.sources.hub_offline = false;
        let again = world.models.get_or_download(REPO, &no_progress).unwrap();
        assert_eq!((again.sha256, again.revision), (found.sha256.clone(), found.revision.clone()));
    }

    // Another program caches the newer commit. What was pulled is still used.
    let repo = world.path("hub/models--some--body");
    world.write_to(&repo.join("snapshots/decaf"));
    std::fs::write(repo.join("refs/main"), "decaf").unwrap();
    assert_eq!(world.models.find(REPO).unwrap().revision.as_deref(), Some(FIRST));

    // A file that the repository did not have at that commit decides vectors too.
    std::fs::write(found.path.join(MODULES), modules(&[("", "Transformer")])).unwrap();
    assert_says(&reason(world.models.find(REPO)), &[MODULES, "was added after the download"]);
    std::fs::remove_file(found.path.join(MODULES)).unwrap();
    world.models.find(REPO).unwrap();

    // A damaged record is not silently replaced.
    std::fs::write(found.path.join(RECORD), "{}").unwrap();
    let text = reason(world.models.get_or_download(REPO, &no_progress));
    assert_says(&text, &[RECORD, "damaged", "delete it"]);
}

#[test]
fn interrupted_pull_resumes_and_leaves_no_record() {
    let (mut world, hub) = empty_world();
    world.models.sources.retry.retries = 0;
    let bytes = noise(40_000, 4);
    publish_names(&hub, &[CONFIG, TOKENIZER]);
    publish(&hub, FIRST, &[(WEIGHTS, bytes.clone())]);
    hub.faults(Faults { cuts: [9_999, 9_999, 12_345].into(), ..Faults::default() });
    assert_says(&reason(pull(&world, REPO)), &["cut at byte 12345"]);
    assert_says(&reason(world.models.find(REPO)), &["has no model.safetensors"]);

    let found = pull(&world, REPO).unwrap();
    assert_eq!(found.sha256, sha256(&bytes));
    assert_no_byte_twice(&hub.gets(WEIGHTS), 40_000);
}

#[test]
fn listed_model_that_is_not_pinned_is_found_by_its_name() {
    let (mut world, hub) = empty_world();
    unpinned(&mut world, "embedder");
    let status = world.models.status().remove(0);
    assert_eq!((status.pinned, status.about, status.bytes), (false, true, 1000));
    assert!(status.folder.is_none());
    assert_says(&reason(world.models.find("body")), &["nothing there", "models pull body"]);

    publish_names(&hub, &[CONFIG, TOKENIZER, WEIGHTS]);
    let found = world.models.get_or_download("body", &no_progress).unwrap();
    assert_eq!((found.name.as_str(), found.origin), ("body", ModelOrigin::Hub));
    assert_eq!(found.spec.as_ref().map(|spec| spec.pooling), Some(None));
    let status = world.models.status().remove(0);
    assert_eq!((status.about, status.bytes), (false, 1500));
    assert_eq!(status.folder.unwrap().verified_by, VerifiedBy::Record);
    assert_eq!(world.models.find(REPO).unwrap().name, "body");
    let reports = world.models.verify("body").unwrap();
    assert!(reports[0].is_sound() && reports[0].files.iter().all(|file| file.expected.is_some()));

    // A damaged copy is reported, and not used.
    std::fs::write(found.path.join(CONFIG), "{}").unwrap();
    let status = world.models.status().remove(0);
    assert!(status.folder.is_none());
    assert_says(&status.problems[0], &["config.json has 2 bytes, expected 500"]);
    assert!(!world.models.verify("body").unwrap()[0].is_sound());

    // A folder made by hand comes first, and has no record.
    world.write_to(&world.path("models/body"));
    let own = world.models.find("body").unwrap();
    assert_eq!((own.origin, own.verified_by), (ModelOrigin::ModelsDir, VerifiedBy::Nothing));
    assert_eq!(own.sha256, world.sha256());
}

#[test]
fn snapshot_of_another_program_is_used_and_completed_by_a_pull() {
    let (world, hub) = empty_world();
    let snapshot = world.path("hub/models--some--body/snapshots").join(FIRST);
    std::fs::create_dir_all(&snapshot).unwrap();
    let config = b"{\"architectures\": [\"BertModel\"]}".to_vec();
    let files = [(CONFIG, config), (TOKENIZER, noise(500, 1)), (WEIGHTS, noise(500, 2))];
    for (file, bytes) in &files {
        std::fs::write(snapshot.join(file), bytes).unwrap();
    }
    let found = world.models.find(REPO).unwrap();
    assert_eq!((found.verified_by, found.kind()), (VerifiedBy::Nothing, None));
    assert_says(&found.warnings[0], &[MODULES, "warpseek models pull some/body"]);

    // The other program may have noted that there is none.
    let known = world.path("hub/models--some--body/.no_exist").join(FIRST);
    std::fs::create_dir_all(&known).unwrap();
    std::fs::write(known.join(MODULES), "").unwrap();
    assert_eq!(world.models.find(REPO).unwrap().warnings, Vec::<String>::new());
    std::fs::remove_file(known.join(MODULES)).unwrap();

    // Out of reach of the hub the copy is used as it is.
    hub.faults(Faults { refuse: Some((503, "")), ..Faults::default() });
    let mut world = world;
    world.models.sources.retry.retries = 0;
    let found = pull(&world, REPO).unwrap();
    assert_says(&found.warnings[0], &["used as it is", "503"]);

    hub.faults(Faults::default());
    publish(&hub, FIRST, &files);
    publish_names(&hub, &[POOLING]);
    publish(&hub, FIRST, &[(MODULES, modules(&[("", "Transformer"), ("1_Pooling", "Pooling")]))]);
    let found = pull(&world, REPO).unwrap();
    assert_eq!((found.verified_by, found.kind()), (VerifiedBy::Record, Some(ModelKind::Embedder)));
    assert_eq!((&found.path, found.warnings), (&snapshot, vec![]));
    assert_eq!(found.sha256, sha256(&files[2].1));
}

#[test]
fn manifest_entries_without_files_state_nothing_that_the_folder_decides() {
    let (mut world, _hub) = empty_world();
    unpinned(&mut world, "reranker");
    unpinned(&mut world, "embedder");
    let text = |line: &str| {
        format!(
            "format = 1\n[[model]]\nname = \"body\"\nkind = \"embedder\"\nrepo = \"{REPO}\"\n\
             license = \"MIT\"\ndimension = 4\nmax_tokens = 8\nabout_bytes = 9\n{line}\n"
        )
    };
    assert!(!ModelManifest::parse(&text(""), "t").unwrap().models[0].is_pinned());
    for (line, says) in [
        ("pooling = \"mean\"", "'dimension'"),
        ("normalize = true", "'files'"),
        ("query_prompt = \"q: \"", "'files'"),
        ("revision = \"00112233445566778899aabbccddeeff00112233\"", "'repo'"),
        ("source = \"bundled\"", "'repo'"),
    ] {
        let error = ModelManifest::parse(&text(line), "t").unwrap_err().to_string();
        assert_says(&error, &["model 'body'", says]);
    }
    let bare = text("").replace("about_bytes = 9\n", "");
    assert_says(&ModelManifest::parse(&bare, "t").unwrap_err().to_string(), &["'about_bytes'"]);
}

#[test]
fn manifest_builtin_names_the_models_people_use() {
    let manifest = ModelManifest::builtin().unwrap();
    assert!(manifest.models.len() >= 20);
    for spec in &manifest.models {
        assert!(spec.bytes() > 10_000_000 && !spec.languages.is_empty(), "{}", spec.name);
    }
    for (name, kind, dimension, tokens) in [
        ("all-mpnet-base-v2", ModelKind::Embedder, Some(768), 384),
        ("BAAI/bge-m3", ModelKind::Embedder, Some(1024), 8192),
        ("intfloat/multilingual-e5-large", ModelKind::Embedder, Some(1024), 512),
        ("sentence-transformers/multi-qa-mpnet-base-dot-v1", ModelKind::Embedder, Some(768), 512),
        ("nomic-ai/modernbert-embed-base", ModelKind::Embedder, Some(768), 8192),
        ("cross-encoder/ms-marco-MiniLM-L-12-v2", ModelKind::Reranker, None, 512),
        ("bge-reranker-v2-m3", ModelKind::Reranker, None, 8192),
    ] {
        let spec = manifest.get(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((spec.kind, spec.dimension, spec.max_tokens), (kind, dimension, tokens));
        assert!(!spec.is_pinned() && spec.revision.is_none() && spec.pooling.is_none());
    }
}

#[test]
fn names_that_are_close_are_suggested() {
    let world = World::new();
    let mut world = world;
    world.models.manifest = ModelManifest::builtin().unwrap();
    world.models.sources.hub_offline = true;
    let ask = |name: &str| reason(world.models.get_or_download(name, &no_progress));
    let list = "warpseek models list";
    for (name, says) in [
        ("all-mpnet-base", vec!["did you mean 'all-mpnet-base-v2'", list]),
        ("bge-reranker", vec!["did you mean 'bge-reranker-base'", "'bge-reranker-v2-m3'"]),
        ("MiniLM-L12", vec!["did you mean", "MiniLM-L12-v2'"]),
        ("e5", vec!["did you mean 'e5-small-v2'", "multilingual-e5-small"]),
        (
            "sentence-transformers/all-mpnet-base",
            vec!["HF_HUB_OFFLINE", list, "'all-mpnet-base-v2'"],
        ),
        ("nobody/nothing", vec!["HF_HUB_OFFLINE", list]),
        ("Xenova/bge-m3", vec!["onnx files has no safetensors", "did you mean 'bge-m3'"]),
        ("x/bge-small-en-v1.5-GGUF", vec!["gguf files", "did you mean 'bge-small-en-v1.5'"]),
        ("sentence-transformers/all-MiniLM-L6-v2 ", vec!["white space", "use 'all-MiniLM-L6-v2'"]),
        ("https://huggingface.co/BAAI/bge-m3", vec!["an address", "use 'bge-m3'"]),
        ("https://huggingface.co/no/body/tree/main", vec!["an address", "use 'no/body'"]),
        ("text-embedding-3-small", vec!["hosted model of OpenAI", "all-MiniLM-L6-v2", list]),
    ] {
        let text = ask(name);
        assert_says(&text, &says);
        let suggested = text.split("did you mean").nth(1).unwrap_or_default();
        assert!(suggested.matches('\'').count() <= 6, "{text}");
    }
}

#[test]
fn folder_with_other_formats_tells_how_to_convert() {
    let world = World::new();
    let folder = world.path("mine");
    for (file, says) in [
        ("model.gguf", ["only as model.gguf", "gguf files are not loaded"]),
        ("onnx/model.onnx", ["only as onnx/model.onnx", "original model"]),
        ("pytorch_model.bin", ["only as pytorch_model.bin", "save_file"]),
        ("0_Transformer/pytorch_model.bin", ["only as pytorch_model.bin", "cd "]),
    ] {
        for with_config in [true, false] {
            std::fs::create_dir_all(folder.join("onnx")).unwrap();
            std::fs::create_dir_all(folder.join("0_Transformer")).unwrap();
            let is_older = file.starts_with("0_");
            let place = if is_older { folder.join("0_Transformer") } else { folder.clone() };
            if with_config || is_older {
                for name in [CONFIG, TOKENIZER] {
                    std::fs::write(place.join(name), "{}").unwrap();
                }
            }
            if is_older {
                let list = modules(&[("0_Transformer", "Transformer")]);
                std::fs::write(folder.join(MODULES), list).unwrap();
            }
            std::fs::write(folder.join(file), "x").unwrap();
            assert_says(&reason(world.models.find(folder.to_str().unwrap())), &says);
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
