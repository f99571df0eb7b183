//! `warpseek serve`.

use super::args::number;
use super::context::{Context, Status};
use super::{interrupt, sync, term};
use crate::answer::{Answerer, DEFAULT_TEMPLATE, PromptTemplate};
use crate::error::{Error, Result};
use crate::hub::http::Secret;
use crate::server::{Access, Answers, Listener, ServedModels, ServerLimits, Serving, serve};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Serve indexes and models over HTTP, in the dialects of OpenAI, Cohere, Jina, Ollama and
/// text-embeddings-inference, to agents at /mcp, with a search page.
///
/// Keys come from WARPSEEK_API_KEY or --api-key-file. SIGTERM and Ctrl+C stop the server after the
/// requests that have begun.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Index folders, each as DIR or NAME=DIR [default: .warpseek here or in a folder above, or the
    /// setting `index`; if there is none, only the models are served]
    #[arg(value_name = "DIR")]
    indexes: Vec<String>,
    /// Serve only the embedding model
    #[arg(long, conflicts_with_all = ["indexes", "rerank_only"])]
    embed_only: bool,
    /// Serve only the reranker
    #[arg(long, conflicts_with = "indexes")]
    rerank_only: bool,
    /// Embedding model to use instead of the indexes' own [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Reranker: a listed name, a hub id, a folder, or none [default: the best one present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Index of requests that name none [default: the only one]
    #[arg(long, value_name = "NAME", env = "WARPSEEK_SERVE_DEFAULT_INDEX")]
    default_index: Option<String>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", env = "WARPSEEK_SERVE_HOST")]
    host: IpAddr,
    /// Port; 0 for any free one, which is printed
    #[arg(long, default_value_t = 8080, env = "WARPSEEK_SERVE_PORT")]
    port: u16,
    /// Listen on this Unix socket instead
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["host", "port"],
        env = "WARPSEEK_SERVE_UNIX"
    )]
    unix: Option<PathBuf>,
    /// Keep the indexes up to date with the files and folders that `index` has read, as
    /// `warpseek sync --watch` does
    #[arg(
        long,
        conflicts_with_all = ["embed_only", "rerank_only"],
        env = "WARPSEEK_SERVE_WATCH",
        value_parser = BoolishValueParser::new()
    )]
    watch: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    chat: ChatArgs,
    /// Format of the request log
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "WARPSEEK_SERVE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

/// Access rights.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
struct AccessArgs {
    /// File of keys, one per line; a request must carry one (Authorization: Bearer)
    #[arg(long, value_name = "FILE", env = "WARPSEEK_SERVE_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Serve addresses other than loopback without a key
    #[arg(long, env = "WARPSEEK_SERVE_NO_AUTH", value_parser = BoolishValueParser::new())]
    no_auth: bool,
    /// Host name by which browsers may call this server without a key
    #[arg(long, value_name = "NAME", env = "WARPSEEK_SERVE_ALLOW_HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// Origin whose pages may call this server (https://example.org); * for all
    #[arg(long, value_name = "ORIGIN", env = "WARPSEEK_SERVE_CORS_ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Refuse changes of documents
    #[arg(long, env = "WARPSEEK_SERVE_READ_ONLY", value_parser = BoolishValueParser::new())]
    read_only: bool,
    /// Offer agents at /mcp the tools upsert and delete
    #[arg(
        long,
        conflicts_with = "read_only",
        env = "WARPSEEK_SERVE_ALLOW_WRITES",
        value_parser = BoolishValueParser::new()
    )]
    allow_writes: bool,
}

