-- Changes that wait for a second operator. One of another generation than the flag's is void. Old rows are deleted.
CREATE TABLE approvals (
    id         TEXT    NOT NULL PRIMARY KEY,
    flag       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    expires    INTEGER NOT NULL, -- in seconds since 1970
    body       TEXT    NOT NULL  -- JSON
) STRICT;
