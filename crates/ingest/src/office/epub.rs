//! EPUB: chapters, as text by the reader of HTML.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use quick_xml::events::Event;

use super::archive::{Archive, decoded};
use super::event::{ExtractError, Section, Sink};
use super::{table, title, xml};
use crate::format::FileFormat;
use crate::html;
use crate::message::shown;

/// Maximum length of a first line that counts as the chapter's title, in characters.
const MAX_TITLE: usize = 100;

/// Writes the chapters of an EPUB file, in reading order.
pub(super) fn extract(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    let mut archive = Archive::open(bytes, FileFormat::Epub, sink.limits())?;
    let encryption = archive.read("META-INF/encryption.xml")?.unwrap_or_default();
    if has_encrypted_text(&decoded(&encryption)) {
        let reason = "the EPUB is encrypted (DRM): use a copy without DRM";
        return Err(ExtractError::new(reason));
    }
    let package_path = package_path(&archive.text("META-INF/container.xml")?)?;
    let package = Package::parse(&archive.text(&package_path)?, &package_path)?;
    let book_title = title::real(package.title.as_deref());
    book_title.as_deref().map_or(Ok(()), |title| sink.title(title))?;
    let mut titles = HashMap::new();
    for path in &package.contents {
        if let Some(bytes) = archive.read(path)? {
            add_titles(&decoded(&bytes), path, &mut titles);
        }
    }
    for (number, path) in package.chapters.iter().enumerate() {
        let number = number + 1;
        let Some(bytes) = archive.read(path)? else {
            let reason = format!(
                "the zip archive has no entry '{}': the file is damaged, copy it again",
                shown(path)
            );
            sink.failed(Some(format!("chapter {number}")), reason)?;
            continue;
        };
        let (page_title, text) = html::title_and_text(&decoded(&bytes));
        let page_title = title::real(page_title.as_deref());
        let page_title = page_title.filter(|title| Some(title) != book_title.as_ref());
        let first = text.lines().next().map(table::flat);
        let first = first.filter(|line| !line.is_empty() && line.chars().count() <= MAX_TITLE);
        let listed = titles.get(path).cloned();
        let mut section = Section::new(format!("section={number}"));
        if let Some(title) = listed.or(page_title).or(first) {
            section = section.with("section", title);
        }
        section.text = text;
        sink.section(section)?;
    }
    Ok(())
}

/// True if anything but fonts and pictures is encrypted.
fn has_encrypted_text(encryption: &str) -> bool {
    let mut reader = xml::reader(encryption);
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(tag) | Event::Empty(tag) => {
                let uri = xml::attribute(&tag, "URI").unwrap_or_default().to_lowercase();
                if [".xhtml", ".html", ".htm", ".opf"].iter().any(|end| uri.ends_with(end)) {
                    return true;
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    false
}

/// The path of the package document.
fn package_path(container: &str) -> Result<String, ExtractError> {
    let mut reader = xml::reader(container);
    loop {
        match xml::next(&mut reader, "META-INF/container.xml")? {
            Event::Start(tag) | Event::Empty(tag) if tag.local_name().as_ref() == "rootfile" => {
                if let Some(path) = xml::attribute(&tag, "full-path") {
                    return Ok(path);
                }
            }
            Event::Eof => {
                let reason =
                    "META-INF/container.xml names no package: the file is damaged, copy it again";
                return Err(ExtractError::new(reason));
            }
            _ => {}
        }
    }
}

/// The package document: title, chapters and tables of contents.
#[derive(Debug, Default)]
struct Package {
    title: Option<String>,
    /// Paths of the chapters, in reading order, without the table of contents.
    chapters: Vec<String>,
    /// Paths of tables of contents.
    contents: Vec<String>,
}

impl Package {
    fn parse(package: &str, path: &str) -> Result<Self, ExtractError> {
        let mut reader = xml::reader(package);
        let mut items = HashMap::new();
        let mut spine = Vec::new();
        let mut contents = Vec::new();
        loop {
            match xml::next(&mut reader, path)? {
                Event::Start(tag) | Event::Empty(tag) => {
                    let value = |name: &str| xml::attribute(&tag, name);
                    match tag.local_name().as_ref() {
                        "item" => {
                            let (Some(id), Some(href)) = (value("id"), value("href")) else {
                                continue;
                            };
                            let href = resolved(path, &href);
                            let properties = value("properties").unwrap_or_default();
                            let is_ncx = value("media-type")
                                .is_some_and(|kind| kind == "application/x-dtbncx+xml");
                            if is_ncx || properties.split(' ').any(|property| property == "nav") {
                                contents.push(href.clone());
                            }
                            items.insert(id, href);
                        }
                        "itemref" => spine.extend(value("idref")),
                        _ => {}
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let chapters = spine.iter().filter_map(|id| items.get(id));
        let chapters = chapters.filter(|path| !contents.contains(path)).cloned().collect();
        Ok(Self { title: xml::element_text(package, "dc:title"), chapters, contents })
    }
}

/// Adds the titles of chapters, by path, from a table of contents: `nav.xhtml` or `toc.ncx`.
fn add_titles(contents: &str, path: &str, titles: &mut HashMap<String, String>) {
    let mut reader = xml::reader(contents);
    let mut text = String::new();
    let mut link: Option<String> = None;
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                "a" => {
                    text.clear();
                    link = xml::attribute(&tag, "href");
                }
                "text" => text.clear(),
                "content" => {
                    if let Some(href) = xml::attribute(&tag, "src") {
                        add_title(&href, path, &text, titles);
                    }
                }
                _ => {}
            },
            Event::End(tag) if tag.local_name().as_ref() == "a" => {
                if let Some(href) = link.take() {
                    add_title(&href, path, &text, titles);
                }
            }
            Event::Text(piece) => text.push_str(&piece.xml10_content()),
            Event::GeneralRef(entity) => text.push_str(&xml::reference(&entity)),
            Event::Eof => break,
            _ => {}
        }
    }
}

/// Adds the title of a chapter, unless it has one: the first link to a chapter leads to its start.
fn add_title(href: &str, path: &str, title: &str, titles: &mut HashMap<String, String>) {
    let title = table::flat(title);
    if !title.is_empty() {
        titles.entry(resolved(path, href)).or_insert(title);
    }
}

/// The path in the archive that a link in the entry `path` leads to.
fn resolved(path: &str, href: &str) -> String {
    let href = href.split(['#', '?']).next().unwrap_or_default();
    let href = percent_decode_str(href).decode_utf8_lossy();
    let mut parts: Vec<&str> = match href.starts_with('/') {
        true => Vec::new(),
        false => path.split('/').collect(),
    };
    parts.pop();
    for part in href.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
