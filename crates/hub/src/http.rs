//! HTTP client with time-outs, checked redirects, error classification and a retry policy. Model
//! downloads and the chat client share it.
//!
//! `hf-hub`'s own client is not used: it has no time-outs, sends the access token to the host that
//! a redirect names, appends to a partial file whatever a server without ranges sends, and panics
//! on unexpected headers.

mod retry;

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::time::Duration;

use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE,
};
use ureq::http::request::Builder;
use ureq::http::response::Parts;
use ureq::http::{HeaderValue, Method, Request, Uri};
use ureq::{Agent, AsSendBody, BodyReader};

pub use retry::{HttpError, HttpErrorKind, RetryPolicy, Timeouts};

const MAX_REDIRECTS: usize = 10;

/// A string that debug output does not show: an access token, an API key.
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

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Bearer token. Sent to the client's own server and nowhere else.
    pub secret: Option<Secret>,
    /// Permits loopback addresses only.
    pub offline: bool,
    /// Uses `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, except for loopback addresses.
    pub proxy: bool,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// Names of the user's settings for address and secret, for messages.
    pub settings: [&'static str; 2],
}

/// A client of one server.
#[derive(Debug)]
pub struct HttpClient {
    base: String,
    name: String,
    options: HttpOptions,
    bearer: Option<HeaderValue>,
    /// Ignores proxies.
    direct: Agent,
    /// For all but loopback addresses.
    outward: Agent,
}

impl HttpClient {
    /// Makes a client for the server at `base`, an address with or without a path.
    ///
    /// # Errors
    ///
    /// The reason and the setting to check: an invalid address, one that offline forbids, a secret
    /// that a header cannot carry.
    pub fn new(base: &str, options: HttpOptions) -> Result<Self, String> {
        let [address_setting, secret_setting] = options.settings;
        let base = base.trim().trim_end_matches('/').to_owned();
        let uri: Uri = base
            .parse()
            .ok()
            .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")))
            .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| format!("not an http or https address: check {address_setting}"))?;
        let name = origin(&uri);
        if options.offline && !is_loopback(&uri) {
            return Err(format!(
                "{name} is not asked: offline permits loopback addresses only; {address_setting} \
                 can name a server on this machine"
            ));
        }
        let bearer =
            |secret: &Secret| HeaderValue::from_str(&format!("Bearer {}", secret.reveal()));
        let mut bearer = options.secret.as_ref().map(bearer).transpose().map_err(|_| {
            format!("the secret has characters that a header cannot carry: check {secret_setting}")
        })?;
        bearer.iter_mut().for_each(|bearer| bearer.set_sensitive(true));
        let direct = agent(options.timeouts, false);
        let outward = agent(options.timeouts, options.proxy && !options.offline);
        Ok(Self { base, name, bearer, direct, outward, options })
    }

    /// The server for messages: `scheme://host:port`, the port only if it is not the scheme's own,
    /// and no password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if a secret is sent.
    pub fn has_secret(&self) -> bool {
        self.bearer.is_some()
    }

    /// True if requests leave this machine unencrypted.
    pub fn is_exposed(&self) -> bool {
        self.base.parse().is_ok_and(|uri| !is_loopback(&uri) && uri.scheme_str() == Some("http"))
    }

    /// Replaces the secret in `text`, in case a server echoes it.
    pub fn scrub(&self, text: &str) -> String {
        match &self.options.secret {
            Some(secret) if !secret.reveal().is_empty() => text.replace(secret.reveal(), "[key]"),
            _ => text.to_owned(),
        }
    }

    /// Sends a GET request, or a POST request with JSON, to `path` below the base address. Follows
    /// no redirect.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if no answer arrives. An error status is an answer.
    pub fn ask(&self, path: &str, json: Option<String>) -> Result<HttpResponse, HttpError> {
        let request = Request::builder().uri(self.url(path)?);
        match json {
            None => self.send(request, ()),
            Some(json) => {
                let request = request.method(Method::POST).header(CONTENT_TYPE, "application/json");
                self.send(request, json)
            }
        }
    }

    /// Sends a request for the bytes of `path` from offset `from` on, and follows redirects as long
    /// as `go_on` returns true. `go_on` receives the redirecting answer, and whether the redirect
    /// stays on the client's own server.
    pub(crate) fn follow(
        &self,
        method: &Method,
        path: &str,
        from: u64,
        mut go_on: impl FnMut(&HttpResponse, bool) -> bool,
    ) -> Result<HttpResponse, HttpError> {
        let mut uri = self.url(path)?;
        for _ in 0..MAX_REDIRECTS {
            let mut request = Request::builder().method(method).uri(uri);
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = self.send(request, ())?;
            match self.redirect(&response)? {
                Some(next) if go_on(&response, self.is_own(&next)) => uri = next,
                _ => return Ok(response),
            }
        }
        Err(HttpError::permanent("redirects without end"))
    }

    fn send(&self, request: Builder, body: impl AsSendBody) -> Result<HttpResponse, HttpError> {
        let mut request =
            request.body(body).map_err(|error| HttpError::permanent(error.to_string()))?;
        let url = request.uri().clone();
        let is_own = self.is_own(&url);
        if let Some(bearer) = self.bearer.as_ref().filter(|_| is_own) {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let agent = if is_loopback(&url) { &self.direct } else { &self.outward };
        let (host, timeouts) = (origin(&url), self.options.timeouts);
        let response =
            agent.run(request).map_err(|error| HttpError::transport(error, &host, timeouts))?;
        let (head, body) = response.into_parts();
        Ok(HttpResponse { head, body: body.into_reader(), url, host, is_own, timeouts })
    }

    /// Returns the address that the answer redirects to, if it does.
    fn redirect(&self, response: &HttpResponse) -> Result<Option<Uri>, HttpError> {
        if !response.is_redirect() {
            return Ok(None);
        }
        let (from, host) = (&response.url, &response.host);
        let next = response
            .header(LOCATION.as_str())
            .and_then(|location| resolve(from, location))
            .ok_or_else(|| HttpError::permanent(format!("{host} redirects to no address")))?;
        let refuse = |reason| {
            HttpError::permanent(format!("{host} redirects to {}, {reason}", origin(&next)))
        };
        if self.options.offline && !is_loopback(&next) {
            return Err(refuse("and offline permits loopback addresses only"));
        }
        if from.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(refuse("which is not encrypted"));
        }
        Ok(Some(next))
    }

    /// True for addresses on the client's own server: same scheme, host and port.
    fn is_own(&self, uri: &Uri) -> bool {
        origin(uri).eq_ignore_ascii_case(&self.name)
    }

    fn url(&self, path: &str) -> Result<Uri, HttpError> {
        let url = format!("{}{path}", self.base);
        url.parse().map_err(|_| HttpError::permanent(format!("{}: invalid address", self.name)))
    }
}

