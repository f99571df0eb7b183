//! Where models may come from: folders, the Hugging Face cache, the hub, a package index.

use crate::net::Secret;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The places models are looked for and fetched from, resolved once from variables.
///
/// Every field may be changed afterwards: a `--offline` flag sets [`Sources::offline`].
#[derive(Debug, Clone)]
pub struct Sources {
    /// Folders that hold model folders, searched in this order.
    pub model_dirs: Vec<PathBuf>,
    /// Where a fetched model folder is put when it does not go into the Hugging Face cache.
    /// None only where the system knows no per-user data directory.
    pub download_dir: Option<PathBuf>,
    /// The Hugging Face cache, shared with other programs: `.../huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// The hub's access token. It goes to [`Sources::endpoint`] and nowhere else.
    pub token: Option<Secret>,
    /// Whether models that are compiled in may be used.
    pub builtin: bool,
    /// Whether the hub must not be asked (`HF_HUB_OFFLINE`). The package index still may.
    pub hub_offline: bool,
    /// Whether only loopback addresses may be connected to, and pip not be run at all.
    pub offline: bool,
    /// Whether `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` count. Loopback addresses
    /// are always reached directly.
    pub proxy: bool,
    /// Python interpreters to try for `pip download`, in this order.
    pub pythons: Vec<String>,
    /// Variables set for pip in addition to the process's own.
    pub pip_vars: Vec<(String, String)>,
    /// Where checksums are remembered. None: not beyond one call.
    pub stamp_file: Option<PathBuf>,
    /// How long to wait and how often to try.
    pub patience: Patience,
}

/// How long to wait for a network, and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a host name to resolve; as long again for the connection, TLS included.
    pub connect: Duration,
    /// Without a single byte on an open connection, and for another process's download of the
    /// same file to move on.
    pub stall: Duration,
    /// For one `pip download`.
    pub pip: Duration,
    /// How often a broken transfer is taken up again. One that got on meanwhile counts anew.
    pub retries: u32,
    /// The pause before the first retry; each further one is twice as long.
    pub backoff: Duration,
}

/// The public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

impl Sources {
    /// Resolves the sources from the process's environment; see [`Sources::from_vars`].
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Resolves the sources from variables; an empty value counts as unset.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `WARPSEEK_MODELS_DIR` | the only folder of model folders. Else `./models` if it holds a `manifest.toml`, then `warpseek/models` in the per-user data directory |
    /// | `WARPSEEK_BUILTIN_MODELS` | `0`, `false`, `no`, `off`: leave out the models that are compiled in |
    /// | `WARPSEEK_CACHE_DIR` | where checksums are remembered; else `warpseek` in the per-user cache |
    /// | `WARPSEEK_OFFLINE` | loopback addresses only, and no pip; every value but `0`, `false`, `no`, `off` |
    /// | `WARPSEEK_PYTHON` | the interpreter whose pip is tried before `python3` and `python` |
    /// | `HF_ENDPOINT` | the hub's address |
    /// | `HF_HUB_OFFLINE` | `1`, `true`, `yes`, `on`: never ask the hub |
    /// | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | the Hugging Face cache: the first itself, else `hub` in the second, else `huggingface/hub` in the third, else in `~/.cache` |
    /// | `HF_TOKEN`, `HF_TOKEN_PATH` | the access token, or the file it is in; else `token` in `HF_HOME` |
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
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
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
            builtin: !var("WARPSEEK_BUILTIN_MODELS").is_some_and(|value| says(&value, FALSE)),
            hub_offline: var("HF_HUB_OFFLINE").is_some_and(|value| says(&value, TRUE)),
            offline: var("WARPSEEK_OFFLINE").is_some_and(|value| !says(&value, FALSE)),
            proxy: true,
            pythons,
            pip_vars: Vec::new(),
            stamp_file: own_cache.map(|cache| cache.join("model-checksums.json")),
            patience: Patience::default(),
        }
    }
}

impl Default for Patience {
    /// 5 s to resolve and 5 s to connect, 60 s of silence, 10 min for pip, 3 retries after
    /// 0.5, 1 and 2 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(60),
            pip: Duration::from_secs(600),
            retries: 3,
            backoff: Duration::from_millis(500),
        }
    }
}

const TRUE: [&str; 4] = ["1", "true", "yes", "on"];
const FALSE: [&str; 4] = ["0", "false", "no", "off"];

fn says(value: &str, words: [&str; 4]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The folders to search and the one to download into.
fn model_dirs(only: Option<PathBuf>) -> (Vec<PathBuf>, Option<PathBuf>) {
    if let Some(only) = only {
        return (vec![only.clone()], Some(only));
    }
    let clone = Path::new("models");
    let clone = clone.join("manifest.toml").is_file().then(|| clone.to_path_buf());
    let own = dirs::data_dir().map(|data| data.join("warpseek").join("models"));
    let all: Vec<_> = clone.into_iter().chain(own).collect();
    let first = all.first().cloned();
    (all, first)
}

/// `~` and `~/...` as a shell would have expanded them.
fn expand_home(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with(['/', '\\']) => home.join(&rest[1..]),
        _ => PathBuf::from(value),
    }
}
