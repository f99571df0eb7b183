//! Model names in a wrong form: URLs, spaces, names of hosted models. Each gets the name that would
//! work, or the reason why none does.

use crate::manifest::is_hub_id;

/// A name in a wrong form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Correction {
    /// The fault of the form.
    pub(crate) reason: String,
    /// The name that was probably meant.
    pub(crate) instead: Option<String>,
}

/// Hosts whose addresses name hub repositories.
const HUB_HOSTS: [&str; 4] = ["huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"];

/// Beginnings of the names of hosted models, and their providers.
const HOSTED: [(&str, &str); 19] = [
    ("text-embedding-3-", "OpenAI"),
    ("text-embedding-ada-", "OpenAI"),
    ("text-search-", "OpenAI"),
    ("text-similarity-", "OpenAI"),
    ("text-embedding-00", "Google"),
    ("text-multilingual-embedding-", "Google"),
    ("textembedding-gecko", "Google"),
    ("gemini-embedding", "Google"),
    ("embed-english-", "Cohere"),
    ("embed-multilingual-", "Cohere"),
    ("embed-v4", "Cohere"),
    ("rerank-english-", "Cohere"),
    ("rerank-multilingual-", "Cohere"),
    ("rerank-v", "Cohere"),
    ("voyage-", "Voyage AI"),
    ("mistral-embed", "Mistral"),
    ("codestral-embed", "Mistral"),
    ("amazon.titan-embed", "Amazon"),
    ("cohere.", "Cohere"),
];

/// Prefixes that name a provider, not an organisation of the hub.
const PROVIDERS: [&str; 9] =
    ["openai", "azure", "cohere", "voyage", "gemini", "vertex_ai", "mistral", "bedrock", "amazon"];

/// Files of weights that are not loaded.
const FOREIGN: [&str; 5] = [".gguf", ".ggml", ".onnx", ".bin", ".pt"];

impl Correction {
    /// The correction of a name, if its form is known to be wrong.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let new = |reason: &str, instead: Option<&str>| {
            Some(Self { reason: reason.into(), instead: instead.map(str::to_string) })
        };
        let bare = name.trim();
        if bare != name {
            let inner = Self::of(bare).and_then(|inner| inner.instead);
            let instead = inner.as_deref().or(Some(bare)).filter(|name| !name.is_empty());
            return new("the name has white space at its ends", instead);
        }
        if bare.is_empty() {
            return new("the name is empty", None);
        }
        if let Some(address) = address(bare) {
            return match hub_id(address) {
                Some(id) => new("an address is not the name of a model", Some(&id)),
                None => new(
                    "an address is not the name of a model: download it, and pass its folder",
                    None,
                ),
            };
        }
        if let Some(folder) = bare.strip_prefix("models--") {
            let id = folder.replacen("--", "/", 1);
            let id = Some(id.as_str()).filter(|id| is_hub_id(id));
            return new("this is the name of a folder in the Hugging Face cache", id);
        }
        if let Some(provider) = hosted(bare) {
            return new(
                &format!(
                    "a hosted model of {provider}, not a local one: its weights are not published, \
                     and warpseek computes on this machine only"
                ),
                None,
            );
        }
        let lower = bare.to_ascii_lowercase();
        if let Some(kind) = FOREIGN.iter().find(|kind| lower.ends_with(**kind)) {
            return new(
                &format!(
                    "a {kind} file is not loaded: name the hub id or the folder of the original \
                     model, whose weights are safetensors"
                ),
                None,
            );
        }
        let (id, _) = bare.split_once('@').or_else(|| tag(bare))?;
        let is_name = !id.is_empty() && (is_hub_id(id) || !id.contains(['/', '\\', '.']));
        match is_name || is_hub_id(&format!("x/{id}")) {
            true => new("a name has no tag or revision: a model is pulled at `main`", Some(id)),
            false => None,
        }
    }
}

/// "did you mean 'a', 'b' or 'c'?"
pub(crate) fn did_you_mean(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, [])) => format!("did you mean {last}?"),
        Some((last, others)) => format!("did you mean {} or {last}?", others.join(", ")),
        None => String::new(),
    }
}

/// A note for hub ids of repositories that usually have no safetensors.
pub(crate) fn foreign_format(id: &str) -> Option<&'static str> {
    let lower = id.to_ascii_lowercase();
    let has = |word: &str| lower.split(['/', '-', '_', '.']).any(|part| part == word);
    let is_onnx = has("onnx") || lower.starts_with("xenova/") || lower.starts_with("onnx-");
    match (has("gguf") || has("ggml"), is_onnx) {
        (true, _) => Some("gguf"),
        (_, true) => Some("onnx"),
        _ => None,
    }
}

