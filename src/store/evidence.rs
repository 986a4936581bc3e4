//! The evidence of gateways that share a store: a log of parcels, which all of them put together in the same order.
//!
//! Writers of a shared store take turns, so a parcel of a lower number is there before one of a higher: whoever has read up to
//! one misses none.

use serde::{Deserialize, Serialize};

use crate::api::SecondCounts;
use crate::flag::{FlagKey, Generation};
use crate::store::database::Connection;
use crate::store::{Store, StoreError, json};

/// Seconds for which parcels are kept: whoever was away for longer goes on with the trial as another gateway kept it.
const MAX_AGE: i64 = 600;

/// How many parcels are read at a time.
pub const PARCELS_AT_A_TIME: u32 = 500;

/// What one gateway heard of a canary on trial in a short time.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// Its place among all; 0 before it is in the store.
    pub id: i64,
    /// Its number among the gateway's.
    pub number: i64,
    /// The gateway that heard it; nothing before it is in the store.
    pub gateway: String,
    /// The rollout's generation.
    pub generation: u64,
    /// When it was stored, in seconds since 1970, by the store's clock.
    pub at: i64,
    /// What was heard.
    pub told: Told,
}

/// What was heard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The canary's share of targeting keys, in percent.
    pub share: f64,
    /// What was counted.
    pub counts: SecondCounts,
    /// For failures and for each line that answers can be slow by: some users of the canary, and some whom it failed or was slow
    /// to, by their places in the recorder's tables, which are the same on all gateways.
    pub people: Vec<(Vec<u32>, Vec<u32>)>,
}

/// A parcel to be sent: of which flag, and of which trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The flag.
    pub flag: FlagKey,
    /// The hash of what is on trial.
    pub trial: String,
    /// The parcel.
    pub parcel: Parcel,
}

impl Store {
    /// Adds parcels of `gateway`. One that is there already is not added again.
    ///
    /// # Errors
    ///
    /// If the store fails; then they may be there all the same.
    pub async fn put_parcels(&self, gateway: &str, parcels: &[Outgoing]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "INSERT INTO evidence (flag, trial, generation, gateway, number, at, told) \
                       VALUES ($1, $2, $3, $4, $5, EXTRACT(EPOCH FROM clock_timestamp())::BIGINT, $6) \
                       ON CONFLICT (gateway, number) DO NOTHING";
            for Outgoing { flag, trial, parcel } in parcels {
                let told = json(&parcel.told);
                let values = [
                    flag.as_str().into(),
                    trial.into(),
                    parcel.generation.cast_signed().into(),
                    gateway.into(),
                    parcel.number.into(),
                    (&told).into(),
                ];
                connection.execute(sql, &values).await?;
            }
            let old = "DELETE FROM evidence WHERE at < EXTRACT(EPOCH FROM clock_timestamp())::BIGINT - $1";
            connection.execute(old, &[MAX_AGE.into()]).await.map(drop)
        };
        self.writer.write(work).await
    }

    /// The parcels of a trial after the one of the number `after`, from the generation `since` on, in their order:
    /// [`PARCELS_AT_A_TIME`] at most.
    ///
    /// # Errors
    ///
    /// If the store fails, or a row is damaged.
    pub async fn parcels(
        &self,
        flag: &FlagKey,
        trial: &str,
        since: Generation,
        after: i64,
    ) -> Result<Vec<Parcel>, StoreError> {
        let sql = "SELECT * FROM evidence WHERE flag = $1 AND trial = $2 AND id > $3 AND generation >= $4 \
                   ORDER BY id LIMIT $5";
        let (since, limit) = (since.get().cast_signed(), PARCELS_AT_A_TIME);
        let rows =
            self.read(sql, &[flag.as_str().into(), trial.into(), after.into(), since.into(), limit.into()]).await?;
        let read = rows.iter().map(|row| {
            let told = serde_json::from_str(&row.get::<String>("told")?);
            Ok(Parcel {
                id: row.get("id")?,
                number: row.get("number")?,
                gateway: row.get("gateway")?,
                generation: row.get::<i64>("generation")?.cast_unsigned(),
                at: row.get("at")?,
                told: told.map_err(|_| StoreError::Damaged { flag: flag.to_string(), what: "evidence" })?,
            })
        });
        read.collect()
    }
}
