//! Settings of a tokenizer beside `tokenizer.json`: `tokenizer_config.json`,
//! `special_tokens_map.json` and `sentence_bert_config.json`.
//!
//! transformers 5 builds the tokenizers of some classes anew: normalizer, pre-tokenizer and
//! template then follow `tokenizer_config.json`, and `tokenizer.json` gives the vocabulary alone.
//! All other classes, and folders without `tokenizer_config.json`, follow `tokenizer.json`.

use crate::error::Result;
use crate::keys;
use crate::model_files::{ModelFiles, unusable};
use crate::settings::{ModelSettings, read_json};
use crate::tokenizer_class::Class;
use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::pre_tokenizers::{PreTokenizerWrapper, bert::BertPreTokenizer};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model};

/// The names of the file of sentence-transformers, the present one first.
const SENTENCE_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Settings of sentence-transformers that override those of `tokenizer_config.json`.
const OVERRIDES: [&str; 2] = ["tokenizer_args", "processor_kwargs"];

/// Key of the tokens that were added to the vocabulary.
const DECODER: &str = "added_tokens_decoder";

/// Keys of named special tokens.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Settings of the tokenizer of a model folder.
#[derive(Debug)]
pub(crate) struct TokenizerSettings {
    class: Class,
    /// `tokenizer_config.json`, and what `sentence_bert_config.json` sets over it.
    config: ModelSettings,
    /// `special_tokens_map.json`.
    special: ModelSettings,
    sentence: ModelSettings,
    has_config: bool,
}

impl TokenizerSettings {
    /// Reads the files of a folder; all may be absent.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::ModelUnavailable`] that names a setting which is not supported.
    pub(crate) fn read(files: &ModelFiles) -> Result<Self> {
        const FILE: &str = "tokenizer_config.json";
        let present = SENTENCE_FILES.into_iter().find(|file| files.exists(file));
        let sentence =
            ModelSettings::checked(files, present.unwrap_or(SENTENCE_FILES[0]), keys::SENTENCE)?;
        check_modality(&sentence)?;
        let mut values: Map<String, Value> = read_json(files, FILE)?.unwrap_or_default();
        let has_config = !values.is_empty();
        for key in OVERRIDES {
            values.extend(sentence.or(key, Map::new())?);
        }
        let config = ModelSettings::of(files.path(FILE), values);
        config.check(keys::TOKENIZER)?;
        let model = ModelSettings::read(files, "config.json")?.unwrap_or_default();
        let model_type: String = model.or("model_type", "bert".to_owned())?;
        let class = match config.get::<String>("tokenizer_class")? {
            // transformers sets the class in these folders aside.
            _ if model_type == "modernbert" => Class::Generic,
            _ if !has_config => Class::Generic,
            Some(name) => Class::of(&name),
            None => match model.get::<String>("tokenizer_class")? {
                Some(name) => Class::of(&name),
                None => Class::of_model(&model_type),
            },
        };
        if let Some(name) = config.get::<String>("tokenizer_class")?
            && class == Class::Generic
            && model_type != "modernbert"
            && Class::is_other(&name)
        {
            let defect = format!("is '{name}', which is not supported");
            return Err(config.fail("tokenizer_class", &defect));
        }
        let special = ModelSettings::read(files, "special_tokens_map.json")?.unwrap_or_default();
        Ok(Self { class, config, special, sentence, has_config })
    }

    /// True if texts that are too long lose their beginning. `by_file` tells it of
    /// `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// As [`TokenizerSettings::read`].
    pub(crate) fn truncates_start(&self, by_file: bool) -> Result<bool> {
        const KEY: &str = "truncation_side";
        let default = if by_file { "left" } else { "right" };
        match self.config.or(KEY, default.to_owned())?.as_str() {
            "right" => Ok(false),
            "left" => Ok(true),
            other => Err(self.config.fail(KEY, &format!("is '{other}'; it may be left or right"))),
        }
    }

