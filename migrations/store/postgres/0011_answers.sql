-- The answers to changes that were asked for with an `Idempotency-Key`. Old rows are deleted.
CREATE TABLE answers (
    id         BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    asker      TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    asked      TEXT   NOT NULL, -- the SHA-256 of the request
    at         BIGINT NOT NULL, -- in seconds since 1970
    generation BIGINT NOT NULL, -- what the change led to, written with it; 0 as long as there is none
    status     BIGINT NOT NULL, -- 0 as long as it is not answered
    etag       TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    UNIQUE (asker, key)
);
