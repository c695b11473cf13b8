//! What a key must be good for to be let through to a route.

use axum::http::Method;
use postledger_events::fact::access::Scope;

/// By what the path begins with, below the API's prefix. A path that is not named here, and changes something, is for keys that
/// may do all.
pub fn demanded(method: &Method, path: &str) -> Scope {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match first {
        "keys" => Scope::Admin,
        // Whoever reads says how far they have come.
        "cursors" => Scope::Read,
        _ if reads => Scope::Read,
        "suppressions" => Scope::Suppressions,
        "queue" | "messages" => Scope::Queue,
        "endpoints" | "calls" | "replays" => Scope::Webhooks,
        "inbox" | "mailboxes" => Scope::Mailboxes,
        _ => Scope::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_demands_a_scope() {
        let check = |method: Method, path: &str, expect: Scope| assert_eq!(demanded(&method, path), expect, "{path}");
        check(Method::GET, "/queue/17", Scope::Read);
        check(Method::HEAD, "/events", Scope::Read);
        check(Method::GET, "/ledger/export", Scope::Read);
        check(Method::POST, "/queue", Scope::Queue);
        check(Method::DELETE, "/suppressions", Scope::Suppressions);
        check(Method::DELETE, "/inbox/3", Scope::Mailboxes);
        check(Method::PUT, "/endpoints/shop", Scope::Webhooks);
        check(Method::PUT, "/cursors/billing", Scope::Read);
        check(Method::GET, "/keys", Scope::Admin);
        check(Method::POST, "/keys", Scope::Admin);
        check(Method::POST, "/accounts", Scope::Admin);
        check(Method::POST, "/verify", Scope::Admin);
        check(Method::POST, "/whatever/comes", Scope::Admin);
        check(Method::POST, "", Scope::Admin);
    }
}
