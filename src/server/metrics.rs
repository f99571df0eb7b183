//! Metrics in Prometheus' format.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Values that depend on one label.
type ByLabel<V, M> = Family<[(&'static str, V); 1], M>;

/// All metrics. May be shared between threads.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<[(&'static str, String); 2], Counter>,
    request_duration: ByLabel<String, Histogram>,
    pub(super) in_flight: Gauge,
    pub(super) connections: Gauge,
    waiting_tokens: Gauge,
    batches: ByLabel<&'static str, Counter>,
    batch_items: ByLabel<&'static str, Counter>,
    batch_tokens: ByLabel<&'static str, Counter>,
    batch_duration: ByLabel<&'static str, Counter<f64, AtomicU64>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut metrics = Self {
            registry: Registry::with_prefix("warpseek"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(buckets),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            waiting_tokens: Gauge::default(),
            batches: Family::default(),
            batch_items: Family::default(),
            batch_tokens: Family::default(),
            batch_duration: Family::default(),
        };
        let all = &mut metrics.registry;
        all.register("requests", "Requests answered", metrics.requests.clone());
        let help = "From the request's head to the end of the reply";
        let duration = metrics.request_duration.clone();
        all.register_with_unit("request_duration", help, Unit::Seconds, duration);
        all.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        all.register("connections", "Open connections", metrics.connections.clone());
        let help = "Tokens that wait for a model";
        all.register("waiting_tokens", help, metrics.waiting_tokens.clone());
        all.register("batches", "Batches computed", metrics.batches.clone());
        let help = "Texts, pairs and queries in them";
        all.register("batch_items", help, metrics.batch_items.clone());
        all.register("batch_tokens", "Tokens in them", metrics.batch_tokens.clone());
        let (help, duration) = ("Time spent on them", metrics.batch_duration.clone());
        all.register_with_unit("batch_duration", help, Unit::Seconds, duration);
        metrics
    }

    /// Counts a request that was answered to the end, or whose client disconnected.
    pub(super) fn request(&self, route: &str, status: u16, took: Duration) {
        let route = ("route", route.to_owned());
        let status = ("status", status.to_string());
        self.requests.get_or_create(&[route.clone(), status]).inc();
        self.request_duration.get_or_create(&[route]).observe(took.as_secs_f64());
    }

    /// Counts a batch that was computed.
    pub(super) fn batch(&self, kind: &'static str, items: usize, tokens: usize, took: Duration) {
        let labels = [("lane", kind)];
        self.batches.get_or_create(&labels).inc();
        self.batch_items.get_or_create(&labels).inc_by(items as u64);
        self.batch_tokens.get_or_create(&labels).inc_by(tokens as u64);
        self.batch_duration.get_or_create(&labels).inc_by(took.as_secs_f64());
    }

    pub(super) fn waiting_tokens(&self, now: usize) {
        self.waiting_tokens.set(now as i64);
    }

    /// All metrics in Prometheus' text format.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
