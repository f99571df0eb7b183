//! The flag that ends the work of a thread, for what has no other way to learn of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// The flag of the work on this thread.
    static CURRENT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread with its flag where [`is_stopped`] looks for it.
pub fn stoppable<T>(stop: Option<&Arc<AtomicBool>>, work: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(stop.cloned());
    let outcome = work();
    CURRENT.set(outer);
    outcome
}

/// True if the work on this thread is to stop.
pub fn is_stopped() -> bool {
    CURRENT.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)))
}
