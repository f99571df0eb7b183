//! Engines for the settings of Python callers. Their messages go to the logger `warpseek`.

use crate::error::OrRaise;
use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use warpseek::config::Settings;
use warpseek::engine::{Engine, EngineEvents};
use warpseek::hub::FetchEvent;
use warpseek::search::is_stopped;

/// Engines that were made, so that objects with the same settings share a device.
static ENGINES: Mutex<Vec<(u32, Settings, Arc<Engine>)>> = Mutex::new(Vec::new());

/// The version of the library.
#[pyfunction]
pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Settings of a Python object, in front of those of the environment and the settings file.
#[derive(Debug, Clone, Default, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct EngineSettings {
    device: Option<String>,
    precision: Option<String>,
    models_dir: Option<PathBuf>,
    offline: Option<bool>,
}

impl EngineSettings {
    /// The engine with these settings.
    pub(crate) fn engine(&self) -> PyResult<Arc<Engine>> {
        let models_dir = self.models_dir.as_ref().map(|dir| dir.display().to_string());
        let offline = self.offline.map(|offline| if offline { "1" } else { "0" });
        let options = [
            ("device", self.device.as_deref()),
            ("precision", self.precision.as_deref()),
            ("models_dir", models_dir.as_deref()),
            ("offline", offline),
        ];
        let options = options.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let settings = Settings::resolve(options, |name| std::env::var(name).ok()).or_raise()?;
        let process = std::process::id();
        let known = |engines: &[(u32, Settings, Arc<Engine>)]| {
            let same = engines.iter().find(|(p, s, _)| *p == process && *s == settings);
            same.map(|(.., engine)| Arc::clone(engine))
        };
        if let Some(engine) = known(&ENGINES.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(engine);
        }
        let mut engine = Engine::new(settings.clone(), true, Box::new(Logger)).or_raise()?;
        // Models that come as Python packages are fetched by this environment's pip, unless
        // `WARPSEEK_PYTHON` names another one, which is first in the list.
        let pythons = &mut engine.models.sources.pythons;
        let others = pythons.len().saturating_sub(FALLBACK_PYTHONS);
        pythons.insert(others, executable()?);
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = known(&engines) {
            return Ok(engine);
        }
        let engine = Arc::new(engine);
        engines.push((process, settings, Arc::clone(&engine)));
        Ok(engine)
    }
}

/// Interpreters that are tried last: `python3` and `python`.
const FALLBACK_PYTHONS: usize = 2;

/// The path of this interpreter.
fn executable() -> PyResult<String> {
    Python::attach(|py| py.import("sys")?.getattr("executable")?.extract())
}

/// Passes messages to `logging.getLogger("warpseek")`.
struct Logger;

impl Logger {
    fn log(&self, level: &str, text: &str) {
        Python::attach(|py| {
            let logged = py
                .import("logging")
                .and_then(|logging| logging.call_method1("getLogger", ("warpseek",)))
                .and_then(|logger| logger.call_method1(level, ("%s", text)));
            if let Err(e) = logged {
                e.write_unraisable(py, None);
            }
        });
    }
}

impl EngineEvents for Logger {
    fn note(&self, text: &str) {
        self.log("info", text);
    }

    fn warn(&self, text: &str) {
        self.log("warning", text);
    }

    fn download(&self, model: &str, event: FetchEvent) -> ControlFlow<()> {
        match event {
            FetchEvent::Started { file, .. } => {
                self.log("info", &format!("downloading {file} of {model}"));
            }
            FetchEvent::Note(text) => self.log("info", &text),
            FetchEvent::Advanced { .. } | FetchEvent::Finished { .. } | FetchEvent::Waiting => {}
        }
        if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
