//! Panics of the `parquet` crate on damaged files, turned into errors.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use parquet::errors::ParquetError;

use crate::message::shortened;

thread_local! {
    /// True while a panic on this thread is caught here and reported as an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call into the crate. Returns its error, or a message for its panic.
///
/// The first call installs a panic hook in front of the present one. It is silent about panics that
/// are caught here and leaves all others to the hook behind it.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                next(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(|error| {
            let reason = error.to_string();
            let prefixes = ["Parquet error: ", "External: ", "EOF: "];
            let reason = prefixes.iter().find_map(|p| reason.strip_prefix(p)).unwrap_or(&reason);
            let reason = shortened(reason, 300);
            format!("the parquet data is damaged or not supported: {reason}")
        }),
        Err(_) => Err("the parquet data is damaged: it cannot be decoded".into()),
    }
}
