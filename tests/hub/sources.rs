//! Precedence of the environment variables.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use warpseek_hub::Sources;
use warpseek_hub::http::Secret;

fn resolve(vars: &[(&str, &str)]) -> Sources {
    let vars: HashMap<_, _> = vars.iter().map(|(name, value)| (*name, value.to_string())).collect();
    Sources::from_vars(|name| vars.get(name).cloned())
}

#[test]
fn cache_dir_follows_the_precedence_of_the_hub_library() {
    let all = [
        ("HF_HUB_CACHE", "/a"),
        ("HUGGINGFACE_HUB_CACHE", "/b"),
        ("HF_HOME", "/c"),
        ("XDG_CACHE_HOME", "/d"),
        ("HOME", "/e"),
    ];
    let expected = ["/a", "/b", "/c/hub", "/d/huggingface/hub", "/e/.cache/huggingface/hub"];
    for (skip, expected) in expected.iter().enumerate() {
        let cache = resolve(&all[skip..]).cache_dir;
        assert_eq!(cache.as_deref(), Some(Path::new(expected)), "{:?}", &all[skip..]);
    }
    let cache = resolve(&[("HF_HUB_CACHE", ""), ("HF_HOME", "~/hf"), ("HOME", "/e")]).cache_dir;
    assert_eq!(cache.as_deref(), Some(Path::new("/e/hf/hub")));
}

#[test]
fn token_comes_from_variable_then_named_file_then_home() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let named = folder.path().join("named");
    std::fs::write(&named, " from-file\n").unwrap();
    std::fs::write(folder.path().join("token"), "from-home\n").unwrap();
    let all = [
        ("HF_TOKEN", "from-variable\n"),
        ("HF_TOKEN_PATH", named.to_str().unwrap()),
        ("HF_HOME", home),
    ];
    for (skip, expected) in ["from-variable", "from-file", "from-home"].iter().enumerate() {
        assert_eq!(resolve(&all[skip..]).token, Some(Secret::new(*expected)), "{skip}");
    }
    assert_eq!(resolve(&[("HF_HOME", "/nowhere")]).token, None);
    std::fs::write(folder.path().join("token"), "\n").unwrap();
    assert_eq!(resolve(&[("HF_HOME", home)]).token, None);
}

#[test]
fn token_is_not_in_debug_output() {
    let sources = resolve(&[("HF_TOKEN", "hf_secret")]);
    assert!(!format!("{sources:?}").contains("hf_secret"));
}

#[test]
fn models_dir_variable_is_the_only_one_else_checkout_then_user() {
    let only = resolve(&[("WARPSEEK_MODELS_DIR", "/m")]);
    assert_eq!(only.model_dirs, [PathBuf::from("/m")]);
    assert_eq!(only.download_dir, Some("/m".into()));

    // The top of the checkout, which has a models/manifest.toml. No other test uses relative paths.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).unwrap();
    let checkout = resolve(&[]);
    let own = dirs::data_dir().map(|data| data.join("warpseek/models"));
    assert_eq!(checkout.model_dirs.first(), Some(&PathBuf::from("models")));
    assert_eq!(checkout.model_dirs.get(1), own.as_ref());
    assert_eq!(checkout.download_dir, Some("models".into()));
}

#[test]
fn offline_switches_read_their_words() {
    for (value, hub, all) in [
        ("1", true, true),
        ("TRUE", true, true),
        ("yes", true, true),
        ("on", true, true),
        ("0", false, false),
        ("false", false, false),
        ("off", false, false),
        ("", false, false),
        // Any other value means offline for warpseek. The hub library's rule is strict.
        ("please", false, true),
    ] {
        let sources = resolve(&[("HF_HUB_OFFLINE", value), ("WARPSEEK_OFFLINE", value)]);
        assert_eq!((sources.hub_offline, sources.offline), (hub, all), "{value}");
    }
}

#[test]
fn endpoint_python_and_cache_have_defaults() {
    let plain = resolve(&[]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.pythons, ["python3", "python"]);
    let own = dirs::cache_dir().map(|cache| cache.join("warpseek/model-checksums.json"));
    assert_eq!(plain.checksum_file, own);

    let set = resolve(&[
        ("HF_ENDPOINT", "http://mirror:8080/"),
        ("WARPSEEK_PYTHON", "/opt/python"),
        ("WARPSEEK_CACHE_DIR", "/cache"),
    ]);
    assert_eq!(set.endpoint, "http://mirror:8080");
    assert_eq!(set.pythons, ["/opt/python", "python3", "python"]);
    assert_eq!(set.checksum_file, Some("/cache/model-checksums.json".into()));
}
