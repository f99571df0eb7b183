//! Routes and fields of other services: `docs/http-dialects.md` has a verdict on each of those that
//! they document, and the running server agrees with it.

mod page;
mod schema;

use self::page::{Kind, PAGE, Row, Section, Verdict, covers, has_row, same_route};
use self::schema::{allows, describes, properties};
use crate::cli::{indexed, search};
use crate::support::chat::{Chat, Reply};
use crate::support::cli::small_reranker;
use crate::support::server::{Answered, JSON, Server};
use serde_json::{Value, json};

const DOCUMENTED: &str = include_str!("documented.json");

/// Statuses of refusals that are about the request as a whole.
const NOT_ABOUT_FIELDS: [u16; 6] = [404, 405, 408, 413, 415, 429];

/// Tags of routes that are no other service's.
const OWN_TAGS: [&str; 3] = ["search", "documents", "status"];

/// A field that no service has.
const UNKNOWN: &str = "zzyzx";

#[test]
fn every_documented_route_and_field_has_a_verdict() {
    let sections = page::read();
    let documented: Value = serde_json::from_str(DOCUMENTED).unwrap();
    let mut missing = Vec::new();
    for (service, api) in documented.as_object().unwrap() {
        for source in api["sources"].as_array().unwrap() {
            let source = source.as_str().unwrap();
            assert!(PAGE.contains(source), "the page does not name '{source}' of {service}");
        }
        for (route, sides) in api["routes"].as_object().unwrap() {
            let verdict = sections.iter().filter(|s| s.service == service).find_map(|section| {
                let own = section.routes.iter().any(|r| same_route(r, route));
                let mut routes = section.rows.iter().filter(|row| row.kind == Kind::Route);
                let row = routes.find(|row| row.names.iter().any(|name| same_route(name, route)));
                if own { Some(Verdict::Has) } else { row.map(|row| row.verdict) }
            });
            match verdict {
                None => missing.push(format!("{service}: {route}")),
                Some(Verdict::Refuses | Verdict::NotOurs) => continue,
                Some(Verdict::Has) => {}
            }
            for (kind, side) in [(Kind::Field, "request"), (Kind::Reply, "reply")] {
                let fields = sides[side].as_array().into_iter().flatten();
                let fields = fields.map(|field| field.as_str().unwrap());
                let bare = fields
                    .filter(|field| !has_row(&sections, route, kind, |row| covers(row, field)));
                missing.extend(bare.map(|field| format!("{service}: {route}: {side}: {field}")));
            }
        }
    }
    assert_none(&missing, "no verdict in docs/http-dialects.md on");
}

#[test]
fn server_agrees_with_every_verdict() {
    let place = indexed(12);
    let found = search(&place, "river", &["-k", "1"]);
    let text = format!("It is so: {} [1].", found["hits"][0]["text"]);
    let chat = Chat::start(std::iter::repeat_with(|| Reply::text(&text)).take(400));
    let reranker = small_reranker();
    let options = ["--base-url", &chat.url(), "--chat-model", "stand-in-8b"];
    let arguments = [&["idx", "--reranker", &reranker][..], &options].concat();
    let server = Server::start(&place, &arguments);
    let sections = page::read();
    let mut checked = Checked {
        api: server.get("/api-docs/openapi.json").ok(),
        model: server.get("/v1/models").ok()["data"][0]["id"].as_str().unwrap().to_owned(),
        server,
        differences: Vec::new(),
    };
    checked.check_completeness(&sections);
    for section in &sections {
        for &route in &section.routes {
            checked.check_section(section, route, &sections);
        }
        for row in section.rows.iter().filter(|row| row.kind == Kind::Route) {
            for &route in &row.names {
                checked.check_route(row, route, &sections);
            }
        }
    }
    assert_none(&checked.differences, "the server differs from docs/http-dialects.md");
}

fn assert_none(differences: &[String], rule: &str) {
    let n = differences.len();
    assert!(differences.is_empty(), "{rule}; {n}:\n{}", differences.join("\n"));
}

/// The comparison of a running server with the page.
struct Checked {
    server: Server,
    /// The server's own description.
    api: Value,
    /// A model that is served.
    model: String,
    differences: Vec<String>,
}

