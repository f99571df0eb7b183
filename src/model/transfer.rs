//! HTTP to the hub: time-outs on every step, redirects one by one, the token to the hub alone.
//!
//! `hf-hub`'s own client is not used: it has no time-outs, hands the access token to the host a
//! redirect names, appends to a partial file whatever a server without ranges sends, and asserts
//! on headers. Its cache layout is used, in [`super::hub`].

use std::io::{ErrorKind, Read};

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use ureq::{Agent, Body};

use super::failure::{Failure, Refusal};
use super::sources::{Patience, Sources};
use crate::net::{self, is_loopback, show};

/// A client of one hub.
pub(crate) struct Client {
    endpoint: Uri,
    /// The token as it is sent.
    bearer: Option<HeaderValue>,
    /// The token as it must never be shown.
    secret: Option<String>,
    offline: bool,
    patience: Patience,
    direct: Agent,
    /// Differs from `direct` where proxy variables count.
    outward: Agent,
}

/// What the hub says about a file without sending it.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// The commit the asked-for revision stands for.
    pub(crate) commit: Option<String>,
    /// The content's name: its sha256 for large files.
    pub(crate) etag: Option<String>,
    /// Bytes.
    pub(crate) size: Option<u64>,
}

/// The answer to a request for a file's bytes.
pub(crate) struct Reply {
    /// Where the body starts in the file: 0 if the server ignored the range.
    pub(crate) start: u64,
    /// The whole file's size in bytes.
    pub(crate) total: Option<u64>,
    body: Box<dyn Read>,
    host: String,
    patience: Patience,
}

const MAX_REDIRECTS: usize = 10;

impl Client {
    /// A client for the hub of `sources`, or why the hub must not or cannot be asked.
    pub(crate) fn new(sources: &Sources) -> Result<Self, String> {
        if sources.hub_offline {
            return Err("not asked: HF_HUB_OFFLINE is set".into());
        }
        let endpoint: Uri = sources
            .endpoint
            .parse()
            .ok()
            .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")))
            .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))
            .ok_or("not an http or https address: check HF_ENDPOINT")?;
        if sources.offline && !is_loopback(&endpoint) {
            return Err("not asked: offline, which permits loopback addresses only".into());
        }
        let secret = sources.token.as_ref().map(|token| token.reveal().to_string());
        let bearer = match &secret {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| "not asked: the access token is malformed: check HF_TOKEN")?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let patience = sources.patience;
        let agent = |proxy| net::agent(patience.connect, patience.stall, proxy);
        Ok(Self {
            endpoint,
            bearer,
            secret,
            offline: sources.offline,
            patience,
            direct: agent(false),
            outward: agent(sources.proxy && !sources.offline),
        })
    }

    /// Asks about the file at `url`, following redirects within the hub only.
    pub(crate) fn head(&self, url: &str) -> Result<Head, Failure> {
        let mut uri = self.parse(url)?;
        let mut head = Head::default();
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(Method::HEAD, &uri, 0)?;
            let headers = response.headers();
            let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            head.commit = head.commit.or(text("x-repo-commit").map(str::to_string));
            let etag = text("x-linked-etag").or(text(ETAG.as_str()));
            head.etag = etag.map(str::to_string).or(head.etag);
            head.size = text("x-linked-size").and_then(|size| size.parse().ok()).or(head.size);
            match self.redirect(&uri, &response)? {
                Some(next) if self.is_hub(&next) => uri = next,
                Some(_) => return Ok(head),
                None => return Ok(Head { size: head.size.or_else(|| length(headers)), ..head }),
            }
        }
        Err(Failure::Rejected("redirects without end".into()))
    }

    /// Asks for the bytes at `url` from offset `from` on.
    pub(crate) fn get(&self, url: &str, from: u64) -> Result<Reply, Failure> {
        let mut uri = self.parse(url)?;
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(Method::GET, &uri, from)?;
            if let Some(next) = self.redirect(&uri, &response)? {
                uri = next;
                continue;
            }
            let headers = response.headers();
            let (start, total) = match response.status().as_u16() {
                206 => content_range(headers).ok_or_else(|| {
                    Failure::Broken(format!("{} sent an unreadable range", show(&uri)))
                })?,
                _ => (0, length(headers)),
            };
            return Ok(Reply {
                start,
                total,
                body: Box::new(response.into_body().into_reader()),
                host: show(&uri),
                patience: self.patience,
            });
        }
        Err(Failure::Rejected("redirects without end".into()))
    }

    /// The hub's address as messages show it, without a password it may carry.
    pub(crate) fn name(&self) -> String {
        self.scrub(&show(&self.endpoint))
    }

    /// Whether a token is sent.
    pub(crate) fn has_token(&self) -> bool {
        self.bearer.is_some()
    }

    /// `text` without the token, should a server have echoed it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        match &self.secret {
            Some(secret) => text.replace(secret, "[token]"),
            None => text.to_string(),
        }
    }

    /// One request, no redirect followed. An error status is a failure.
    fn send(&self, method: Method, uri: &Uri, from: u64) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(uri);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(bearer) = self.bearer.as_ref().filter(|_| self.is_hub(uri)) {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(()).map_err(|error| Failure::Rejected(error.to_string()))?;
        let agent = if is_loopback(uri) { &self.direct } else { &self.outward };
        let response =
            agent.run(request).map_err(|error| Failure::of(error, &show(uri), self.patience))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let code = response.headers().get("x-error-code");
            return Err(Failure::Refused(Refusal {
                status: status.as_u16(),
                code: code.and_then(|code| code.to_str().ok()).map(str::to_string),
                host: show(uri),
                by_hub: self.is_hub(uri),
            }));
        }
        Ok(response)
    }

    /// Where the answer sends us, if it does and we may go there.
    fn redirect(&self, from: &Uri, response: &Response<Body>) -> Result<Option<Uri>, Failure> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let host = show(from);
        let next = response
            .headers()
            .get(LOCATION)
            .and_then(|location| resolve(from, location.to_str().ok()?))
            .ok_or_else(|| Failure::Rejected(format!("{host} redirects to nowhere")))?;
        if self.offline && !is_loopback(&next) {
            let reason = format!(
                "{host} redirects to {}, and offline permits loopback addresses only",
                show(&next)
            );
            return Err(Failure::Rejected(reason));
        }
        if from.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            let reason = format!("{host} redirects to {}, which is not encrypted", show(&next));
            return Err(Failure::Rejected(reason));
        }
        Ok(Some(next))
    }

    /// Same scheme, host and port as the endpoint.
    fn is_hub(&self, uri: &Uri) -> bool {
        let of = |uri: &Uri| {
            let host = uri.host().map(str::to_ascii_lowercase);
            (uri.scheme_str().map(str::to_string), host, port(uri))
        };
        of(uri) == of(&self.endpoint)
    }

    fn parse(&self, url: &str) -> Result<Uri, Failure> {
        url.parse().map_err(|_| Failure::Rejected("not a valid address: check HF_ENDPOINT".into()))
    }
}

impl Reply {
    /// Reads on; 0 at the end of the body.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    return read
                        .map_err(|error| Failure::of(error.into(), &self.host, self.patience));
                }
            }
        }
    }
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })
}

/// The address a `Location` header means, seen from `base`.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let root = format!("{scheme}://{}", base.authority()?);
    let first = location.split(['/', '?']).next()?;
    let absolute = if first.contains(':') {
        location.to_string()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{root}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{root}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Start and total of `bytes 100-199/200`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}
