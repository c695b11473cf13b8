//! What may happen in a simulated world, drawn from a seed. A step means something after any others, so a failure can be
//! shrunk by leaving steps out.

use std::time::Duration;

use postledger_events::fact::job::{CallAction, QueueAction};

use super::dice::Dice;
use super::world::START;

pub const ACCOUNTS: u32 = 3;
pub const RECIPIENTS: u32 = 12;
pub const DOMAINS: u32 = 3;
/// How far people's times lie from the start of a world.
const SCHEDULE_S: u32 = 4_000;

/// One thing that happens. Picks are taken modulo what there is to pick from.
#[derive(Clone, Debug)]
pub enum Step {
    Submit(Submission),
    /// The reactor looks at what is due, and notes what it finds running that it does not run.
    Look {
        jitter_s: i8,
    },
    /// The reactor starts the next group it found.
    Launch,
    /// An attempt ends as its destination has it.
    Finish {
        attempt: u32,
        dice: u64,
        jitter_s: i8,
    },
    /// An attempt that ended, or was given up, is told of again.
    FinishAgain {
        attempt: u32,
        dice: u64,
    },
    /// An attempt's task dies; its transaction may have come to its end or not.
    TaskDies {
        attempt: u32,
        dice: u64,
    },
    /// The process dies and starts again.
    Crash {
        dice: u64,
    },
    /// The process dies, the last records are lost, and the ledger goes on as a new branch.
    Branch {
        lost: u32,
        dice: u64,
    },
    /// From now on the hosts of a domain do this.
    Mood {
        domain: u32,
        mood: Mood,
    },
    /// Somebody else than the reactor asks for leave, for whatever deliveries.
    StrayStart {
        message: u32,
        others_too: bool,
        twice: bool,
    },
    /// An attempt that runs is given up.
    StrayAbandon {
        attempt: u32,
        twice: bool,
        jitter_s: i8,
    },
    Queue {
        action: QueueAction,
        filter: Filter,
    },
    AddHoldRule {
        account: Option<u32>,
        from_ours: bool,
        to: Option<u32>,
    },
    RemoveHoldRule {
        rule: u32,
    },
    AdvanceJobs,
    Suppress {
        account: u32,
        recipient: u32,
    },
    Lift {
        account: u32,
        recipient: u32,
    },
    Configure {
        account: u32,
        settings: Settings,
    },
    Create {
        account: u32,
    },
    Remove {
        account: u32,
    },
    DisableDomain {
        disabled: bool,
    },
    Receive {
        accounts: Vec<u32>,
    },
    Delete {
        account: u32,
        message: u32,
    },
    /// The sender is told of a failure, or can't be.
    Notify {
        notice: u32,
        drop: bool,
    },
    /// Something about endpoints and calls.
    Call(CallStep),
    Expire,
    Pass {
        seconds: u32,
    },
}

#[derive(Clone, Debug)]
pub enum CallStep {
    Configure {
        account: u32,
        endpoint: u32,
        dice: u64,
    },
    Remove {
        endpoint: u32,
    },
    /// The reactor makes the next call of an endpoint.
    Post {
        endpoint: u32,
    },
    /// A call ends as its receiver has it.
    Answer {
        flight: u32,
        dice: u64,
    },
    /// From now on the receiver does this.
    Receive {
        endpoint: u32,
        reception: Reception,
    },
    Change {
        endpoint: u32,
        action: CallAction,
        dice: u64,
    },
    /// Days in which the receiver of an endpoint does not answer once.
    Ordeal {
        endpoint: u32,
        calls: u32,
        seconds_after: u32,
    },
    /// Something about the replay of an endpoint.
    Replay {
        endpoint: u32,
        dice: u64,
    },
}

/// How a receiver treats calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    Takes,
    Fails,
    /// Nothing comes back; whether it took the call is up to the dice.
    Hangs,
    Gone,
    /// What there was to tell is gone, and so nothing is sent.
    Forgotten,
}

const RECEPTIONS: [Reception; 12] = [
    Reception::Takes,
    Reception::Takes,
    Reception::Takes,
    Reception::Takes,
    Reception::Takes,
    Reception::Fails,
    Reception::Fails,
    Reception::Fails,
    Reception::Hangs,
    Reception::Hangs,
    Reception::Gone,
    Reception::Forgotten,
];

#[derive(Clone, Debug)]
pub struct Submission {
    pub account: u32,
    pub recipients: Vec<u32>,
    pub release_s: Option<u32>,
    pub key: Option<u32>,
    pub sent_copy: bool,
    pub null_sender: bool,
}

#[derive(Clone, Debug)]
pub struct Filter {
    pub ids: Vec<u32>,
    pub account: Option<u32>,
    pub to: Option<u32>,
    pub held: Option<bool>,
    pub due_before_s: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub keep_s: u64,
    pub keep_contents: bool,
    pub waits_s: Option<Vec<u32>>,
    pub messages_per_day_max: Option<u32>,
    pub quota_bytes: Option<u64>,
}

/// How the hosts of a domain treat us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Accepts,
    Defers,
    Rejects,
    /// Breaks the connection after all content was sent; what it does with the content is up to the dice.
    HangsUp,
    Unreachable,
    /// Something else for each recipient.
    Picky,
}

const MOODS: [Mood; 7] =
    [Mood::Accepts, Mood::Accepts, Mood::Defers, Mood::Rejects, Mood::HangsUp, Mood::Unreachable, Mood::Picky];