    /// True if the encoder is passed token types.
    ///
    /// # Errors
    ///
    /// As [`TokenizerSettings::read`].
    pub(crate) fn has_token_types(&self) -> Result<bool> {
        if !self.has_config {
            return Ok(true);
        }
        let names: Option<Vec<String>> = self.config.get("model_input_names")?;
        Ok(match names {
            Some(names) => names.iter().any(|name| name == "token_type_ids"),
            None => self.class == Class::Bert { has_token_types: true },
        })
    }

    /// Returns the limit of tokens that the files state, special tokens included; none if they
    /// state none.
    ///
    /// # Errors
    ///
    /// As [`TokenizerSettings::read`].
    pub(crate) fn max_tokens(&self) -> Result<Option<usize>> {
        let processing = self.sentence.inner("processing_kwargs")?;
        let mut limit = None;
        for modality in processing.keys() {
            if !["text", "common"].contains(&modality) {
                let defect = format!("has '{modality}': only texts are supported");
                return Err(self.sentence.fail("processing_kwargs", &defect));
            }
        }
        for modality in ["common", "text"] {
            let options = processing.inner(modality)?;
            options
                .check(&[("truncation", keys::Treatment::Only(&["true", "\"longest_first\""]))])?;
            let accepted = ["max_length", "truncation", "padding", "pad_to_multiple_of"];
            if let Some(key) = options.keys().find(|key| !accepted.contains(key)) {
                let defect = format!("sets '{key}', which is not supported");
                return Err(self.sentence.fail("processing_kwargs", &defect));
            }
            limit = options.get("max_length")?.or(limit);
        }
        if limit.is_some() {
            return Ok(limit);
        }
        for key in OVERRIDES {
            if let Some(limit) = self.sentence.inner(key)?.get("model_max_length")? {
                return Ok(Some(limit));
            }
        }
        if let Some(limit) = self.sentence.get("max_seq_length")? {
            return Ok(Some(limit));
        }
        // Tokenizers without a limit state 10^30.
        let limit: Option<f64> = self.config.get("model_max_length")?;
        Ok(limit.map(|limit| limit.clamp(0.0, 1e9) as usize))
    }

    /// Sets up a tokenizer that was read from `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// As [`TokenizerSettings::read`].
    pub(crate) fn apply(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let config = &self.config;
        inner.set_encode_special_tokens(config.or("split_special_tokens", false)?);
        self.add_tokens(inner)?;
        // Published folders name BertTokenizer beside SentencePiece: their tokenizer.json stands.
        let fits = match (self.class, inner.get_model()) {
            (Class::Bert { .. } | Class::Mpnet, ModelWrapper::WordPiece(_))
            | (Class::Roberta, ModelWrapper::BPE(_))
            | (Class::XlmRoberta, ModelWrapper::Unigram(_)) => self.class,
            _ => Class::Generic,
        };
        match fits {
            Class::Generic => {}
            Class::Bert { .. } => {
                self.word_piece(inner)?;
                let cls = self.special(inner, "cls_token", "[CLS]")?;
                let sep = self.special(inner, "sep_token", "[SEP]")?;
                let (single, pair) = (
                    format!("{}:0 $A:0 {}:0", cls.0, sep.0),
                    format!("{}:0 $A:0 {}:0 $B:1 {}:1", cls.0, sep.0, sep.0),
                );
                self.template(inner, single, pair, vec![cls, sep])?;
            }
            Class::Mpnet => {
                self.word_piece(inner)?;
                let cls = self.special(inner, "cls_token", "<s>")?;
                let sep = self.special(inner, "sep_token", "</s>")?;
                inner.with_post_processor(Some(RobertaProcessing::new(sep, cls)));
            }
            Class::Roberta => {
                let prefix = config.or("add_prefix_space", false)?;
                let byte_level = ByteLevel::new(prefix, true, true);
                inner.with_normalizer(None::<NormalizerWrapper>).map_err(|e| self.refused(&e))?;
                inner.with_pre_tokenizer(Some(byte_level));
                let cls = self.special(inner, "cls_token", "<s>")?;
                let sep = self.special(inner, "sep_token", "</s>")?;
                let processing = RobertaProcessing::new(sep, cls).add_prefix_space(prefix);
                inner.with_post_processor(Some(processing));
            }
            Class::XlmRoberta => self.unigram(inner)?,
        }
        if self.sentence.or("do_lower_case", false)? {
            lowercase_first(inner).map_err(|e| self.refused(&e))?;
        }
        Ok(())
    }

