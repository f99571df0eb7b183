//! The HTTP server on a thread of this process, and the command line.

use crate::call::{Stop, run_waiting};
use crate::engine::EngineSettings;
use crate::error::usage;
use crate::remote::PyShards;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use warpseek::hub::http::Secret;
use warpseek::server::{Access, BackgroundServer, Listener, ServedModels, Serving};
use warpseek::store::{Index, RemoteShards};

/// A server in this process, which stops with this object.
#[pyclass(module = "warpseek._warpseek", frozen)]
pub(crate) struct Server {
    url: String,
    /// The process whose thread serves.
    process: u32,
    server: ManuallyDrop<Mutex<BackgroundServer>>,
}

#[pymethods]
impl Server {
    /// Serves the indexes in folders, each with its name or none for that of the folder. With
    /// `shards`, other processes hold those of the lists in the folders.
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
        shards: Option<Py<PyAny>>,
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
        let start = |_: &Stop, pool: &ThreadPool| {
            let listener = Listener::tcp(SocketAddr::new(address, port))?;
            let (model, reranker) = (model.as_deref(), reranker.as_deref());
            let models = ServedModels { model, reranker, ..ServedModels::default() };
            let keys = api_keys.iter().map(Secret::new).collect();
            let access = Access { keys, read_only, ..Access::default() };
            let shards: Option<Arc<dyn RemoteShards>> =
                shards.map(|shards| -> Arc<dyn RemoteShards> { Arc::new(PyShards(shards)) });
            let open = |dir: &Path| match &shards {
                Some(shards) => Index::open_remote(dir, Arc::clone(shards)),
                None => Index::open(dir),
            };
            let serving = pool.install(|| Serving::open_by(&engine, &indexes, models, &open))?;
            BackgroundServer::start(Serving { access, ..serving }, listener)
        };
        let server = run_waiting(py, start, |_| true, |_, _| Ok(()))?;
        let url = server.address().to_string();
        let server = ManuallyDrop::new(Mutex::new(server));
        Ok(Self { url, process: std::process::id(), server })
    }

    /// The server's address, such as `http://127.0.0.1:8080`.
    #[getter]
    fn url(&self) -> String {
        self.url.clone()
    }

    /// True until the server has ended.
    #[getter]
    fn is_running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.is_here() && self.server().is_running())
    }

    /// Stops the server and waits for the requests in progress.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_here() {
            return Ok(());
        }
        let stop = |_: &Stop, _: &ThreadPool| self.server().stop();
        run_waiting(py, stop, |_| true, |_, _| Ok(()))
    }
}

impl Server {
    /// False in a forked child, which has no thread of its parent's.
    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    fn server(&self) -> std::sync::MutexGuard<'_, BackgroundServer> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the command line, whose first argument is the program's name; returns the exit status.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| warpseek::cli::main(arguments))
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_here() {
            // Requests in progress may need the GIL to end.
            Python::attach(|py| {
                let server = &mut self.server;
                // SAFETY: nothing reads the field after this.
                py.detach(|| unsafe { ManuallyDrop::drop(server) });
            });
        }
    }
}
