-- The live state of every flag that was ever seen. Percentages are in thousandths of a percent.
CREATE TABLE rollouts (
    flag            TEXT    NOT NULL PRIMARY KEY,
    generation      BIGINT  NOT NULL CHECK (generation > 0),
    release         TEXT    NOT NULL,
    phase           TEXT    NOT NULL CHECK (phase IN ('manual', 'paused', 'rolled_back', 'promoted')),
    percentage      BIGINT  NOT NULL CHECK (percentage BETWEEN 0 AND 100000),
    file_percentage BIGINT  NOT NULL CHECK (file_percentage BETWEEN 0 AND 100000),
    enabled         BOOLEAN NOT NULL,
    rollback        TEXT    -- JSON, while a rollback is latched
);

-- The audit trail. States and rollbacks are JSON, as the admin API shows them.
CREATE TABLE events (
    id         BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at         TEXT   NOT NULL,
    flag       TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    action     TEXT   NOT NULL,
    actor      TEXT   NOT NULL,
    reason     TEXT,
    old        TEXT,
    new        TEXT   NOT NULL,
    rollback   TEXT,
    UNIQUE (flag, generation) -- one event for each change
);

CREATE FUNCTION tidegate_events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END
$$;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION tidegate_events_are_append_only();

CREATE TRIGGER events_are_never_emptied BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_events_are_append_only();
