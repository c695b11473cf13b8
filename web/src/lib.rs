//! HTTP: the only place that knows request and response bodies, status codes and HTML.

pub mod port;
