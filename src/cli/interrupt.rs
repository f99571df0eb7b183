//! Ctrl+C: the first asks a long command to stop at the next safe place, the second ends the process.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on the first interrupt is only noted.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = || {
            if ASKED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        };
        if let Err(e) = ctrlc::set_handler(handler) {
            // Without the handler Ctrl+C ends the process at once, which loses nothing committed.
            tracing::warn!("Ctrl+C cannot be caught: {e}");
        }
    });
}

/// Whether the user asked to stop.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
