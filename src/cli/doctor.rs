//! `warpseek doctor`.

use super::context::{Context, Status};
use super::settings::variable;
use super::term::{self, DecimalBytes, bold, say};
use crate::bert::encoder::describe;
use crate::compute::cpu::{Tier, features};
use crate::config::Settings;
use crate::engine::DEFAULT_MODEL;
use crate::error::Result;
use crate::hub::ModelStatus;
use clap::Args;
use serde_json::json;
use std::env::consts::{ARCH, OS};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show the CPU, GPU, network and models that would be used, and the reasons.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {}

pub(super) fn run(_args: DoctorArgs, context: &Context) -> Result<Status> {
    let tier = context.engine.compute().tier;
    let gpu = context.engine.gpu().and_then(|gpu| gpu.gpu_info().ok_or("the CPU was requested"));
    let available: Vec<&str> =
        Tier::ALL.iter().filter(|t| t.is_available()).map(|t| t.name()).collect();
    let sources = &context.engine.models.sources;
    let models = context.engine.models.status();
    let config = Settings::file(variable).filter(|f| f.exists());
    let encoder = describe(context.engine.compute())?;
    let (threads, device) = (rayon::current_num_threads(), context.engine.scanner().device());
    if context.json {
        term::print_json(&json!({
            "version": VERSION,
            "os": OS,
            "arch": ARCH,
            "threads": threads,
            "cpu_features": features(),
            "device": device,
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
        return Ok(Status::Success);
    }
    say!("{}", bold(&format!("warpseek {VERSION}")))?;
    say!("  system     {OS} {ARCH}")?;
    say!("  threads    {threads}")?;
    say!("  CPU        {}", features().join(" "))?;
    match &gpu {
        Ok(gpu) => say!(
            "  GPU        {}: compute capability {} ({}), {} of memory ({} for rows), CUDA \
             driver {}",
            gpu.name,
            gpu.capability,
            gpu.products,
            DecimalBytes(gpu.memory as u64),
            DecimalBytes(gpu.row_bytes as u64),
            gpu.driver
        )?,
        Err(e) => say!("  GPU        not used: {e}")?,
    }
    say!("  device     {device}")?;
    let is_best = tier == Tier::best();
    let why = if is_best { "the fastest on this CPU" } else { "set by WARPSEEK_TIER" };
    say!("  scan       {} ({why}; available: {})", tier.name(), available.join(", "))?;
    say!("  encoder    {encoder}")?;
    let file = config.map_or("none".to_owned(), |f| f.display().to_string());
    say!("  settings   {file}")?;
    say!("{}", bold("network"))?;
    if sources.offline {
        say!("  offline: only loopback addresses are connected to")?;
    } else {
        let hub =
            if sources.hub_offline { "not asked (HF_HUB_OFFLINE)" } else { &sources.endpoint };
        say!("  hub        {hub}")?;
        say!("  token      {}", if sources.token.is_some() { "present" } else { "none" })?;
    }
    say!("{}", bold("models"))?;
    for dir in sources.model_dirs.iter().chain(&sources.cache_dir) {
        let missing = if dir.exists() { "" } else { " (does not exist)" };
        say!("  searched: {}{missing}", dir.display())?;
    }
    let known = models.len();
    let is_shown = |s: &ModelStatus| s.pinned || s.folder.is_some() || !s.problems.is_empty();
    let shown: Vec<_> = models.into_iter().filter(is_shown).collect();
    let others = known - shown.len();
    for status in shown {
        let place =
            status.folder.map_or("not present".to_owned(), |f| f.path.display().to_string());
        say!("  {:24} {place}", status.spec.name)?;
        status.problems.iter().for_each(|p| term::warn(p));
    }
    if others > 0 {
        say!("  {others} more are known by name: `warpseek models list`")?;
    }
    match context.engine.reranker(None) {
        Ok(Some((name, _))) => say!("  search reranks with {name}")?,
        Ok(None) => say!("  search shows the retrieval order: no reranker is present")?,
        Err(e) => term::warn(&e.to_string()),
    }
    if context.engine.models.find(DEFAULT_MODEL).is_err() {
        say!("  `warpseek models pull {DEFAULT_MODEL}` downloads the default embedder")?;
    }
    Ok(Status::Success)
}