    /// Sets up a tokenizer of BERT's kind.
    fn word_piece(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        const UNKNOWN: &str = "unk_token";
        let config = &self.config;
        let ModelWrapper::WordPiece(model) = inner.get_model() else { return Ok(()) };
        if model.max_input_chars_per_word != 100 || model.continuing_subword_prefix != "##" {
            let defect = "builds words of up to 100 characters with the prefix '##', and \
                          tokenizer.json states others";
            return Err(config.fail("tokenizer_class", defect));
        }
        if let Some(unknown) = config.token(UNKNOWN)
            && unknown != model.unk_token
        {
            let defect = format!("is '{unknown}', tokenizer.json has '{}'", model.unk_token);
            return Err(config.fail(UNKNOWN, &defect));
        }
        let normalizer = BertNormalizer::new(
            true,
            config.or("tokenize_chinese_chars", true)?,
            config.get("strip_accents")?,
            config.or("do_lower_case", true)?,
        );
        inner.with_normalizer(Some(normalizer)).map_err(|e| self.refused(&e))?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        Ok(())
    }

    /// Sets up a tokenizer of XLM-RoBERTa's kind. Its precompiled map of characters stays.
    fn unigram(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        if let ModelWrapper::Unigram(model) = inner.get_model()
            && inner.token_to_id("<unk>") != Some(3)
            && model.get_vocab_size() > 3
        {
            let defect = "takes token 3 for unknown ones, which tokenizer.json calls otherwise";
            return Err(self.config.fail("tokenizer_class", defect));
        }
        let is_map = |n: &&NormalizerWrapper| matches!(n, NormalizerWrapper::Precompiled(_));
        let map = match inner.get_normalizer() {
            Some(NormalizerWrapper::Sequence(all)) => all.as_ref().iter().find(is_map).cloned(),
            other => other.filter(is_map).cloned(),
        };
        inner.with_normalizer(map).map_err(|e| self.refused(&e))?;
        let prepend = match self.config.or("add_prefix_space", true)? {
            true => PrependScheme::Always,
            false => PrependScheme::Never,
        };
        let metaspace = Metaspace::new('\u{2581}', prepend, true);
        inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            PreTokenizerWrapper::Metaspace(metaspace),
        ])));
        let first = self.special(inner, "bos_token", "<s>")?;
        let last = self.special(inner, "eos_token", "</s>")?;
        let (single, pair) = (
            format!("{} $A {}", first.0, last.0),
            format!("{} $A {} {} $B {}", first.0, last.0, last.0, last.0),
        );
        self.template(inner, single, pair, vec![first, last])
    }

    fn template(
        &self,
        inner: &mut tokenizers::Tokenizer,
        single: String,
        pair: String,
        special: Vec<(String, u32)>,
    ) -> Result<()> {
        let template = TemplateProcessing::builder()
            .try_single(single)
            .and_then(|builder| builder.try_pair(pair))
            .map_err(|e| self.refused(&e))?
            .special_tokens(special)
            .build()
            .map_err(|e| self.refused(&e))?;
        inner.with_post_processor(Some(template));
        Ok(())
    }

    /// Returns a named special token, if a file states it. `special_tokens_map.json` counts where
    /// `tokenizer_config.json` does not describe the added tokens.
    fn named(&self, key: &str) -> Option<&str> {
        let (first, second) = match self.config.keys().any(|key| key == DECODER) {
            true => (&self.config, &self.special),
            false => (&self.special, &self.config),
        };
        first.token(key).or_else(|| second.token(key))
    }

    /// Returns a special token and its id.
    fn special(
        &self,
        inner: &tokenizers::Tokenizer,
        key: &str,
        default: &str,
    ) -> Result<(String, u32)> {
        let token = self.named(key).unwrap_or(default);
        let id = inner.token_to_id(token).ok_or_else(|| {
            self.config.fail(key, &format!("is '{token}', which tokenizer.json does not have"))
        })?;
        Ok((token.to_owned(), id))
    }

    /// Makes tokens that files add match as a whole. `tokenizer.json` must have them.
    fn add_tokens(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let refuse = |settings: &ModelSettings, key: &str, token: &str| {
            let defect = format!("adds '{token}', which tokenizer.json does not have");
            Err(settings.fail(key, &defect))
        };
        for (id, value) in self.config.or(DECODER, Map::new())? {
            let Some(token) = added_token(&value) else { continue };
            if inner.token_to_id(&token.content).map(|known| known.to_string()) != Some(id) {
                return refuse(&self.config, DECODER, &token.content);
            }
            let added = match token.special {
                true => inner.add_special_tokens([token]),
                false => inner.add_tokens([token]),
            };
            added.map_err(|e| self.refused(&e))?;
        }
        let known: Vec<String> =
            inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let mut more: Vec<String> = Vec::new();
        for settings in [&self.config, &self.special] {
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                let tokens = match settings.or(key, Value::Null)? {
                    Value::Array(tokens) => tokens,
                    Value::Object(tokens) => tokens.into_iter().map(|(_, token)| token).collect(),
                    _ => Vec::new(),
                };
                for token in tokens.iter().filter_map(added_token) {
                    if inner.token_to_id(&token.content).is_none() {
                        return refuse(settings, key, &token.content);
                    }
                    more.push(token.content);
                }
            }
        }
        if self.has_config {
            more.extend(NAMED.iter().filter_map(|key| self.named(key)).map(str::to_owned));
        }
        more.retain(|token| !known.contains(token) && inner.token_to_id(token).is_some());
        let tokens = more.into_iter().map(|token| AddedToken::from(token, true));
        inner.add_special_tokens(tokens).map_err(|e| self.refused(&e))?;
        Ok(())
    }

    fn refused(&self, error: &dyn std::fmt::Display) -> crate::error::Error {
        unusable(self.config.path().display(), format!("the tokenizer refuses it ({error})"))
    }
}

