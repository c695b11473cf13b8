//! Dice that fall the same for the same seed (SplitMix64).

#[derive(Clone, Debug)]
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

    /// From 0 up to, and without, `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.roll() % u64::from(end)).expect("a remainder is less than its divisor")
    }

    pub fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < chance
    }

    pub fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).expect("short lists")) as usize].clone()
    }

    pub fn some<T>(&mut self, chance: u32, value: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        self.percent(chance).then(|| value(self))
    }

    pub fn list<T>(&mut self, from: u32, to: u32, mut value: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        let length = from + self.below(to - from);
        (0..length).map(|_| value(self)).collect()
    }
}
