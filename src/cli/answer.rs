//! `warpseek answer`.

use super::context::Context;
use super::search::{RerankArgs, RetrieveArgs, milliseconds, read_query};
use super::term::{self, bold, dim, plain, say};
use super::{Outcome, interrupt};
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use warpseek::answer::{
    Answer, AnswerEvent, AnswerOptions, Answerer, ChatClient, DEFAULT_TEMPLATE, Piece, Prompt,
    QuoteStatus, Template,
};
use warpseek::error::{Error, Result};
use warpseek::search::{Hit, SearchResult};

/// Answer a question from the passages that are found, by a chat service, and check the answer's quotes.
///
/// The service is Groq, or any that speaks the same protocol, a local llama.cpp or Ollama too: --base-url.
/// Its key is read from GROQ_API_KEY or --api-key-file.
#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    /// The index folder
    dir: PathBuf,
    /// The question; - reads it from stdin
    question: String,
    /// How many passages
    #[arg(short, long = "top-k", default_value_t = 5, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    rerank: RerankArgs,
    /// Take the embedding model from here instead of by the index's own word
    #[arg(long, value_name = "MODEL")]
    embedder: Option<String>,
    /// The chat model [default: the only one that the service offers]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The chat service [default: Groq]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// A file with the service's key and nothing else
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: u32,
    /// Tokens of passages at most, as the embedder counts them
    #[arg(long, value_name = "N", default_value_t = 3000)]
    passage_tokens: usize,
    /// 0 for the likeliest words, up to 2
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// The prompt's template (Jinja)
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Wait for the whole answer instead of showing it as it is written
    #[arg(long)]
    no_stream: bool,
    /// Print the prompt and send nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: AnswerArgs, context: &Context) -> Result<Outcome> {
    let question = read_query(&args.question)?;
    if !(0.0..=2.0).contains(&args.temperature) {
        return Err(Error::usage(format!("--temperature is {}; use 0 to 2", args.temperature)));
    }
    if args.max_tokens == 0 {
        return Err(Error::usage("--max-tokens must be at least 1"));
    }
    let template = match &args.template {
        Some(path) => Template::new(&path.display().to_string(), &term::read_text(path)?)?,
        None => Template::new("the default template", DEFAULT_TEMPLATE)?,
    };
    // What cannot be sent is refused before anything is searched for.
    let client = if args.dry_run { None } else { Some(client(&args, context)?) };
    let mut search = args.retrieve.options(args.k)?;
    let searcher = context.searcher(&args.dir, &args.rerank.open(args.embedder.as_deref()))?;
    search.rerank_depth = args.rerank.depth(args.k, &searcher, context)?;
    search.retriever_weight = args.rerank.retriever_weight;
    let found = searcher.search(&question, &search)?;
    found.warnings.iter().for_each(|w| term::warn(w));
    if found.hits.is_empty() {
        context.note("no passage was found to answer from");
        return Ok(Outcome::NoHits);
    }
    let count = |text: &str| searcher.count_tokens(text);
    let mut options = AnswerOptions {
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        passage_tokens: args.passage_tokens,
        stream: !args.no_stream,
        ..AnswerOptions::new("")
    };
    let prompt = template.fill(&question, &found.hits, options.passage_tokens, &count)?;
    note_what_is_missing(&prompt, context);
    let Some(client) = client else {
        return print_prompt(&prompt, context);
    };
    interrupt::install();
    let model = args.model.clone().or_else(|| context.settings.chat_model.clone());
    let answerer = Answerer { client, template };
    let outcome = model.map_or_else(|| answerer.client.only_model(), Ok).and_then(|model| {
        options.model = model;
        answer(&answerer, &prompt, &options, context)
    });
    match outcome {
        Ok(answer) => print_answer(&question, &answer, &prompt, &found, context),
        Err(error) => {
            // The passages were found all the same.
            if context.json {
                let failed =
                    json!({ "question": question, "error": error.to_string(), "hits": found.hits });
                term::print_json(&failed)?;
            } else {
                print_sources(&prompt, &found.hits, None)?;
            }
            Err(error)
        }
    }
}

