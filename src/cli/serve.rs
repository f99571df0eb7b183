//! `warpseek serve`.

use super::context::{Context, DEFAULT_MODEL, OpenOptions};
use super::term;
use super::{Outcome, interrupt};
use clap::{Args, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use warpseek::answer::{Answerer, DEFAULT_TEMPLATE, Template};
use warpseek::embed::{Embedder, Normalize};
use warpseek::error::{Error, Result};
use warpseek::hub::http::Secret;
use warpseek::model::encoder::describe;
use warpseek::server::{Access, Answers, Limits, Listener, Named, Served, Serving, serve};

/// Serve indexes and models over HTTP, in the words of OpenAI, Cohere, Jina and text-embeddings-inference,
/// with a page to search by.
///
/// The address, who may ask, and all limits may stand in the environment too, under the names shown. Keys are read from
/// WARPSEEK_API_KEY or --api-key-file. SIGTERM and Ctrl+C let requests under way end.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Index folders, each as DIR or NAME=DIR; without any, the models alone are served
    #[arg(value_name = "DIR")]
    indexes: Vec<String>,
    /// Serve the embedding model alone
    #[arg(long, conflicts_with_all = ["indexes", "rerank_only"])]
    embed_only: bool,
    /// Serve the reranker alone
    #[arg(long, conflicts_with = "indexes")]
    rerank_only: bool,
    /// The embedding model, where it is not the indexes' own [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The reranker: a name, a hub id, a folder, or none [default: the best one that is present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// The address to listen at
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", env = "WARPSEEK_SERVE_HOST")]
    host: IpAddr,
    /// The port; 0 for any that is free, which is then printed
    #[arg(long, default_value_t = 8080, env = "WARPSEEK_SERVE_PORT")]
    port: u16,
    /// Listen at this socket in the file system instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"], env = "WARPSEEK_SERVE_UNIX")]
    unix: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    /// How requests are logged
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "WARPSEEK_SERVE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

/// Who may ask.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
struct AccessArgs {
    /// A file of keys, one a line, of which a request must carry one (Authorization: Bearer)
    #[arg(long, value_name = "FILE", env = "WARPSEEK_SERVE_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Let everyone ask who reaches an address other than loopback
    #[arg(long, env = "WARPSEEK_SERVE_NO_AUTH")]
    no_auth: bool,
    /// A name by which browsers may call this server without a key
    #[arg(long, value_name = "NAME", env = "WARPSEEK_SERVE_ALLOW_HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// An origin whose pages may ask (https://example.org); * for all
    #[arg(long, value_name = "ORIGIN", env = "WARPSEEK_SERVE_CORS_ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Let nobody change documents
    #[arg(long, env = "WARPSEEK_SERVE_READ_ONLY")]
    read_only: bool,
}

/// What may be spent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_body_bytes, env = "WARPSEEK_SERVE_MAX_BODY_BYTES")]
    max_body_bytes: usize,
    /// Texts, documents, queries or passages of a request
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_inputs, env = "WARPSEEK_SERVE_MAX_INPUTS")]
    max_inputs: usize,
    /// Tokens of a request
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_request_tokens, env = "WARPSEEK_SERVE_MAX_REQUEST_TOKENS")]
    max_request_tokens: usize,
    /// Windows of a request's passages to rerank
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_windows, env = "WARPSEEK_SERVE_MAX_WINDOWS")]
    max_windows: usize,
    /// Hits of a search, and rows that are reranked for it
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_hits, env = "WARPSEEK_SERVE_MAX_HITS")]
    max_hits: usize,
    /// Requests that are worked on at a time
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_concurrent_requests, env = "WARPSEEK_SERVE_MAX_CONCURRENT_REQUESTS")]
    max_concurrent_requests: usize,
    /// Tokens that may wait for a model
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_waiting_tokens, env = "WARPSEEK_SERVE_MAX_WAITING_TOKENS")]
    max_waiting_tokens: usize,
    /// Bytes of all bodies that are being received
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_receiving_bytes, env = "WARPSEEK_SERVE_MAX_RECEIVING_BYTES")]
    max_receiving_bytes: usize,
    /// Open connections
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_connections, env = "WARPSEEK_SERVE_MAX_CONNECTIONS")]
    max_connections: usize,
    /// Seconds for a request
    #[arg(long, value_name = "S", default_value_t = Limits::default().timeout_s, env = "WARPSEEK_SERVE_TIMEOUT")]
    timeout: f64,
    /// Seconds in which a connection must move on
    #[arg(long, value_name = "S", default_value_t = Limits::default().stall_s, env = "WARPSEEK_SERVE_STALL_TIMEOUT")]
    stall_timeout: f64,
    /// Seconds for requests under way after the server was told to stop
    #[arg(long, value_name = "S", default_value_t = Limits::default().drain_s, env = "WARPSEEK_SERVE_DRAIN_TIMEOUT")]
    drain_timeout: f64,
}

