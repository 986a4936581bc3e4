//! What each gateway of a fleet has counted of both arms: the sums since a generation began, so that writing them again, late or
//! twice adds nothing.

use serde::{Deserialize, Serialize};

use crate::flag::{Arm, FlagKey, Generation};
use crate::store::database::{Connection, Row};
use crate::store::{Store, StoreError, json};

/// What one gateway has counted of a flag's arm in a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmCounts {
    /// The flag.
    pub flag: FlagKey,
    /// The generation.
    pub generation: Generation,
    /// The arm.
    pub arm: Arm,
    /// All of it, since the generation began there.
    pub counted: Counted,
}

/// The outcomes of an arm, added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Successes.
    pub successes: u64,
    /// Failures of every kind.
    pub failures: u64,
    /// The latency buckets that are not empty, each with how many durations fell into it.
    pub latency: Vec<(usize, u64)>,
    /// The sum of all durations, in microseconds.
    pub latency_sum_us: u64,
}

impl Store {
    /// Keeps what `gateway` has counted, in place of what it had counted before. What older generations have is given up.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn put_counts(&self, gateway: &str, counts: &[ArmCounts]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let put = "INSERT INTO counts (flag, gateway, arm, generation, counted) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (flag, gateway, arm) DO UPDATE \
                       SET generation = excluded.generation, counted = excluded.counted \
                       WHERE counts.generation <= excluded.generation";
            let old = "DELETE FROM counts WHERE flag = $1 AND generation < $2";
            for ArmCounts { flag, generation, arm, counted } in counts {
                let (flag, generation, counted) = (flag.as_str(), generation.get().cast_signed(), json(counted));
                let values = [flag.into(), gateway.into(), arm.as_str().into(), generation.into(), (&counted).into()];
                connection.execute(put, &values).await?;
                connection.execute(old, &[flag.into(), generation.into()]).await?;
            }
            Ok(())
        };
        self.writer.write(work).await
    }

    /// What gateways have counted, without what `us` has; nothing, if nobody shares the store.
    ///
    /// # Errors
    ///
    /// If the store fails, or a row is damaged.
    pub async fn counts_of_others(&self, us: &str) -> Result<Vec<ArmCounts>, StoreError> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let rows = self.read("SELECT * FROM counts WHERE gateway <> $1", &[us.into()]).await?;
        rows.iter().map(arm_counts).collect()
    }
}

fn arm_counts(row: &Row) -> Result<ArmCounts, StoreError> {
    let flag: String = row.get("flag")?;
    let damaged = |what| StoreError::Damaged { flag: flag.clone(), what };
    let arm: String = row.get("arm")?;
    Ok(ArmCounts {
        generation: Generation::new(row.get::<i64>("generation")?.cast_unsigned()),
        arm: Arm::BOTH.into_iter().find(|known| known.as_str() == arm).ok_or_else(|| damaged("arm"))?,
        counted: serde_json::from_str(row.get("counted")?).map_err(|_| damaged("counted"))?,
        flag: flag.parse().map_err(|_| damaged("flag"))?,
    })
}