/// Returns an added token: a text, or an object with its content and flags.
fn added_token(value: &Value) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text.to_owned(), true));
    }
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

/// Puts lower-casing in front of a tokenizer's normalizer, unless a `Lowercase` is there.
fn lowercase_first(inner: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let is_lowercase = |n: &NormalizerWrapper| matches!(n, NormalizerWrapper::Lowercase(_));
    let steps = match inner.get_normalizer() {
        Some(NormalizerWrapper::Sequence(all)) => all.as_ref().to_vec(),
        other => other.cloned().into_iter().collect(),
    };
    if !steps.iter().any(is_lowercase) {
        let all = std::iter::once(Lowercase.into()).chain(steps).collect();
        inner.with_normalizer(Some(Sequence::new(all)))?;
    }
    Ok(())
}

/// Checks that a folder takes texts, by the encoder's forward pass, and that what it passes to the
/// encoder's code has no effect on it.
fn check_modality(sentence: &ModelSettings) -> Result<()> {
    const KEY: &str = "modality_config";
    const HARMLESS: [&str; 9] = [
        "add_pooling_layer",
        "attn_implementation",
        "device_map",
        "dtype",
        "low_cpu_mem_usage",
        "torch_dtype",
        "trust_remote_code",
        "unpad_inputs",
        "use_safetensors",
    ];
    for key in ["model_args", "model_kwargs"] {
        let options = sentence.inner(key)?;
        if let Some(option) = options.keys().find(|option| !HARMLESS.contains(option)) {
            return Err(sentence.fail(key, &format!("sets '{option}', which is not supported")));
        }
    }
    let modalities = sentence.inner(KEY)?;
    for modality in modalities.keys() {
        let options = modalities.inner(modality)?;
        let method: Option<String> = options.get("method")?;
        let output: Option<String> = options.get("method_output_name")?;
        let outputs = ["last_hidden_state", "logits"];
        if modality != "text"
            || method.as_deref() != Some("forward")
            || !outputs.contains(&output.as_deref().unwrap_or_default())
        {
            return Err(sentence.fail(KEY, &format!("has '{modality}', which is not supported")));
        }
    }
    Ok(())
}
