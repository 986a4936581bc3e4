//! The answers to changes that were asked for with a key of the asker's own, so that whoever asks again is told the same.

use crate::flag::Generation;
use crate::store::database::Connection;
use crate::store::{Store, StoreError};

/// Seconds for which an answer is kept: a day, by which whoever asks again has done so.
const MAX_AGE: i64 = 24 * 60 * 60;

/// Answers that are kept of one asker, and in all: some kilobytes each.
const MAX_OF_ONE: i64 = 500;
const MAX_ANSWERS: i64 = 5000;

/// Seconds after which another gateway that has not answered is taken for dead. No change takes as long.
const GIVEN_UP: i64 = 30;

/// Whose key, and which: what is asked for under it is done once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Once {
    /// Who asks.
    pub asker: String,
    /// The asker's name for the request.
    pub key: String,
}

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Its `ETag`, or nothing.
    pub etag: String,
    /// Its body.
    pub body: String,
}

/// How a request with a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and whoever claimed it is the one to do it.
    New,
    /// It was answered.
    Answered(Answer),
    /// It was done, but whoever did it ended before the answer was kept.
    Done,
    /// Another gateway is doing it.
    UnderWay,
    /// The key was another request's.
    Another,
}

impl Store {
    /// Claims the request whose hash is `asked`, at `now` in seconds since 1970, unless it was claimed before. To be called by
    /// whoever knows that this process is not doing it already.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing is claimed.
    pub async fn claim(&self, once: &Once, asked: &str, now: i64) -> Result<Claim, StoreError> {
        // What this process does not do, nobody does who has the store for itself.
        let given_up = if self.is_shared() { now - GIVEN_UP } else { now };
        self.writer.write(async |connection| claim(connection, once, asked, now, given_up).await).await
    }

    /// Keeps what was answered to what was claimed.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn keep_answer(&self, once: &Once, answer: &Answer) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "UPDATE answers SET status = $1, etag = $2, body = $3 WHERE asker = $4 AND key = $5";
            let Answer { status, etag, body } = answer;
            let (status, Once { asker, key }) = (i64::from(*status), once);
            connection.execute(sql, &[status.into(), etag.into(), body.into(), asker.into(), key.into()]).await
        };
        self.writer.write(work).await.map(drop)
    }

    /// Lets go of what was claimed and not done.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn release(&self, once: &Once) -> Result<(), StoreError> {
        let sql = "DELETE FROM answers WHERE asker = $1 AND key = $2 AND generation = 0 AND status = 0";
        let values = [(&once.asker).into(), (&once.key).into()];
        self.writer.write(async |connection| connection.execute(sql, &values).await).await.map(drop)
    }
}

async fn claim(
    connection: &mut Connection,
    once: &Once,
    asked: &str,
    now: i64,
    given_up: i64,
) -> Result<Claim, sqlx::Error> {
    let (asker, key) = (once.asker.as_str(), once.key.as_str());
    let old = "DELETE FROM answers WHERE at <= $1 OR id <= (SELECT MAX(id) FROM answers) - $2";
    connection.execute(old, &[(now - MAX_AGE).into(), MAX_ANSWERS.into()]).await?;
    let many = "DELETE FROM answers WHERE asker = $1 AND id <= \
                (SELECT id FROM answers WHERE asker = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
    connection.execute(many, &[asker.into(), MAX_OF_ONE.into()]).await?;
    let new = "INSERT INTO answers (asker, key, asked, at, generation, status, etag, body) \
               VALUES ($1, $2, $3, $4, 0, 0, '', '') ON CONFLICT (asker, key) DO NOTHING";
    if connection.execute(new, &[asker.into(), key.into(), asked.into(), now.into()]).await? > 0 {
        return Ok(Claim::New);
    }
    let sql = "SELECT * FROM answers WHERE asker = $1 AND key = $2";
    let rows = connection.fetch(sql, &[asker.into(), key.into()]).await?;
    let Some(row) = rows.first() else { return Ok(Claim::UnderWay) };
    if row.get::<String>("asked")? != asked {
        return Ok(Claim::Another);
    }
    let status = u16::try_from(row.get::<i64>("status")?).unwrap_or(0);
    if status != 0 {
        return Ok(Claim::Answered(Answer { status, etag: row.get("etag")?, body: row.get("body")? }));
    }
    if row.get::<i64>("generation")? != 0 {
        return Ok(Claim::Done);
    }
    if row.get::<i64>("at")? > given_up {
        return Ok(Claim::UnderWay);
    }
    let again = "UPDATE answers SET at = $1 WHERE asker = $2 AND key = $3";
    connection.execute(again, &[now.into(), asker.into(), key.into()]).await?;
    Ok(Claim::New)
}

/// Notes with a change which generation it led to; `None` if it was taken back.
pub(crate) async fn done(
    connection: &mut Connection,
    once: &Once,
    generation: Option<Generation>,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE answers SET generation = $1 WHERE asker = $2 AND key = $3";
    let generation = generation.map_or(0, |generation| generation.get().cast_signed());
    connection.execute(sql, &[generation.into(), (&once.asker).into(), (&once.key).into()]).await.map(drop)
}