/// The part of a hub id, or of another name, that may be similar to a listed name: without
/// organisation, and without the word for another format.
pub(crate) fn stem(name: &str) -> &str {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let lower = stem.to_ascii_lowercase();
    let suffix = ["-gguf", "-onnx", "_onnx", "-ggml"].into_iter().find(|it| lower.ends_with(it));
    suffix.and_then(|suffix| stem.get(..stem.len() - suffix.len())).unwrap_or(stem)
}

/// The part of an address behind its scheme; None if `name` is not an address.
fn address(name: &str) -> Option<&str> {
    if let Some((scheme, rest)) = name.split_once("://") {
        return scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(rest);
    }
    let host = name.split('/').next().unwrap_or_default();
    HUB_HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known)).then_some(name)
}

/// The hub id that an address without a scheme means.
fn hub_id(address: &str) -> Option<String> {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    let is_host = |part: &&str| HUB_HOSTS.iter().any(|host| part.eq_ignore_ascii_case(host));
    // `hf://organisation/name` has no host.
    if parts.next_if(is_host).is_none() && path.split('/').next()?.contains('.') {
        return None;
    }
    if parts.next_if_eq(&"api").is_some() {
        parts.next_if_eq(&"models");
    }
    let (owner, repo) = (parts.next()?, parts.next()?);
    let repo = repo.split([':', '@']).next().unwrap_or(repo);
    Some(format!("{owner}/{repo}")).filter(|id| is_hub_id(id))
}

/// The provider of a hosted model.
fn hosted(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let bare = match lower.split_once('/') {
        Some((provider, model)) if PROVIDERS.contains(&provider) => model,
        _ => lower.as_str(),
    };
    HOSTED.iter().find(|(start, _)| bare.starts_with(start)).map(|(_, provider)| *provider)
}

/// The name in front of a tag, as Ollama writes it: `name:latest`.
fn tag(name: &str) -> Option<(&str, &str)> {
    let (id, tag) = name.split_once(':')?;
    // `C:\models` and `builtin:NAME` are not tags.
    (id.len() > 1 && id != "builtin" && !tag.contains(['/', '\\'])).then_some((id, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(name: &str) -> Option<String> {
        Correction::of(name).unwrap_or_else(|| panic!("{name}")).instead
    }

    #[test]
    fn wrong_forms_get_the_name_that_works() {
        for (name, works) in [
            (" BAAI/bge-m3", "BAAI/bge-m3"),
            ("sentence-transformers/all-MiniLM-L6-v2 ", "sentence-transformers/all-MiniLM-L6-v2"),
            ("https://huggingface.co/BAAI/bge-m3", "BAAI/bge-m3"),
            (" https://huggingface.co/BAAI/bge-m3/ \n", "BAAI/bge-m3"),
            ("http://hf.co/BAAI/bge-m3/tree/main?x=1#y", "BAAI/bge-m3"),
            ("huggingface.co/BAAI/bge-m3/blob/main/config.json", "BAAI/bge-m3"),
            ("https://huggingface.co/api/models/BAAI/bge-m3", "BAAI/bge-m3"),
            ("hf://BAAI/bge-m3", "BAAI/bge-m3"),
            ("hf.co/BAAI/bge-m3:Q4_K_M", "BAAI/bge-m3"),
            ("models--BAAI--bge-m3", "BAAI/bge-m3"),
            ("BAAI/bge-m3@main", "BAAI/bge-m3"),
            ("bge-m3:latest", "bge-m3"),
            ("bge-small-en-v1.5:latest", "bge-small-en-v1.5"),
        ] {
            assert_eq!(instead(name).as_deref(), Some(works), "{name}");
        }
    }

    #[test]
    fn wrong_forms_without_such_a_name_say_why() {
        for (name, says) in [
            ("text-embedding-3-small", "hosted model of OpenAI"),
            ("openai/text-embedding-3-large", "hosted model of OpenAI"),
            ("embed-english-v3.0", "hosted model of Cohere"),
            ("voyage-3-lite", "hosted model of Voyage AI"),
            ("https://example.com/a/b", "an address"),
            ("nomic-embed-text-v1.5.Q4_K_M.gguf", ".gguf file is not loaded"),
            ("", "empty"),
        ] {
            let found = Correction::of(name).unwrap_or_else(|| panic!("{name}"));
            assert!(found.reason.contains(says) && found.instead.is_none(), "{name}: {found:?}");
        }
    }

    #[test]
    fn names_and_paths_are_left_alone() {
        for name in [
            "all-MiniLM-L6-v2",
            "BAAI/bge-m3",
            "./models/x",
            "/models/a@b/c",
            "C:\\models\\x",
            "builtin:warpseek-rerank-mini",
            "some/voyage-like",
            "my models/one",
        ] {
            assert_eq!(Correction::of(name), None, "{name}");
        }
    }
}
