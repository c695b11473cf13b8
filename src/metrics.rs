//! Figures for Prometheus, without anything that tells of an account.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use postledger_projections::Error;
use postledger_projections::tally::{Tally, tally};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::ledger::Status;
use crate::webhook::Caller;
use crate::webhook::metrics::{Endpoints, Figures as Calls};

/// `GET /metrics`.
pub fn router(caller: Arc<Caller>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(caller)
}

async fn metrics(State(caller): State<Arc<Caller>>) -> Response {
    let calls = caller.metrics.figures();
    let ledger = caller.ledger.clone();
    let read = move || -> Result<_, Error> {
        let rows = ledger.snapshot();
        Ok((tally(&rows)?, Endpoints::count(&rows)?, ledger.status()))
    };
    let (tally, endpoints, status) = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(read)) => read,
        Ok(Err(e)) => return failed(&e),
        Err(e) => return failed(&e),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { tally, endpoints, status, calls }));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => failed(&e),
    }
}

fn failed(e: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response()
}

/// What is told, read at the moment of the question.
#[derive(Debug)]
struct Figures {
    tally: Tally,
    endpoints: Endpoints,
    status: Status,
    calls: Calls,
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let t = &self.tally;
        let counters = [
            ("postledger_messages", "Messages accepted for delivery", t.messages),
            ("postledger_recipients_accepted", "Recipients of accepted messages", t.accepted),
            ("postledger_recipients_delivered", "Recipients that the next hop took", t.delivered),
            ("postledger_recipients_failed", "Recipients that were given up", t.failed),
            ("postledger_recipients_suppressed", "Recipients that were suppressed", t.suppressed),
            ("postledger_recipients_canceled", "Recipients that were canceled", t.canceled),
            ("postledger_attempts_in_doubt", "Attempts of a recipient whose outcome is not known", t.in_doubt),
            ("postledger_messages_received", "Copies of received messages put into mailboxes", t.received),
            ("postledger_ledger_records", "Records in the log", self.status.position.0),
            ("postledger_ledger_commits", "Batches written since the start, each with one sync", self.status.commits),
            ("postledger_ledger_operations", "Keys that these batches set or removed", self.status.operations),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let gauges = [
            ("postledger_queue_open", "Recipients without an outcome", t.open()),
            ("postledger_queue_held", "Recipients on hold", t.held),
            (
                "postledger_ledger_accepting",
                "1 while the ledger takes commands",
                u64::from(self.status.stopped.is_none()),
            ),
            (
                "postledger_ledger_commit_microseconds_max",
                "What the slowest of these batches took",
                u64::try_from(self.status.commit_max.as_micros()).unwrap_or(u64::MAX),
            ),
            ("postledger_ledger_lagging", "Lists that are being rebuilt", self.status.lagging.len() as u64),
            ("postledger_disk_free_bytes", "Free on the disk of the ledger", self.status.space.free_bytes),
            ("postledger_disk_reserve_bytes", "At less no mail is accepted", self.status.space.reserve_bytes),
            (
                "postledger_disk_short",
                "1 while no mail is accepted for want of space",
                u64::from(self.status.space.short),
            ),
            (
                "postledger_verify_record",
                "Where the running round over the ledger is",
                self.status.round_at.map_or(0, |s| s.0),
            ),
        ];
        let verified = self.status.round.as_deref().map(|round| {
            let ended = u64::try_from(round.ended.as_secs()).unwrap_or(0);
            [
                ("postledger_verify_ended_seconds", "When the last round over the ledger ended", ended),
                ("postledger_verify_duration_seconds", "How long it took", round.took_s),
                ("postledger_verify_records", "Records it read", round.records),
                ("postledger_verify_bodies", "Contents it read", round.bodies),
                ("postledger_verify_damage", "What is wrong with log, rows and vault", round.damage),
                ("postledger_verify_damaged_bodies", "Contents that are missing or changed", round.bodies_damaged),
            ]
        });
        for (name, help, value) in gauges.into_iter().chain(verified.into_iter().flatten()) {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        encode_endpoints(self.endpoints, &mut encoder)?;
        encode_calls(&self.calls, &mut encoder)
    }
}

fn encode_endpoints(endpoints: Endpoints, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Endpoints of webhooks, by how they do; of failing ones only the oldest call is tried";
    let mut family = encoder.encode_descriptor("postledger_webhook_endpoints", help, None, MetricType::Gauge)?;
    let Endpoints { working, failing, disabled } = endpoints;
    for (state, count) in [("working", working), ("failing", failing), ("disabled", disabled)] {
        let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        gauge.encode(family.encode_family(&[("state", state)])?)?;
    }
    Ok(())
}

fn encode_calls(calls: &Calls, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Calls of endpoints since the start, by what came of them";
    let mut family = encoder.encode_descriptor("postledger_webhook_calls", help, None, MetricType::Counter)?;
    for (outcome, count) in
        [("delivered", calls.delivered), ("refused", calls.refused), ("unanswered", calls.unanswered)]
    {
        ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    let (name, help) = ("postledger_webhook_request_duration_seconds", "What these calls took");
    let mut histogram = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    let count = calls.classes.iter().map(|(_, count)| count).sum();
    histogram.encode_histogram::<NoLabelSet>(calls.seconds, count, &calls.classes, None)
}
