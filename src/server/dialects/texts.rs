//! Texts to embed: their prompts, by role or by name, and their truncation.

use super::warnings::truncation_warning;
use crate::server::error::{ApiError, ApiResult};
use crate::server::reply_size::ReplySize;
use crate::server::scheduled::{embed_tokens, tokenizing};
use crate::server::state::AppState;
use std::collections::HashSet;
use std::sync::Arc;
use warpseek_bert::embedder::{Embedder, Embeddings, Role};
use warpseek_bert::tokenizer::{TokenMeter, Tokenized};

/// Tasks for which a model may have a prompt; without one, texts are embedded as they are.
const TASKS: [&str; 5] =
    ["classification", "clustering", "separation", "text-matching", "sentence_similarity"];

/// Prompt, truncation and longest text of the texts of a request.
#[derive(Debug, Default)]
pub(super) struct TextOptions {
    pub(super) prompt: ChosenPrompt,
    pub(super) truncation: Truncation,
    /// The longest text, if it is shorter than the model's limit.
    pub(super) limit: Option<TokenLimit>,
}

/// A number of tokens that a request sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenLimit {
    /// The field of the request.
    pub(super) field: &'static str,
    pub(super) tokens: usize,
}

/// The text that stands in front of every text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChosenPrompt {
    /// That of a role.
    OfRole(Role),
    /// This text.
    Written(String),
}

/// The treatment of texts that are longer than the model's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Truncation {
    /// Truncated at the end.
    #[default]
    End,
    /// Truncated at the beginning.
    Start,
    /// Refused; the error says to do this.
    Refused(&'static str),
}

impl TextOptions {
    /// The maximum number of tokens that are read of a text.
    fn most(&self, embedder: &Embedder) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit.tokens).min(embedder.max_tokens())
    }
}

impl ChosenPrompt {
    /// The role that decides how texts are computed.
    pub(super) fn role(&self) -> Role {
        match self {
            Self::OfRole(role) => *role,
            Self::Written(_) => Role::Plain,
        }
    }

    /// The texts with this prompt; one that begins with it does not get it twice.
    pub(super) fn before(&self, texts: Vec<String>, embedder: &Embedder) -> Vec<String> {
        let prompt = self.text(embedder);
        if prompt.is_empty() {
            return texts;
        }
        let prompted = texts.into_iter().map(|text| match text.starts_with(prompt) {
            true => text,
            false => format!("{prompt}{text}"),
        });
        prompted.collect()
    }

    /// The prompt; empty if there is none.
    pub(super) fn text<'a>(&'a self, embedder: &'a Embedder) -> &'a str {
        match self {
            Self::OfRole(role) => embedder.prompt(*role),
            Self::Written(text) => text,
        }
    }
}

/// No prompt.
impl Default for ChosenPrompt {
    fn default() -> Self {
        Self::OfRole(Role::Plain)
    }
}

/// The prompt that `name` in `field` stands for: a role, a task, or the name of one of the model's
/// prompts. Without a name, there is none.
pub(super) fn prompt_called(
    embedder: &Embedder,
    field: &str,
    name: Option<&str>,
) -> ApiResult<ChosenPrompt> {
    let name = name.unwrap_or_default().to_lowercase();
    let name = match name.as_str() {
        "" => return Ok(ChosenPrompt::default()),
        "query" | "search_query" | "retrieval.query" => {
            return Ok(ChosenPrompt::OfRole(Role::Query));
        }
        "document" | "passage" | "corpus" | "search_document" | "retrieval.passage" => {
            return Ok(ChosenPrompt::OfRole(Role::Passage));
        }
        other => other,
    };
    let prompts = &embedder.config().prompts;
    if let Some((_, prompt)) = prompts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        return written_prompt(embedder, field, prompt);
    }
    if TASKS.contains(&name) {
        return Ok(ChosenPrompt::default());
    }
    let mut known = vec!["query", "search_query", "document", "search_document"];
    known.extend(TASKS.into_iter().chain(prompts.keys().map(String::as_str)));
    let mut seen = HashSet::new();
    known.retain(|name| seen.insert(*name));
    let message = format!("`{field}` can be {}, not '{name}'", known.join(", "));
    Err(ApiError::invalid(message).param(field))
}

/// The prompt of this text, for a model that allows prompts other than those of the two roles.
pub(super) fn written_prompt(
    embedder: &Embedder,
    field: &str,
    text: &str,
) -> ApiResult<ChosenPrompt> {
    let message = format!(
        "`{field}` can only choose the prompt of queries or of documents: this model pools \
         without its prompts"
    );
    ApiError::check(text.is_empty() || !embedder.skips_prompt(), field, message)?;
    Ok(ChosenPrompt::Written(text.to_owned()))
}

/// Tokenizes texts, with their prompt; one that begins with it does not get it twice. `field` holds
/// the texts in the request.
pub(super) async fn tokenize_texts(
    state: &AppState,
    embedder: &Arc<Embedder>,
    (field, texts): (&'static str, Vec<String>),
    options: TextOptions,
) -> ApiResult<Vec<Tokenized>> {
    state.check_texts(&texts, field)?;
    let least = embedder.tokenizer().n_special() + 1;
    let most = options.most(embedder);
    if let Some(TokenLimit { field, tokens }) = options.limit {
        let message = format!("`{field}` must be at least {least}: special tokens count too");
        ApiError::check(tokens >= least, field, message)?;
    }
    let (model, truncation) = (Arc::clone(embedder), options.truncation);
    let advice = match truncation {
        Truncation::Refused(advice) => Some(advice),
        Truncation::Start if !options.prompt.text(embedder).is_empty() => {
            Some("truncate the end, for the start is the prompt")
        }
        _ => None,
    };
    let bytes = texts.iter().map(String::len).sum();
    let tokenize = move |meter: &TokenMeter| {
        let whole = options.prompt.before(texts, &model);
        match truncation {
            Truncation::Start => {
                let end = |text: &String| model.tokenizer().single_end(text, most, meter);
                whole.iter().map(end).collect()
            }
            Truncation::End | Truncation::Refused(_) => {
                model.tokenizer().batch_within(&whole, most, meter)
            }
        }
    };
    let tokenized: Vec<Tokenized> =
        tokenizing(state, bytes, state.limits.max_request_tokens, tokenize).await?;
    if let Some(advice) = advice
        && let Some(at) = tokenized.iter().position(|text| text.lost > 0)
    {
        let given = tokenized[at].sequence.ids.len() + tokenized[at].lost;
        let message = format!("`{field}` {at} has {given} tokens, and {most} are read: {advice}");
        return Err(ApiError::invalid(message).param(field));
    }
    Ok(tokenized)
}

/// Embeds texts. Returns with the vectors the warning about truncated texts.
pub(super) async fn embed_texts(
    state: &AppState,
    embedder: &Arc<Embedder>,
    texts: (&'static str, Vec<String>),
    options: TextOptions,
) -> ApiResult<(Embeddings, Option<String>)> {
    let role = options.prompt.role();
    let most = options.most(embedder);
    let advice = "send fewer texts at a time";
    ReplySize::new(&state.limits).add_vectors(texts.1.len(), embedder.dim(), advice)?;
    let tokenized = tokenize_texts(state, embedder, texts, options).await?;
    let embedded = embed_tokens(state, embedder, tokenized, role).await?;
    let warning = truncation_warning(&embedded.lost, most);
    Ok((embedded, warning))
}
