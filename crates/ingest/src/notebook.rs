//! Jupyter notebooks as Markdown: text and code of the cells, without their outputs.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::markdown;

#[derive(Deserialize)]
struct Notebook {
    #[serde(default)]
    cells: Vec<Cell>,
    /// The place of the cells before version 4 of the format.
    #[serde(default)]
    worksheets: Vec<Worksheet>,
    #[serde(default)]
    metadata: Metadata,
    nbformat: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Worksheet {
    #[serde(default)]
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Cell {
    cell_type: String,
    #[serde(default, alias = "input")]
    source: Source,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Source {
    #[default]
    None,
    Text(String),
    Lines(Vec<String>),
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    kernelspec: Option<LanguageName>,
    #[serde(default)]
    language_info: Option<LanguageName>,
}

#[derive(Deserialize)]
struct LanguageName {
    #[serde(default)]
    name: String,
    #[serde(default)]
    language: String,
}

/// Returns the title (the first heading), the text, and the language of the code.
///
/// # Errors
///
/// The reason why the content is not a notebook.
pub(crate) fn title_and_text(
    content: &str,
) -> Result<(Option<String>, String, Option<String>), String> {
    let notebook: Notebook = serde_json::from_str(content)
        .map_err(|error| format!("not a Jupyter notebook: {error}; save it again in Jupyter"))?;
    if notebook.nbformat.is_none() {
        return Err("not a Jupyter notebook: it has no nbformat; save it again in Jupyter".into());
    }
    let Metadata { kernelspec, language_info } = notebook.metadata;
    let names = [language_info.map(|info| info.name), kernelspec.map(|spec| spec.language)];
    let language = names.into_iter().flatten().find(|name| !name.is_empty());
    let sheets = notebook.worksheets.into_iter().flat_map(|sheet| sheet.cells);
    let mut text = String::new();
    for Cell { cell_type, source } in notebook.cells.into_iter().chain(sheets) {
        let source = match source {
            Source::None => continue,
            Source::Text(text) => text,
            Source::Lines(lines) => lines.concat(),
        };
        if source.trim().is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        match cell_type.as_str() {
            "code" => {
                // A fence that does not occur in the code.
                let mut fence = "```".to_owned();
                while source.contains(&fence) {
                    fence.push('`');
                }
                let language = language.as_deref().unwrap_or_default();
                text.push_str(&format!("{fence}{language}\n{}\n{fence}", source.trim_end()));
            }
            _ => text.push_str(source.trim_end()),
        }
    }
    let (title, text) = markdown::title_and_text(text);
    Ok((title, text, language))
}
