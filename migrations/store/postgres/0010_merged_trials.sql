-- What each gateway heard of a canary on trial, a parcel at a time, never changed: all gateways put the same parcels together in the
-- same order. Old rows are deleted.
CREATE TABLE evidence (
    id         BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    flag       TEXT   NOT NULL,
    trial      TEXT   NOT NULL, -- the SHA-256 of what is on trial
    generation BIGINT NOT NULL,
    gateway    TEXT   NOT NULL, -- which, new at every start
    number     BIGINT NOT NULL, -- the gateway's own: a parcel that is sent again is the same
    at         BIGINT NOT NULL, -- seconds since 1970, by the server's clock
    told       TEXT   NOT NULL, -- JSON
    UNIQUE (gateway, number)
);

CREATE INDEX evidence_of_a_trial ON evidence (flag, trial, id);
CREATE INDEX evidence_by_age ON evidence (at);

-- How far a trial has come: the last parcel in it, and the generation that it began with.
ALTER TABLE trials ADD COLUMN through BIGINT NOT NULL DEFAULT 0;
ALTER TABLE trials ADD COLUMN since BIGINT NOT NULL DEFAULT 0;
