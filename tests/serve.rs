//! The HTTP server as its clients see it.

#[path = "serve/clients.rs"]
mod clients;
#[path = "serve/faults.rs"]
mod faults;
#[path = "serve/routes.rs"]
mod routes;
#[path = "serve/writing.rs"]
mod writing;
