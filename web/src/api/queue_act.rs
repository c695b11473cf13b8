//! Changes to queued deliveries: hold, release, schedule, cancel, fail.

use std::sync::Arc;

use axum::extract::State;
use postledger_events::command::QueueCommand;
use postledger_events::fact::job::QueueAction;
use postledger_events::id::DeliveryId;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Body, read};
use super::jobs::{Started, unexpected};
use super::problem::Problem;
use super::queue;
use super::queue_walk::{Filter, Place, walk};
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// Deliveries that one command names.
const COMMAND_IDS_MAX: usize = 1000;
/// Deliveries that one request changes by numbers or by parts of addresses; other filters become a job without end.
const REQUEST_IDS_MAX: usize = 10_000;

/// What to do, and with which deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "QueueAct", example = r#"{"action": {"schedule_add": 3600}, "filter": {"domain": "example.org"}}"#)]
pub struct Act {
    pub action: Action,
    #[serde(default)]
    pub filter: Filter,
    /// A filter without any condition means the whole queue and must be confirmed.
    #[serde(default)]
    pub all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "QueueAction")]
pub enum Action {
    Hold,
    Release,
    Cancel,
    Fail,
    /// Due at this time.
    ScheduleAt(Timestamp),
    /// Due this many seconds later than before.
    ScheduleAdd(u32),
}

impl From<Action> for QueueAction {
    fn from(action: Action) -> QueueAction {
        match action {
            Action::Hold => QueueAction::Hold,
            Action::Release => QueueAction::Release,
            Action::Cancel => QueueAction::Cancel,
            Action::Fail => QueueAction::Fail,
            Action::ScheduleAt(at) => QueueAction::ScheduleAt(at),
            Action::ScheduleAdd(seconds) => QueueAction::ScheduleAdd(seconds),
        }
    }
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of(queue::TAG, queue::ABOUT).post("/queue", "Hold, release, schedule, cancel or fail deliveries", act::<P>)
}

async fn act<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(act): Body<Act>,
) -> Result<Started, Problem> {
    let Act { action, mut filter, all } = act;
    if filter == Filter::default() && !all {
        return Err(Problem::invalid("a filter without any condition means the whole queue; say so with all"));
    }
    filter.account = caller.scope(filter.account.take())?;
    if filter.ids.len() > REQUEST_IDS_MAX {
        return Err(Problem::invalid(format!("more than {REQUEST_IDS_MAX} ids; name fewer, or use a filter")));
    }
    if filter.ids.is_empty() && !filter.has_parts() {
        let command =
            QueueCommand { filter: filter.to_command(Vec::new()), action: action.into(), by: caller.author() };
        return Started::of(site.port.execute(Command::Queue(command)).await?);
    }
    let ids = if filter.has_parts() { select(&site, filter.clone()).await? } else { filter.ids.clone() };
    if ids.len() > REQUEST_IDS_MAX {
        return Err(Problem::invalid(format!("more than {REQUEST_IDS_MAX} deliveries; narrow the filter")));
    }
    let mut affected = 0;
    for ids in ids.chunks(COMMAND_IDS_MAX) {
        let filter = filter.to_command(ids.to_vec());
        let command = QueueCommand { filter, action: action.into(), by: caller.author() };
        match site.port.execute(Command::Queue(command)).await? {
            Answer::Affected(n) => affected += n,
            other => return Err(unexpected(&other)),
        }
    }
    Ok(Started::Affected(affected))
}

/// The numbers of what is meant now; one more than are allowed, if there are more.
async fn select<P: Port>(site: &Arc<Site<P>>, filter: Filter) -> Result<Vec<DeliveryId>, Problem> {
    read(site, move |view| {
        let (mut ids, mut place) = (Vec::new(), Some(Place::START));
        while let Some(from) = place
            && ids.len() <= REQUEST_IDS_MAX
        {
            let (found, next) = walk(view, &filter, None, from, REQUEST_IDS_MAX + 1 - ids.len())?;
            ids.extend(found.into_iter().map(|(row, _)| row.id));
            place = next;
        }
        Ok(ids)
    })
    .await
}
