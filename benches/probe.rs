//! What the disk can do by itself.

use std::io::Write;
use std::time::{Duration, Instant};

/// About the size of a record.
const APPEND_BYTES: usize = 600;
const PROBE: Duration = Duration::from_secs(2);

/// Appends and syncs, one after the other, where the server keeps its data.
pub fn syncs_per_second() -> f64 {
    let dir = super::server::scratch();
    let mut file = std::fs::File::create(dir.path().join("probe")).expect("a file");
    let (began, mut syncs) = (Instant::now(), 0u32);
    while began.elapsed() < PROBE {
        file.write_all(&[b'x'; APPEND_BYTES]).expect("room on the disk");
        file.sync_data().expect("a sync");
        syncs += 1;
    }
    f64::from(syncs) / began.elapsed().as_secs_f64()
}
