//! What was counted of canaries on trial, second by second: enough to judge a release again.
//!
//! It is a record for people, and nothing that Tidegate rests on. It is bounded by age and by rows, and what a failing
//! store does not take is lost.

use crate::api::{Second, SecondCounts};
use crate::flag::{FlagKey, Percentage};
use crate::store::database::{Connection, Row};
use crate::store::{Store, StoreError, json, parse_json};

/// Seconds after which a row is deleted: two weeks, in which whoever wants to look has looked.
const MAX_AGE: i64 = 14 * 24 * 60 * 60;

/// Rows that are kept at most: some 100 MiB.
const MAX_ROWS: i64 = 500_000;

/// Rows that are read at most: a day of one gateway.
const MAX_READ: u32 = 100_000;

impl Store {
    /// Adds `seconds` of flags, and forgets old ones.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save_seconds(&self, seconds: &[(FlagKey, Second)]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "INSERT INTO seconds (flag, release, generation, percentage, second, gateway, counts) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7)";
            for (flag, second) in seconds {
                let percentage = Percentage::from_percent(second.percentage).unwrap_or(Percentage::ZERO);
                let counts = json(&second.counts);
                let values = [
                    flag.as_str().into(),
                    (&second.release).into(),
                    second.generation.cast_signed().into(),
                    percentage.thousandths().into(),
                    second.at.into(),
                    (&second.gateway).into(),
                    (&counts).into(),
                ];
                connection.execute(sql, &values).await?;
            }
            let newest = seconds.iter().map(|(_, second)| second.at).max().unwrap_or(0);
            connection.execute("DELETE FROM seconds WHERE second < $1", &[(newest - MAX_AGE).into()]).await?;
            let surplus = "DELETE FROM seconds WHERE id <= (SELECT MAX(id) FROM seconds) - $1";
            connection.execute(surplus, &[MAX_ROWS.into()]).await?;
            Ok(())
        };
        self.writer.write(work).await
    }

    /// The seconds of a flag's release, or of the last one that there are any of, from `since` on, oldest first: as many of the
    /// oldest as can be read.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn seconds(
        &self,
        flag: &FlagKey,
        release: Option<&str>,
        since: Option<i64>,
    ) -> Result<Vec<Second>, StoreError> {
        let sql = "SELECT * FROM seconds WHERE flag = $1 AND release = COALESCE($2, \
                   (SELECT release FROM seconds WHERE flag = $1 ORDER BY id DESC LIMIT 1)) \
                   AND second >= $4 ORDER BY second, id LIMIT $3";
        let since = since.unwrap_or(i64::MIN);
        let rows = self.read(sql, &[flag.as_str().into(), release.into(), MAX_READ.into(), since.into()]).await?;
        rows.iter().map(|row| second(flag, row)).collect()
    }

    /// The seconds of a flag's releases, from `from` to before `until`, oldest first: as many of the oldest as can be read.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn seconds_between(&self, flag: &FlagKey, from: i64, until: i64) -> Result<Vec<Second>, StoreError> {
        let sql = "SELECT * FROM seconds WHERE second >= $2 AND second < $3 AND flag = $1 ORDER BY second, id LIMIT $4";
        let rows = self.read(sql, &[flag.as_str().into(), from.into(), until.into(), MAX_READ.into()]).await?;
        rows.iter().map(|row| second(flag, row)).collect()
    }
}

fn second(flag: &FlagKey, row: &Row) -> Result<Second, StoreError> {
    let damaged = |what| StoreError::Damaged { flag: flag.to_string(), what };
    let percentage = u32::try_from(row.get::<i64>("percentage")?).ok().and_then(Percentage::from_thousandths);
    let counts: Option<SecondCounts> =
        parse_json(Some(row.get("counts")?)).map_err(|_| damaged("counts of a second"))?;
    Ok(Second {
        at: row.get("second")?,
        gateway: row.get("gateway")?,
        release: row.get("release")?,
        generation: row.get::<i64>("generation")?.cast_unsigned(),
        percentage: percentage.ok_or_else(|| damaged("percentage of a second"))?.as_percent(),
        counts: counts.ok_or_else(|| damaged("counts of a second"))?,
    })
}
