-- Text compares byte by byte, as in SQLite: order and equality may not depend on the server's locale.
CREATE TABLE questions (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    text        TEXT COLLATE "C" NOT NULL,
    category    TEXT COLLATE "C" NOT NULL,
    difficulty  TEXT COLLATE "C" NOT NULL CHECK (difficulty IN ('easy', 'medium', 'hard')),
    usage_count BIGINT NOT NULL DEFAULT 0 CHECK (usage_count >= 0)
);

CREATE TABLE question_roles (
    role        TEXT COLLATE "C" NOT NULL,
    question_id TEXT COLLATE "C" NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
    PRIMARY KEY (role, question_id)
);

CREATE INDEX question_roles_by_question ON question_roles (question_id);

CREATE TABLE question_skills (
    question_id TEXT COLLATE "C" NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
    skill       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (question_id, skill)
);
