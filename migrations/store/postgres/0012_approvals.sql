-- Changes that wait for a second operator. One of another generation than the flag's is void. Old rows are deleted.
CREATE TABLE approvals (
    id         TEXT   NOT NULL PRIMARY KEY,
    flag       TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    expires    BIGINT NOT NULL, -- in seconds since 1970
    body       TEXT   NOT NULL  -- JSON
);
