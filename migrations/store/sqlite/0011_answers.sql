-- The answers to changes that were asked for with an `Idempotency-Key`. Old rows are deleted.
CREATE TABLE answers (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    asker      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    asked      TEXT    NOT NULL, -- the SHA-256 of the request
    at         INTEGER NOT NULL, -- in seconds since 1970
    generation INTEGER NOT NULL, -- what the change led to, written with it; 0 as long as there is none
    status     INTEGER NOT NULL, -- 0 as long as it is not answered
    etag       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    UNIQUE (asker, key)
) STRICT;
