//! Rotary position embedding (Su et al. 2021): queries and keys are rotated by angles that grow
//! with their position, so that their products depend on distances.

use crate::config::EncoderConfig;
use std::sync::Arc;

/// Cosines and sines of the angles at each position.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// Half the width of a head.
    half: usize,
    /// `[positions, half]`.
    pub(crate) cosines: Vec<f32>,
    /// As the cosines.
    pub(crate) sines: Vec<f32>,
}

impl Rotary {
    /// Returns the angles and the window of each layer; layers of one base share their angles.
    pub(crate) fn all(config: &EncoderConfig) -> Vec<(Arc<Self>, Option<usize>)> {
        let mut made: Vec<(f64, Arc<Self>)> = Vec::new();
        let layers = config.rotary.iter().map(|layer| {
            let known = made.iter().find(|(theta, _)| *theta == layer.theta);
            let rotary = known.map(|(_, rotary)| Arc::clone(rotary)).unwrap_or_else(|| {
                let rotary =
                    Arc::new(Self::new(layer.theta, config.head_width(), config.max_tokens));
                made.push((layer.theta, Arc::clone(&rotary)));
                rotary
            });
            (rotary, layer.window)
        });
        layers.collect()
    }

    fn new(theta: f64, width: usize, n_positions: usize) -> Self {
        let half = width / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| theta.powf(-2.0 * i as f64 / width as f64) as f32).collect();
        // Angles are rounded to float32, as models were trained with.
        let angles: Vec<f32> = (0..n_positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let each = |f: fn(f64) -> f64| angles.iter().map(|&a| f(f64::from(a)) as f32).collect();
        Self { half, cosines: each(f64::cos), sines: each(f64::sin) }
    }

    /// Rotates queries and keys of one sequence, `[tokens, 3 hidden]`, in place.
    pub(crate) fn apply(&self, qkv: &mut [f32], hidden: usize) {
        let angles = self.cosines.chunks_exact(self.half).zip(self.sines.chunks_exact(self.half));
        for (row, (cosines, sines)) in qkv.chunks_exact_mut(3 * hidden).zip(angles) {
            for head in row[..2 * hidden].chunks_exact_mut(2 * self.half) {
                let (low, high) = head.split_at_mut(self.half);
                for ((l, h), (c, s)) in low.iter_mut().zip(high).zip(cosines.iter().zip(sines)) {
                    (*l, *h) = (*l * c - *h * s, *h * c + *l * s);
                }
            }
        }
    }
}
