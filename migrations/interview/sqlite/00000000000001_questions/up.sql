CREATE TABLE questions (
    id          TEXT    NOT NULL PRIMARY KEY,
    text        TEXT    NOT NULL,
    category    TEXT    NOT NULL,
    difficulty  TEXT    NOT NULL CHECK (difficulty IN ('easy', 'medium', 'hard')),
    usage_count INTEGER NOT NULL DEFAULT 0 CHECK (usage_count >= 0)
) STRICT;

CREATE TABLE question_roles (
    role        TEXT NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
    PRIMARY KEY (role, question_id)
) STRICT, WITHOUT ROWID;

-- SQLite does not index the child side of a foreign key by itself.
CREATE INDEX question_roles_by_question ON question_roles (question_id);

CREATE TABLE question_skills (
    question_id TEXT NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
    skill       TEXT NOT NULL,
    PRIMARY KEY (question_id, skill)
) STRICT, WITHOUT ROWID;
