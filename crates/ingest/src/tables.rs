//! Table formats whose folders hold more files than the table has.
//!
//! Delta Lake, Iceberg and Hudi keep deleted and replaced files until a clean-up, and tell in a
//! log which ones count. Reading all files would bring deleted rows back.

use std::fs;
use std::path::Path;

use warpseek_error::{Error, Place, Result};

/// Refuses an input that is such a table or lies in one, below its partition folders.
///
/// # Errors
///
/// As [`check_folder`].
pub(crate) fn check_input(path: &Path, is_folder: bool) -> Result<()> {
    for folder in path.ancestors().skip(usize::from(!is_folder)) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        check_folder(folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        // Iceberg's files lie in a folder `data`.
        if !name.contains('=') && name != "data" {
            break;
        }
    }
    Ok(())
}

/// Refuses a folder that is a table of such a format.
///
/// # Errors
///
/// [`Error::Input`] with the folder and the way to export the table's current version.
pub(crate) fn check_folder(folder: &Path) -> Result<()> {
    let (format, log) = if folder.join("_delta_log").is_dir() {
        ("Delta Lake", "_delta_log")
    } else if has_iceberg_metadata(&folder.join("metadata")) {
        ("Iceberg", "metadata")
    } else if folder.join(".hoodie").is_dir() {
        ("Hudi", ".hoodie")
    } else {
        return Ok(());
    };
    let example = match format {
        "Delta Lake" => {
            " (in Python: deltalake.DeltaTable('FOLDER').to_pandas().to_parquet('FILE.parquet'))"
        }
        _ => "",
    };
    let reason = format!(
        "is a {format} table (it has a folder {log}), and some of its files may no longer be part \
         of the table: export its current version with a tool that reads {format}{example}, and \
         index that file"
    );
    Err(Error::input(Place::file(folder.display().to_string()), reason))
}

fn has_iceberg_metadata(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".metadata.json"))
}
