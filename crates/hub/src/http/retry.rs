//! Time-outs, error classification, retry policy.

use std::io::{self, ErrorKind};
use std::time::Duration;

use ureq::Timeout;

/// The longest pause between two tries if the server names none.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Limit for resolving the host name, and again for connecting, TLS included.
    pub connect: Duration,
    /// Limit for each wait on an open connection: for the first byte and for every further one.
    pub stall: Duration,
}

impl Default for Timeouts {
    /// 5 s to resolve, 5 s to connect, 60 s without a byte.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), stall: Duration::from_secs(60) }
    }
}

/// Number of retries after transient errors, and the pauses between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of retries.
    pub retries: u32,
    /// The first pause if the server names none. Each further one is twice as long, up to 8 s.
    pub backoff: Duration,
    /// The longest pause accepted from the server (`Retry-After`). A longer one is an error.
    pub max_wait: Duration,
}

impl Default for RetryPolicy {
    /// 3 retries after 0.5, 1 and 2 s; pauses of up to 60 s are accepted.
    fn default() -> Self {
        Self { retries: 3, backoff: Duration::from_millis(500), max_wait: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// Returns the pause before the next try, `failures` being the number of earlier failures, or
    /// None if there is to be no further try.
    pub fn pause(&self, failures: u32, error: &HttpError) -> Option<Duration> {
        if failures >= self.retries || !error.is_transient() {
            return None;
        }
        let own = self.backoff.saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF);
        Some(error.retry_after.unwrap_or(own)).filter(|pause| *pause <= self.max_wait)
    }
}

/// A failed request. Its text names the server.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{reason}{}",
    retry_after
        .map(|pause| format!("; it asks to wait for {} s", pause.as_secs_f64()))
        .unwrap_or_default()
)]
pub struct HttpError {
    /// The kind of failure.
    pub kind: HttpErrorKind,
    /// The reason, without the pause that the server asks for.
    pub reason: String,
    /// The pause that the server asks for.
    pub retry_after: Option<Duration>,
}

/// Classes of failed requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpErrorKind {
    /// No connection was established.
    Unreachable,
    /// The connection stayed open and silent for [`Timeouts::stall`].
    Stalled,
    /// The connection broke, or the answer is incomplete.
    Broken,
    /// The server answered with an error status.
    Status {
        /// The status.
        status: u16,
        /// The service's own error code; empty if there is none.
        code: String,
    },
    /// A further try would fail as well.
    Permanent,
}

impl HttpError {
    /// True if the repository answered that it does not have the file.
    pub(crate) fn is_no_entry(&self) -> bool {
        const OTHERS: [&str; 2] = ["RepoNotFound", "RevisionNotFound"];
        matches!(&self.kind, HttpErrorKind::Status { status: 404, code }
            if !OTHERS.contains(&code.as_str()))
    }

    /// A [`HttpErrorKind::Broken`] error.
    pub fn broken(reason: impl Into<String>) -> Self {
        Self::new(HttpErrorKind::Broken, reason)
    }

    /// A [`HttpErrorKind::Permanent`] error.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::new(HttpErrorKind::Permanent, reason)
    }

    /// True if a later try may succeed.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            HttpErrorKind::Unreachable | HttpErrorKind::Stalled | HttpErrorKind::Broken => true,
            // 498 is Groq's status for exhausted capacity.
            HttpErrorKind::Status { status, .. } => {
                matches!(status, 408 | 409 | 429 | 498 | 500..)
            }
            HttpErrorKind::Permanent => false,
        }
    }

    /// Classifies an error of the transport.
    pub(super) fn transport(error: ureq::Error, host: &str, timeouts: Timeouts) -> Self {
        use HttpErrorKind::{Broken, Permanent, Stalled, Unreachable};
        let unreachable =
            |reason: &str| (Unreachable, format!("{host} cannot be reached: {reason}"));
        let unresolved = "its name cannot be resolved (no network, or a wrong address)";
        let (connect, stall) = (timeouts.connect.as_secs_f64(), timeouts.stall.as_secs_f64());
        let (kind, reason) = match error {
            ureq::Error::HostNotFound => unreachable(unresolved),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                unreachable(&format!("no connection within {connect} s"))
            }
            ureq::Error::Timeout(_) => (Stalled, format!("{host} sent nothing for {stall} s")),
            ureq::Error::Io(error) if is_lookup(&error) => unreachable(unresolved),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => unreachable("it refused the connection"),
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                    unreachable(&error.to_string())
                }
                _ => (Broken, format!("the connection to {host} broke: {error}")),
            },
            error @ ureq::Error::ConnectionFailed => unreachable(&error.to_string()),
            ureq::Error::Protocol(error) => (Broken, format!("{host}: invalid HTTP: {error}")),
            error => (Permanent, format!("{host}: {error}")),
        };
        Self::new(kind, reason)
    }

    fn new(kind: HttpErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), retry_after: None }
    }
}

impl From<io::Error> for HttpError {
    /// Unwraps an error of [`super::HttpResponse`] as a reader.
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|error| Self::broken(error.to_string()))
    }
}

/// True if the system could not resolve a host name. The standard library has no error kind for
/// that. It marks the text; on Windows the code is one of the name service's.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
        || cfg!(windows) && matches!(error.raw_os_error(), Some(11001..=11004))
}
