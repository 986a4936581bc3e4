//! The audit trail as a chain: each event holds the hash of the one before, so that one that was changed, taken out or put
//! in is noticed by what follows it.
//!
//! What a chain cannot tell by itself: whoever may write to the database can write all of it anew from some event on, or
//! cut its end off. A hash that was noted elsewhere tells that, since it is in no chain but the one that it was noted from.

use sha2::{Digest as _, Sha256};
use sqlx::Error;

use crate::api::ChainReport;
use crate::store::database::{Connection, Row};
use crate::store::{Store, StoreError};

/// What the first event follows.
const GENESIS: &str = "";

/// How many events are read at a time.
const PAGE: u32 = 1000;

/// An event's columns, as text where there is one.
#[derive(Debug)]
pub(crate) struct Link<'e> {
    pub(crate) id: i64,
    pub(crate) at: &'e str,
    pub(crate) flag: &'e str,
    pub(crate) generation: i64,
    pub(crate) action: &'e str,
    pub(crate) actor: &'e str,
    pub(crate) reason: Option<&'e str>,
    pub(crate) old: Option<&'e str>,
    pub(crate) new: &'e str,
    pub(crate) rollback: Option<&'e str>,
}

impl Link<'_> {
    /// The SHA-256 of the JSON array of the hash before and the columns, in hexadecimal.
    pub(crate) fn hash(&self, previous: &str) -> String {
        let Link { id, at, flag, generation, action, actor, reason, old, new, rollback } = self;
        let all = (previous, id, at, flag, generation, action, actor, reason, old, new, rollback);
        let text = serde_json::to_string(&all).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The number and the predecessor's hash of the event to be written next. To be asked in a writing transaction.
pub(crate) async fn next(connection: &mut Connection) -> Result<(i64, String), Error> {
    let newest = connection.fetch("SELECT id, hash FROM events ORDER BY id DESC LIMIT 1", &[]).await?;
    match newest.first() {
        Some(row) => Ok((row.get::<i64>("id")? + 1, row.get::<Option<String>>("hash")?.unwrap_or_default())),
        None => Ok((1, GENESIS.to_owned())),
    }
}

/// A check under way.
#[derive(Debug, Default)]
struct Check {
    report: ChainReport,
    /// Of the event before.
    hash: Option<String>,
    id: i64,
    noted: Option<String>,
}

impl Store {
    /// Goes over the whole audit trail, and says where it is not whole; `noted` is a hash that must be in it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn verify(&self, noted: Option<String>) -> Result<ChainReport, StoreError> {
        let mut check = Check { noted, ..Check::default() };
        loop {
            let sql = "SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2";
            let rows = self.read(sql, &[check.id.into(), PAGE.into()]).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                check.follow(row)?;
            }
        }
        if check.noted.is_some() {
            check.report.problems.push(
                "the hash that was noted is in no event: the end was cut off, or all of it was \
                                        written anew"
                    .to_owned(),
            );
        }
        check.report.head = check.hash;
        Ok(check.report)
    }
}

impl Check {
    fn follow(&mut self, row: &Row) -> Result<(), Error> {
        let text = |column| row.get::<Option<String>>(column);
        let (id, before) = (row.get::<i64>("id")?, self.id);
        let (at, flag, action) = (text("at")?, text("flag")?, text("action")?);
        let (actor, reason, old) = (text("actor")?, text("reason")?, text("old")?);
        let (new, rollback, previous, hash) = (text("new")?, text("rollback")?, text("previous")?, text("hash")?);
        self.report.events += 1;
        self.id = id;
        let (Some(previous), Some(hash)) = (previous, hash) else {
            if self.hash.is_some() {
                self.report.problems.push(format!("event {id} has no hash"));
            } else {
                self.report.unchained += 1;
            }
            return Ok(());
        };
        let expected = self.hash.as_deref().unwrap_or(GENESIS);
        // Before there were chains, numbers could be left out.
        if self.hash.is_some() || before == 0 {
            match id - before {
                1 => {}
                2 => self.report.problems.push(format!("event {} is missing", id - 1)),
                _ => self.report.problems.push(format!("events {} to {} are missing", before + 1, id - 1)),
            }
        }
        let link = Link {
            id,
            at: at.as_deref().unwrap_or_default(),
            flag: flag.as_deref().unwrap_or_default(),
            generation: row.get("generation")?,
            action: action.as_deref().unwrap_or_default(),
            actor: actor.as_deref().unwrap_or_default(),
            reason: reason.as_deref(),
            old: old.as_deref(),
            new: new.as_deref().unwrap_or_default(),
            rollback: rollback.as_deref(),
        };
        if link.hash(&previous) != hash {
            self.report.problems.push(format!("event {id} was changed: its hash is not that of what it says"));
        } else if previous != expected && id == before + 1 {
            self.report
                .problems
                .push(format!("event {id} does not follow event {before}: one of them was written anew"));
        }
        if self.noted.as_ref() == Some(&hash) {
            self.noted = None;
        }
        self.hash = Some(hash);
        Ok(())
    }
}
