//! Candle's own BERT on a GPU: `candle-bert MODEL TOKENS BATCH[,BATCH..]`.
//!
//! Embeds random sequences of TOKENS tokens in half precision, from ids to normalized means,
//! both on the device, and prints the texts per second of the best batch as JSON.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(rate) => {
            println!("{}", serde_json::json!({ "texts_per_second": rate }));
            std::process::ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("candle-bert: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let [model, tokens, batches] = arguments else {
        return Err("usage: candle-bert MODEL TOKENS BATCH[,BATCH..]".into());
    };
    let (folder, tokens) = (Path::new(model), tokens.parse()?);
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let device = Device::new_cuda(0)?;
    // SAFETY: the file is not written to while it is mapped.
    let weights = unsafe {
        VarBuilder::from_mmaped_safetensors(
            &[folder.join("model.safetensors")],
            DType::F16,
            &device,
        )
    };
    let bert = BertModel::load(weights?, &config)?;
    let mut best = 0f64;
    for batch in batches.split(',') {
        let batch: usize = batch.parse()?;
        let ids = Tensor::rand(5f32, config.vocab_size as f32, (batch, tokens), &device)?;
        let ids = ids.to_dtype(DType::U32)?;
        let types = ids.zeros_like()?;
        let seconds = median(&device, || {
            let states = bert.forward(&ids, &types, None)?.to_dtype(DType::F32)?;
            let means = states.mean(1)?;
            means.broadcast_div(&means.sqr()?.sum_keepdim(1)?.sqrt()?)
        })?;
        best = best.max(batch as f64 / seconds);
    }
    Ok(best)
}

/// The median seconds of `work` on the device.
fn median(device: &Device, work: impl Fn() -> Result<Tensor>) -> Result<f64> {
    for _ in 0..3 {
        work()?;
    }
    device.synchronize()?;
    let (started, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || (started.elapsed() < Duration::from_millis(500) && times.len() < 50) {
        let begun = Instant::now();
        work()?;
        device.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
