//! Places to find and download models: folders, the Hugging Face cache, the hub, a package index.
//!
//! This is the only part of the crate that reads environment variables. The HTTP library reads the
//! proxy variables itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::http::{RetryPolicy, Secret, Timeouts};

/// Places to find and download models, resolved once from environment variables.
///
/// Every field may be changed afterwards: an `--offline` flag sets [`Sources::offline`].
#[derive(Debug, Clone)]
pub struct Sources {
    /// Folders of model folders, in the order of lookup.
    pub model_dirs: Vec<PathBuf>,
    /// The folder of model folders for downloads that do not go into the Hugging Face cache. None
    /// only if the system has no per-user data directory.
    pub download_dir: Option<PathBuf>,
    /// The Hugging Face cache, shared with other programs: `.../huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// The hub's access token. It is sent to [`Sources::endpoint`] and nowhere else.
    pub token: Option<Secret>,
    /// Permits models compiled into the program.
    pub builtin: bool,
    /// Forbids the hub (`HF_HUB_OFFLINE`), but not the package index.
    pub hub_offline: bool,
    /// Forbids all but loopback addresses, and pip.
    pub offline: bool,
    /// Uses `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, except for loopback addresses.
    pub proxy: bool,
    /// Python interpreters for `pip download`, in the order of trial.
    pub pythons: Vec<String>,
    /// Environment variables for pip in addition to the process's own.
    pub pip_vars: Vec<(String, String)>,
    /// File of cached checksums. None: they are cached for one call only.
    pub checksum_file: Option<PathBuf>,
    /// Time-outs of the hub. [`Timeouts::stall`] also limits the wait for another process that
    /// downloads the same file and makes no progress.
    pub timeouts: Timeouts,
    /// Retries of a request to the hub. A transfer that makes progress starts counting again.
    pub retry: RetryPolicy,
    /// Limit for one `pip download`.
    pub pip_timeout: Duration,
}

impl Sources {
    /// Resolves the sources from the process's environment; see [`Sources::from_vars`].
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Resolves the sources from variables. An empty value counts as unset.
    ///
    /// - `WARPSEEK_MODELS_DIR`: the only folder of model folders. Default: `./models` if it
    ///   contains a `manifest.toml`, then `warpseek/models` in the per-user data directory.
    /// - `WARPSEEK_BUILTIN_MODELS`: `0`, `false`, `no` and `off` exclude compiled-in models.
    /// - `WARPSEEK_CACHE_DIR`: folder of the checksum cache. Default: `warpseek` in the per-user
    ///   cache.
    /// - `WARPSEEK_OFFLINE`: loopback addresses only, and no pip. All values but `0`, `false`, `no`
    ///   and `off` turn it on.
    /// - `WARPSEEK_PYTHON`: the interpreter to try before `python3` and `python`.
    /// - `HF_ENDPOINT`: the hub's address.
    /// - `HF_HUB_OFFLINE`: `1`, `true`, `yes` and `on` forbid the hub.
    /// - `HF_HUB_CACHE`: the Hugging Face cache. Default: `hub` in `HF_HOME`, else
    ///   `huggingface/hub` in `XDG_CACHE_HOME`, else in `~/.cache`.
    /// - `HF_TOKEN`, `HF_TOKEN_PATH`: the access token, or a file with it. Default: the file
    ///   `token` in `HF_HOME`.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| {
            var(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
        };
        let home = var("HOME").map(PathBuf::from).or_else(dirs::home_dir);
        let path = |name: &str| var(name).map(|value| expand_home(&value, home.as_deref()));

        let (model_dirs, download_dir) = model_dirs(path("WARPSEEK_MODELS_DIR"));
        let hf_home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let token = var("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            Some(std::fs::read_to_string(file).ok()?.trim().to_string())
        });
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let pythons =
            var("WARPSEEK_PYTHON").into_iter().chain(["python3".into(), "python".into()]).collect();
        let own_cache = path("WARPSEEK_CACHE_DIR")
            .or_else(|| dirs::cache_dir().map(|cache| cache.join("warpseek")));
        Self {
            model_dirs,
            download_dir,
            cache_dir,
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: token.filter(|token| !token.is_empty()).map(Secret::new),
            builtin: !var("WARPSEEK_BUILTIN_MODELS").is_some_and(|value| is_one_of(&value, FALSE)),
            hub_offline: var("HF_HUB_OFFLINE").is_some_and(|value| is_one_of(&value, TRUE)),
            offline: var("WARPSEEK_OFFLINE").is_some_and(|value| !is_one_of(&value, FALSE)),
            proxy: true,
            pythons,
            pip_vars: Vec::new(),
            checksum_file: own_cache.map(|cache| cache.join("model-checksums.json")),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            pip_timeout: Duration::from_secs(600),
        }
    }
}

const TRUE: [&str; 4] = ["1", "true", "yes", "on"];
const FALSE: [&str; 4] = ["0", "false", "no", "off"];

fn is_one_of(value: &str, words: [&str; 4]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Folders to search, and the folder for downloads.
fn model_dirs(only: Option<PathBuf>) -> (Vec<PathBuf>, Option<PathBuf>) {
    if let Some(only) = only {
        return (vec![only.clone()], Some(only));
    }
    let checkout = Path::new("models");
    let checkout = checkout.join("manifest.toml").is_file().then(|| checkout.to_path_buf());
    let own = dirs::data_dir().map(|data| data.join("warpseek").join("models"));
    let all: Vec<_> = checkout.into_iter().chain(own).collect();
    let first = all.first().cloned();
    (all, first)
}

/// Expands `~` and `~/...` as a shell does.
fn expand_home(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with(['/', '\\']) => home.join(&rest[1..]),
        _ => PathBuf::from(value),
    }
}
