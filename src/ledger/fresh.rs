//! Rows of one table that is made anew: those that were written last in memory, all others stored in sorted runs.

use std::collections::HashMap;
use std::collections::hash_map;
use std::ops::Bound;
use std::sync::Arc;

use fjall::Keyspace;

use postledger_events::Record;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Order, Projection, Rows, RowsMut, Table};

use super::fold::fold;
use super::snapshot::failed;
use super::store::{self, Store};

/// What a row takes in memory beside its key and value: its place in a map that is never full, and two allocations.
const ROW_BYTES: usize = 112;
/// So many first bytes of keys decide nearly every comparison.
const HEAD_BYTES: usize = 16;

/// What one projection folds into.
pub(super) struct Fresh {
    projection: Projection,
    rows: HashMap<Key, Row>,
    /// What has all others; `None`: there are none.
    stored: Option<Keyspace>,
    /// Is being stored, and read here until it is.
    storing: Option<Arc<Chunk>>,
    /// The largest key that was given to be stored, for each first byte of keys; `None`: there may be others. Most keys grow
    /// with time, so this spares asking the engine for rows that it has not, and removing them there.
    ends: Option<Vec<Key>>,
    bytes: usize,
}

struct Row {
    /// `None`: removed.
    value: Option<Value>,
    /// Nothing of it is stored.
    new: bool,
}

impl Fresh {
    /// Over rows that are stored; `empty`: it is known that there are none.
    pub(super) fn new(projection: Projection, stored: Option<Keyspace>, empty: bool) -> Fresh {
        let ends = empty.then(|| vec![Key::new(); 256]);
        Fresh { projection, rows: HashMap::new(), stored, storing: None, ends, bytes: 0 }
    }

    pub(super) fn stored(&self) -> Option<&Keyspace> {
        self.stored.as_ref()
    }

    pub(super) fn fold(&mut self, record: &Record) -> Result<(), Error> {
        let projection = self.projection;
        fold(&projection, record, self)
    }

    /// What it holds in memory and nobody stores yet, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives away what is in memory, to be stored in `into`. Nothing else may be under way.
    pub(super) fn take(&mut self, into: Keyspace) -> Arc<Chunk> {
        debug_assert!(self.storing.is_none(), "chunks are stored one after the other");
        let next = HashMap::with_capacity(self.rows.len());
        let rows = std::mem::replace(&mut self.rows, next);
        self.bytes = 0;
        if let Some(ends) = &mut self.ends {
            for key in rows.keys() {
                let end = &mut ends[first_byte(key)];
                if key > end {
                    end.clone_from(key);
                }
            }
        }
        let chunk = Arc::new(Chunk(rows));
        self.storing = Some(Arc::clone(&chunk));
        self.stored = Some(into);
        chunk
    }

    /// What was taken is stored.
    pub(super) fn taken_is_stored(&mut self) {
        self.storing = None;
    }

    /// Stores what is in memory, and returns what has to be merged into `keyspace` then, if its rows are not there.
    pub(super) fn store_rest(mut self, keyspace: &Keyspace) -> Result<Option<Runs>, store::Error> {
        let into = self.stored.clone().unwrap_or_else(|| keyspace.clone());
        self.take(into.clone()).store(&into)?;
        if into == *keyspace {
            return Ok(None);
        }
        let has_rows = |first: &u8| self.ends.as_ref().is_none_or(|ends| !ends[usize::from(*first)].is_empty());
        let firsts = (0..=u8::MAX).filter(has_rows).collect();
        Ok(Some(Runs { runs: into, keyspace: keyspace.clone(), firsts }))
    }

    /// What has to be changed in the engine.
    pub(super) fn into_changes(self) -> Vec<(Key, Option<Value>)> {
        self.rows.into_iter().map(|(key, row)| (key, row.value)).collect()
    }

    fn may_be_stored(&self, key: &[u8]) -> bool {
        self.ends.as_ref().is_none_or(|ends| key <= &ends[first_byte(key)][..])
    }
}

fn first_byte(key: &[u8]) -> usize {
    key.first().copied().map_or(0, usize::from)
}

impl Rows for Fresh {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        if let Some(row) = self.rows.get(key) {
            return Ok(row.value.clone());
        }
        if !self.may_be_stored(key) {
            return Ok(None);
        }
        if let Some(row) = self.storing.as_ref().and_then(|chunk| chunk.0.get(key)) {
            return Ok(row.value.clone());
        }
        let Some(stored) = &self.stored else { return Ok(None) };
        Ok(stored.get(key).map_err(failed(table))?.map(|v| v.to_vec()))
    }

    fn scan(&self, table: Table, _: &[u8], _: &[u8], _: Order, _: usize) -> Result<Vec<(Key, Value)>, Error> {
        Err(Error::new(table, "no scan while it is made anew"))
    }
}

impl RowsMut for Fresh {
    fn put(&mut self, _: Table, key: Key, value: Value) {
        let new = !self.may_be_stored(&key);
        match self.rows.entry(key) {
            hash_map::Entry::Occupied(mut row) => {
                let row = row.get_mut();
                self.bytes += value.len();
                self.bytes -= row.value.replace(value).map_or(0, |value| value.len());
            }
            hash_map::Entry::Vacant(place) => {
                self.bytes += place.key().len() + value.len() + ROW_BYTES;
                place.insert(Row { value: Some(value), new });
            }
        }
    }

