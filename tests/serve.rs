//! The HTTP server as its clients see it.

mod clients;
mod embedding;
mod faults;
mod routes;
mod writing;
