//! The HTTP server as its clients see it.

mod agents;
mod chat;
mod clients;
mod contract;
mod embedding;
mod faults;
mod load;
mod mistakes;
mod ollama;
mod options;
mod reranking;
mod routes;
mod writing;
