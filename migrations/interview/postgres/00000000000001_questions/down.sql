DROP TABLE question_skills;
DROP TABLE question_roles;
DROP TABLE questions;
