//! What every connection of this crate shares: secrets, addresses, and a client without surprises.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;

/// A string that shows nothing of itself in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself: for a request header, never for a message.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A client that takes error statuses as answers, follows no redirect by itself, and waits `connect` for a
/// name and again for a connection, and `stall` for every byte. Proxy variables count where `proxy` says so.
pub(crate) fn agent(connect: Duration, stall: Duration, proxy: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_send_request(Some(stall))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .accept_encoding("identity")
        .user_agent(concat!("warpseek/", env!("CARGO_PKG_VERSION")));
    let config = if proxy { config } else { config.proxy(None) };
    Agent::new_with_config(config.build())
}

/// Whether `uri` names this machine: 127.0.0.0/8, ::1 or localhost.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_or(bare.eq_ignore_ascii_case("localhost"), |ip: IpAddr| ip.is_loopback())
}

/// `https://host:port`, the port only where it is not the scheme's own; never a password it may carry.
pub(crate) fn show(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https");
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}{port}", uri.host().unwrap_or_default())
}
