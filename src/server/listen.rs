//! Taking connections, over TCP or a Unix socket, and letting them go.

use super::state::State;
use crate::error::{Error, Result};
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Bytes of a request's head at most.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Headers of a request at most.
const MAX_HEADERS: usize = 100;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is bound, from which connections are not taken yet.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// Removes a socket's file when the server ends.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds a TCP address; port 0 takes any that is free.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system refuses it, the address being taken for one.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let fail = |e| Error::io("listen at", address.to_string())(e);
        let socket = std::net::TcpListener::bind(address).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let address = Address::Tcp(socket.local_addr().map_err(fail)?);
        Ok(Self { address, socket: Socket::Tcp(socket) })
    }

    /// Makes a socket at `path`, which may hold one that nobody listens to any more.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system refuses it, [`Error::Usage`] where something else stands there.
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::{UnixListener, UnixStream};
        let fail = |e| Error::io("listen at", path)(e);
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::usage(format!(
                    "{}: not a socket; choose another path",
                    path.display()
                )));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(Error::usage(format!(
                    "{}: another server listens here",
                    path.display()
                )));
            }
            std::fs::remove_file(path).map_err(fail)?;
        }
        let socket = UnixListener::bind(path).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let file = SocketFile(path.to_path_buf());
        Ok(Self { address: Address::Unix(path.to_path_buf()), socket: Socket::Unix(socket, file) })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes connections until `stop` is done, then lets requests under way end.
    pub(super) async fn run(
        self,
        router: Router,
        state: Arc<State>,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let (connections, address) = (Connections::new(router, state), self.address);
        let fail = |e| Error::io("listen at", address.to_string())(e);
        match self.socket {
            Socket::Tcp(socket) => {
                let socket = tokio::net::TcpListener::from_std(socket).map_err(fail)?;
                let accept = async || {
                    let (stream, _) = socket.accept().await?;
                    // Small replies should not wait for more.
                    let _ = stream.set_nodelay(true);
                    Ok(stream)
                };
                connections.run(accept, stop).await;
            }
            #[cfg(unix)]
            Socket::Unix(socket, _file) => {
                let socket = tokio::net::UnixListener::from_std(socket).map_err(fail)?;
                connections.run(async || socket.accept().await.map(|a| a.0), stop).await;
            }
        }
        Ok(())
    }
}

/// All open connections.
struct Connections {
    router: Router,
    state: Arc<State>,
    free: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(router: Router, state: Arc<State>) -> Self {
        let free = Arc::new(Semaphore::new(state.limits.max_connections));
        Self { router, state, free, graceful: GracefulShutdown::new() }
    }

    async fn run<S, A>(self, mut accept: A, stop: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
        A: AsyncFnMut() -> std::io::Result<S>,
    {
        let mut stop = pin!(stop);
        loop {
            let Ok(place) = Arc::clone(&self.free).acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = &mut stop => break,
            };
            match accepted {
                Ok(stream) => self.serve(stream, place),
                Err(e) => {
                    // Out of file descriptors, mostly: connections that end give some back.
                    tracing::warn!("a connection could not be taken: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.state.start_draining();
        let limit = Duration::from_secs_f64(self.state.limits.drain_s);
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            tracing::warn!(
                "requests were still under way after {} s and were cut off",
                limit.as_secs()
            );
        }
    }

    fn serve<S>(&self, stream: S, place: tokio::sync::OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let stall = Duration::from_secs_f64(self.state.limits.stall_s);
        let mut stream = TimeoutStream::new(stream);
        // Reads may be idle while a reply is computed: the head and the body have time-outs of their own.
        stream.set_write_timeout(Some(stall));
        let service = self
            .router
            .clone()
            .map_request(|r: hyper::Request<Incoming>| r.map(axum::body::Body::new));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(stall)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
        let connection = self.graceful.watch(connection);
        let counted = self.state.metrics.connection();
        tokio::spawn(async move {
            // A client that breaks off is no event.
            if let Err(e) = connection.await {
                tracing::debug!("a connection ended: {e}");
            }
            drop((counted, place));
        });
    }
}
