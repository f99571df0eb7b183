//! Exact top-k of two queries over a small matrix.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use half::f16;
use warpseek_topk::{MatrixView, QueryBatch, Scanner, Sq8Matrix, row_norm_upper, stride_of};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (n, dim) = (1000, 384);
    let stride = stride_of(dim); // rows are padded with zeros to a multiple of 32 values
    let mut rows = vec![f16::ZERO; n * stride];
    for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
        (0..dim).for_each(|j| row[j] = f16::from_f32(((i * 31 + j * 7) % 97) as f32 / 97.0 - 0.5));
    }
    let max_norm = rows.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
    let sq8 = Sq8Matrix::of(&rows, dim); // optional: scans read it first, half the bytes
    let matrix =
        MatrixView::new(&rows, dim, max_norm).ok_or("not whole rows")?.with_sq8(sq8.view(dim));
    let queries = QueryBatch::new(&[0.1; 2 * 384], dim)?;
    for hits in Scanner::cpu().top_k(&matrix, &queries, 5, None)? {
        hits.iter().for_each(|hit| println!("row {} score {:.4}", hit.row, hit.score));
    }
    Ok(())
}
