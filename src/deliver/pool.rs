//! Connections that have delivered and can deliver again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::smtp::drive::Client;

/// A connection that was idle for longer is closed instead of used: many servers have given up on it by then.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Idle connections to one next hop.
const IDLE_PER_HOP_MAX: usize = 20;

#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<String, Vec<(Client, Instant)>>>,
}

impl Pool {
    /// A connection to this next hop that is still fresh.
    pub fn take(&self, hop: &str) -> Option<Client> {
        let mut idle = self.idle();
        let clients = idle.get_mut(hop)?;
        clients.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        clients.pop().map(|(client, _)| client)
    }

    /// Keeps a connection for later.
    pub fn put(&self, hop: &str, client: Client) {
        let mut idle = self.idle();
        let clients = idle.entry(hop.to_owned()).or_default();
        if client.is_usable() && clients.len() < IDLE_PER_HOP_MAX {
            clients.push((client, Instant::now()));
        }
    }

    /// Takes leave of all.
    pub async fn close(&self) {
        let clients: Vec<Client> = self.idle().drain().flat_map(|(_, clients)| clients).map(|(c, _)| c).collect();
        let mut leaving = tokio::task::JoinSet::new();
        for client in clients {
            leaving.spawn(client.quit());
        }
        leaving.join_all().await;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<(Client, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
