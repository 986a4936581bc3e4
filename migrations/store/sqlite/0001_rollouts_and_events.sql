-- The live state of every flag that was ever seen. Percentages are in thousandths of a percent.
CREATE TABLE rollouts (
    flag            TEXT    NOT NULL PRIMARY KEY,
    generation      INTEGER NOT NULL CHECK (generation > 0),
    release         TEXT    NOT NULL,
    phase           TEXT    NOT NULL CHECK (phase IN ('manual', 'paused', 'rolled_back', 'promoted')),
    percentage      INTEGER NOT NULL CHECK (percentage BETWEEN 0 AND 100000),
    file_percentage INTEGER NOT NULL CHECK (file_percentage BETWEEN 0 AND 100000),
    enabled         INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    rollback        TEXT    -- JSON, while a rollback is latched
) STRICT;

-- The audit trail. States and rollbacks are JSON, as the admin API shows them.
CREATE TABLE events (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at         TEXT    NOT NULL,
    flag       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    action     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    reason     TEXT,
    old        TEXT,
    new        TEXT    NOT NULL,
    rollback   TEXT,
    UNIQUE (flag, generation) -- one event for each change
) STRICT;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