/// Who writes answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
struct AnswerArgs {
    /// The chat service [default: Groq, where GROQ_API_KEY is set]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// A file with the service's key and nothing else
    #[arg(long, value_name = "FILE", env = "WARPSEEK_SERVE_CHAT_KEY_FILE")]
    chat_key_file: Option<PathBuf>,
    /// The chat model [default: the only one that the service offers]
    #[arg(long, value_name = "NAME")]
    chat_model: Option<String>,
}

/// How requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON document a line
    Json,
}

pub(super) fn run(args: ServeArgs, context: &Context) -> Result<Outcome> {
    let limits = args.limits.checked()?;
    let access = access(&args)?;
    let answers = answers(&args.answers, context)?;
    let listener = match &args.unix {
        None => Listener::tcp(SocketAddr::new(args.host, args.port))?,
        #[cfg(unix)]
        Some(path) => Listener::unix(path)?,
        #[cfg(not(unix))]
        Some(_) => return Err(Error::usage("this system has no Unix sockets: use --port")),
    };
    let serving = open(&args, context, access, answers, limits)?;
    raise_file_limit();
    interrupt::install();
    // The line that tells programs where the server is; all else goes to stderr.
    term::print_line(&format!("listening at {}", listener.address()))?;
    serve(serving, listener, async {
        while !interrupt::asked() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })?;
    Ok(Outcome::Success)
}

/// Opens models and indexes.
fn open(
    args: &ServeArgs,
    context: &Context,
    access: Access,
    answers: Option<Answers>,
    limits: Limits,
) -> Result<Serving> {
    let reranker = match args.embed_only {
        true => None,
        false => context.reranker(args.reranker.as_deref())?,
    };
    if args.rerank_only && reranker.is_none() {
        return Err(warpseek::search::no_reranker());
    }
    let mut embedders: Vec<Named<Embedder>> = Vec::new();
    let mut indexes: Vec<Served> = Vec::new();
    for named in &args.indexes {
        let (name, dir) = match named.split_once('=') {
            Some((name, dir)) if !Path::new(named).exists() => (Some(name.to_owned()), dir),
            _ => (None, named.as_str()),
        };
        let dir = Path::new(dir);
        let options = OpenOptions { model: args.model.as_deref(), ..OpenOptions::default() };
        let mut searcher = context.searcher(dir, &options)?;
        let name = name.map_or_else(|| Served::name_of(dir), Ok)?;
        if indexes.iter().any(|other| other.name == name) {
            return Err(Error::usage(format!(
                "two indexes are called '{name}': give them names, as in NAME=DIR"
            )));
        }
        searcher.reranker = reranker.clone();
        if let (Some(embedder), Some(stamp)) =
            (&searcher.embedder, &searcher.index.manifest().model)
        {
            match embedders.iter().find(|e| e.sha256 == stamp.sha256) {
                // Indexes of one model share it.
                Some(known) => searcher.embedder = Some(Arc::clone(&known.model)),
                None => embedders.push(Named {
                    name: stamp.name.clone(),
                    sha256: stamp.sha256.clone(),
                    model: Arc::clone(embedder),
                }),
            }
        }
        indexes.push(Served::new(name, searcher));
    }
    if embedders.is_empty() && !args.rerank_only {
        let name =
            args.model.as_deref().or(context.settings.model.as_deref()).unwrap_or(DEFAULT_MODEL);
        let (embedder, stamp) = context.embedder(name, Normalize::Always)?;
        embedders.push(Named { name: stamp.name, sha256: stamp.sha256, model: Arc::new(embedder) });
    }
    let reranker = reranker.map(|(name, model)| {
        let sha256 = context.models.find(&name).map(|folder| folder.sha256).unwrap_or_default();
        Named { name, sha256, model }
    });
    let device = context.scanner()?.device();
    Ok(Serving {
        indexes,
        embedders,
        reranker,
        answers,
        access,
        limits,
        device,
        precision: describe(context.compute())?,
    })
}

