-- The gateways that share this store. A row is written anew each second; one that is not belongs to a gateway that is gone.
CREATE TABLE instances (
    id       TEXT        NOT NULL PRIMARY KEY,
    name     TEXT        NOT NULL, -- host and port
    version  TEXT        NOT NULL, -- of Tidegate
    flag_set TEXT        NOT NULL, -- the version of its flag files
    started  TEXT        NOT NULL, -- in RFC 3339
    seen     TIMESTAMPTZ NOT NULL
);
