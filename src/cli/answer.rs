//! `warpseek answer`.

use super::args::{RerankingArgs, RetrieveArgs, read_query};
use super::context::{Context, Status};
use super::interrupt;
use super::report::{milliseconds, print_passage};
use super::term::{self, bold, dim, plain, say};
use crate::answer::{
    Answer, AnswerEvent, AnswerOptions, Answerer, ChatClient, DEFAULT_TEMPLATE, Piece, Prompt,
    PromptTemplate, QuoteStatus,
};
use crate::error::{Error, Result};
use crate::search::{Hit, SearchResult};
use clap::{Args, value_parser};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Answer a question from the retrieved passages by a chat service, and check the answer's quotes.
///
/// The service is Groq, or any with the same protocol, such as a local llama.cpp or Ollama:
/// --base-url. Its key comes from GROQ_API_KEY or --api-key-file.
#[derive(Debug, Args)]
#[command(override_usage = "warpseek answer [OPTIONS] [DIR] <QUESTION>")]
pub(super) struct AnswerArgs {
    /// Index folder; a single argument is the question [default: .warpseek here or in a
    /// folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Question; - reads it from stdin
    question: Option<String>,
    /// Number of passages
    #[arg(short, long = "top-k", default_value_t = 5, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    rerank: RerankingArgs,
    /// Embedding model to use instead of the one that the index names
    #[arg(long, value_name = "MODEL")]
    embedder: Option<String>,
    /// Chat model [default: the only one that the service offers]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Address of the chat service [default: Groq]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// File with the service's key and nothing else
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Maximum length of the answer, in tokens
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        value_parser = value_parser!(u32).range(1..)
    )]
    max_tokens: u32,
    /// Maximum number of tokens of all passages, as the embedder counts them
    #[arg(long, value_name = "N", default_value_t = 3000)]
    passage_tokens: usize,
    /// Sampling temperature: 0 for the most likely words, up to 2
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Prompt template (Jinja)
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Print the answer when it is complete instead of streaming it
    #[arg(long)]
    no_stream: bool,
    /// Print the prompt and send nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: AnswerArgs, context: &Context) -> Result<Status> {
    let (dir, question) =
        context.index_and(args.dir.as_deref(), args.question.as_deref(), "question")?;
    let question = read_query(question)?;
    if !(0.0..=2.0).contains(&args.temperature) {
        return Err(Error::usage(format!("--temperature is {}; use 0 to 2", args.temperature)));
    }
    let template = match &args.template {
        Some(path) => PromptTemplate::new(&path.display().to_string(), &term::read_text(path)?)?,
        None => PromptTemplate::new("the default template", DEFAULT_TEMPLATE)?,
    };
    // An unusable service is refused before the search.
    let client = if args.dry_run { None } else { Some(client(&args, context)?) };
    let mut search = args.retrieve.options(args.k)?;
    let searcher = context.engine.searcher(&dir, &args.rerank.open(args.embedder.as_deref()))?;
    args.rerank.apply(&mut search, &searcher, context)?;
    let found = searcher.search(&question, &search)?;
    found.warnings.iter().for_each(|w| term::warn(w));
    if found.hits.is_empty() {
        context.note("no passage was found to answer from");
        let nothing = json!({
            "question": question, "answer": "", "refused": true, "sentences": [], "citations": [],
            "hits": [], "took_ms": { "search": found.took_ms, "total": found.took_ms.total },
        });
        return context.report(&nothing, || Ok(())).map(|_| Status::NoHits);
    }
    let mut options = AnswerOptions {
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        passage_tokens: args.passage_tokens,
        stream: !args.no_stream,
        ..AnswerOptions::new("")
    };
    let count = |text: &str| searcher.count_tokens(text);
    let prompt = template.fill(&question, &found.hits, options.passage_tokens, &count)?;
    note_left_out(&prompt, context);
    let Some(client) = client else {
        return context.report(&prompt, || print_prompt(&prompt));
    };
    interrupt::install();
    let model = args.model.clone().or_else(|| context.engine.settings.chat_model.clone());
    let answerer = Answerer { client, template };
    let outcome = model.map_or_else(|| answerer.client.only_model(), Ok).and_then(|model| {
        options.model = model;
        answer(&answerer, &prompt, &options, context)
    });
    // The passages are printed even if the service fails.
    let value = match &outcome {
        Ok(answer) => answer_json(&question, answer, &prompt, &found),
        Err(e) => json!({ "question": question, "error": e.to_string(), "hits": found.hits }),
    };
    if outcome.as_ref().is_ok_and(|answer| answer.finish_reason.as_deref() == Some("length")) {
        term::warn("the answer was cut at --max-tokens");
    }
    context.report(&value, || print_sources(&prompt, &found.hits, outcome.as_ref().ok()))?;
    let answer = outcome?;
    let usage = answer.usage.map_or(String::new(), |usage| {
        format!(", {} tokens read and {} written", usage.prompt_tokens, usage.completion_tokens)
    });
    context.note(&format!(
        "{} in {:.1} s{usage}; search {}",
        answer.model,
        answer.took_ms.total / 1e3,
        milliseconds(&found.took_ms)
    ));
    Ok(if answer.refused { Status::NoHits } else { Status::Success })
}

