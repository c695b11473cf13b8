//! The router, from outside.
