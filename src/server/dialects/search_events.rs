//! A search as server-sent events: the hits as they were retrieved, then as they are reranked.

use super::search_request::SearchRequest;
use crate::search::{self, SearchOptions, Searcher};
use crate::server::error::ApiError;
use crate::server::reply_size::ReplySize;
use crate::server::scheduled::{ScheduledSteps, admit};
use crate::server::state::{AppState, WorkPermit};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::channel;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Runs a search on a task of its own, and sends its hits as events. Stops if the client
/// disconnects.
pub(super) fn stream_hits(
    state: Arc<AppState>,
    searcher: Arc<Searcher>,
    request: SearchRequest,
    options: SearchOptions,
    permit: WorkPermit,
) -> Response {
    let (sender, receiver) = channel(2);
    let limit = state.limits.timeout_s;
    tokio::spawn(async move {
        // Two events at most are sent, for which there is room.
        let send = |event: Event| drop(sender.try_send(event));
        let watch = |retrieved| {
            let reply = request.reply(&searcher, retrieved, &ReplySize::new(&state.limits))?;
            send(event("retrieved", &reply));
            Ok(())
        };
        let work = async {
            let admission = admit(&state, &searcher, &options)?;
            let mut steps = ScheduledSteps::new(&state, &searcher, admission.as_ref());
            steps.watcher = Some((&watch, options.k));
            let result = search::search(&steps, request.input(), &options).await?;
            request.reply(&searcher, result, &ReplySize::new(&state.limits))
        };
        let late = |_| Err(ApiError::late(format!("no reply within {limit} s: ask for less")));
        let work = tokio::time::timeout(Duration::from_secs_f64(limit), work);
        tokio::select! {
            outcome = work => match outcome.unwrap_or_else(late) {
                Ok(reply) => send(event("done", &reply)),
                Err(error) => send(event("error", &error.to_json())),
            },
            () = sender.closed() => {}
        }
        drop(permit);
    });
    let events = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_default()
}