fn client(args: &AnswerArgs, context: &Context) -> Result<ChatClient> {
    let key_file = args.api_key_file.as_deref();
    context.chat_client(args.base_url.as_deref(), key_file)?.ok_or_else(|| {
        Error::usage(
            "there is no key for Groq: set GROQ_API_KEY or --api-key-file, or name another service with \
             --base-url (http://localhost:11434/v1 for Ollama, say); --dry-run shows the prompt without one",
        )
    })
}

fn note_what_is_missing(prompt: &Prompt, context: &Context) {
    if prompt.passages.iter().any(|p| p.cut) {
        context
            .note("the first passage does not fit and was cut; --passage-tokens gives more room");
    }
    if prompt.left_out > 0 {
        context.note(&format!(
            "{} passages do not fit and were left out; --passage-tokens gives more room",
            prompt.left_out
        ));
    }
}

fn print_prompt(prompt: &Prompt, context: &Context) -> Result<Outcome> {
    if context.json {
        term::print_json(prompt)?;
        return Ok(Outcome::Success);
    }
    for message in &prompt.messages {
        say!("{}", bold(&format!("[{}]", message.role)))?;
        say!("{}", plain(&message.content))?;
    }
    Ok(Outcome::Success)
}

/// Asks, and shows the text as it comes where it is for people.
fn answer(
    answerer: &Answerer,
    prompt: &Prompt,
    options: &AnswerOptions,
    context: &Context,
) -> Result<Answer> {
    let mut broken = None;
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
                broken = Some(Error::io("write to", "stdout")(e));
            }
        }
        match interrupt::asked() || broken.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if written {
        say!("")?;
    }
    match broken {
        Some(error) => Err(error),
        None => answer,
    }
}

fn print_answer(
    question: &str,
    answer: &Answer,
    prompt: &Prompt,
    found: &SearchResult,
    context: &Context,
) -> Result<Outcome> {
    if answer.finish_reason.as_deref() == Some("length") {
        term::warn("the answer was cut at --max-tokens");
    }
    if context.json {
        let total = found.took_ms.total + answer.took_ms.total;
        term::print_json(&json!({
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
        }))?;
    } else {
        print_sources(prompt, &found.hits, Some(answer))?;
    }
    let usage = answer.usage.map_or(String::new(), |usage| {
        format!(", {} tokens read and {} written", usage.prompt_tokens, usage.completion_tokens)
    });
    context.note(&format!(
        "{} in {:.1} s{usage}; search {}",
        answer.model,
        answer.took_ms.total / 1e3,
        milliseconds(&found.took_ms)
    ));
    Ok(if answer.refused { Outcome::NoHits } else { Outcome::Success })
}

/// The passages, and what became of their quotes.
fn print_sources(prompt: &Prompt, hits: &[Hit], answer: Option<&Answer>) -> Result<()> {
    say!("{}", bold("passages"))?;
    for (passage, hit) in prompt.passages.iter().zip(hits) {
        let title = if passage.title.is_empty() { &passage.id } else { &passage.title };
        say!("[{}] {}", passage.number, plain(title))?;
        let mut facts = format!("{}  score {:.4}", plain(&hit.id), hit.score);
        if let Some(rerank) = hit.rerank_score {
            facts.push_str(&format!("  rerank {rerank:.4}"));
        }
        say!("    {}", dim(&facts))?;
    }
    let citations = answer.iter().flat_map(|a| &a.sentences).flat_map(|s| &s.citations);
    for citation in citations.filter(|c| c.status != QuoteStatus::Found) {
        let cited = citation.cited.map_or("no passage".to_owned(), |n| format!("[{n}]"));
        let problem = match citation.passage {
            Some(n) => format!("stands in [{n}], not in {cited}"),
            None => format!("stands in no passage (cited: {cited})"),
        };
        term::warn(&format!("\"{}\" {problem}", citation.quote));
    }
    let unsupported = answer.map_or(0, |a| a.sentences.iter().filter(|s| !s.supported).count());
    if unsupported > 0 {
        term::warn(&format!("{unsupported} sentences are not supported by quotes that were found"));
    }
    Ok(())
}
