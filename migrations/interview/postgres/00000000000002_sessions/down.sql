DROP TABLE session_questions;
DROP TABLE sessions;
ALTER TABLE questions DROP COLUMN search;
ALTER TABLE questions DROP COLUMN location;
ALTER TABLE questions DROP COLUMN discrimination;
ALTER TABLE questions DROP COLUMN difficulty_rank;
