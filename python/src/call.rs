//! Computations without the GIL, on threads that belong to this process, until the end or Ctrl+C.

use crate::error::raised;
use pyo3::intern;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use warpseek::config::Settings;
use warpseek::error::{Error, Result};

/// Time between two looks at Ctrl+C and two calls of a progress function.
const TICK: Duration = Duration::from_millis(50);

/// The threads, and the process that started them: a forked child has none of its parent's.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// The number of threads that was set; 0 for the setting `threads`.
static N_THREADS: AtomicUsize = AtomicUsize::new(0);

/// The flag that asks a computation to stop.
pub(crate) type Stop = Arc<AtomicBool>;

thread_local! {
    /// The flag of the computation on this thread.
    static CURRENT: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// True if the computation on this thread is to stop.
pub(crate) fn is_stopped() -> bool {
    CURRENT.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)))
}

/// Sets the number of compute threads, 1 to 1024, of this process.
#[pyfunction]
pub(crate) fn set_num_threads(n: usize) -> PyResult<()> {
    if !(1..=1024).contains(&n) {
        let message = format!("invalid number of threads {n}: use 1 to 1024");
        return Err(raised(Error::usage(message)));
    }
    N_THREADS.store(n, Ordering::Relaxed);
    // Computations that run keep their threads until they end.
    *POOL.lock().unwrap_or_else(PoisonError::into_inner) = None;
    Ok(())
}

/// The number of compute threads of this process.
#[pyfunction]
pub(crate) fn get_num_threads() -> PyResult<usize> {
    Ok(pool().map_err(raised)?.current_num_threads())
}

fn pool() -> Result<Arc<ThreadPool>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match &*pool {
        Some((owner, threads)) if *owner == process => return Ok(Arc::clone(threads)),
        _ => {}
    }
    let n = match N_THREADS.load(Ordering::Relaxed) {
        0 => Settings::resolve([], |name| std::env::var(name).ok())?.threads.unwrap_or(0),
        n => n,
    };
    let threads = ThreadPoolBuilder::new()
        .num_threads(n)
        .thread_name(|i| format!("warpseek-{i}"))
        .build()
        .map_err(|e| Error::usage(format!("the compute threads cannot be started: {e}")))?;
    let threads = Arc::new(threads);
    // The threads of a parent process are not here to be ended.
    std::mem::forget(pool.replace((process, Arc::clone(&threads))));
    Ok(threads)
}

/// Runs `work` without the GIL, for calls of some milliseconds: on the calling thread, if it is
/// Python's main thread. Ctrl+C is raised when it has ended.
///
/// The main thread is one of its own threads then. So no other thread has to be woken before it
/// begins and after it has ended, which in a search is a tenth of the time.
pub(crate) fn run_short<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop) -> Result<T> + Send,
) -> PyResult<T> {
    match inline_pool(py)? {
        Some(pool) => py.detach(|| pool.install(|| work(&Stop::default()))).map_err(raised),
        None => run(py, work),
    }
}

/// The pool that has the main thread as its first one; none on other threads, in a forked child,
/// whose main thread belongs to the parent's pool, and after [`set_num_threads`].
fn inline_pool(py: Python<'_>) -> PyResult<Option<Arc<ThreadPool>>> {
    static INLINE: Mutex<Option<(u32, usize, Arc<ThreadPool>)>> = Mutex::new(None);
    static FAILED: AtomicBool = AtomicBool::new(false);
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    let is_main = threading.call_method0(intern!(py, "get_ident"))?.eq(main)?;
    if !is_main || FAILED.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (process, n_threads) = (std::process::id(), N_THREADS.load(Ordering::Relaxed));
    let mut inline = INLINE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, of, pool)) = &*inline {
        let is_current = *owner == process && *of == n_threads;
        return Ok(is_current.then(|| Arc::clone(pool)));
    }
    let n = pool().map_err(raised)?.current_num_threads();
    let builder = ThreadPoolBuilder::new().num_threads(n).use_current_thread();
    match builder.thread_name(|i| format!("warpseek-{i}")).build() {
        Ok(pool) => {
            let pool = Arc::new(pool);
            *inline = Some((process, n_threads, Arc::clone(&pool)));
            Ok(Some(pool))
        }
        Err(_) => {
            // The thread belongs to another pool, of another library.
            FAILED.store(true, Ordering::Relaxed);
            Ok(None)
        }
    }
}

/// Runs `work` without the GIL. Ctrl+C sets its flag, and is raised when it has ended.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop) -> Result<T> + Send,
) -> PyResult<T> {
    run_with(py, work, |_, _| Ok(()))
}

/// As [`run`], and calls `tick` with the GIL from time to time, on the calling thread. An exception
/// of `tick` stops the work.
pub(crate) fn run_with<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop) -> Result<T> + Send,
    tick: impl FnMut(Python<'_>, &Stop) -> PyResult<()> + Send,
) -> PyResult<T> {
    feed(py, |stop, ()| work(stop), (), |_| true, tick)
}

/// As [`run_with`], while `produce` feeds the work on the calling thread, without the GIL. It
/// returns false to stop the work.
pub(crate) fn feed<T: Send, F: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop, F) -> Result<T> + Send,
    fed: F,
    produce: impl FnOnce(&Stop) -> bool + Send,
    mut tick: impl FnMut(Python<'_>, &Stop) -> PyResult<()> + Send,
) -> PyResult<T> {
    let pool = pool().map_err(raised)?;
    let stop = Stop::default();
    let outcome = py.detach(|| {
        let (sender, receiver) = mpsc::sync_channel(1);
        pool.in_place_scope(|scope| {
            let stop = &stop;
            scope.spawn(move |_| {
                let outer = CURRENT.replace(Some(Arc::clone(stop)));
                let outcome = work(stop, fed);
                CURRENT.set(outer);
                // The receiver waits for this, whatever happens.
                let _ = sender.send(outcome);
            });
            if !produce(stop) {
                stop.store(true, Ordering::SeqCst);
            }
            let mut raised_meanwhile = None;
            loop {
                match receiver.recv_timeout(TICK) {
                    Ok(outcome) => return (Some(outcome), raised_meanwhile),
                    // The work panicked, which the scope passes on.
                    Err(RecvTimeoutError::Disconnected) => return (None, raised_meanwhile),
                    Err(RecvTimeoutError::Timeout) if raised_meanwhile.is_some() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        let looked = Python::attach(|py| {
                            py.check_signals()?;
                            tick(py, stop)
                        });
                        if let Err(exception) = looked {
                            stop.store(true, Ordering::SeqCst);
                            raised_meanwhile = Some(exception);
                        }
                    }
                }
            }
        })
    });
    match outcome {
        (_, Some(exception)) => Err(exception),
        (Some(outcome), None) => outcome.map_err(raised),
        (None, None) => Err(raised(Error::usage("the computation ended without a result"))),
    }
}
