//! Options of every command.

use crate::config::{Setting, Settings};
use crate::error::Result;
use clap::{Args, ValueEnum};
use std::io::{IsTerminal, stderr, stdout};

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct GlobalArgs {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[arg(long, global = true, env = "WARPSEEK_DEVICE", help = help("device"))]
    device: Option<String>,
    #[arg(long, global = true, env = "WARPSEEK_GPU_MEMORY", help = help("gpu_memory"))]
    gpu_memory: Option<String>,
    #[arg(long, global = true, env = "WARPSEEK_PRECISION", help = help("precision"))]
    precision: Option<String>,
    #[arg(long, global = true, env = "WARPSEEK_THREADS", help = help("threads"))]
    threads: Option<String>,
    #[arg(
        long,
        global = true,
        env = "WARPSEEK_OFFLINE",
        help = help("offline"),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1"
    )]
    offline: Option<String>,
    #[arg(long, global = true, env = "WARPSEEK_MODELS_DIR", help = help("models_dir"))]
    models_dir: Option<String>,
    /// No progress bars and notes
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Colours, bold text and links: on a terminal, unless NO_COLOR is set; or always, or never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorWhen::Auto)]
    pub(super) color: ColorWhen,
}

/// The value of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorWhen {
    /// On a terminal
    Auto,
    /// Into files and pipes too
    Always,
    /// Not at all
    Never,
}

impl ColorWhen {
    /// Sets whether stdout and stderr get colours, bold text and links.
    pub(super) fn apply(self) {
        let wanted = match self {
            // An empty NO_COLOR sets nothing; `console` looks at its presence alone.
            Self::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| value.is_empty()) => {
                [stdout().is_terminal(), stderr().is_terminal()].map(Some)
            }
            Self::Auto => [None; 2],
            Self::Always => [Some(true); 2],
            Self::Never => [Some(false); 2],
        };
        let [out, err] = wanted;
        out.into_iter().for_each(console::set_colors_enabled);
        err.into_iter().for_each(console::set_colors_enabled_stderr);
    }
}

impl GlobalArgs {
    /// Resolves the settings: command line, then environment, then file.
    pub(super) fn settings(&self) -> Result<Settings> {
        let options = [
            ("device", &self.device),
            ("gpu_memory", &self.gpu_memory),
            ("precision", &self.precision),
            ("threads", &self.threads),
            ("offline", &self.offline),
            ("models_dir", &self.models_dir),
        ];
        let given = options.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        Settings::resolve(given, variable)
    }
}

/// An environment variable that is valid UTF-8.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The help text of a setting's option.
fn help(key: &str) -> String {
    let text = |s: &Setting| format!("{} [default: {}]", s.meaning, s.default);
    Setting::of_key(key).map(text).unwrap_or_default()
}
