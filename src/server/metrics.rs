//! What is counted, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::Duration;

/// All counters. May be shared between threads.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    waiting_tokens: Gauge,
    batches: Family<LaneLabels, Counter>,
    items: Family<LaneLabels, Counter>,
    tokens: Family<LaneLabels, Counter>,
    busy: Family<LaneLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: &'static str,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("warpseek");
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Family::<RouteLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 17))
        });
        let (in_flight, connections, waiting_tokens) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        let batches = Family::<LaneLabels, Counter>::default();
        let items = Family::<LaneLabels, Counter>::default();
        let tokens = Family::<LaneLabels, Counter>::default();
        let busy = Family::<LaneLabels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
        registry.register("requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the request's head to the reply's",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("requests_in_flight", "Requests being answered", in_flight.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register("waiting_tokens", "Tokens that wait for a model", waiting_tokens.clone());
        registry.register("batches", "Batches computed", batches.clone());
        registry.register("batch_items", "Texts, pairs and queries in them", items.clone());
        registry.register("batch_tokens", "Tokens in them", tokens.clone());
        registry.register_with_unit(
            "batch_duration",
            "Time spent on them",
            Unit::Seconds,
            busy.clone(),
        );
        Self {
            registry,
            requests,
            seconds,
            in_flight,
            connections,
            waiting_tokens,
            batches,
            items,
            tokens,
            busy,
        }
    }

    /// A request was answered.
    pub(super) fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: route.to_owned() };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A batch was computed.
    pub(super) fn batch(&self, lane: &'static str, items: usize, tokens: usize, took: Duration) {
        let labels = LaneLabels { lane };
        self.batches.get_or_create(&labels).inc();
        self.items.get_or_create(&labels).inc_by(items as u64);
        self.tokens.get_or_create(&labels).inc_by(tokens as u64);
        self.busy.get_or_create(&labels).inc_by(took.as_secs_f64());
    }

    pub(super) fn waiting_tokens(&self, now: usize) {
        self.waiting_tokens.set(now as i64);
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn in_flight(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// In Prometheus' text format.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// One more, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
