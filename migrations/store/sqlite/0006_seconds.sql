-- What each gateway counted of a canary on trial, second by second, for `tidegate simulate --replay`. Old rows are deleted.
CREATE TABLE seconds (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    flag       TEXT    NOT NULL,
    release    TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    percentage INTEGER NOT NULL, -- in thousandths of a percent
    second     INTEGER NOT NULL, -- since 1970
    gateway    TEXT    NOT NULL,
    counts     TEXT    NOT NULL  -- JSON
) STRICT;

CREATE INDEX seconds_of_a_release ON seconds (flag, release, second);
CREATE INDEX seconds_by_age ON seconds (second);
