//! Sessions as clients see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::backend::session::{ACTIVE, Answered, Asked, Session, Whole};

/// A session with what is to be answered next.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    #[serde(flatten)]
    session: Summary,
    /// The questions that wait for an answer, in their order: one at most in an adaptive session.
    open: Vec<Open>,
}

/// A session in short.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    id: String,
    role: String,
    plan: String,
    difficulty: Option<String>,
    status: String,
    question_limit: i64,
    /// What is known of the user's ability: 0 is the average, 1 a standard deviation above.
    ability: f64,
    /// How sure that is; 1 before the first answer.
    standard_error: f64,
    started_at: Option<String>,
    ended_at: Option<String>,
}

/// A question that waits for an answer.
#[derive(Debug, Serialize)]
struct Open {
    id: String,
    text: String,
    category: String,
    difficulty: String,
}

/// What a submission came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Submitted {
    /// One for each answer of the submission.
    results: Vec<ResultOf>,
    session: View,
}

/// What became of one answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultOf {
    question_id: String,
    analysis: Option<Box<RawValue>>,
    /// What was known of the ability after it.
    ability: f64,
    standard_error: f64,
}

/// What a session says about its user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    #[serde(flatten)]
    session: Summary,
    /// The mean score, from 0 to 100; `null` without an answer.
    mean_score: Option<f64>,
    /// The mean score of each category of questions.
    by_category: BTreeMap<String, f64>,
    /// Categories with a mean of at least 70, the best first.
    strengths: Vec<String>,
    /// Categories with a mean below 50, the worst first.
    weaknesses: Vec<String>,
    answers: Vec<ReportedAnswer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedAnswer {
    question_id: String,
    question: String,
    category: String,
    difficulty: String,
    answer: String,
    analysis: Option<Box<RawValue>>,
}

impl From<&Session> for Summary {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id.clone(),
            role: session.role.clone(),
            plan: session.plan.clone(),
            difficulty: session.difficulty.clone(),
            status: session.status.clone(),
            question_limit: session.limit,
            ability: session.estimate.ability,
            standard_error: session.estimate.standard_error,
            started_at: moment(session.started_at),
            ended_at: session.ended_at.and_then(moment),
        }
    }
}

impl From<&Whole> for View {
    fn from(whole: &Whole) -> Self {
        let is_active = whole.session.status == ACTIVE;
        let open = whole.asked.iter().filter(|asked| is_active && asked.answered.is_none());
        Self { session: Summary::from(&whole.session), open: open.map(Open::from).collect() }
    }
}

impl From<&Asked> for Open {
    fn from(asked: &Asked) -> Self {
        Self {
            id: asked.id.clone(),
            text: asked.text.clone(),
            category: asked.category.clone(),
            difficulty: asked.difficulty.clone(),
        }
    }
}

impl Submitted {
    /// What became of the answers to `questions`.
    pub(crate) fn new(whole: &Whole, questions: &[String]) -> Self {
        let result = |id: &String| {
            let answered = whole.asked.iter().find(|asked| asked.id == *id)?.answered.as_ref()?;
            Some(ResultOf {
                question_id: id.clone(),
                analysis: analysis(answered),
                ability: answered.estimate.ability,
                standard_error: answered.estimate.standard_error,
            })
        };
        Self { results: questions.iter().filter_map(result).collect(), session: View::from(whole) }
    }
}

impl From<&Whole> for Report {
    fn from(whole: &Whole) -> Self {
        let answered = || whole.asked.iter().filter_map(|asked| Some((asked, asked.answered.as_ref()?)));
        let mut scores: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (asked, answered) in answered() {
            scores.entry(asked.category.clone()).or_default().push(answered.score);
        }
        let all: Vec<i64> = answered().map(|(_, answered)| answered.score).collect();
        let by_category: BTreeMap<String, f64> =
            scores.into_iter().filter_map(|(category, scores)| Some((category, mean(&scores)?))).collect();
        let mut ranked: Vec<(&String, f64)> = by_category.iter().map(|(category, mean)| (category, *mean)).collect();
        // Stable, so that equals stay in alphabetical order.
        ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
        let strengths = ranked.iter().filter(|(_, mean)| *mean >= 70.0).map(|(name, _)| (*name).clone()).collect();
        let weaknesses =
            ranked.iter().rev().filter(|(_, mean)| *mean < 50.0).map(|(name, _)| (*name).clone()).collect();
        Self {
            session: Summary::from(&whole.session),
            mean_score: mean(&all),
            strengths,
            weaknesses,
            by_category,
            answers: answered()
                .map(|(asked, answered)| ReportedAnswer {
                    question_id: asked.id.clone(),
                    question: asked.text.clone(),
                    category: asked.category.clone(),
                    difficulty: asked.difficulty.clone(),
                    answer: answered.answer.clone(),
                    analysis: analysis(answered),
                })
                .collect(),
        }
    }
}

/// The analysis as it was stored; it was written as JSON.
fn analysis(answered: &Answered) -> Option<Box<RawValue>> {
    RawValue::from_string(answered.analysis.clone()).ok()
}

fn mean(scores: &[i64]) -> Option<f64> {
    let count = i32::try_from(scores.len()).ok().filter(|count| *count > 0)?;
    let sum: i64 = scores.iter().sum();
    Some(i32::try_from(sum).map(f64::from).ok()? / f64::from(count))
}

/// A moment as RFC 3339 has it, from microseconds since 1970.
fn moment(micros: i64) -> Option<String> {
    Timestamp::from_microsecond(micros).ok().map(|moment| format!("{moment:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        assert_eq!(moment(1_700_000_000_000_001).as_deref(), Some("2023-11-14T22:13:20.000001Z"));
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[50, 75]), Some(62.5));
    }
}
