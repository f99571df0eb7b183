//! `warpseek doctor`.

use super::Outcome;
use super::context::{Context, DEFAULT_MODEL};
use super::term::{self, bold, bytes, say};
use clap::Args;
use serde_json::json;
use warpseek::config::Settings;
use warpseek::cpu::{Tier, features};
use warpseek::error::Result;
use warpseek::model::encoder::describe;

/// Show what would run where, and why.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {}

pub(super) fn run(_args: DoctorArgs, context: &Context) -> Result<Outcome> {
    let tier = context.compute().tier;
    let gpu = match context.gpu() {
        Ok(scanner) => scanner.gpu_info().ok_or("the CPU was asked for"),
        Err(reason) => Err(reason),
    };
    let available: Vec<&str> =
        Tier::ALL.iter().filter(|t| t.is_available()).map(|t| t.name()).collect();
    let sources = &context.models.sources;
    let models = context.models.status();
    let config = Settings::file().filter(|f| f.exists());
    let encoder = describe(context.compute())?;
    if context.json {
        term::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "threads": rayon::current_num_threads(),
            "cpu_features": features(),
            "device": context.scanner()?.device(),
            "gpu": gpu.as_ref().ok(),
            "gpu_missing": gpu.as_ref().err(),
            "scan_tier": tier.name(),
            "scan_tiers": available,
            "encoder": encoder,
            "offline": sources.offline,
            "hub_offline": sources.hub_offline,
            "hub": sources.endpoint,
            "hub_token": sources.token.is_some(),
            "hub_cache": sources.cache_dir,
            "model_dirs": sources.model_dirs,
            "download_dir": sources.download_dir,
            "config": config,
            "models": models,
        }))?;
        return Ok(Outcome::Success);
    }
    say!("{}", bold(&format!("warpseek {}", env!("CARGO_PKG_VERSION"))))?;
    say!("  system     {} {}", std::env::consts::OS, std::env::consts::ARCH)?;
    say!("  threads    {}", rayon::current_num_threads())?;
    say!("  CPU        {}", features().join(" "))?;
    match &gpu {
        Ok(gpu) => say!(
            "  GPU        {}: compute capability {} ({}), {} of memory ({} for rows), driver of CUDA {}",
            gpu.name,
            gpu.capability,
            gpu.products,
            bytes(gpu.memory as u64),
            bytes(gpu.row_bytes as u64),
            gpu.driver
        )?,
        Err(e) => say!("  GPU        not used: {e}")?,
    }
    say!("  device     {}", context.scanner()?.device())?;
    let why = if std::env::var_os("WARPSEEK_TIER").is_some_and(|t| !t.is_empty()) {
        "set by WARPSEEK_TIER"
    } else {
        "the fastest this CPU has"
    };
    say!("  scan       {} ({why}; available: {})", tier.name(), available.join(", "))?;
    say!("  encoder    {encoder}")?;
    let settings = config.map_or("none".to_owned(), |f| f.display().to_string());
    say!("  settings   {settings}")?;
    say!("{}", bold("network"))?;
    if sources.offline {
        say!("  offline: only loopback addresses are connected to")?;
    } else {
        let hub =
            if sources.hub_offline { "not asked (HF_HUB_OFFLINE)" } else { &sources.endpoint };
        say!("  hub        {hub}")?;
        let token = if sources.token.is_some() { "present" } else { "none" };
        say!("  token      {token}")?;
    }
    say!("{}", bold("models"))?;
    for dir in sources.model_dirs.iter().chain(&sources.cache_dir) {
        let here = if dir.exists() { "" } else { " (not there)" };
        say!("  looked for in {}{here}", dir.display())?;
    }
    for status in models {
        match &status.folder {
            Some(folder) => say!("  {:24} {}", status.spec.name, folder.path.display())?,
            None => say!("  {:24} not here", status.spec.name)?,
        }
        status.problems.iter().for_each(|p| term::warn(p));
    }
    match context.reranker(None) {
        Ok(Some((name, _))) => say!("  search reranks with {name}")?,
        Ok(None) => say!("  search shows the retrieval order: no reranker is here")?,
        Err(e) => term::warn(&e.to_string()),
    }
    if context.models.find(DEFAULT_MODEL).is_err() {
        say!("  `warpseek models pull {DEFAULT_MODEL}` fetches the default embedder")?;
    }
    Ok(Outcome::Success)
}
