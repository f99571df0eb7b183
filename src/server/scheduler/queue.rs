//! What waits, in the order of its deadlines, and who computes it next.

use super::task::Task;
use super::{Class, Lane, Load, MAX_QUERIES, Message};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What the scheduler's thread owns.
pub(super) struct Queue {
    pub(super) lanes: Arc<[Lane]>,
    /// Per lane what waits, by its deadline and then the order of arrival.
    pub(super) waiting: Vec<BTreeMap<(u64, u64), Task>>,
    pub(super) idle: Vec<(Class, Sender<Batch>)>,
    pub(super) busy: Vec<(Class, Sender<Batch>)>,
    pub(super) number: u64,
    pub(super) load: Arc<Load>,
}

/// Work for one worker.
pub(super) struct Batch {
    pub(super) lane: usize,
    pub(super) tasks: Vec<Task>,
}

impl Queue {
    pub(super) fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(message) = receiver.recv() {
            self.take(message);
            // What came in the meantime may share a batch.
            while let Ok(message) = receiver.try_recv() {
                self.take(message);
            }
            while let Some((lane, worker)) = self.next() {
                self.dispatch(lane, worker);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Work(lane, tasks) => {
                for (due, task) in tasks {
                    self.number += 1;
                    self.waiting[lane].insert((due, self.number), task);
                }
            }
            Message::Done(class) => {
                if let Some(at) = self.busy.iter().position(|w| w.0 == class) {
                    let worker = self.busy.swap_remove(at);
                    self.idle.push(worker);
                }
            }
        }
    }

    /// The lane whose first task is due earliest among those for which a worker is idle, and that worker.
    fn next(&self) -> Option<(usize, usize)> {
        let mut best: Option<((u64, u64), usize, usize)> = None;
        for (lane, waiting) in self.waiting.iter().enumerate() {
            let class = self.lanes[lane].class();
            let Some(worker) = self.idle.iter().position(|w| w.0 == class) else { continue };
            if let Some((&key, _)) = waiting.first_key_value()
                && best.is_none_or(|b| key < b.0)
            {
                best = Some((key, lane, worker));
            }
        }
        best.map(|(_, lane, worker)| (lane, worker))
    }

    fn dispatch(&mut self, lane: usize, worker: usize) {
        let budget = self.lanes[lane].batch_tokens();
        let mut tasks: Vec<Task> = Vec::new();
        let mut tokens = 0;
        while let Some(entry) = self.waiting[lane].first_entry() {
            if entry.get().is_abandoned() {
                self.load.leave(entry.remove().tokens());
                continue;
            }
            let more = entry.get().tokens();
            let is_full =
                tokens + more > budget || (budget == usize::MAX && tasks.len() == MAX_QUERIES);
            if is_full && !tasks.is_empty() {
                break;
            }
            tokens += more;
            tasks.push(entry.remove());
        }
        if tasks.is_empty() {
            return;
        }
        self.load.leave(tokens);
        let (class, sender) = self.idle.swap_remove(worker);
        // A worker ends with the scheduler only.
        if sender.send(Batch { lane, tasks }).is_ok() {
            self.busy.push((class, sender));
        }
    }
}
