-- The phase `ramping`, and how a rollout stands to its ramp. SQLite cannot change a CHECK in place, so the column is replaced;
-- the table is not, since that would lose the columns that other migrations add.
ALTER TABLE rollouts RENAME COLUMN phase TO former_phase;

ALTER TABLE rollouts ADD COLUMN phase TEXT NOT NULL DEFAULT 'manual'
    CHECK (phase IN ('manual', 'ramping', 'paused', 'rolled_back', 'promoted'));

UPDATE rollouts SET phase = former_phase;

ALTER TABLE rollouts DROP COLUMN former_phase;

ALTER TABLE rollouts ADD COLUMN ramp TEXT; -- JSON, if the flag's file has a ramp
