//! Computations without the GIL, on threads that belong to this process, until the end or Ctrl+C.

use crate::error::{raised, usage};
use pyo3::intern;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use warpseek::config::Settings;
use warpseek::error::{Error, Result};
use warpseek::search::stoppable;

/// Time between two looks at Ctrl+C and two calls of a progress function.
const TICK: Duration = Duration::from_millis(50);

/// The threads, and the process that started them: a forked child has none of its parent's.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// The number of threads that was set; 0 for the setting `threads`.
static N_THREADS: AtomicUsize = AtomicUsize::new(0);

/// The flag that asks a computation to stop.
pub(crate) type Stop = Arc<AtomicBool>;

/// Sets the number of compute threads, 1 to 1024, of this process. A server has its own.
#[pyfunction]
pub(crate) fn set_num_threads(n: i64) -> PyResult<()> {
    let Some(n) = usize::try_from(n).ok().filter(|n| (1..=1024).contains(n)) else {
        return Err(usage(format!("invalid number of threads {n}: use 1 to 1024")));
    };
    N_THREADS.store(n, Ordering::Relaxed);
    // Computations that run keep their threads until they end.
    let old = POOL.lock().unwrap_or_else(PoisonError::into_inner).take();
    forget_of_parent(old);
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
    forget_of_parent(pool.replace((process, Arc::clone(&threads))));
    Ok(threads)
}

/// Leaves the threads of a parent process alone, which are not here to be ended.
fn forget_of_parent(pool: Option<(u32, Arc<ThreadPool>)>) {
    if pool.as_ref().is_some_and(|(owner, _)| *owner != std::process::id()) {
        std::mem::forget(pool);
    }
}

/// Runs `work` without the GIL on the calling thread, for what computes nothing, or reads rows.
/// Ctrl+C is raised when it has ended.
pub(crate) fn direct<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(raised)
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

/// Runs `work` without the GIL, on the compute threads. Ctrl+C sets its flag, and is raised when it
/// has ended.
///
/// The work must not wait for anything but computations: it would keep a compute thread from all
/// other calls. Nor may it hold a lock while it computes, since its thread works for other calls
/// meanwhile, which may ask for the same lock.
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
    mut tick: impl FnMut(Python<'_>, &Stop) -> PyResult<()> + Send,
) -> PyResult<T> {
    let (pool, stop) = (pool().map_err(raised)?, Stop::default());
    let ended = py.detach(|| {
        let (sender, receiver) = mpsc::sync_channel(1);
        pool.in_place_scope(|scope| {
            let stop = &stop;
            // The receiver waits for this, whatever happens.
            scope.spawn(move |_| {
                drop(sender.send(stoppable(vec![Arc::clone(stop)], || work(stop))))
            });
            wait(&receiver, stop, &mut tick)
        })
    });
    ended.into_result()
}

/// As [`run_with`], on a thread of its own, for work that waits: for a lock, a service, or the
/// records that `produce` makes on the calling thread. It computes with `pool.install`. `produce`
/// returns false to stop the work.
pub(crate) fn run_waiting<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop, &ThreadPool) -> Result<T> + Send,
    produce: impl FnOnce(&Stop) -> bool + Send,
    mut tick: impl FnMut(Python<'_>, &Stop) -> PyResult<()> + Send,
) -> PyResult<T> {
    let (pool, stop) = (pool().map_err(raised)?, Stop::default());
    let ended = py.detach(|| {
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            let (stop, pool) = (&stop, &*pool);
            scope.spawn(move || {
                drop(sender.send(stoppable(vec![Arc::clone(stop)], || work(stop, pool))))
            });
            if !produce(stop) {
                stop.store(true, Ordering::SeqCst);
            }
            wait(&receiver, stop, &mut tick)
        })
    });
    ended.into_result()
}

/// The end of a computation: its outcome, none if it panicked, and the exception meanwhile.
struct Ended<T> {
    outcome: Option<Result<T>>,
    exception: Option<PyErr>,
}

impl<T> Ended<T> {
    fn into_result(self) -> PyResult<T> {
        match (self.exception, self.outcome) {
            (Some(exception), _) => Err(exception),
            (None, Some(outcome)) => outcome.map_err(raised),
            (None, None) => {
                let reason = "it ended without a result: internal error, please report it";
                Err(raised(Error::Compute { what: "a call", reason: reason.to_owned() }))
            }
        }
    }
}

/// Waits for the outcome; looks at Ctrl+C and calls `tick` meanwhile.
fn wait<T>(
    receiver: &Receiver<Result<T>>,
    stop: &Stop,
    tick: &mut impl FnMut(Python<'_>, &Stop) -> PyResult<()>,
) -> Ended<T> {
    let mut exception = None;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(outcome) => return Ended { outcome: Some(outcome), exception },
            // The work panicked, which the scope passes on.
            Err(RecvTimeoutError::Disconnected) => return Ended { outcome: None, exception },
            Err(RecvTimeoutError::Timeout) if exception.is_some() => {}
            Err(RecvTimeoutError::Timeout) => {
                let looked = Python::attach(|py| {
                    py.check_signals()?;
                    tick(py, stop)
                });
                if let Err(raised_meanwhile) = looked {
                    stop.store(true, Ordering::SeqCst);
                    exception = Some(raised_meanwhile);
                }
            }
        }
    }
}

/// Calls a progress function with the number of finished items.
pub(crate) fn report(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    done: &AtomicUsize,
) -> PyResult<()> {
    match progress {
        Some(progress) => progress.call1(py, (done.load(Ordering::Relaxed),)).map(|_| ()),
        None => Ok(()),
    }
}

/// The error of a computation that is to stop.
pub(crate) fn check(stop: &Stop) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted("the call was stopped".to_owned())),
        false => Ok(()),
    }
}
