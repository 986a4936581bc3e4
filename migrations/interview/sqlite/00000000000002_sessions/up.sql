-- What a list can be sorted and searched by, and the item parameters of the two-parameter logistic model. Without a
-- calibration the parameters are starting values: see `irt::starting_values`.
ALTER TABLE questions ADD COLUMN difficulty_rank INTEGER NOT NULL DEFAULT 2;
ALTER TABLE questions ADD COLUMN discrimination REAL NOT NULL DEFAULT 1.0 CHECK (discrimination > 0.0);
ALTER TABLE questions ADD COLUMN location REAL NOT NULL DEFAULT 0.0;
-- The text in lower case.
ALTER TABLE questions ADD COLUMN search TEXT NOT NULL DEFAULT '';

UPDATE questions SET
    difficulty_rank = CASE difficulty WHEN 'easy' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END,
    location = CASE difficulty WHEN 'easy' THEN -1.0 WHEN 'medium' THEN 0.0 ELSE 1.0 END,
    discrimination = CASE category WHEN 'technical' THEN 1.4 WHEN 'problem-solving' THEN 1.2
                                   WHEN 'system-design' THEN 1.0 ELSE 0.8 END,
    search = lower(text);

CREATE TABLE sessions (
    id              TEXT    NOT NULL PRIMARY KEY,
    user_id         TEXT    NOT NULL,
    role            TEXT    NOT NULL,
    job_description TEXT    NOT NULL,
    difficulty      TEXT    CHECK (difficulty IN ('easy', 'medium', 'hard')),
    plan            TEXT    NOT NULL CHECK (plan IN ('adaptive', 'fixed')),
    question_limit  INTEGER NOT NULL CHECK (question_limit > 0),
    status          TEXT    NOT NULL CHECK (status IN ('active', 'completed', 'abandoned')),
    ability         REAL    NOT NULL,
    standard_error  REAL    NOT NULL,
    -- Microseconds since 1970.
    started_at      INTEGER NOT NULL,
    ended_at        INTEGER
) STRICT;

CREATE UNIQUE INDEX sessions_one_active ON sessions (user_id) WHERE status = 'active';
CREATE INDEX sessions_by_user ON sessions (user_id, started_at, id);

CREATE TABLE session_questions (
    session_id     TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position       INTEGER NOT NULL,
    question_id    TEXT    NOT NULL REFERENCES questions (id),
    -- All of these at once, when the answer comes.
    answer         TEXT,
    score          INTEGER CHECK (score BETWEEN 0 AND 100),
    analysis       TEXT,
    ability        REAL,
    standard_error REAL,
    answered_at    INTEGER,
    PRIMARY KEY (session_id, position),
    UNIQUE (session_id, question_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_questions_by_question ON session_questions (question_id);
