//! Lists in pages: a page says where the next begins.

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::openapi::Describe;

const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MAX: usize = 1000;
/// Rows of a long list that are looked at for one page, whether or not they agree with what was asked for.
const LOOKED_AT_MAX: usize = 10_000;
/// Rows that are read at once if the first of them were not enough.
const CHUNK: usize = 500;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The `cursor` to ask for what follows; `null`: nothing follows.
    pub next: Option<String>,
}

/// Which page is asked for.
#[derive(Clone, Debug, Default, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
pub struct Paging {
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    pub limit: Option<usize>,
}

impl Paging {
    pub fn limit(&self) -> Result<usize, Problem> {
        limit(self.limit)
    }

    /// A page of a short list that was read in full and is sorted by `name`, which is no other entry's.
    pub fn cut<T>(&self, mut all: Vec<T>, name: impl Fn(&T) -> String) -> Result<Page<T>, Problem> {
        let limit = self.limit()?;
        if let Some(cursor) = &self.cursor {
            all.retain(|item| name(item) > *cursor);
        }
        let more = all.len() > limit;
        all.truncate(limit);
        let next = all.last().filter(|_| more).map(&name);
        Ok(Page { items: all, next })
    }
}

/// How many items a page may have.
pub fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        n @ 1..=LIMIT_MAX => Ok(n),
        _ => Err(Problem::invalid(format!("limit is 1 to {LIMIT_MAX}"))),
    }
}

/// What was found in a long list for one page.
pub struct Looked<T, K> {
    /// More than the page may have, unless that was all or too many were looked at.
    pub found: Vec<T>,
    /// The last row that was looked at, if others may follow.
    pub end: Option<K>,
}

/// Looks behind `place` for what a page of `limit` has, and for one more, which tells that there is a next page. `read` gives so
/// many of the rows behind a place, each of which is one itself.
pub fn look<T, K: Copy, E>(
    limit: usize,
    mut place: K,
    read: impl Fn(K, usize) -> Result<Vec<T>, E>,
    place_of: impl Fn(&T) -> K,
    is_meant: impl Fn(&T) -> bool,
) -> Result<Looked<T, K>, E> {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    // If all rows are meant, no more than these are read.
    let mut size = limit + 1;
    while found.len() <= limit && looked_at < LOOKED_AT_MAX {
        let chunk = read(place, size)?;
        let is_last = chunk.len() < size;
        looked_at += chunk.len();
        place = chunk.last().map_or(place, &place_of);
        found.extend(chunk.into_iter().filter(&is_meant));
        if is_last {
            return Ok(Looked { found, end: None });
        }
        size = CHUNK.min(LOOKED_AT_MAX.saturating_sub(looked_at));
    }
    Ok(Looked { found, end: Some(place) })
}

/// A cursor that no page gave out.
pub fn bad_cursor() -> Problem {
    Problem::invalid("this cursor is not one that a page of this list gave as `next`")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn pages_join_to_the_whole() {
        let all: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut paging = Paging { cursor: None, limit: Some(2) };
        let mut seen = Vec::new();
        loop {
            let page = paging.cut(all.clone(), Clone::clone).unwrap();
            assert!(page.items.len() <= 2);
            seen.extend(page.items);
            paging.cursor = page.next;
            if paging.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    /// What a look finds among the numbers below 100,000, newest first, where it ends, and how many it reads.
    fn looked(limit: usize, before: u32, is_meant: impl Fn(u32) -> bool) -> (Vec<u32>, Option<u32>, usize) {
        let rows_read = Cell::new(0);
        let read = |before: u32, size: usize| {
            let rows: Vec<u32> = (0..before).rev().take(size).collect();
            rows_read.set(rows_read.get() + rows.len());
            Ok::<_, ()>(rows)
        };
        let Looked { found, end } = look(limit, before, read, |row| *row, |row| is_meant(*row)).unwrap();
        (found, end, rows_read.get())
    }

    #[test]
    fn a_page_reads_little_more_than_it_has() {
        assert_eq!(looked(1, 100_000, |_| true), (vec![99_999, 99_998], Some(99_998), 2));
        assert_eq!(looked(2, 3, |_| true), (vec![2, 1, 0], Some(0), 3), "the third tells that there is a next page");
        assert_eq!(looked(3, 3, |_| true), (vec![2, 1, 0], None, 3));
        assert_eq!(looked(3, 0, |_| true), (vec![], None, 0));
        let (found, _, rows_read) = looked(LIMIT_MAX, 100_000, |_| true);
        assert_eq!((found.len(), rows_read), (LIMIT_MAX + 1, LIMIT_MAX + 1));
    }

    #[test]
    fn what_is_rare_is_looked_for_so_far_and_no_farther() {
        let (found, end, rows_read) = looked(1, 100_000, |row| row % 400 == 0);
        assert_eq!((found, end, rows_read), (vec![99_600, 99_200], Some(98_998), 1_002));
        assert_eq!(looked(1, 100_000, |_| false), (vec![], Some(90_000), LOOKED_AT_MAX));
        assert_eq!(looked(1, 90_000, |row| row == 89_000), (vec![89_000], Some(80_000), LOOKED_AT_MAX));
        assert_eq!(looked(1, 700, |_| false), (vec![], None, 700));
    }

    #[test]
    fn limits() {
        assert_eq!(limit(None).ok(), Some(100));
        assert_eq!(limit(Some(1000)).ok(), Some(1000));
        assert!(limit(Some(0)).is_err());
        assert!(limit(Some(1001)).is_err());
    }
}
