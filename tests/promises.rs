//! The promises, each in a file of its own, held against the real program.

mod access;
mod backup;
mod boundaries;
mod checking;
mod conformance;
mod crash;
mod events_doc;
mod fuzz;
mod intake;
mod logs;
mod openapi;
mod peers;
mod reach;
mod redelivery;
mod replays;
mod secrets;
mod server;
mod simulation;
mod sink;
mod streams;
mod tls;
mod verifiers;
mod webhook_bodies;
mod webhooks;
