//! What disk, engine and processor can do by themselves, in the same run.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::server::scratch;

/// The text of the message whose accepting is measured: no server can sync less.
const APPEND_BYTES: usize = 4 * 1024;
const PROBE: Duration = Duration::from_secs(2);
/// What one accepted message of 4 KB writes: its content, and rows, keys and a record of these sizes.
const BODY_BYTES: usize = 5_000;
const ROW_BYTES: [usize; 10] = [1_100, 550, 500, 200, 120, 80, 40, 20, 10, 1];
/// Messages of one batch of the engine when there are many clients.
const BATCH_MESSAGES: usize = 16;
/// What a signature is over.
const SIGNED_BYTES: usize = 400;

/// Each of these is what one thread does alone, one after the other.
pub struct Probes {
    pub sync_ms: f64,
    /// A synced batch of the engine as large as one accepted message, and its part in a batch of many.
    pub batch_ms: f64,
    pub batch_share_ms: f64,
    pub ed25519_ms: f64,
    pub rsa_ms: f64,
}

pub fn all() -> Probes {
    let dir = scratch();
    Probes {
        sync_ms: sync_ms(dir.path()),
        batch_ms: batch_ms(dir.path(), 1),
        batch_share_ms: batch_ms(dir.path(), BATCH_MESSAGES) / BATCH_MESSAGES as f64,
        ed25519_ms: ed25519_ms(),
        rsa_ms: rsa_ms(),
    }
}

fn sync_ms(dir: &Path) -> f64 {
    let mut file = std::fs::File::create(dir.join("probe")).expect("a file");
    each_ms(|| {
        file.write_all(&[b'x'; APPEND_BYTES]).expect("room on the disk");
        file.sync_data().expect("a sync");
    })
}

fn batch_ms(dir: &Path, messages: usize) -> f64 {
    let db = Database::builder(dir.join(format!("probe.{messages}"))).open().expect("a new database");
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default).expect("a keyspace");
    let mut n = 0u64;
    each_ms(|| {
        let mut batch = db.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..messages {
            for bytes in ROW_BYTES.into_iter().chain([BODY_BYTES]) {
                n += 1;
                batch.insert(&rows, n.to_be_bytes(), vec![b'x'; bytes]);
            }
        }
        batch.commit().expect("a batch");
    })
}

fn ed25519_ms() -> f64 {
    let key = Ed25519KeyPair::generate().expect("a key");
    each_ms(|| assert!(!key.sign(&[b'x'; SIGNED_BYTES]).as_ref().is_empty()))
}

fn rsa_ms() -> f64 {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let (random, mut signature) = (SystemRandom::new(), vec![0; key.public_modulus_len()]);
    each_ms(|| key.sign(&RSA_PKCS1_SHA256, &random, &[b'x'; SIGNED_BYTES], &mut signature).expect("a signature"))
}

fn each_ms(mut work: impl FnMut()) -> f64 {
    let (began, mut done) = (Instant::now(), 0u32);
    while began.elapsed() < PROBE {
        work();
        done += 1;
    }
    began.elapsed().as_secs_f64() * 1000.0 / f64::from(done)
}