impl Checked {
    /// Checks that every route for clients of other services is on the page.
    fn check_completeness(&mut self, all: &[Section]) {
        let is_own = |tag: &Value| OWN_TAGS.iter().any(|own| tag == own);
        for (path, methods) in self.api["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let route = format!("{} {path}", method.to_uppercase());
                let rows = all.iter().flat_map(|section| &section.rows);
                let rows = rows.filter(|row| row.kind == Kind::Route).flat_map(|row| &row.names);
                let mut listed = all.iter().flat_map(|section| &section.routes).chain(rows);
                let is_foreign = !operation["tags"].as_array().unwrap().iter().any(is_own);
                if is_foreign && !listed.any(|other| same_route(other, &route)) {
                    self.differences.push(format!("{route} is not on the page"));
                }
            }
        }
    }

    fn check_section(&mut self, section: &Section, route: &str, all: &[Section]) {
        let minimal = section.minimal.clone().unwrap_or_else(|| json!({}));
        let plain = self.send(route, &minimal);
        if plain.status != 200 {
            let difference = format!("{route} does not take {minimal}: {}", short(&plain));
            self.differences.push(difference);
            return;
        }
        for row in &section.rows {
            match row.kind {
                Kind::Field => {
                    for field in &row.names {
                        self.check_field(row, route, &minimal, field);
                    }
                }
                Kind::Reply => self.check_reply(row, route, &minimal),
                Kind::Route => {}
            }
        }
        let schema = self.request_schema(route);
        let own = schema.map(|schema| properties(&self.api, schema)).unwrap_or_default();
        let own = own.into_iter().map(|(name, _)| name);
        let own = own.filter(|name| !has_row(all, route, Kind::Field, |row| covers(name, row)));
        let bare: Vec<String> =
            own.map(|name| format!("{route}: the server's field '{name}' has no row")).collect();
        for difference in bare {
            if !self.differences.contains(&difference) {
                self.differences.push(difference);
            }
        }
    }

    fn check_field(&mut self, row: &Row, route: &str, minimal: &Value, field: &str) {
        let path: Vec<&str> = field.split('.').collect();
        let mut body = minimal.as_object().unwrap().clone();
        row.without.iter().for_each(|name| drop(body.remove(*name)));
        body.extend(row.with.map(|name| (name.to_owned(), json!(true))));
        let reply = row.tried.clone().map(|tried| {
            body.insert(path[0].to_owned(), tried);
            self.send(route, &Value::Object(body))
        });
        let schema = self.request_schema(route);
        let is_described = schema.is_some_and(|schema| describes(&self.api, schema, &path));
        let is_allowed = row.tried.as_ref().is_none_or(|tried| {
            let own = schema.map(|schema| properties(&self.api, schema)).unwrap_or_default();
            let mut own = own.into_iter().filter(|(name, _)| *name == path[0]).peekable();
            own.peek().is_none() || own.any(|(_, schema)| allows(&self.api, schema, tried))
        });
        let difference = match (row.verdict, reply) {
            (Verdict::Has, Some(reply)) if reply.status != 200 => {
                format!("is refused: {}", short(&reply))
            }
            (Verdict::Has, Some(reply)) if ignores(&reply, field) => {
                format!("is not read: {}", short(&reply))
            }
            (Verdict::Has, reply) if !is_described => {
                if reply.is_some() && self.reads(route, minimal, path[0]) {
                    return;
                }
                "is not in the server's description".to_owned()
            }
            (Verdict::Has, _) if !is_allowed => {
                "has another type in the server's description".to_owned()
            }
            (Verdict::Has, _) => return,
            (Verdict::Refuses, Some(reply)) => {
                let is_refused = (400..500).contains(&reply.status);
                let names_it = path.iter().any(|name| reply.body.contains(name));
                if is_refused && names_it && !NOT_ABOUT_FIELDS.contains(&reply.status) {
                    return;
                }
                format!("is not refused by name: {}", short(&reply))
            }
            (Verdict::Refuses, None) => "is tried with nothing".to_owned(),
            (Verdict::NotOurs, _) if is_described => "is in the server's description".to_owned(),
            (Verdict::NotOurs, _) => return,
        };
        self.differences.push(format!("line {}: {route}: '{field}' {difference}", row.line));
    }

    fn check_reply(&mut self, row: &Row, route: &str, minimal: &Value) {
        let mut body = minimal.as_object().unwrap().clone();
        body.extend(row.tried.as_ref().and_then(Value::as_object).cloned().unwrap_or_default());
        let reply = self.send(route, &Value::Object(body));
        let difference = |what: &str| format!("line {}: {route}: reply: {what}", row.line);
        if reply.status != 200 {
            self.differences.push(difference(&short(&reply)));
            return;
        }
        let reply = reply.json();
        for field in &row.names {
            let path: Vec<&str> = field.split('.').collect();
            match (row.verdict, holds(&reply, &path)) {
                (Verdict::Has, false) => {
                    self.differences.push(difference(&format!("'{field}' is missing")));
                }
                (Verdict::NotOurs, true) => {
                    self.differences.push(difference(&format!("'{field}' is there")));
                }
                (Verdict::Refuses, _) => {
                    self.differences.push(difference("a reply refuses nothing"));
                }
                _ => {}
            }
        }
    }

    fn check_route(&mut self, row: &Row, route: &str, all: &[Section]) {
        let served = all.iter().any(|section| {
            let has = |row: &&Row| row.kind == Kind::Route && row.verdict == Verdict::Has;
            let rows = section.rows.iter().filter(has).flat_map(|row| &row.names);
            section.routes.iter().chain(rows).any(|other| same_route(other, route))
        });
        let body = row.tried.clone().unwrap_or_else(|| json!({}));
        let reply = self.send(route, &body);
        let path = route.split(' ').nth(1).unwrap();
        let agrees = match row.verdict {
            Verdict::Has if route.starts_with("GET ") => reply.status == 200,
            Verdict::Has => self.request_schema(route).is_some(),
            Verdict::Refuses => (400..500).contains(&reply.status) && reply.body.contains(path),
            Verdict::NotOurs => served || [404, 405].contains(&reply.status),
        };
        if !agrees {
            let difference = format!("line {}: {route}: {}", row.line, short(&reply));
            self.differences.push(difference);
        }
    }

    /// Sends a request; a model's name stands for a parameter in the path.
    fn send(&self, route: &str, body: &Value) -> Answered {
        let (method, path) = route.split_once(' ').unwrap();
        let path: Vec<&str> = path
            .split('/')
            .map(|part| if part.contains('{') { self.model.as_str() } else { part })
            .collect();
        let path = path.join("/");
        match method {
            "GET" | "DELETE" => self.server.send(method, &path, &[], b""),
            _ => self.server.send(method, &path, &JSON, body.to_string().as_bytes()),
        }
    }

    fn request_schema(&self, route: &str) -> Option<&Value> {
        let (method, path) = route.split_once(' ')?;
        let operation = self.api["paths"].get(path)?.get(method.to_lowercase())?;
        operation.pointer("/requestBody/content/application~1json/schema")
    }

    /// True if the server looks at a field that its description does not have: it refuses a value
    /// that makes no sense, or it warns of unknown fields.
    fn reads(&self, route: &str, minimal: &Value, field: &str) -> bool {
        let with = |field: &str, value: Value| {
            let mut body = minimal.clone();
            body[field] = value;
            self.send(route, &body)
        };
        let nonsense = with(field, json!({ UNKNOWN: [] }));
        (400..500).contains(&nonsense.status) || ignores(&with(UNKNOWN, json!(1)), UNKNOWN)
    }
}

/// True if a reply has a value other than null at a path; lists are searched.
fn holds(reply: &Value, path: &[&str]) -> bool {
    match (reply, path) {
        (Value::Array(all), _) if !path.is_empty() => all.iter().any(|one| holds(one, path)),
        (_, [first, rest @ ..]) => reply.get(first).is_some_and(|inner| holds(inner, rest)),
        (_, []) => !reply.is_null(),
    }
}

/// True if a reply warns that a field is unknown.
fn ignores(reply: &Answered, field: &str) -> bool {
    let warnings = reply.headers.iter().filter(|(name, _)| name == "warning");
    let mut names = warnings.map(|(_, text)| text);
    names.any(|text| text.contains(&format!("`{field}` is unknown")))
}

fn short(reply: &Answered) -> String {
    format!("{} {}", reply.status, reply.body.chars().take(200).collect::<String>())
}