/// The steps of a world.
pub fn draw(seed: u64, count: usize) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    (0..count).map(|_| step(&mut dice)).collect()
}

/// How often each kind of step comes, of 1,000.
fn step(d: &mut Dice) -> Step {
    match d.below(1000) {
        0..100 => Step::Submit(submission(d)),
        100..200 => Step::Call(call_step(d)),
        200..300 => Step::Look { jitter_s: jitter(d) },
        300..450 => Step::Launch,
        450..590 => Step::Finish { attempt: pick(d), dice: d.roll(), jitter_s: jitter(d) },
        590..605 => Step::FinishAgain { attempt: pick(d), dice: d.roll() },
        605..615 => Step::TaskDies { attempt: pick(d), dice: d.roll() },
        615..623 => Step::Crash { dice: d.roll() },
        623 => Step::Branch { lost: d.below(300), dice: d.roll() },
        624..643 => Step::Mood { domain: d.below(DOMAINS), mood: d.one_of(&MOODS) },
        643..663 => Step::StrayStart { message: pick(d), others_too: d.percent(50), twice: d.percent(10) },
        663..673 => Step::StrayAbandon { attempt: pick(d), twice: d.percent(10), jitter_s: jitter(d) },
        673..723 => Step::Queue { action: action(d), filter: filter(d) },
        723..731 => Step::AddHoldRule {
            account: d.some(70, account),
            from_ours: d.percent(50),
            to: d.some(70, |d| d.below(DOMAINS)),
        },
        731..743 => Step::RemoveHoldRule { rule: pick(d) },
        743..783 => Step::AdvanceJobs,
        783..798 => Step::Suppress { account: account(d), recipient: d.below(RECIPIENTS) },
        798..818 => Step::Lift { account: account(d), recipient: d.below(RECIPIENTS) },
        818..828 => Step::Configure { account: account(d), settings: settings(d) },
        828..834 => Step::Create { account: account(d) },
        834..836 => Step::Remove { account: account(d) },
        836..839 => Step::DisableDomain { disabled: d.percent(30) },
        839..851 => Step::Receive { accounts: d.list(1, 3, account) },
        851..866 => Step::Delete { account: account(d), message: pick(d) },
        866..906 => Step::Notify { notice: pick(d), drop: d.percent(10) },
        906..926 => Step::Expire,
        926..976 => Step::Call(call_step(d)),
        _ => Step::Pass { seconds: 1 + d.below(300) },
    }
}

/// How often each kind of step about calls comes, of 100.
fn call_step(d: &mut Dice) -> CallStep {
    match d.below(100) {
        0..2 => CallStep::Configure { account: account(d), endpoint: d.below(3), dice: d.roll() },
        2 => CallStep::Remove { endpoint: pick(d) },
        3 => CallStep::Ordeal { endpoint: pick(d), calls: 10 + d.below(70), seconds_after: d.below(900_000) },
        4..45 => CallStep::Post { endpoint: pick(d) },
        45..83 => CallStep::Answer { flight: pick(d), dice: d.roll() },
        83..88 => CallStep::Receive { endpoint: pick(d), reception: d.one_of(&RECEPTIONS) },
        88..94 => CallStep::Change {
            endpoint: pick(d),
            action: d.one_of(&[CallAction::Retry, CallAction::Retry, CallAction::Cancel]),
            dice: d.roll(),
        },
        _ => CallStep::Replay { endpoint: pick(d), dice: d.roll() },
    }
}

fn pick(d: &mut Dice) -> u32 {
    d.below(u32::MAX)
}

fn account(d: &mut Dice) -> u32 {
    d.below(ACCOUNTS)
}

/// As the clock rolls it: -5 to 4.
fn jitter(d: &mut Dice) -> i8 {
    i8::try_from(d.below(10)).expect("less than ten") - 5
}

fn submission(d: &mut Dice) -> Submission {
    Submission {
        account: account(d),
        recipients: d.list(1, 5, |d| d.below(RECIPIENTS)),
        release_s: d.some(15, |d| d.below(SCHEDULE_S)),
        key: d.some(20, |d| d.below(6)),
        sent_copy: d.percent(10),
        null_sender: d.percent(10),
    }
}

fn action(d: &mut Dice) -> QueueAction {
    match d.below(12) {
        0..3 => QueueAction::Hold,
        3..7 => QueueAction::Release,
        7 => QueueAction::Cancel,
        8 => QueueAction::Fail,
        9 => QueueAction::ScheduleAt(START + Duration::from_secs(u64::from(d.below(SCHEDULE_S)))),
        _ => QueueAction::ScheduleAdd(d.below(600)),
    }
}

/// Mostly by numbers; a filter without makes a job.
fn filter(d: &mut Dice) -> Filter {
    Filter {
        ids: if d.percent(70) { d.list(1, 5, pick) } else { Vec::new() },
        account: d.some(40, account),
        to: d.some(40, |d| d.below(DOMAINS)),
        held: d.some(15, |d| d.percent(50)),
        due_before_s: d.some(10, |d| d.below(SCHEDULE_S)),
    }
}

fn settings(d: &mut Dice) -> Settings {
    Settings {
        keep_s: d.one_of(&[0, 300, 3600]),
        keep_contents: d.percent(50),
        waits_s: d.some(50, |d| d.list(0, 4, |d| 1 + d.below(500))),
        messages_per_day_max: d.some(10, |d| 50 + d.below(500)),
        quota_bytes: d.some(20, |d| u64::from(d.below(4_000))),
    }
}
