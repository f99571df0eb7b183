//! Families of encoders: the differences between BERT and its descendants, as a table.
//!
//! All are one encoder of attention and feed-forward blocks. The table gives the names of a
//! family's tensors, the ones that exist, and the place of its layer norms: in front of the blocks
//! (pre-norm) or behind them (post-norm).

use crate::activation::Activation;

/// A family of encoders, by `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// BERT: MiniLM, bge, e5, gte, arctic-embed, TinyBERT, and cross-encoders on them.
    Bert,
    /// RoBERTa (Liu et al. 2019): positions count from behind the padding token's id.
    Roberta,
    /// XLM-RoBERTa, RoBERTa with a SentencePiece vocabulary of 100 languages: multilingual-e5,
    /// bge-m3, bge-reranker-v2-m3. (paraphrase-multilingual-MiniLM is a BERT with its tokenizer.)
    XlmRoberta,
    /// MPNet (Song et al. 2020): a bias of attention by relative position, no token types.
    Mpnet,
    /// DistilBERT (Sanh et al. 2019): no token types.
    DistilBert,
    /// ELECTRA (Clark et al. 2020): embeddings may be narrower than the hidden states.
    Electra,
    /// ModernBERT (Warner et al. 2024): norms in front of blocks, rotary positions, gated
    /// feed-forward blocks, and layers that attend to a window only.
    ModernBert,
}

/// The names of a family's tensors. Names in a layer follow [`Names::layer`] and its number.
#[derive(Debug)]
pub(crate) struct Names {
    /// The prefix of all names in models with a head.
    pub(crate) prefix: &'static str,
    pub(crate) words: &'static str,
    /// None with rotary positions.
    pub(crate) positions: Option<&'static str>,
    /// None without token types.
    pub(crate) token_types: Option<&'static str>,
    pub(crate) embedding_norm: &'static str,
    /// From narrow embeddings to the hidden size.
    pub(crate) projection: &'static str,
    /// `[buckets, heads]`; see [`crate::attention`].
    pub(crate) relative_bias: Option<&'static str>,
    pub(crate) layer: &'static str,
    /// Queries, keys and values, or all three in one.
    pub(crate) qkv: &'static [&'static str],
    pub(crate) attention_out: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) norms: NormNames,
    /// The norm behind the last layer.
    pub(crate) final_norm: Option<&'static str>,
    pub(crate) head: HeadNames,
}

/// The two layer norms of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormNames {
    pub(crate) attention: &'static str,
    pub(crate) feed_forward: &'static str,
    pub(crate) order: NormOrder,
}

/// The place of the layer norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormOrder {
    /// Behind each block and its residual (post-norm).
    Behind,
    /// In front of each block, except the first layer's attention (pre-norm).
    InFront,
}

/// The tensors of a cross-encoder's head: `out(norm(activation(dense(pooled))))`.
#[derive(Debug)]
pub(crate) struct HeadNames {
    pub(crate) dense: &'static str,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<&'static str>,
    pub(crate) out: &'static str,
}

const BERT: Names = Names {
    prefix: "bert.",
    words: "embeddings.word_embeddings",
    positions: Some("embeddings.position_embeddings"),
    token_types: Some("embeddings.token_type_embeddings"),
    embedding_norm: "embeddings.LayerNorm",
    projection: "embeddings_project",
    relative_bias: None,
    layer: "encoder.layer",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_out: "attention.output.dense",
    up: "intermediate.dense",
    down: "output.dense",
    norms: NormNames {
        attention: "attention.output.LayerNorm",
        feed_forward: "output.LayerNorm",
        order: NormOrder::Behind,
    },
    final_norm: None,
    head: HeadNames {
        dense: "bert.pooler.dense",
        activation: Activation::Tanh,
        norm: None,
        out: "classifier",
    },
};

const ROBERTA: Names = Names {
    prefix: "roberta.",
    head: HeadNames { dense: "classifier.dense", out: "classifier.out_proj", ..BERT.head },
    ..BERT
};

const MPNET: Names = Names {
    prefix: "mpnet.",
    token_types: None,
    relative_bias: Some("encoder.relative_attention_bias"),
    qkv: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_out: "attention.attn.o",
    norms: NormNames { attention: "attention.LayerNorm", ..BERT.norms },
    ..ROBERTA
};

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    token_types: None,
    layer: "transformer.layer",
    qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_out: "attention.out_lin",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norms: NormNames {
        attention: "sa_layer_norm",
        feed_forward: "output_layer_norm",
        order: NormOrder::Behind,
    },
    head: HeadNames { dense: "pre_classifier", activation: Activation::Relu, ..BERT.head },
    ..BERT
};

const ELECTRA: Names = Names {
    prefix: "electra.",
    head: HeadNames { activation: Activation::Gelu, ..ROBERTA.head },
    ..BERT
};

const MODERNBERT: Names = Names {
    prefix: "model.",
    words: "embeddings.tok_embeddings",
    positions: None,
    token_types: None,
    embedding_norm: "embeddings.norm",
    layer: "layers",
    qkv: &["attn.Wqkv"],
    attention_out: "attn.Wo",
    up: "mlp.Wi",
    down: "mlp.Wo",
    norms: NormNames {
        attention: "attn_norm",
        feed_forward: "mlp_norm",
        order: NormOrder::InFront,
    },
    final_norm: Some("final_norm"),
    head: HeadNames {
        dense: "head.dense",
        activation: Activation::Gelu,
        norm: Some("head.norm"),
        out: "classifier",
    },
    ..BERT
};

impl Family {
    /// All families.
    pub const ALL: [Self; 7] = [
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::Mpnet,
        Self::DistilBert,
        Self::Electra,
        Self::ModernBert,
    ];

    /// Returns the family of a `model_type`.
    pub fn of(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.model_type() == model_type)
    }

    /// Returns the `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::Mpnet => "mpnet",
            Self::DistilBert => "distilbert",
            Self::Electra => "electra",
            Self::ModernBert => "modernbert",
        }
    }

    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Bert => &BERT,
            Self::Roberta | Self::XlmRoberta => &ROBERTA,
            Self::Mpnet => &MPNET,
            Self::DistilBert => &DISTILBERT,
            Self::Electra => &ELECTRA,
            Self::ModernBert => &MODERNBERT,
        }
    }
}
