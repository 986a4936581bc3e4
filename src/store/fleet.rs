//! What gateways that share a store tell each other through it. A store in a file is not shared, and says nothing.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::time::sleep;

use crate::api::Instance;
use crate::flag::FlagKey;
use crate::store::database::{Connection, Pool};
use crate::store::record::StoredRollout;
use crate::store::rollouts::stored_rollout;
use crate::store::{Store, StoreError};

/// The channel on which a change of any rollout is told.
const CHANNEL: &str = "tidegate";

/// How long a listener whose connection is lost waits before it tries another.
const RETRY: Duration = Duration::from_secs(1);

/// How long a gateway that is gone is remembered.
const FORGOTTEN: &str = "DELETE FROM instances WHERE seen < clock_timestamp() - INTERVAL '1 day'";

/// Hears of changes that somebody made to a store.
#[derive(Debug)]
pub struct Changes {
    pool: Option<PgPool>,
    listener: Option<PgListener>,
}

impl Changes {
    /// Waits until the store may have changed. Never, if nobody shares it.
    pub async fn next(&mut self) {
        let Some(pool) = &self.pool else { return std::future::pending().await };
        let listener = match &mut self.listener {
            Some(listener) => listener,
            None => match listen(pool).await {
                // What was told before is not told again.
                Ok(listener) => {
                    self.listener = Some(listener);
                    return;
                }
                Err(_) => return sleep(RETRY).await,
            },
        };
        if !matches!(listener.try_recv().await, Ok(Some(_))) {
            self.listener = None;
        }
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Tells those that share the store that it has changed, once the transaction is committed.
pub(crate) async fn tell(connection: &mut Connection) -> Result<(), sqlx::Error> {
    match connection {
        Connection::Sqlite(_) => Ok(()),
        Connection::Postgres(_) => connection.execute("SELECT pg_notify($1, '')", &[CHANNEL.into()]).await.map(drop),
    }
}

impl Store {
    /// Whether other gateways may use the store as well.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.readers, Pool::Postgres(_))
    }

    /// The changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let pool = match &self.readers {
            Pool::Sqlite(_) => None,
            Pool::Postgres(pool) => Some(pool.clone()),
        };
        Changes { pool, listener: None }
    }

    /// The rollout of one flag, if it was ever saved.
    ///
    /// # Errors
    ///
    /// If the store fails, or the row is damaged.
    pub async fn rollout(&self, flag: &FlagKey) -> Result<Option<StoredRollout>, StoreError> {
        let rows = self.read("SELECT * FROM rollouts WHERE flag = $1", &[flag.as_str().into()]).await?;
        rows.first().map(stored_rollout).transpose()
    }

    /// Tells that this gateway is alive, which shows as well that the store takes writes.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn beat(&self, us: &Instance) -> Result<(), StoreError> {
        if !self.is_shared() {
            return self.probe().await;
        }
        let work = async |connection: &mut Connection| {
            let sql = "INSERT INTO instances (id, name, version, flag_set, started, seen) \
                       VALUES ($1, $2, $3, $4, $5, clock_timestamp()) ON CONFLICT (id) DO UPDATE \
                       SET name = excluded.name, flag_set = excluded.flag_set, seen = excluded.seen";
            let Instance { id, name, version, flag_set_version, started, .. } = us;
            let values = [id.into(), name.into(), version.into(), flag_set_version.into(), started.into()];
            connection.execute(sql, &values).await?;
            connection.execute(FORGOTTEN, &[]).await.map(drop)
        };
        self.writer.write(work).await
    }

    /// The gateways that share the store, those included that are gone since less than a day.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let sql = "SELECT *, (EXTRACT(EPOCH FROM clock_timestamp() - seen) * 1000)::BIGINT AS lag \
                   FROM instances ORDER BY name, started";
        let rows = self.read(sql, &[]).await?;
        let read = rows.iter().map(|row| {
            Ok(Instance {
                id: row.get("id")?,
                name: row.get("name")?,
                version: row.get("version")?,
                flag_set_version: row.get("flag_set")?,
                started: row.get("started")?,
                lag_ms: row.get::<i64>("lag")?.max(0).cast_unsigned(),
                alive: row.get::<i64>("lag")? < ALIVE_MS,
            })
        });
        read.collect()
    }
}

/// A gateway that was not heard of for so long, in milliseconds, is gone.
const ALIVE_MS: i64 = 5000;