/// Keys and who else may ask; refuses to open a port to everyone by accident.
fn access(args: &ServeArgs) -> Result<Access> {
    let text = match &args.access.api_key_file {
        Some(path) => Some(term::read_text(path)?),
        None => std::env::var("WARPSEEK_API_KEY").ok().filter(|key| !key.trim().is_empty()),
    };
    let lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
    let keys: Vec<Secret> = lines.filter(|line| !line.is_empty()).map(Secret::new).collect();
    if args.access.api_key_file.is_some() && keys.is_empty() {
        return Err(Error::usage("--api-key-file holds no key: write one a line"));
    }
    if keys.is_empty() && args.unix.is_none() && !args.host.is_loopback() && !args.access.no_auth {
        return Err(Error::usage(format!(
            "{} can be reached from other machines: set WARPSEEK_API_KEY or --api-key-file, or say --no-auth",
            args.host
        )));
    }
    Ok(Access {
        keys,
        hosts: args.access.allow_host.clone(),
        origins: args.access.cors_origin.clone(),
        read_only: args.access.read_only,
    })
}

/// The chat service, where one is set up.
fn answers(args: &AnswerArgs, context: &Context) -> Result<Option<Answers>> {
    let base = args.base_url.as_deref();
    // Offline, a key for Groq that happens to be set is no wish to ask it.
    let is_named = base.or(context.settings.base_url.as_deref()).is_some();
    if context.settings.offline.unwrap_or(false) && !is_named {
        return Ok(None);
    }
    let Some(client) = context.chat_client(base, args.chat_key_file.as_deref())? else {
        return Ok(None);
    };
    let template = Template::new("the default template", DEFAULT_TEMPLATE)?;
    let model = args.chat_model.clone().or_else(|| context.settings.chat_model.clone());
    Ok(Some(Answers { answerer: Answerer { client, template }, model }))
}

impl LimitArgs {
    fn checked(&self) -> Result<Limits> {
        let limits = Limits {
            max_body_bytes: self.max_body_bytes,
            max_inputs: self.max_inputs,
            max_request_tokens: self.max_request_tokens,
            max_windows: self.max_windows,
            max_hits: self.max_hits,
            max_concurrent_requests: self.max_concurrent_requests,
            max_waiting_tokens: self.max_waiting_tokens,
            max_receiving_bytes: self.max_receiving_bytes,
            max_connections: self.max_connections,
            timeout_s: self.timeout,
            stall_s: self.stall_timeout,
            drain_s: self.drain_timeout,
        };
        let counts = [
            (limits.max_body_bytes, "--max-body-bytes"),
            (limits.max_inputs, "--max-inputs"),
            (limits.max_request_tokens, "--max-request-tokens"),
            (limits.max_windows, "--max-windows"),
            (limits.max_hits, "--max-hits"),
            (limits.max_concurrent_requests, "--max-concurrent-requests"),
            (limits.max_waiting_tokens, "--max-waiting-tokens"),
            (limits.max_receiving_bytes, "--max-receiving-bytes"),
            (limits.max_connections, "--max-connections"),
        ];
        if let Some((_, name)) = counts.iter().find(|(n, _)| *n == 0 || *n > 1 << 40) {
            return Err(Error::usage(format!("{name} must be at least 1, and no more than 2^40")));
        }
        let times = [
            (limits.timeout_s, "--timeout"),
            (limits.stall_s, "--stall-timeout"),
            (limits.drain_s, "--drain-timeout"),
        ];
        if let Some((_, name)) = times.iter().find(|(s, _)| !(0.001..=86_400.0).contains(s)) {
            return Err(Error::usage(format!("{name} must lie in 0.001 to 86400 seconds")));
        }
        Ok(limits)
    }
}

/// As many connections as the system lets a process have.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit of open files stays as it is: {e}");
        }
    }
}
