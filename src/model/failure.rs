//! Why a file did not come, in words that say what to do.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use ureq::Timeout;

use crate::error::Error;

use super::manifest::WEIGHTS;
use super::sources::Patience;

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection came about.
    Unreachable(String),
    /// The connection stayed open and silent.
    Silent(String),
    /// The connection broke, or the server is in trouble: worth another try.
    Broken(String),
    /// The server answered with an error status.
    Refused(Refusal),
    /// It makes no sense to try again.
    Rejected(String),
    /// Not the network's fault: a local file, or a wish to stop.
    Local(Error),
}

/// An error status.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The hub's `x-error-code`.
    pub(crate) code: Option<String>,
    /// Who answered.
    pub(crate) host: String,
    /// Whether that was the hub itself and not a host it redirected to.
    pub(crate) by_hub: bool,
}

impl Failure {
    /// Puts an error of the HTTP client into words, `host` being the other side.
    pub(crate) fn of(error: ureq::Error, host: &str, patience: Patience) -> Self {
        let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
        let unresolved = || {
            Self::Unreachable(format!(
                "the name of {host} cannot be resolved: no network, or a wrong HF_ENDPOINT"
            ))
        };
        match error {
            ureq::Error::HostNotFound => unresolved(),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                Self::Unreachable(format!("no connection within {}", seconds(patience.connect)))
            }
            ureq::Error::Timeout(_) => {
                Self::Silent(format!("{host} sent nothing for {}", seconds(patience.stall)))
            }
            ureq::Error::Io(error) if is_lookup(&error) => unresolved(),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => {
                    Self::Unreachable(format!("{host} refused the connection"))
                }
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                    Self::Unreachable(format!("{host} cannot be reached: {error}"))
                }
                _ => Self::Broken(format!("the connection to {host} broke: {error}")),
            },
            ureq::Error::ConnectionFailed => {
                Self::Unreachable(format!("no connection to {host} came about"))
            }
            ureq::Error::Protocol(error) => {
                Self::Broken(format!("{host} does not speak proper HTTP: {error}"))
            }
            error => Self::Rejected(format!("{host}: {error}")),
        }
    }

    /// What it means for `file` of `repo`, and what to do about it.
    pub(crate) fn explain(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        has_token: bool,
    ) -> String {
        let place = format!("{repo} at revision {revision}");
        let token = match has_token {
            true => "the access token in use does not permit it",
            false => "no access token is set: set HF_TOKEN",
        };
        let (status, code, host) = match self {
            Self::Refused(Refusal { status, code, host, by_hub: true }) => {
                (status, code.as_deref().unwrap_or_default(), host)
            }
            // No connection at all: which file it was for does not matter.
            Self::Unreachable(reason) => return reason.clone(),
            _ => return format!("{place}, {file}: {self}"),
        };
        match (status, code) {
            (401 | 403, "GatedRepo") => format!(
                "{place} is gated (status {status}): accept its licence on {host}/{repo}; {token}"
            ),
            (401, _) => {
                format!("{place} is private or gated, or does not exist (status 401); {token}")
            }
            (403, _) => format!("{place} is gated or private (status 403); {token}"),
            (404, "RepoNotFound") => {
                format!("{place}: no such repository (status 404, asked for {file})")
            }
            (404, "RevisionNotFound") => {
                format!("{place}: no such revision (status 404, asked for {file})")
            }
            (404, _) if file == WEIGHTS => format!(
                "{place} has no {file} (status 404), and only safetensors are loaded: if it holds \
                 pytorch_model.bin, convert that"
            ),
            (404, _) => format!("{place} has no {file} (status 404)"),
            (429, _) => {
                format!("{place}, {file}: too many requests (status 429): try again later")
            }
            _ => format!("{place}, {file}: {self}"),
        }
    }

    /// Whether a later try may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent(_) | Self::Broken(_) => true,
            // A link that the hub signed may have run out; the next try gets a new one.
            Self::Refused(refusal) => {
                matches!(refusal.status, 408 | 429 | 500..) || !refusal.by_hub
            }
            Self::Rejected(_) | Self::Local(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text)
            | Self::Silent(text)
            | Self::Broken(text)
            | Self::Rejected(text) => f.write_str(text),
            Self::Refused(refusal) => {
                write!(f, "{} answered with status {}", refusal.host, refusal.status)
            }
            Self::Local(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// Whether the system could not look a host name up. The standard library has no kind for that:
/// it marks the text, and on Windows the code is one of the name service's.
fn is_lookup(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
        || cfg!(windows) && matches!(error.raw_os_error(), Some(11001..=11004))
}
