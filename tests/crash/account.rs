//! What the ledger says of all that was asked, and whether it is what the clients and the next hop saw.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use postledger::clock::Clock;
use postledger::ledger::verify::verify;
use postledger::ledger::{Ledger, Options, Snapshot};
use postledger_events::fact::attempt::Failure;
use postledger_events::fact::delivery::Wish;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{DeliveryId, JobId, Sha256};
use postledger_events::{Event, Record};
use postledger_projections::is_body_live;

use super::load::{Action, Asked, LINE, Request, Sent, is_suppressed, subject_of};
use crate::sink::{Sink, refusal};

/// What is there of a message.
struct Submitted {
    message_id: String,
    deliveries: BTreeMap<DeliveryId, String>,
    body: BodyRef,
}

/// All that the log tells.
#[derive(Default)]
pub struct Account {
    /// By subject.
    submitted: BTreeMap<String, Submitted>,
    /// Accepted more than once.
    repeated: Vec<String>,
    suppressions: BTreeSet<String>,
    actions: BTreeSet<(DeliveryId, Action)>,
    outcomes: BTreeMap<DeliveryId, Vec<Outcome>>,
    /// Deliveries whose attempt had started and not ended when the program went; the next start notes the doubt.
    running: BTreeSet<DeliveryId>,
    /// Attempts of a delivery that may have arrived although nobody saw the reply.
    pub doubts: BTreeMap<DeliveryId, u32>,
    /// What is wrong with contents that are still needed, and what `verify --full` finds.
    broken: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Failed(Failure),
    Suppressed,
    Canceled,
}

/// Whether everything must have come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    AllDone,
    MayBeOpen,
}

/// What a comparison found; a text for each single thing.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub acknowledged: u64,
    pub lost: Vec<String>,
    /// Arrived more often than it was in doubt.
    pub duplicated: Vec<String>,
    /// There, although nobody asked for it, or in part only.
    pub phantom: Vec<String>,
}

impl Account {
    /// Of a ledger that no program holds.
    pub fn read(dir: &Path) -> Account {
        let ledger = Ledger::open(Options::new(dir), Clock::system()).expect("the ledger opens");
        let snapshot = ledger.snapshot();
        let mut account = Account::default();
        for line in snapshot.records(snapshot.first()..=snapshot.position()) {
            let (_, line) = line.expect("a line");
            account.add(Record::decode(&line).expect("a record").event);
        }
        account.broken = account.broken_bodies(&ledger, &snapshot);
        drop((snapshot, ledger));
        let report = verify(&Options::new(dir), true, &mut |_, _| {}).expect("it can be verified");
        account.broken.extend(report.findings.into_iter().map(|finding| finding.text));
        account
    }