/// Declares the options of [`ServerLimits`]. A row: meaning, field, type, value name, parser and
/// variable.
macro_rules! limit_args {
    ($(
        #[doc = $meaning:literal]
        $field:ident: $type:ty = $option:literal, $unit:literal, $parser:expr, $variable:literal;
    )*) => {
        /// Limits of the server.
        #[derive(Debug, Args)]
        #[command(next_help_heading = "Limits")]
        struct LimitArgs {
            $(
                #[doc = $meaning]
                #[arg(
                    long = $option,
                    value_name = $unit,
                    default_value_t = ServerLimits::default().$field,
                    env = $variable,
                    value_parser = $parser
                )]
                $field: $type,
            )*
        }

        impl From<&LimitArgs> for ServerLimits {
            fn from(args: &LimitArgs) -> Self {
                Self { $($field: args.$field,)* }
            }
        }
    };
}

limit_args! {
    /// Bytes of a request's body
    max_body_bytes: usize =
        "max-body-bytes", "BYTES", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_BODY_BYTES";
    /// Texts, documents, queries or passages of a request
    max_inputs: usize = "max-inputs", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_INPUTS";
    /// Tokens of a request
    max_request_tokens: usize =
        "max-request-tokens", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_REQUEST_TOKENS";
    /// Windows of a request's passages to rerank
    max_windows: usize = "max-windows", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_WINDOWS";
    /// Hits of a search, and rows to rerank for it
    max_hits: usize = "max-hits", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_HITS";
    /// Requests processed at a time
    max_concurrent_requests: usize =
        "max-concurrent-requests", "N", number(1..=1 << 40),
        "WARPSEEK_SERVE_MAX_CONCURRENT_REQUESTS";
    /// Tokens that may wait for a model
    max_waiting_tokens: usize =
        "max-waiting-tokens", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_WAITING_TOKENS";
    /// Bytes of a reply
    max_reply_bytes: usize =
        "max-reply-bytes", "BYTES", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_REPLY_BYTES";
    /// Bytes of the bodies of all requests that are received or worked on
    max_receiving_bytes: usize =
        "max-receiving-bytes", "BYTES", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_RECEIVING_BYTES";
    /// Open connections
    max_connections: usize =
        "max-connections", "N", number(1..=1 << 40), "WARPSEEK_SERVE_MAX_CONNECTIONS";
    /// Seconds per request
    timeout_s: f64 = "timeout", "S", seconds, "WARPSEEK_SERVE_TIMEOUT";
    /// Seconds for a metadata filter
    filter_s: f64 = "filter-timeout", "S", seconds, "WARPSEEK_SERVE_FILTER_TIMEOUT";
    /// Seconds in which a connection must make progress
    stall_s: f64 = "stall-timeout", "S", seconds, "WARPSEEK_SERVE_STALL_TIMEOUT";
    /// Seconds for running requests after the server was told to stop
    drain_s: f64 = "drain-timeout", "S", seconds, "WARPSEEK_SERVE_DRAIN_TIMEOUT";
}

/// Parser of a time, 0.001 to 86,400 seconds.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.001..=86_400.0).contains(s));
    seconds.ok_or_else(|| "use 0.001 to 86400 seconds".to_owned())
}

/// Chat service of the answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
struct ChatArgs {
    /// Address of the chat service [default: Groq, if GROQ_API_KEY is set]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// File with the service's key and nothing else
    #[arg(long, value_name = "FILE", env = "WARPSEEK_SERVE_CHAT_KEY_FILE")]
    chat_key_file: Option<PathBuf>,
    /// Chat model [default: the only one that the service offers]
    #[arg(long, value_name = "NAME")]
    chat_model: Option<String>,
}

/// Format of the request log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON document per line
    Json,
}

