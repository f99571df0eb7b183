//! The page as data.

use serde_json::Value;

/// The page.
pub(super) const PAGE: &str = include_str!("../../../docs/http-dialects.md");

/// The server's treatment of a route or a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Obeyed, or accepted where nothing depends on it.
    Has,
    /// Refused with a message that names it.
    Refuses,
    /// For something that the server does not do.
    NotOurs,
}

/// The kind of a table, after the head of its first column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Field,
    Reply,
    Route,
}

/// A row of a table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) kind: Kind,
    /// Paths of fields, or routes.
    pub(super) names: Vec<&'static str>,
    pub(super) tried: Option<Value>,
    /// Fields of the minimal request that are left out.
    pub(super) without: Vec<&'static str>,
    /// A field that is set to true, which the tried one needs.
    pub(super) with: Option<&'static str>,
    pub(super) verdict: Verdict,
}

/// The tables of routes that share them, or those after the last route of a service.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) service: &'static str,
    /// `METHOD /path`.
    pub(super) routes: Vec<&'static str>,
    pub(super) minimal: Option<Value>,
    pub(super) rows: Vec<Row>,
}

/// The sections of the page.
pub(super) fn read() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut service, mut kind) = ("", None);
    for (number, text) in (1..).zip(PAGE.lines()) {
        let new = |service, routes| Section { service, routes, minimal: None, rows: Vec::new() };
        if let Some(name) = text.strip_prefix("## ") {
            service = name;
        } else if let Some(routes) = text.strip_prefix("### ") {
            sections.push(new(service, quoted(routes)));
        } else if let Some(minimal) = text.strip_prefix("Minimal request: ") {
            let minimal = serde_json::from_str(quoted(minimal)[0]);
            let section = sections.last_mut().unwrap();
            section.minimal = Some(minimal.unwrap_or_else(|e| panic!("line {number}: {e}")));
        } else if let Some(row) = text.strip_prefix("| ") {
            let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            kind = match (cells[0], kind) {
                ("field", _) => Some(Kind::Field),
                ("reply", _) => Some(Kind::Reply),
                ("route", _) => {
                    sections.push(new(service, Vec::new()));
                    Some(Kind::Route)
                }
                ("---", kind) => kind,
                (_, Some(kind)) => {
                    let row = parse(number, kind, &cells);
                    sections.last_mut().unwrap().rows.push(row);
                    Some(kind)
                }
                (_, None) => panic!("line {number}: a row outside a table"),
            };
        }
    }
    sections
}

/// A row of three cells. Fails for one without a verdict, or without the reason of one.
fn parse(line: usize, kind: Kind, cells: &[&'static str]) -> Row {
    let [names, tried, verdict] = cells[..] else {
        panic!("line {line}: {} cells instead of 3", cells.len());
    };
    let is = |word: &str| {
        verdict.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
    };
    let reason = verdict.strip_prefix("not ours, because ");
    let verdict = match reason {
        Some(reason) if reason.len() > 8 => Verdict::NotOurs,
        None if is("has") => Verdict::Has,
        None if is("refuses by name") => Verdict::Refuses,
        _ => panic!("line {line}: no verdict, or no reason for it: '{verdict}'"),
    };
    let (tried, with) = tried.split_once(" with `").unwrap_or((tried, ""));
    let with = with.strip_suffix('`');
    let mut tried = quoted(tried).into_iter();
    let value = tried.next().map(|value| {
        serde_json::from_str(value).unwrap_or_else(|e| panic!("line {line}: `{value}`: {e}"))
    });
    let names = quoted(names);
    assert!(!names.is_empty(), "line {line}: a row without a name");
    Row { line, kind, names, tried: value, without: tried.collect(), with, verdict }
}

/// The parts of a text between backquotes.
fn quoted(text: &'static str) -> Vec<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// True for the same method and path, whatever the names of its parameters.
pub(super) fn same_route(a: &str, b: &str) -> bool {
    let is_same = |(a, b): (&str, &str)| a == b || (a.starts_with('{') && b.starts_with('{'));
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('/').collect(), b.split('/').collect());
    a.len() == b.len() && a.into_iter().zip(b).all(is_same)
}

/// True if a row of the route, in the tables of any service, has a name that fits.
pub(super) fn has_row(
    sections: &[Section],
    route: &str,
    kind: Kind,
    fits: impl Fn(&str) -> bool,
) -> bool {
    let of_route = |section: &&Section| section.routes.iter().any(|r| same_route(r, route));
    let rows = sections.iter().filter(of_route).flat_map(|section| &section.rows);
    rows.filter(|row| row.kind == kind).flat_map(|row| &row.names).any(|name| fits(name))
}

/// True if a field is `outer` or lies in it.
pub(super) fn covers(outer: &str, field: &str) -> bool {
    field.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
