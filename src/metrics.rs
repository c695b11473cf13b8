//! Figures for Prometheus, without anything that tells of an account.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use postledger_projections::tally::{Tally, tally};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::ledger::{Ledger, Status};

/// `GET /metrics`.
pub fn router(ledger: Ledger) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Arc::new(ledger))
}

async fn metrics(State(ledger): State<Arc<Ledger>>) -> Response {
    let read = tokio::task::spawn_blocking(move || (tally(&ledger.snapshot()), ledger.status())).await;
    let (Ok(tally), status) = (match read {
        Ok((tally, status)) => (tally, status),
        Err(e) => return (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the tally cannot be read").into_response();
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { tally, status }));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// What is told, read at the moment of the question.
#[derive(Debug)]
struct Figures {
    tally: Tally,
    status: Status,
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
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
