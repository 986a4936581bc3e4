-- Each change of a rollout has one event. Asking for a change that waits for a second operator, and withdrawing it, are events of
-- the flag too, and change nothing. A constraint cannot be taken from a table here, so the table is made anew, rows as they are.
CREATE TABLE events_of_flags (
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
    previous   TEXT,
    hash       TEXT
) STRICT;
INSERT INTO events_of_flags SELECT id, at, flag, generation, action, actor, reason, old, new, rollback, previous, hash FROM events;
DROP TABLE events;
ALTER TABLE events_of_flags RENAME TO events;

CREATE UNIQUE INDEX events_one_for_each_change ON events (flag, generation) WHERE action <> 'ask' AND action <> 'withdraw';
CREATE INDEX events_of_a_flag ON events (flag, id);

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
