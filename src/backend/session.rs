//! Interview sessions: what they are, and every decision about them, as pure functions of the rows.
//!
//! Both implementations load the rows, ask here what is to change, and write that.

pub(crate) mod decide;
pub(crate) mod view;

use crate::backend::analysis::Analysis;
use crate::backend::bank::Difficulty;
use crate::backend::irt::{Estimate, Item};
use crate::backend::role::Role;

/// How a session's questions are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One after the other, each the one that would say most about the ability as it is known by then.
    Adaptive,
    /// All at the start, as for `POST /api/v1/parse-jd`; they may be answered in any order, or all at once.
    Fixed,
}

impl Plan {
    pub(crate) const ALL: [Self; 2] = [Self::Adaptive, Self::Fixed];

    /// The name in the database and in answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Fixed => "fixed",
        }
    }
}

/// The status of a session under way.
pub(crate) const ACTIVE: &str = "active";
/// The status of a session whose questions are all answered.
pub(crate) const COMPLETED: &str = "completed";
/// The status of a session that its user gave up, and may resume.
pub(crate) const ABANDONED: &str = "abandoned";

/// What a session is started with.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) role: Role,
    pub(crate) job_description: String,
    pub(crate) difficulty: Option<Difficulty>,
    pub(crate) plan: Plan,
    /// The most questions.
    pub(crate) limit: u32,
    /// Microseconds since 1970.
    pub(crate) now: i64,
}

/// Which session of whom, and when.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) user: String,
    pub(crate) id: String,
    /// Microseconds since 1970.
    pub(crate) now: i64,
}

/// An answer and what it was found to be worth.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) question: String,
    pub(crate) answer: String,
    pub(crate) analysis: Analysis,
}

/// Answers to questions of one session.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) session: Reference,
    pub(crate) answers: Vec<Answer>,
}

/// A row of `sessions`: id, user, role, job description, difficulty, plan, limit, status, ability, standard error,
/// start, end.
pub(crate) type SessionRow =
    (String, String, String, String, Option<String>, String, i64, String, f64, f64, i64, Option<i64>);

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) job_description: String,
    pub(crate) difficulty: Option<String>,
    pub(crate) plan: String,
    pub(crate) limit: i64,
    pub(crate) status: String,
    pub(crate) estimate: Estimate,
    pub(crate) started_at: i64,
    pub(crate) ended_at: Option<i64>,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        let (id, user, role, job_description, difficulty, plan, limit, status, ability, standard_error, started, ended) =
            row;
        Self {
            id,
            user,
            role,
            job_description,
            difficulty,
            plan,
            limit,
            status,
            estimate: Estimate { ability, standard_error },
            started_at: started,
            ended_at: ended,
        }
    }
}

/// A row of `session_questions` with its question: position, id, text, category, difficulty, discrimination, location,
/// answer, score, analysis, ability, standard error.
pub(crate) type AskedRow = (
    i64,
    String,
    String,
    String,
    String,
    f64,
    f64,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<f64>,
    Option<f64>,
);

/// A question of a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) position: i64,
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) category: String,
    pub(crate) difficulty: String,
    pub(crate) item: Item,
    pub(crate) answered: Option<Answered>,
}

/// What an answer left behind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    pub(crate) answer: String,
    /// From 0 to 100.
    pub(crate) score: i64,
    /// The analysis as JSON.
    pub(crate) analysis: String,
    /// What was known about the ability after it.
    pub(crate) estimate: Estimate,
}

impl From<AskedRow> for Asked {
    fn from(row: AskedRow) -> Self {
        let (
            position,
            id,
            text,
            category,
            difficulty,
            discrimination,
            location,
            answer,
            score,
            analysis,
            ability,
            error,
        ) = row;
        let answered = match (answer, score, analysis, ability, error) {
            (Some(answer), Some(score), Some(analysis), Some(ability), Some(standard_error)) => {
                Some(Answered { answer, score, analysis, estimate: Estimate { ability, standard_error } })
            }
            _ => None,
        };
        Self { position, id, text, category, difficulty, item: Item { discrimination, location }, answered }
    }
}

/// A question that may be asked next: id, discrimination, location.
pub(crate) type Candidate = (String, f64, f64);

/// A session with its questions, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Whole {
    pub(crate) session: Session,
    pub(crate) asked: Vec<Asked>,
}

/// One change of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// A new session.
    Insert(Session),
    /// Status, ability and end of a session.
    Update(Session),
    /// A question is asked.
    Ask { session: String, position: i64, question: String },
    /// A question is answered.
    Answer { session: String, position: i64, answered: Answered, now: i64 },
}

/// Why something cannot be done to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is none of this id, or it is somebody else's.
    NotFound,
    /// The user has another one under way.
    AlreadyActive(String),
    /// It is over: completed or abandoned.
    Over(String),
    /// The question was not asked in this session.
    NotAsked(String),
    /// The question has another answer.
    AnsweredOtherwise(String),
    /// There is no question for what was asked.
    NoQuestions,
}
