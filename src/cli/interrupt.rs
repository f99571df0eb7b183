//! Ctrl+C: the first one asks a long command to stop at the next safe point, the second one ends
//! the process.

use std::ops::ControlFlow;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on, the first interrupt only sets a flag.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = || {
            if REQUESTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        };
        if let Err(e) = ctrlc::set_handler(handler) {
            // Without the handler Ctrl+C ends the process at once, which loses nothing committed.
            tracing::warn!("Ctrl+C cannot be caught: {e}");
        }
    });
}

/// True as soon as the user asked to stop.
pub(super) fn flag() -> &'static AtomicBool {
    &REQUESTED
}

/// True if the user asked to stop.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// [`requested`] as a control flow.
pub(super) fn flow() -> ControlFlow<()> {
    if requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Waits until the user asks to stop.
pub(super) async fn wait() {
    while !requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
