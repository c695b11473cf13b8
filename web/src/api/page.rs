//! Lists in pages: a page says where the next begins.

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::openapi::Describe;

const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MAX: usize = 1000;

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

/// A cursor that no page gave out.
pub fn bad_cursor() -> Problem {
    Problem::invalid("this cursor is not one that a page of this list gave as `next`")
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn limits() {
        assert_eq!(limit(None).ok(), Some(100));
        assert_eq!(limit(Some(1000)).ok(), Some(1000));
        assert!(limit(Some(0)).is_err());
        assert!(limit(Some(1001)).is_err());
    }
}
