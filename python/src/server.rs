//! The HTTP server on a thread of this process, and the command line.

use crate::call::{Stop, run};
use crate::engine::EngineSettings;
use crate::error::usage;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use warpseek::hub::http::Secret;
use warpseek::server::{Access, BackgroundServer, Listener, ServedModels, Serving};

/// A server in this process, which stops with this object.
#[pyclass(module = "warpseek._warpseek", frozen)]
pub(crate) struct Server(Mutex<BackgroundServer>);

#[pymethods]
impl Server {
    /// Serves the indexes in folders, each with its name or none for that of the folder.
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        indexes: Vec<(Option<String>, PathBuf)>,
        host: &str,
        port: u16,
        api_keys: Vec<String>,
        read_only: bool,
        model: Option<String>,
        reranker: Option<String>,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let address: IpAddr = host.parse().map_err(|_| {
            usage(format!("invalid host '{host}': use an address such as 127.0.0.1"))
        })?;
        if api_keys.is_empty() && !address.is_loopback() {
            return Err(usage(format!(
                "{address} can be reached from other machines: pass api_keys"
            )));
        }
        let engine = settings.engine()?;
        let server = run(py, |_: &Stop| {
            let listener = Listener::tcp(SocketAddr::new(address, port))?;
            let (model, reranker) = (model.as_deref(), reranker.as_deref());
            let models = ServedModels { model, reranker, ..ServedModels::default() };
            let keys = api_keys.iter().map(Secret::new).collect();
            let access = Access { keys, read_only, ..Access::default() };
            let serving = Serving { access, ..Serving::open(&engine, &indexes, models)? };
            Ok(BackgroundServer::start(serving, listener))
        })?;
        Ok(Self(Mutex::new(server)))
    }

    /// The server's address, such as `http://127.0.0.1:8080`.
    #[getter]
    fn url(&self) -> String {
        self.server().address().to_string()
    }

    /// True until the server has ended.
    #[getter]
    fn is_running(&self) -> bool {
        self.server().is_running()
    }

    /// Stops the server and waits for the requests in progress.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        run(py, |_: &Stop| self.server().stop())
    }
}

impl Server {
    fn server(&self) -> std::sync::MutexGuard<'_, BackgroundServer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the command line, whose first argument is the program's name; returns the exit status.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| warpseek::cli::main(arguments))
}
