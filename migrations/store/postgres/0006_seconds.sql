-- What each gateway counted of a canary on trial, second by second, for `tidegate simulate --replay`. Old rows are deleted.
CREATE TABLE seconds (
    id         BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    flag       TEXT   NOT NULL,
    release    TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    percentage BIGINT NOT NULL, -- in thousandths of a percent
    second     BIGINT NOT NULL, -- since 1970
    gateway    TEXT   NOT NULL,
    counts     TEXT   NOT NULL  -- JSON
);

CREATE INDEX seconds_of_a_release ON seconds (flag, release, second);
CREATE INDEX seconds_by_age ON seconds (second);
