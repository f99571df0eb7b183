//! Flags that end the work of a thread, for calls into Python, which get no other sign.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// The flags of the work on this thread.
    static CURRENT: RefCell<Vec<Arc<AtomicBool>>> = const { RefCell::new(Vec::new()) };
}

/// Puts the flags of the outer work back, also after a panic.
struct Outer(Vec<Arc<AtomicBool>>);

impl Drop for Outer {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.0));
    }
}

/// Runs `work` on this thread with its flags where [`is_stopped`] looks for them. Those of outer
/// work on the thread do not count meanwhile, since a compute thread may work for several calls.
pub fn stoppable<T>(flags: Vec<Arc<AtomicBool>>, work: impl FnOnce() -> T) -> T {
    let _outer = Outer(CURRENT.replace(flags));
    work()
}

/// True if the work on this thread is to stop.
pub fn is_stopped() -> bool {
    CURRENT.with_borrow(|flags| flags.iter().any(|flag| flag.load(Ordering::Relaxed)))
}