    fn broken_bodies(&self, ledger: &Ledger, snapshot: &Snapshot) -> Vec<String> {
        let check = |submitted: &Submitted| {
            let body = &submitted.body;
            if !is_body_live(snapshot, body.body).map_err(|e| e.to_string())? {
                return Ok(());
            }
            let bytes = ledger.body(body).map_err(|e| e.to_string())?;
            if Sha256::of(&bytes) == body.sha256 { Ok(()) } else { Err("is not what was accepted".to_owned()) }
        };
        let broken = |(subject, submitted)| check(submitted).err().map(|e| format!("the content of {subject}: {e}"));
        self.submitted.iter().filter_map(broken).collect()
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::MessageSubmitted(e) => {
                let personal = e.personal.expect("nothing was forgotten");
                let addresses = personal.recipients.iter().map(|r| r.address.to_string());
                let deliveries = e.deliveries.iter().map(|d| d.id).zip(addresses).collect();
                let submitted = Submitted { message_id: personal.message_id, deliveries, body: e.body };
                if self.submitted.insert(personal.subject.clone(), submitted).is_some() {
                    self.repeated.push(format!("{} was accepted twice", personal.subject));
                }
            }
            // Those that a failure brought are decisions of the ledger.
            Event::AddressSuppressed(e) => {
                let address = e.personal.map(|p| p.original_address.to_string()).unwrap_or_default();
                self.suppressions.extend(is_suppressed(&address).then_some(address));
            }
            Event::DeliveryHeld(e) => self.act(e.deliveries.iter().copied(), Action::Hold, e.job),
            Event::DeliveryReleased(e) => self.act(e.deliveries.iter().copied(), Action::Release, e.job),
            Event::WishNoted(e) => match e.wish {
                Wish::Hold => self.act([e.delivery].into_iter(), Action::Hold, e.job),
                Wish::Cancel => self.act([e.delivery].into_iter(), Action::Cancel, e.job),
                Wish::Fail | Wish::Reschedule(_) => {}
            },
            Event::DeliveryCanceled(e) => {
                self.act(e.deliveries.iter().map(|d| d.id), Action::Cancel, e.job);
                self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Canceled)));
            }
            Event::AttemptStarted(e) => self.running.extend(e.deliveries.iter().map(|d| d.id)),
            Event::Delivered(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Delivered))),
            Event::DeliveryFailed(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Failed(d.why)))),
            Event::DeliverySuppressed(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Suppressed))),
            Event::AttemptInDoubt(e) => {
                e.deliveries.iter().for_each(|d| _ = self.running.remove(&d.id));
                self.doubt(e.deliveries.iter().map(|d| d.id));
            }
            Event::AttemptDeferred(e) => {
                e.deliveries.iter().for_each(|d| _ = self.running.remove(&d.id));
                let errors = e.personal.map(|p| p.errors).unwrap_or_default();
                let may_have_arrived = |n: u16| errors[usize::from(n)].contains("may have arrived");
                let doubtful = e.deliveries.iter().filter(|d| d.problem.error.is_some_and(may_have_arrived));
                self.doubt(doubtful.map(|d| d.id));
            }
            _ => {}
        }
    }

    /// What a job does was asked for by its filter.
    fn act(&mut self, ids: impl Iterator<Item = DeliveryId>, action: Action, job: Option<JobId>) {
        if job.is_none() {
            self.actions.extend(ids.map(|id| (id, action)));
        }
    }

    fn end(&mut self, ended: impl Iterator<Item = (DeliveryId, Outcome)>) {
        for (id, outcome) in ended {
            self.running.remove(&id);
            self.outcomes.entry(id).or_default().push(outcome);
        }
    }

    fn doubt(&mut self, doubtful: impl Iterator<Item = DeliveryId>) {
        for id in doubtful {
            *self.doubts.entry(id).or_default() += 1;
        }
    }

    /// With what arrived at the sink, if mail goes there.
    pub fn compare(&self, sent: &Sent, sink: Option<&Sink>, work: Work) -> Verdict {
        let mut verdict = Verdict { acknowledged: sent.acknowledged(), ..Verdict::default() };
        verdict.lost.extend(self.broken.iter().cloned());
        verdict.lost.extend(self.lost(sent));
        verdict.phantom.extend(self.repeated.iter().cloned());
        verdict.phantom.extend(self.phantoms(sent));
        if let Some(sink) = sink {
            self.compare_arrivals(sent, sink, work, &mut verdict);
        }
        verdict
    }

    fn lost<'a>(&'a self, sent: &'a Sent) -> impl Iterator<Item = String> + 'a {
        let messages = sent.answered.iter().filter_map(|(subject, answer)| self.check_answer(subject, answer).err());
        let suppressions = sent.suppressions.iter().filter(|(address, _)| !self.suppressions.contains(*address));
        let actions = sent.actions.iter().filter(|(action, _)| !self.actions.contains(action));
        let suppressions = suppressions.filter(|(_, asked)| **asked == Asked::Acknowledged);
        let actions = actions.filter(|(_, asked)| **asked == Asked::Acknowledged);
        messages
            .chain(suppressions.map(|(address, _)| format!("the suppression of {address} was lost")))
            .chain(actions.map(|((id, action), _)| format!("{action:?} of delivery {id} was lost")))
    }

    fn check_answer(&self, subject: &str, answer: &[u8]) -> Result<(), String> {
        let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
        let kept = self.submitted.get(subject).ok_or_else(|| format!("{subject} was lost"))?;
        let told = answer["Submissions"].as_array().expect("submissions").iter();
        let told: BTreeMap<_, _> = told
            .map(|s| (DeliveryId(s["QueueMsgID"].as_u64().expect("a number")), s["Address"].as_str().expect("text")))
            .collect();
        let deliveries: BTreeMap<_, _> = kept.deliveries.iter().map(|(id, address)| (*id, address.as_str())).collect();
        let same = answer["MessageID"] == *kept.message_id && told == deliveries;
        same.then_some(()).ok_or_else(|| format!("{subject} was told as {told:?} and is kept as {deliveries:?}"))
    }

    fn phantoms<'a>(&'a self, sent: &'a Sent) -> impl Iterator<Item = String> + 'a {
        let unasked = |subject: &String| format!("nobody submitted {subject}");
        let messages = self.submitted.iter().filter_map(move |(subject, kept)| match sent.asked.get(subject) {
            None => Some(unasked(subject)),
            Some(request) => kept.is_part_of(request).then(|| format!("{subject} is there in part")),
        });
        let suppressions = self.suppressions.iter().filter(|address| !sent.suppressions.contains_key(*address));
        let actions = self.actions.iter().filter(|action| !sent.actions.contains_key(action));
        messages
            .chain(suppressions.map(|address| format!("nobody suppressed {address}")))
            .chain(actions.map(|(id, action)| format!("nobody asked for {action:?} of delivery {id}")))
    }

    fn compare_arrivals(&self, sent: &Sent, sink: &Sink, work: Work, verdict: &mut Verdict) {
        let own = format!("for{}", sent.name);
        let mut taken = sink.taken().clone();
        taken.retain(|(_, recipient), _| recipient.contains(&own));
        for kept in self.submitted.values() {
            for (id, address) in &kept.deliveries {
                let times = taken.remove(&(kept.message_id.clone(), address.clone())).unwrap_or(0);
                self.compare_delivery(*id, address, times, work, verdict);
            }
        }
        // The others are lost already.
        taken.retain(|(_, recipient), _| !sent.answered.contains_key(subject_of(recipient)));
        let unknown = |((_, to), _)| format!("arrived at {to}, but the ledger knows nothing of it");
        verdict.lost.extend(taken.into_iter().map(unknown));
    }

    fn compare_delivery(&self, id: DeliveryId, address: &str, times: u32, work: Work, verdict: &mut Verdict) {
        let outcomes = self.outcomes.get(&id).map(Vec::as_slice).unwrap_or_default();
        let doubts = self.doubts.get(&id).copied().unwrap_or(0) + u32::from(self.running.contains(&id));
        let what =
            format!("delivery {id} to {address} ended as {outcomes:?}, {doubts} in doubt, arrived {times} times");
        let most = match (outcomes, refusal(address)) {
            ([Outcome::Delivered], None) if is_suppressed(address) => None,
            ([Outcome::Delivered], None) if times == 0 => return verdict.lost.push(what),
            ([Outcome::Delivered], None) => Some(1 + doubts),
            ([Outcome::Failed(Failure::OutcomeUnknown) | Outcome::Canceled], None) => Some(doubts),
            ([Outcome::Failed(Failure::OutcomeUnknown) | Outcome::Canceled], Some(_)) => Some(0),
            ([Outcome::Failed(Failure::Exhausted)], Some("451 4.3.0 later")) => Some(0),
            ([Outcome::Failed(Failure::Permanent)], Some("550 5.1.1 never")) => Some(0),
            ([Outcome::Suppressed], None) if is_suppressed(address) => Some(0),
            ([], _) if work == Work::MayBeOpen => Some(doubts),
            _ => None,
        };
        match most {
            None => verdict.lost.push(what),
            Some(most) if times > most => verdict.duplicated.push(what),
            Some(_) => {}
        }
    }
}

impl Submitted {
    /// Other recipients than asked for, or a content that cannot be the whole text.
    fn is_part_of(&self, request: &Request) -> bool {
        let asked: BTreeSet<_> = request.recipients.iter().collect();
        let text_bytes = (LINE.len() * request.lines) as u64;
        self.deliveries.values().collect::<BTreeSet<_>>() != asked || self.body.size < text_bytes
    }
}
