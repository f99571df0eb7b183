//! Parameters of the scan's kernels, generated from `kernels/params.cuh`.

include!(concat!(env!("OUT_DIR"), "/params.rs"));

const _: () = assert!(NO_MASK == crate::queries::NO_MASK);
