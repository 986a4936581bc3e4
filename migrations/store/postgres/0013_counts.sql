-- What each gateway has counted of both arms since the generation began there: written again and again, in place of what it had
-- counted before. Those that are gone keep theirs, until another generation has counts.
CREATE TABLE counts (
    flag        TEXT   NOT NULL,
    gateway     TEXT   NOT NULL, -- which, new at every start
    arm         TEXT   NOT NULL, -- stable or canary
    generation  BIGINT NOT NULL,
    counted     TEXT   NOT NULL, -- JSON
    PRIMARY KEY (flag, gateway, arm)
);