    fn remove(&mut self, _: Table, key: Key) {
        let stored = self.may_be_stored(&key);
        match self.rows.entry(key) {
            hash_map::Entry::Occupied(row) if row.get().new => {
                let (key, row) = row.remove_entry();
                self.bytes -= key.len() + row.value.map_or(0, |value| value.len()) + ROW_BYTES;
            }
            hash_map::Entry::Occupied(mut row) => {
                self.bytes -= row.get_mut().value.take().map_or(0, |value| value.len());
            }
            hash_map::Entry::Vacant(place) if stored => {
                self.bytes += place.key().len() + ROW_BYTES;
                place.insert(Row { value: None, new: false });
            }
            hash_map::Entry::Vacant(_) => {}
        }
    }
}

/// The last states of rows, to be stored together.
pub(super) struct Chunk(HashMap<Key, Row>);

impl Chunk {
    /// As a run of its own, whose removals hide what older runs have; so chunks may overlap.
    pub(super) fn store(&self, into: &Keyspace) -> Result<(), store::Error> {
        let mut rows: Vec<(u128, &Key, &Row)> = self.0.iter().map(|(key, row)| (head_of(key), key, row)).collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let mut ingestion = into.start_ingestion()?;
        for (_, key, row) in rows {
            match &row.value {
                Some(value) => ingestion.write(&key[..], &value[..])?,
                None => ingestion.write_tombstone(&key[..])?,
            }
        }
        Ok(ingestion.finish()?)
    }
}

/// All chunks of a table, and where they belong.
pub(super) struct Runs {
    runs: Keyspace,
    keyspace: Keyspace,
    /// What its keys begin with.
    pub(super) firsts: Vec<u8>,
}

impl Runs {
    /// Merges what begins with one of `firsts`, independent of all else.
    pub(super) fn merge(&self, first: u8) -> Result<(), store::Error> {
        let end = first.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded([next]));
        let mut ingestion = self.keyspace.start_ingestion()?;
        for row in self.runs.range((Bound::Included([first]), end)) {
            let (key, value) = row.into_inner()?;
            ingestion.write(key, value)?;
        }
        Ok(ingestion.finish()?)
    }

    /// When all is merged.
    pub(super) fn remove(self, store: &Store) -> Result<(), store::Error> {
        Ok(store.db.delete_keyspace(self.runs)?)
    }
}

/// Orders as the key does as far as it goes.
fn head_of(key: &[u8]) -> u128 {
    let mut head = [0; HEAD_BYTES];
    let length = key.len().min(HEAD_BYTES);
    head[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: Table = Table::Tally;

    fn projection() -> Projection {
        Projection { name: "any", version: 1, table: TABLE, decides: false, fold: |_, _| Ok(()) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Key, Value),
        Remove(Key),
        /// What is in memory goes; is it stored only after the next steps?
        Take(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few keys, so that they meet again; of two first bytes, one of them the last of all.
        let key = || {
            (prop_oneof![Just(b'd'), Just(0xff)], 0..6u8, 0..3usize).prop_map(|(first, next, more)| {
                [&[first, next][..], &[b'k'; HEAD_BYTES][..more * HEAD_BYTES / 2]].concat()
            })
        };
        let step = prop_oneof![
            4 => (key(), any::<[u8; 2]>()).prop_map(|(key, value)| Step::Put(key, value.to_vec())),
            3 => key().prop_map(Step::Remove),
            1 => any::<bool>().prop_map(Step::Take),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_merged_is_what_was_written(steps in steps(), aside in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), 1024 * 1024).unwrap();
            let keyspace = store.table("any.1").unwrap();
            let mut expect = postledger_projections::Memory::default();
            let mut fresh = Fresh::new(projection(), (!aside).then(|| keyspace.clone()), true);
            let mut taken: Option<(Arc<Chunk>, Keyspace)> = None;
            let put_away = |fresh: &mut Fresh, taken: &mut Option<(Arc<Chunk>, Keyspace)>| {
                if let Some((chunk, into)) = taken.take() {
                    chunk.store(&into).unwrap();
                    fresh.taken_is_stored();
                }
            };
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        fresh.put(TABLE, key.clone(), value.clone());
                        expect.put(TABLE, key, value);
                    }
                    Step::Remove(key) => {
                        fresh.remove(TABLE, key.clone());
                        expect.remove(TABLE, key);
                    }
                    Step::Take(later) => {
                        put_away(&mut fresh, &mut taken);
                        let into = fresh.stored().cloned().unwrap_or_else(|| store.runs("any.1").unwrap());
                        taken = Some((fresh.take(into.clone()), into));
                        if !later {
                            put_away(&mut fresh, &mut taken);
                        }
                    }
                }
                for key in [&b"d\x03"[..], b"\xff\x01kkkkkkkk", b"d\x09"] {
                    prop_assert_eq!(fresh.get(TABLE, key), expect.get(TABLE, key));
                }
            }
            put_away(&mut fresh, &mut taken);
            if let Some(runs) = fresh.store_rest(&keyspace).unwrap() {
                runs.firsts.iter().try_for_each(|first| runs.merge(*first)).unwrap();
                runs.remove(&store).unwrap();
            }
            let rows: Vec<(Key, Value)> =
                keyspace.iter().map(|row| row.into_inner().unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            let expect: Vec<(Key, Value)> = expect.table(TABLE).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(rows, expect);
        }
    }
}
