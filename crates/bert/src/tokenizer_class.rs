//! Tokenizer classes of transformers: those that build a tokenizer from vocabulary and settings,
//! and those that follow `tokenizer.json`.

/// Classes of transformers that build other tokenizers than those here, and from other settings.
const OTHER_CLASSES: [&str; 22] = [
    "AlbertTokenizer",
    "BartTokenizer",
    "BarthezTokenizer",
    "BigBirdTokenizer",
    "CamembertTokenizer",
    "CodeGenTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "FunnelTokenizer",
    "GPT2Tokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LlamaTokenizer",
    "MBartTokenizer",
    "NllbTokenizer",
    "OpenAIGPTTokenizer",
    "Qwen2Tokenizer",
    "RemBertTokenizer",
    "SplinterTokenizer",
    "T5Tokenizer",
    "XGLMTokenizer",
    "XLNetTokenizer",
];

/// A tokenizer class of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Any class that follows `tokenizer.json`.
    Generic,
    /// BertTokenizer, DistilBertTokenizer, ElectraTokenizer: WordPiece between CLS and SEP.
    Bert { has_token_types: bool },
    /// MPNetTokenizer: WordPiece with RoBERTa's template.
    Mpnet,
    /// RobertaTokenizer: byte-level BPE.
    Roberta,
    /// XLMRobertaTokenizer: SentencePiece Unigram.
    XlmRoberta,
}

impl Class {
    pub(crate) fn of(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer"
            | "ElectraTokenizer"
            | "MobileBertTokenizer"
            | "SqueezeBertTokenizer"
            | "LxmertTokenizer"
            | "LayoutLMTokenizer" => Self::Bert { has_token_types: true },
            "DistilBertTokenizer" => Self::Bert { has_token_types: false },
            "MPNetTokenizer" => Self::Mpnet,
            "RobertaTokenizer" => Self::Roberta,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            _ => Self::Generic,
        }
    }

    /// Returns the class of models whose files name none.
    pub(crate) fn of_model(model_type: &str) -> Self {
        match model_type {
            "bert" | "distilbert" | "electra" => Self::Bert { has_token_types: true },
            "mpnet" => Self::Mpnet,
            "roberta" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            _ => Self::Generic,
        }
    }

    /// True for a class of transformers that is not supported: it builds another tokenizer.
    pub(crate) fn is_other(name: &str) -> bool {
        OTHER_CLASSES.contains(&name.strip_suffix("Fast").unwrap_or(name))
    }
}
