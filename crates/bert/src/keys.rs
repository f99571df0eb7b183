//! The keys of a model folder's files, as sentence-transformers 6 and transformers 5 write and read
//! them, and the treatment of each.
//!
//! A key that is not listed here is unknown to both and has no effect there either.

use Treatment::{NoEffect, Obeyed, Only};

/// The treatment of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Obeyed, or its value is refused by name.
    Obeyed,
    /// Accepted with these values, as JSON, and with null; others are refused by name.
    Only(&'static [&'static str]),
    /// Without effect on vectors and scores; the reason.
    NoEffect(&'static str),
}

/// The treatment of one key of a file.
pub type Key = (&'static str, Treatment);

const TRAINING: Treatment = NoEffect("it concerns training");
const PADDING: Treatment = NoEffect("sequences are packed without padding");
const OUTPUTS: Treatment = NoEffect("it selects outputs of the Python program");
const SOURCE: Treatment = NoEffect("it tells the origin of the files");
const LABELS: Treatment = NoEffect("it names labels; a reranker has one");
const GENERATION: Treatment = NoEffect("it concerns the generation of text");
const PRECISION: Treatment =
    NoEffect("weights are read in their own type; the precision of products is an option");
const CODE: Treatment = NoEffect("model code in the folder is never run; the model type decides");
const BACKEND: Treatment = NoEffect("it selects an implementation of the same function");
const DECODING: Treatment = NoEffect("it concerns decoding of tokens to text");
const SLOW: Treatment =
    NoEffect("only tokenizers written in Python, without tokenizer.json, use it");

/// `config.json`, of all families.
pub const CONFIG: &[Key] = &[
    ("model_type", Obeyed),
    ("vocab_size", Obeyed),
    ("hidden_size", Obeyed),
    ("dim", Obeyed),
    ("num_hidden_layers", Obeyed),
    ("n_layers", Obeyed),
    ("num_attention_heads", Obeyed),
    ("n_heads", Obeyed),
    ("intermediate_size", Obeyed),
    ("hidden_dim", Obeyed),
    ("hidden_act", Obeyed),
    ("activation", Obeyed),
    ("hidden_activation", Obeyed),
    ("max_position_embeddings", Obeyed),
    ("type_vocab_size", Obeyed),
    ("layer_norm_eps", Obeyed),
    ("norm_eps", Obeyed),
    ("pad_token_id", Obeyed),
    ("embedding_size", Obeyed),
    ("relative_attention_num_buckets", Obeyed),
    ("num_labels", Obeyed),
    ("id2label", Obeyed),
    ("tokenizer_class", Obeyed),
    ("architectures", NoEffect("the names of the tensors tell an embedder from a cross-encoder")),
    // ModernBERT.
    ("norm_bias", Obeyed),
    ("attention_bias", Obeyed),
    ("mlp_bias", Obeyed),
    ("layer_types", Obeyed),
    ("global_attn_every_n_layers", Obeyed),
    ("local_attention", Obeyed),
    ("sliding_window", Obeyed),
    ("rope_parameters", Obeyed),
    ("global_rope_theta", Obeyed),
    ("local_rope_theta", Obeyed),
    ("rope_scaling", Only(&[])),
    ("classifier_pooling", Obeyed),
    ("classifier_activation", Obeyed),
    ("classifier_bias", NoEffect("the weights have the bias, or have none")),
    ("decoder_bias", NoEffect("the decoder of language modelling is not read")),
    ("embedding_dropout", TRAINING),
    ("mlp_dropout", TRAINING),
    ("initializer_cutoff_factor", TRAINING),
    ("sparse_prediction", TRAINING),
    ("sparse_pred_ignore_index", TRAINING),
    ("deterministic_flash_attn", BACKEND),
    ("reference_compile", BACKEND),
    ("repad_logits_with_grad", TRAINING),
    ("gradient_checkpointing", TRAINING),
    ("position_embedding_type", Only(&["\"absolute\""])),
    ("is_decoder", Only(&["false"])),
    ("is_causal", Only(&["false"])),
    ("is_encoder_decoder", Only(&["false"])),
    ("add_cross_attention", Only(&["false"])),
    ("pruned_heads", Only(&["{}"])),
    ("quantization_config", Only(&[])),
    ("sinusoidal_pos_embds", NoEffect("the file holds the position embeddings, sines or learned")),
    ("summary_type", NoEffect("a head that no embedder and no cross-encoder has")),
    ("summary_use_proj", NoEffect("a head that no embedder and no cross-encoder has")),
    ("summary_activation", NoEffect("a head that no embedder and no cross-encoder has")),
    ("summary_last_dropout", TRAINING),
    ("attention_probs_dropout_prob", TRAINING),
    ("attention_dropout", TRAINING),
    ("hidden_dropout_prob", TRAINING),
    ("classifier_dropout", TRAINING),
    ("dropout", TRAINING),
    ("qa_dropout", TRAINING),
    ("seq_classif_dropout", TRAINING),
    ("initializer_range", TRAINING),
    ("problem_type", TRAINING),
    ("finetuning_task", TRAINING),
    ("tie_word_embeddings", NoEffect("the output embeddings are not read")),
    ("chunk_size_feed_forward", NoEffect("the feed-forward block gives the same in parts")),
    ("dtype", PRECISION),
    ("torch_dtype", PRECISION),
    ("use_bfloat16", PRECISION),
    ("label2id", LABELS),
    ("output_attentions", OUTPUTS),
    ("output_hidden_states", OUTPUTS),
    ("output_past", OUTPUTS),
    ("return_dict", OUTPUTS),
    ("use_cache", NoEffect("an encoder has no cache of keys")),
    ("torchscript", BACKEND),
    ("_attn_implementation", BACKEND),
    ("attn_implementation", BACKEND),
    ("auto_map", CODE),
    ("bos_token_id", NoEffect("tokenizer.json has the special tokens")),
    ("eos_token_id", NoEffect("tokenizer.json has the special tokens")),
    ("cls_token_id", NoEffect("tokenizer.json has the special tokens")),
    ("sep_token_id", NoEffect("tokenizer.json has the special tokens")),
    ("_name_or_path", SOURCE),
    ("transformers_version", SOURCE),
    ("model_name", SOURCE),
    ("sentence_transformers", NoEffect("logits and their sigmoid are given, which rank alike")),
    (
        "sbert_ce_default_activation_function",
        NoEffect("logits and their sigmoid are given, which rank alike"),
    ),
    // Older BERT files.
    ("directionality", NoEffect("BERT attends in both directions")),
    ("pooler_fc_size", NoEffect("only TensorFlow's BERT reads it")),
    ("pooler_num_attention_heads", NoEffect("only TensorFlow's BERT reads it")),
    ("pooler_num_fc_layers", NoEffect("only TensorFlow's BERT reads it")),
    ("pooler_size_per_head", NoEffect("only TensorFlow's BERT reads it")),
    ("pooler_type", NoEffect("only TensorFlow's BERT reads it")),
    ("max_length", GENERATION),
    ("min_length", GENERATION),
    ("do_sample", GENERATION),
    ("num_beams", GENERATION),
    ("top_k", GENERATION),
    ("top_p", GENERATION),
    ("temperature", GENERATION),
    ("repetition_penalty", GENERATION),
    ("length_penalty", GENERATION),
    ("task_specific_params", GENERATION),
    ("prefix", GENERATION),
];

/// `tokenizer_config.json`.
pub const TOKENIZER: &[Key] = &[
    ("tokenizer_class", Obeyed),
    ("do_lower_case", Obeyed),
    ("strip_accents", Obeyed),
    ("tokenize_chinese_chars", Obeyed),
    ("add_prefix_space", Obeyed),
    ("model_max_length", Obeyed),
    ("model_input_names", Obeyed),
    ("truncation_side", Obeyed),
    ("split_special_tokens", Obeyed),
    ("cls_token", Obeyed),
    ("sep_token", Obeyed),
    ("bos_token", Obeyed),
    ("eos_token", Obeyed),
    ("unk_token", Obeyed),
    ("added_tokens_decoder", Obeyed),
    ("additional_special_tokens", Obeyed),
    ("extra_special_tokens", Obeyed),
    ("pad_token", PADDING),
    ("pad_token_type_id", PADDING),
    ("pad_to_multiple_of", PADDING),
    ("padding_side", PADDING),
    ("mask_token", NoEffect("it concerns training")),
    ("max_length", NoEffect("'model_max_length' is the limit")),
    ("stride", NoEffect("one part of a text is read, from its start or end")),
    ("truncation_strategy", NoEffect("passages of pairs are read in windows")),
    ("trim_offsets", NoEffect("it moves offsets, not tokens")),
    ("clean_up_tokenization_spaces", DECODING),
    ("errors", DECODING),
    ("do_basic_tokenize", SLOW),
    ("never_split", SLOW),
    ("sp_model_kwargs", SLOW),
    ("legacy", SLOW),
    ("from_slow", SLOW),
    ("use_fast", SLOW),
    ("vocab_file", SOURCE),
    ("merges_file", SOURCE),
    ("tokenizer_file", SOURCE),
    ("special_tokens_map_file", SOURCE),
    ("name_or_path", SOURCE),
    ("is_local", SOURCE),
    ("local_files_only", SOURCE),
    ("backend", BACKEND),
    ("processor_class", CODE),
    ("auto_map", CODE),
    ("chat_template", GENERATION),
    ("return_token_type_ids", NoEffect("'model_input_names' tells if there are token types")),
];

/// `sentence_bert_config.json`, and its older names.
pub const SENTENCE: &[Key] = &[
    ("max_seq_length", Obeyed),
    ("do_lower_case", Obeyed),
    ("processing_kwargs", Obeyed),
    ("processor_kwargs", Obeyed),
    ("tokenizer_args", Obeyed),
    ("transformer_task", Only(&["\"feature-extraction\"", "\"sequence-classification\""])),
    ("module_output_name", Only(&["\"token_embeddings\"", "\"scores\""])),
    ("modality_config", Obeyed),
    ("query_length", Only(&[])),
    ("document_length", Only(&[])),
    ("query_expansion", Only(&[])),
    ("unpad_inputs", PADDING),
    ("model_args", Obeyed),
    ("model_kwargs", Obeyed),
    ("config_args", Only(&["{}"])),
    ("config_kwargs", Only(&["{}"])),
    ("tokenizer_name_or_path", Only(&[])),
];

/// `config_sentence_transformers.json`.
pub const SENTENCE_TRANSFORMERS: &[Key] = &[
    ("prompts", Obeyed),
    (
        "default_prompt_name",
        NoEffect("texts have a role here, and the prompt of their role, as in encode_query"),
    ),
    ("similarity_fn_name", Obeyed),
    ("truncate_dim", Obeyed),
    ("model_type", Only(&["\"SentenceTransformer\"", "\"CrossEncoder\""])),
    ("__version__", SOURCE),
    ("keep_in_fp32_modules", PRECISION),
    ("activation_fn", NoEffect("logits and their sigmoid are given, which rank alike")),
];

/// `config.json` of a Pooling module.
pub const POOLING: &[Key] = &[
    ("pooling_mode", Obeyed),
    ("pooling_mode_cls_token", Obeyed),
    ("pooling_mode_max_tokens", Obeyed),
    ("pooling_mode_mean_tokens", Obeyed),
    ("pooling_mode_mean_sqrt_len_tokens", Obeyed),
    ("pooling_mode_weightedmean_tokens", Obeyed),
    ("pooling_mode_lasttoken", Obeyed),
    ("include_prompt", Obeyed),
    ("embedding_dimension", Obeyed),
    ("word_embedding_dimension", Obeyed),
];

/// `config.json` of a Dense module.
pub const DENSE: &[Key] = &[
    ("in_features", Obeyed),
    ("out_features", Obeyed),
    ("bias", Obeyed),
    ("activation_function", Obeyed),
    ("use_residual", Obeyed),
    ("module_input_name", Only(&["\"sentence_embedding\""])),
    ("module_output_name", Only(&["\"sentence_embedding\""])),
];

/// `config.json` of a Normalize module.
pub const NORMALIZE: &[Key] = &[
    ("module_input_name", Only(&["\"sentence_embedding\""])),
    ("module_output_name", Only(&["\"sentence_embedding\""])),
];

/// `config.json` of a LayerNorm module.
pub const LAYER_NORM: &[Key] = &[("dimension", Obeyed)];
