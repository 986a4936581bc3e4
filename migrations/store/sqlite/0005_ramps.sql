-- The phase `ramping`, and how a rollout stands to its ramp. SQLite cannot change a CHECK in place.
CREATE TABLE rollouts_with_ramp (
    flag            TEXT    NOT NULL PRIMARY KEY,
    generation      INTEGER NOT NULL CHECK (generation > 0),
    release         TEXT    NOT NULL,
    phase           TEXT    NOT NULL CHECK (phase IN ('manual', 'ramping', 'paused', 'rolled_back', 'promoted')),
    percentage      INTEGER NOT NULL CHECK (percentage BETWEEN 0 AND 100000),
    file_percentage INTEGER NOT NULL CHECK (file_percentage BETWEEN 0 AND 100000),
    enabled         INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    rollback        TEXT,   -- JSON, while a rollback is latched
    ramp            TEXT    -- JSON, if the flag's file has a ramp
) STRICT;

INSERT INTO rollouts_with_ramp (flag, generation, release, phase, percentage, file_percentage, enabled, rollback)
SELECT flag, generation, release, phase, percentage, file_percentage, enabled, rollback FROM rollouts;

DROP TABLE rollouts;

ALTER TABLE rollouts_with_ramp RENAME TO rollouts;
