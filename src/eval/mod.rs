//! Evaluation: judgments, runs, measures and significance.

pub mod judgments;
mod lines;
pub mod measures;
pub mod run;
pub mod significance;
pub mod trec;
