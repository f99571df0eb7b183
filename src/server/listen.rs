//! Connections over TCP or a Unix socket, with their limits, and graceful shutdown.

use super::state::AppState;
use crate::error::{Error, Result};
use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// The maximum number of bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The maximum number of headers of a request.
const MAX_HEADERS: usize = 100;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
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

/// A bound socket that accepts no connections yet.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    /// The socket's file is removed when the server ends.
    Unix(std::os::unix::net::UnixListener, tempfile::TempPath),
}

impl Listener {
    /// Binds a TCP address. Port 0 takes any free port.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses it, for example because the address is in use.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let fail = |e| Error::io("listen at", address.to_string())(e);
        let socket = std::net::TcpListener::bind(address).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let address = Address::Tcp(socket.local_addr().map_err(fail)?);
        Ok(Self { address, socket: Socket::Tcp(socket) })
    }

    /// Creates a Unix socket at `path`. A socket there that no server listens to is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses it, [`Error::Usage`] if the path holds anything else.
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::{UnixListener, UnixStream};
        let fail = |e| Error::io("listen at", path)(e);
        let refused = |reason| Err(Error::usage(format!("{}: {reason}", path.display())));
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return refused("not a socket; choose another path");
            }
            if UnixStream::connect(path).is_ok() {
                return refused("another server listens here");
            }
            std::fs::remove_file(path).map_err(fail)?;
        }
        let socket = UnixListener::bind(path).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let file = tempfile::TempPath::try_from_path(path).map_err(fail)?;
        Ok(Self { address: Address::Unix(path.to_path_buf()), socket: Socket::Unix(socket, file) })
    }

    /// The address of the socket.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts connections until `stop` is finished, then completes the requests in progress.
    pub(super) async fn run(
        self,
        router: Router,
        state: Arc<AppState>,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let fail = |e| Error::io("listen at", self.address.to_string())(e);
        match self.socket {
            Socket::Tcp(socket) => {
                let socket = tokio::net::TcpListener::from_std(socket).map_err(fail)?;
                let accept = async move || {
                    let (stream, _) = socket.accept().await?;
                    // Small replies are sent at once.
                    let _ = stream.set_nodelay(true);
                    Ok(stream)
                };
                accept_connections(accept, router, state, stop).await;
            }
            #[cfg(unix)]
            Socket::Unix(socket, _file) => {
                let socket = tokio::net::UnixListener::from_std(socket).map_err(fail)?;
                let accept = async move || socket.accept().await.map(|accepted| accepted.0);
                accept_connections(accept, router, state, stop).await;
            }
        }
        Ok(())
    }
}

async fn accept_connections<S: AsyncRead + AsyncWrite + Send + 'static>(
    mut accept: impl AsyncFnMut() -> std::io::Result<S>,
    router: Router,
    state: Arc<AppState>,
    stop: impl Future<Output = ()>,
) {
    let free = Arc::new(Semaphore::new(state.limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let next = async { (Arc::clone(&free).acquire_owned().await, accept().await) };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let Ok(permit) = permit else { break };
        match accepted {
            Ok(stream) => serve_connection(stream, &router, &state, permit, &graceful),
            Err(e) => {
                // Mostly out of file descriptors, until other connections end.
                tracing::warn!("a connection could not be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // It owns the socket. New connections are refused at once, instead of waiting for an answer
    // that never comes.
    drop(accept);
    state.start_draining();
    let limit = Duration::from_secs_f64(state.limits.drain_s);
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        let seconds = limit.as_secs();
        tracing::warn!("requests were still in progress after {seconds} s and were aborted");
    }
}

fn serve_connection<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    router: &Router,
    state: &AppState,
    permit: OwnedSemaphorePermit,
    graceful: &GracefulShutdown,
) {
    let stall = Duration::from_secs_f64(state.limits.stall_s);
    let mut stream = TimeoutStream::new(stream);
    // No time-out of reads here: they are idle while a reply is computed. The head and the body
    // have time-outs of their own.
    stream.set_write_timeout(Some(stall));
    let service = router.clone().map_request(|r: Request<Incoming>| r.map(Body::new));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
    let connection = graceful.watch(connection);
    let open = state.metrics.connections.clone();
    open.inc();
    tokio::spawn(async move {
        // Clients may disconnect at any time.
        if let Err(e) = connection.await {
            tracing::debug!("a connection ended: {e}");
        }
        open.dec();
        drop(permit);
    });
}