fn client(args: &AnswerArgs, context: &Context) -> Result<ChatClient> {
    let key_file = args.api_key_file.as_deref();
    context.chat_client(args.base_url.as_deref(), key_file)?.ok_or_else(|| {
        Error::usage(
            "there is no key for Groq: set GROQ_API_KEY or --api-key-file, or name another service \
             with --base-url (for Ollama http://localhost:11434/v1); --dry-run prints the prompt \
             without a service",
        )
    })
}

fn note_left_out(prompt: &Prompt, context: &Context) {
    let more = "--passage-tokens allows more tokens";
    if prompt.passages.iter().any(|p| p.cut) {
        context.note(&format!("the first passage does not fit and was cut; {more}"));
    }
    if prompt.left_out > 0 {
        let n = prompt.left_out;
        context.note(&format!("{n} passages do not fit and were left out; {more}"));
    }
}

fn print_prompt(prompt: &Prompt) -> Result<()> {
    prompt.messages.iter().try_for_each(|message| {
        say!("{}", bold(&format!("[{}]", message.role)))?;
        say!("{}", plain(&message.content))
    })
}

/// Asks the service. Without `--json` the text is printed as it arrives.
fn answer(
    answerer: &Answerer,
    prompt: &Prompt,
    options: &AnswerOptions,
    context: &Context,
) -> Result<Answer> {
    let mut failed = None;
    let mut written = false;
    let answer = answerer.answer(prompt, options, &mut |event| {
        let text = match event {
            AnswerEvent::Piece(Piece::Text(text)) => plain(&text),
            AnswerEvent::Piece(Piece::Unsupported) => format!(" {}", dim("[unsupported]")),
            AnswerEvent::Retry(why) => {
                term::warn(&format!("{}: {why}", answerer.client.name()));
                String::new()
            }
            AnswerEvent::Waiting => String::new(),
        };
        if !context.json && !text.is_empty() {
            written = true;
            let mut out = std::io::stdout().lock();
            if let Err(e) = write!(out, "{text}").and_then(|()| out.flush()) {
                failed = Some(Error::io("write to", "stdout")(e));
            }
        }
        if failed.is_some() { ControlFlow::Break(()) } else { interrupt::flow() }
    });
    if written {
        say!("")?;
    }
    failed.map_or(answer, Err)
}

fn answer_json(
    question: &str,
    answer: &Answer,
    prompt: &Prompt,
    found: &SearchResult,
) -> serde_json::Value {
    let total = found.took_ms.total + answer.took_ms.total;
    json!({
        "question": question,
        "answer": answer.text,
        "refused": answer.refused,
        "sentences": answer.sentences,
        "citations": answer.citations(prompt),
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage,
        "hits": found.hits,
        "took_ms": { "search": found.took_ms, "answer": answer.took_ms, "total": total },
    })
}

/// Prints the passages, and warns about quotes that were not found where the answer cites them.
fn print_sources(prompt: &Prompt, hits: &[Hit], answer: Option<&Answer>) -> Result<()> {
    say!("{}", bold("passages"))?;
    for (passage, hit) in prompt.passages.iter().zip(hits) {
        print_passage(passage.number, hit)?;
    }
    let citations = answer.iter().flat_map(|a| &a.sentences).flat_map(|s| &s.citations);
    for citation in citations.filter(|c| c.status != QuoteStatus::Found) {
        let cited = citation.cited.map_or("no passage".to_owned(), |n| format!("[{n}]"));
        let problem = match citation.passage {
            Some(n) => format!("is in [{n}], not in {cited}"),
            None => format!("is in no passage (cited: {cited})"),
        };
        term::warn(&format!("\"{}\" {problem}", citation.quote));
    }
    let unsupported = answer.map_or(0, |a| a.sentences.iter().filter(|s| !s.supported).count());
    if unsupported > 0 {
        term::warn(&format!("{unsupported} sentences are not supported by quotes that were found"));
    }
    Ok(())
}