pub(super) fn run(args: ServeArgs, context: &Context) -> Result<Status> {
    let access = access(&args, context)?;
    let answers = answers(&args.chat, context)?;
    let listener = match &args.unix {
        None => Listener::tcp(SocketAddr::new(args.host, args.port))?,
        #[cfg(unix)]
        Some(path) => Listener::unix(path)?,
        #[cfg(not(unix))]
        Some(_) => return Err(Error::usage("this system has no Unix sockets: use --port")),
    };
    let models = ServedModels {
        model: args.model.as_deref(),
        reranker: args.reranker.as_deref(),
        embed_only: args.embed_only,
        rerank_only: args.rerank_only,
    };
    let mut indexes: Vec<_> = args.indexes.iter().map(|index| named_index(index)).collect();
    if indexes.is_empty() && !args.embed_only && !args.rerank_only {
        indexes.extend(context.default_index()?.map(default_name));
    }
    let serving = Serving {
        answers,
        access,
        limits: ServerLimits::from(&args.limits),
        ..Serving::open(&context.engine, &indexes, models)?
    };
    let serving = serving.with_default_index(args.default_index.clone())?;
    if args.watch {
        for (served, (_, dir)) in serving.indexes.iter().zip(&indexes) {
            sync::watch_in_background(&served.name, dir, served.embedder())?;
        }
    }
    raise_file_limit();
    interrupt::install();
    // Programs read the address from this line. Everything else goes to stderr.
    term::print_line(&format!("listening at {}", listener.address()))?;
    serve(serving, listener, interrupt::wait())?;
    Ok(Status::Success)
}

/// The name, if one is given, and the folder of an index: DIR or NAME=DIR.
pub(super) fn named_index(text: &str) -> (Option<String>, PathBuf) {
    match text.split_once('=') {
        Some((name, dir)) if !Path::new(text).exists() => (Some(name.to_owned()), dir.into()),
        _ => (None, text.into()),
    }
}

/// The default index, named after the folder that holds it: its own folder is called `.warpseek`.
pub(super) fn default_name(dir: PathBuf) -> (Option<String>, PathBuf) {
    let real = std::fs::canonicalize(&dir).ok();
    let is_hidden = real.as_deref().and_then(Path::file_name).is_some_and(is_hidden);
    let holder = real.as_deref().and_then(Path::parent).and_then(Path::file_name);
    let name = holder.filter(|_| is_hidden).and_then(|name| name.to_str());
    (name.map(str::to_owned), dir)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Keys and access rights. Refuses to serve other machines without a key unless `--no-auth` is set.
fn access(args: &ServeArgs, context: &Context) -> Result<Access> {
    let text = match &args.access.api_key_file {
        Some(path) => Some(term::read_text(path)?),
        None => context.engine.settings.api_keys.as_ref().map(|keys| keys.reveal().to_owned()),
    };
    let lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
    let keys: Vec<Secret> = lines.filter(|line| !line.is_empty()).map(Secret::new).collect();
    if args.access.api_key_file.is_some() && keys.is_empty() {
        return Err(Error::usage("--api-key-file holds no key: write one per line"));
    }
    if keys.is_empty() && args.unix.is_none() && !args.host.is_loopback() && !args.access.no_auth {
        return Err(Error::usage(format!(
            "{} can be reached from other machines: set WARPSEEK_API_KEY or --api-key-file, or use \
             --no-auth",
            args.host
        )));
    }
    Ok(Access {
        keys,
        hosts: args.access.allow_host.clone(),
        origins: args.access.cors_origin.clone(),
        read_only: args.access.read_only,
        agent_writes: args.access.allow_writes,
    })
}

/// The chat service, if one is set up.
fn answers(args: &ChatArgs, context: &Context) -> Result<Option<Answers>> {
    let base = args.base_url.as_deref();
    // Offline, a key for Groq that happens to be set does not request Groq.
    let is_named = base.or(context.engine.settings.base_url.as_deref()).is_some();
    if context.engine.settings.offline.unwrap_or(false) && !is_named {
        return Ok(None);
    }
    let Some(client) = context.chat_client(base, args.chat_key_file.as_deref())? else {
        return Ok(None);
    };
    let template = PromptTemplate::new("the default template", DEFAULT_TEMPLATE)?;
    let model = args.chat_model.clone().or_else(|| context.engine.settings.chat_model.clone());
    Ok(Some(Answers { answerer: Answerer { client, template }, model }))
}

/// Raises the limit of open files, and so of connections, as far as the system allows.
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
