//! How often a client may fail to log in: fixed windows of a minute and a day, by address and by its networks.

use std::collections::HashMap;
use std::net::IpAddr;

use postledger_events::time::Timestamp;

/// Networks that failures are counted for, from narrow to wide: prefix of IPv4 and IPv6, failures in a minute and a day.
const NETWORKS: [(u32, u32, u32, u32); 3] = [(32, 64, 10, 50), (26, 48, 30, 150), (21, 32, 90, 450)];
const WINDOWS_S: [i64; 2] = [60, 24 * 3600];
/// Counters that are kept; when there are more, those whose windows are over go, or else all.
const COUNTERS_MAX: usize = 100_000;

/// Counts of failures. Time comes in with each call.
#[derive(Debug, Default)]
pub struct FailureLimit {
    counts: HashMap<(usize, u128), [(i64, u32); 2]>,
}

impl FailureLimit {
    /// `Some`: too many failures; how long until the window is over.
    pub fn retry_after_s(&self, client: IpAddr, now: Timestamp) -> Option<u64> {
        let over = (0..NETWORKS.len()).flat_map(|n| {
            let counts = self.counts.get(&(n, network(client, n)));
            (0..WINDOWS_S.len()).filter_map(move |w| {
                let (window, failures) = counts?[w];
                let max = if w == 0 { NETWORKS[n].2 } else { NETWORKS[n].3 };
                (window == window_of(now, w) && failures >= max).then(|| until_next(now, w))
            })
        });
        over.max()
    }

    pub fn failed(&mut self, client: IpAddr, now: Timestamp) {
        if self.counts.len() >= COUNTERS_MAX {
            self.counts.retain(|_, windows| windows[1].0 == window_of(now, 1));
            if self.counts.len() >= COUNTERS_MAX {
                self.counts.clear();
            }
        }
        for n in 0..NETWORKS.len() {
            let counts = self.counts.entry((n, network(client, n))).or_default();
            for (w, (window, failures)) in counts.iter_mut().enumerate() {
                if *window != window_of(now, w) {
                    (*window, *failures) = (window_of(now, w), 0);
                }
                *failures += 1;
            }
        }
    }

    /// A success clears the address, but not its networks.
    pub fn succeeded(&mut self, client: IpAddr) {
        self.counts.remove(&(0, network(client, 0)));
    }
}

fn network(client: IpAddr, n: usize) -> u128 {
    match client.to_canonical() {
        // An IPv4 address takes the place of its mapped IPv6 address, which nobody can have.
        IpAddr::V4(ip) => {
            let bits = NETWORKS[n].0;
            0xffff_0000_0000 | u128::from(u32::from(ip) >> (32 - bits) << (32 - bits))
        }
        IpAddr::V6(ip) => {
            let bits = NETWORKS[n].1;
            u128::from(ip) >> (128 - bits) << (128 - bits)
        }
    }
}

fn window_of(now: Timestamp, w: usize) -> i64 {
    now.as_secs().div_euclid(WINDOWS_S[w])
}

fn until_next(now: Timestamp, w: usize) -> u64 {
    let into = now.as_secs().rem_euclid(WINDOWS_S[w]);
    u64::try_from(WINDOWS_S[w] - into).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_minute() {
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let at = |s: i64| Timestamp::from_secs(600_000 + s);
        let mut limit = FailureLimit::default();
        for _ in 0..10 {
            assert_eq!(limit.retry_after_s(a, at(0)), None);
            limit.failed(a, at(0));
        }
        assert_eq!(limit.retry_after_s(a, at(1)), Some(59));
        assert_eq!(limit.retry_after_s(b, at(1)), None, "a neighbour is not affected yet");
        assert_eq!(limit.retry_after_s(a, at(60)), None, "the next minute");
        limit.succeeded(a);
        assert_eq!(limit.retry_after_s(a, at(2)), None);
    }

    #[test]
    fn a_network_fails_together() {
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let now = Timestamp::from_secs(600_000);
        let mut limit = FailureLimit::default();
        for n in 0..30 {
            limit.failed(ip(n), now);
        }
        assert_eq!(limit.retry_after_s(ip(60), now), Some(60), "the 31st of the /26");
        assert_eq!(limit.retry_after_s(ip(70), now), None, "outside of it");
    }

    #[test]
    fn ipv6_clients_are_their_64() {
        let now = Timestamp::from_secs(600_000);
        let mut limit = FailureLimit::default();
        for n in 0..10 {
            limit.failed(format!("2001:db8::{n}").parse().unwrap(), now);
        }
        assert!(limit.retry_after_s("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(limit.retry_after_s("2001:db8:0:1::1".parse().unwrap(), now).is_none());
    }
}
