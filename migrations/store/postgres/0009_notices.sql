-- What people are to be told: written with the change that it is about. Old rows are deleted.
CREATE TABLE notices (
    id   BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    key  TEXT   NOT NULL UNIQUE, -- what it is about, so that several gateways tell of it once
    at   BIGINT NOT NULL,        -- in milliseconds since 1970
    body TEXT   NOT NULL         -- JSON
);

-- How far each channel has come with telling it.
CREATE TABLE channels (
    name     TEXT   NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL, -- the last notice that was sent, passed over or given up
    attempts BIGINT NOT NULL, -- how often the next one has failed
    next_at  BIGINT NOT NULL, -- when it is tried again, in milliseconds since 1970
    holder   TEXT,            -- the gateway that is at it
    lease    BIGINT NOT NULL  -- until when, in milliseconds since 1970
);
