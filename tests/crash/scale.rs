//! How long the campaigns are.

/// Rounds for each campaign; set by `make crash`.
const ROUNDS: &str = "POSTLEDGER_CRASH_ROUNDS";

/// Calls that are made to fail in a full run.
const CALLS_MAX: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// One of many tests, which all together should not take long.
    Short,
    /// With so many rounds. A campaign that cannot run is a failure.
    Full(u64),
}

impl Scale {
    pub fn of_this_run() -> Scale {
        let rounds = std::env::var(ROUNDS).ok();
        rounds.map_or(Scale::Short, |rounds| Scale::Full(rounds.parse().expect("a number of rounds")))
    }

    pub fn kills(self) -> u64 {
        self.rounds(12)
    }

    /// While receivers of webhooks fail.
    pub fn kills_amid_calls(self) -> u64 {
        self.rounds(6)
    }

    pub fn power_cuts(self) -> u64 {
        self.rounds(4)
    }

    pub fn unsynced_power_cuts(self) -> u64 {
        1 + self.rounds(0) / 10
    }

    /// The numbers of calls that fail; with 50 rounds or more, every one.
    pub fn calls(self) -> impl Iterator<Item = u64> {
        let calls = (self.rounds(6) * 4).clamp(1, CALLS_MAX);
        (0..calls).map(move |n| n * CALLS_MAX / calls)
    }

    pub fn flips(self) -> u64 {
        match self {
            Scale::Short => 60,
            Scale::Full(rounds) => 20 * rounds,
        }
    }

    fn rounds(self, short: u64) -> u64 {
        match self {
            Scale::Short => short,
            Scale::Full(rounds) => rounds,
        }
    }
}