/// An answer. Its body is read through [`Read`], whose errors are [`HttpError`]s.
pub struct HttpResponse {
    head: Parts,
    body: BodyReader<'static>,
    url: Uri,
    /// The server that answered, for messages.
    pub(crate) host: String,
    /// True if the client's own server answered, and not one that it redirected to.
    pub(crate) is_own: bool,
    timeouts: Timeouts,
}

impl HttpResponse {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// The pause that the server asks for: `Retry-After-Ms`, else `Retry-After` in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let number = |name| self.header(name)?.parse::<f64>().ok();
        let seconds = number("retry-after-ms").map(|ms| ms / 1e3).or(number("retry-after"))?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status(), 301 | 302 | 303 | 307 | 308)
    }

    /// The body's length in bytes, if the server says it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH.as_str())?.parse().ok()
    }

    /// Offset of the body in the file (0 if the server ignored the range), and the file's size in
    /// bytes.
    pub(crate) fn range(&self) -> Result<(u64, Option<u64>), HttpError> {
        if self.status() != 206 {
            return Ok((0, self.length()));
        }
        // `bytes 100-199/200`
        let parse = || {
            let range = self.header(CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
            let (range, total) = range.split_once('/')?;
            Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
        };
        parse().ok_or_else(|| HttpError::broken(format!("{} sent an unreadable range", self.host)))
    }
}

impl Read for HttpResponse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    return read.map_err(|error| {
                        let error = HttpError::transport(error.into(), &self.host, self.timeouts);
                        io::Error::other(error)
                    });
                }
            }
        }
    }
}

/// An agent that takes error statuses as answers and follows no redirect.
fn agent(timeouts: Timeouts, proxy: bool) -> Agent {
    let (connect, stall) = (Some(timeouts.connect), Some(timeouts.stall));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(connect)
        .timeout_connect(connect)
        .timeout_send_request(stall)
        .timeout_recv_response(stall)
        .timeout_per_read(stall)
        .accept_encoding("identity")
        .user_agent(concat!("warpseek/", env!("CARGO_PKG_VERSION")));
    let config = if proxy { config } else { config.proxy(None) };
    Agent::new_with_config(config.build())
}

/// True if `uri` names this machine: 127.0.0.0/8, ::1 or localhost.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_or(bare.eq_ignore_ascii_case("localhost"), |ip: IpAddr| ip.is_loopback())
}

/// `scheme://host:port`, the port only if it is not the scheme's own.
fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https");
    let default = if scheme == "http" { 80 } else { 443 };
    let port = uri.port_u16().filter(|port| *port != default);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}{port}", uri.host().unwrap_or_default())
}

/// The address that a `Location` header means, relative to `base`.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let root = format!("{scheme}://{}", base.authority()?);
    let has_scheme = location.split(['/', '?']).next()?.contains(':');
    let absolute = match location {
        _ if has_scheme => location.to_string(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{root}{location}"),
        _ => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{root}{folder}/{location}")
        }
    };
    let uri: Uri = absolute.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}
