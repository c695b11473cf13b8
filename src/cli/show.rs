//! `show`: all that happened to a message, in order.

use clap::Args;
use postledger_events::Record;
use postledger_events::id::Seq;
use postledger_web::api::timeline::Timeline;
use serde_json::value::RawValue;

use super::Session;
use super::error::Error;
use super::query::Query;
use super::story;

/// Show all that happened to a message: every fact in order
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Show {
    /// The number of a delivery (QueueMsgID), or the uuid of a message
    id: String,
}

const EXAMPLES: &str = "\
Examples:
  postledger show 17
  postledger show 0199f0aa-5c2e-7d10-9a77-3f1f6c1d2b11 --json";

impl Show {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        let (items, as_of) = all(session, &self.id).await?;
        if session.out.json {
            return session.out.document(&items);
        }
        let records = items.iter().map(|item| Record::decode(item.get().as_bytes())).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|e| Error::Answer(e.to_string()))?;
        session.out.text(&story::tell(&records))?;
        match as_of {
            Some(seq) => session.out.text(&format!("Timelines are being rebuilt; this is as of record {seq}.\n")),
            None => Ok(()),
        }
    }
}

/// All records of the message, and up to which record they are complete if timelines are being rebuilt.
async fn all(session: &Session, id: &str) -> Result<(Vec<Box<RawValue>>, Option<Seq>), Error> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let query = Query::path(&["messages", id, "timeline"]).with("after", after);
        let part: Timeline = session.client.get(query).await?;
        items.extend(part.items);
        after = part.next;
        if after.is_none() {
            return Ok((items, part.as_of));
        }
    }
}
