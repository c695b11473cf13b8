//! Chance that falls the same way again for the same seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set to repeat a run.
const SEED: &str = "POSTLEDGER_TEST_SEED";

/// The seed of this run, which is printed.
pub fn seed() -> u64 {
    let set = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let seed = set.unwrap_or_else(|| nanos().into());
    println!("set {SEED}={seed} to repeat this run");
    seed
}

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Of a list that is not empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let n = self.below(of.len() as u64);
        &of[usize::try_from(n).expect("below the length of a list")]
    }
}
