//! Whatever happens in whatever order: nothing is lost, stuck or sent twice unseen, and rows that are folded anew are the rows
//! that grew. Worlds are drawn from seeds; a seed brings a failure back, and its steps are shrunk to those that matter.
//!
//! `make simulate` runs new seeds for a minute (`SECONDS=600`), or those that are asked for (`SEED="7 8"`).

mod calls;
mod dice;
mod receiver;
mod step;
mod truth;
mod world;

use std::cell::Cell;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use step::{Step, draw};
use world::World;

/// Steps drawn for one world, before it comes to its end.
const WORLD_STEPS: usize = 2_000;
/// The worlds of every run of the tests.
const FIXED_SEEDS: std::ops::Range<u64> = 0..40;
/// How long a failure is shrunk.
const SHRINKING_MAX: Duration = Duration::from_secs(30);

#[test]
fn fixed_seeds() {
    for seed in FIXED_SEEDS {
        simulate(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// The seeds of `SEED`, or seeds from the time on for `SECONDS`. Without either there is nothing to do.
#[test]
fn as_asked() {
    if let Ok(seeds) = std::env::var("SEED") {
        let seeds: Vec<u64> = seeds.split_whitespace().map(|seed| seed.parse().expect("SEED has numbers")).collect();
        assert!(!seeds.is_empty(), "SEED has no number");
        for seed in seeds {
            simulate(seed).unwrap_or_else(|failure| panic!("{failure}"));
            println!("seed {seed}: nothing found");
        }
    } else if let Ok(seconds) = std::env::var("SECONDS") {
        for_a_while(Duration::from_secs(seconds.parse().expect("SECONDS is a number")));
    }
}

/// On all processors; a world is one thread's.
fn for_a_while(time: Duration) {
    let first = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let (next, steps, started) = (AtomicU64::new(first), AtomicU64::new(0), Instant::now());
    let found = AtomicBool::new(false);
    let work = || {
        while started.elapsed() < time && !found.load(Ordering::Relaxed) {
            let taken = simulate(next.fetch_add(1, Ordering::Relaxed)).unwrap_or_else(|failure| {
                found.store(true, Ordering::Relaxed);
                panic!("{failure}")
            });
            steps.fetch_add(taken, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, NonZero::get)).for_each(|_| _ = scope.spawn(work));
    });
    let (worlds, steps) = (next.into_inner() - first, steps.into_inner());
    let per_minute = steps as f64 * 60.0 / started.elapsed().as_secs_f64();
    println!("{worlds} worlds from seed {first} on, {steps} steps, {per_minute:.0} a minute; nothing found");
}

/// How many steps the world of a seed took, or what went wrong in it.
fn simulate(seed: u64) -> Result<u64, String> {
    let steps = draw(seed, WORLD_STEPS);
    let failure = match run(&steps) {
        Ok(taken) => return Ok(taken),
        Err(failure) => failure,
    };
    let least = shrink(steps[..failure.at.min(steps.len())].to_vec());
    let again = run(&least).err().map_or_else(|| "it did not fail again".to_owned(), |f| f.why);
    let list: Vec<String> = least.iter().map(|step| format!("  {step:?}")).collect();
    Err(format!(
        "seed {seed} fails at step {} of {}: {}\nshrunk to {} steps:\n{}\nwhich fail with: {again}\nagain: make simulate SEED={seed}",
        failure.at,
        steps.len(),
        failure.why,
        least.len(),
        list.join("\n"),
    ))
}

struct Failure {
    /// Steps that were taken, the failing one included; one more than there are if it was in the draining.
    at: usize,
    why: String,
}

fn run(steps: &[Step]) -> Result<u64, Failure> {
    quiet();
    let mut at = 0;
    SIMULATING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new();
        for step in steps {
            at += 1;
            world.run(step);
        }
        at += 1;
        world.drain();
        world.steps
    }));
    SIMULATING.set(false);
    outcome.map_err(|why| Failure { at, why: text(why.as_ref()) })
}

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// A world that fails is told of once, not at each of the many times that it fails while it is shrunk.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATING.get() {
                loud(info)
            }
        }));
    });
}

fn text(why: &(dyn std::any::Any + Send)) -> String {
    why.downcast_ref::<String>()
        .cloned()
        .or_else(|| why.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}

/// Leaves out what is not needed for a failure, as long as that makes it shorter: halves first, single steps last.
fn shrink(mut steps: Vec<Step>) -> Vec<Step> {
    let started = Instant::now();
    loop {
        let before = steps.len();
        let mut part = before / 2;
        while part > 0 {
            let mut from = 0;
            while from < steps.len() && started.elapsed() < SHRINKING_MAX {
                let mut fewer = steps.clone();
                fewer.drain(from..(from + part).min(steps.len()));
                if run(&fewer).is_err() {
                    steps = fewer;
                } else {
                    from += part;
                }
            }
            part /= 2;
        }
        if steps.len() == before || started.elapsed() >= SHRINKING_MAX {
            return steps;
        }
    }
}
