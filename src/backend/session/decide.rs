//! What is to change in a session.

use crate::backend::irt::{self, ENOUGH, Item, STRANGER};
use crate::backend::session::{
    ABANDONED, ACTIVE, Answered, COMPLETED, Candidate, Plan, Refusal, Session, Start, Submission, Whole, Write,
};

/// The session that a start makes.
pub(crate) fn started(start: &Start) -> Session {
    Session {
        id: start.id.clone(),
        user: start.user.clone(),
        role: start.role.slug().to_owned(),
        job_description: start.job_description.clone(),
        difficulty: start.difficulty.map(|difficulty| difficulty.name().to_owned()),
        plan: start.plan.name().to_owned(),
        limit: i64::from(start.limit),
        status: ACTIVE.to_owned(),
        estimate: STRANGER,
        started_at: start.now,
        ended_at: None,
    }
}

/// The writes that ask `questions` from `position` on.
pub(crate) fn ask(session: &Session, position: i64, questions: impl Iterator<Item = String>) -> Vec<Write> {
    questions
        .zip(position..)
        .map(|(question, position)| Write::Ask { session: session.id.clone(), position, question })
        .collect()
}

/// The candidate whose answer would say most at the ability as it is known; among equals, the first by id.
pub(crate) fn most_informative(session: &Session, candidates: Vec<Candidate>) -> Option<String> {
    let ability = session.estimate.ability;
    let informed = candidates.into_iter().map(|(id, discrimination, location)| {
        let item = Item { discrimination, location };
        (item.information(ability), id)
    });
    let best = informed.reduce(|best, other| {
        let better = other.0 > best.0 || (other.0 >= best.0 && other.1 < best.1);
        if better { other } else { best }
    });
    best.map(|(_, id)| id)
}

/// Writes the answers into `whole`, and says what that changes. The session's end, or its next question, comes after.
///
/// An answer that is there already changes nothing, so that a submission can be repeated.
pub(crate) fn submit(whole: &mut Whole, submission: &Submission) -> Result<Vec<Write>, Refusal> {
    let mut writes = Vec::new();
    for given in &submission.answers {
        let known: Vec<(Item, f64)> = scores(whole).collect();
        let Some(asked) = whole.asked.iter_mut().find(|asked| asked.id == given.question) else {
            return Err(Refusal::NotAsked(given.question.clone()));
        };
        match &asked.answered {
            Some(earlier) if earlier.answer == given.answer => continue,
            Some(_) => return Err(Refusal::AnsweredOtherwise(given.question.clone())),
            None if whole.session.status != ACTIVE => return Err(Refusal::Over(whole.session.status.clone())),
            None => {}
        }
        let score = i64::try_from(given.analysis.score).unwrap_or_default().clamp(0, 100);
        let this = (asked.item, share(score));
        let answered = Answered {
            answer: given.answer.clone(),
            score,
            analysis: given.analysis.to_json(),
            estimate: irt::estimate(known.iter().copied().chain(std::iter::once(this))),
        };
        whole.session.estimate = answered.estimate;
        asked.answered = Some(answered.clone());
        writes.push(Write::Answer {
            session: whole.session.id.clone(),
            position: asked.position,
            answered,
            now: submission.session.now,
        });
    }
    Ok(writes)
}

/// Whether a session needs another question: everything is answered, and neither the limit nor the wanted certainty is
/// reached.
pub(crate) fn wants_another(whole: &Whole) -> bool {
    let asked = i64::try_from(whole.asked.len()).unwrap_or(i64::MAX);
    whole.session.plan == Plan::Adaptive.name()
        && whole.asked.iter().all(|asked| asked.answered.is_some())
        && asked < whole.session.limit
        && whole.session.estimate.standard_error > ENOUGH
}

/// Ends a session all of whose questions are answered, and says how the session changed.
pub(crate) fn conclude(whole: &mut Whole, now: i64) -> Write {
    if whole.asked.iter().all(|asked| asked.answered.is_some()) {
        whole.session.status = COMPLETED.to_owned();
        whole.session.ended_at = Some(now);
    }
    Write::Update(whole.session.clone())
}

/// Gives a session up; nothing changes if it was given up before.
pub(crate) fn abandon(session: &mut Session, now: i64) -> Result<Vec<Write>, Refusal> {
    match session.status.as_str() {
        ACTIVE => {
            session.status = ABANDONED.to_owned();
            session.ended_at = Some(now);
            Ok(vec![Write::Update(session.clone())])
        }
        ABANDONED => Ok(Vec::new()),
        status => Err(Refusal::Over(status.to_owned())),
    }
}

/// Goes on with a session that was given up, unless `active`, another one of the same user, is under way.
pub(crate) fn resume(session: &mut Session, active: Option<String>) -> Result<Vec<Write>, Refusal> {
    match (session.status.as_str(), active) {
        (ACTIVE, _) => Ok(Vec::new()),
        (ABANDONED, Some(other)) => Err(Refusal::AlreadyActive(other)),
        (ABANDONED, None) => {
            session.status = ACTIVE.to_owned();
            session.ended_at = None;
            Ok(vec![Write::Update(session.clone())])
        }
        (status, _) => Err(Refusal::Over(status.to_owned())),
    }
}

/// Every answered item with its score from 0 to 1.
fn scores(whole: &Whole) -> impl Iterator<Item = (Item, f64)> {
    whole.asked.iter().filter_map(|asked| Some((asked.item, share(asked.answered.as_ref()?.score))))
}

/// A score of 0 to 100 as a share.
fn share(score: i64) -> f64 {
    i32::try_from(score).map_or(0.0, f64::from) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::analysis::Analysis;
    use crate::backend::role::Role;
    use crate::backend::session::{Answer, Asked, Reference};

    fn whole(plan: Plan, questions: usize) -> Whole {
        let start = Start {
            id: "s".to_owned(),
            user: "u".to_owned(),
            role: Role::Backend,
            job_description: "Rust".to_owned(),
            difficulty: None,
            plan,
            limit: 3,
            now: 1,
        };
        let asked = (0..questions).map(|number| Asked {
            position: i64::try_from(number).unwrap(),
            id: format!("q{number}"),
            text: "Why?".to_owned(),
            category: "technical".to_owned(),
            difficulty: "easy".to_owned(),
            item: Item { discrimination: 1.4, location: 0.0 },
            answered: None,
        });
        Whole { session: started(&start), asked: asked.collect() }
    }

    fn submission(answers: &[(&str, &str, usize)]) -> Submission {
        let answers = answers.iter().map(|(question, answer, score)| Answer {
            question: (*question).to_owned(),
            answer: (*answer).to_owned(),
            analysis: Analysis { score: *score, ..Analysis::default() },
        });
        let session = Reference { user: "u".to_owned(), id: "s".to_owned(), now: 9 };
        Submission { session, answers: answers.collect() }
    }

    #[test]
    fn a_submission_can_be_repeated_and_not_changed() {
        let mut session = whole(Plan::Adaptive, 1);
        assert_eq!(submit(&mut session, &submission(&[("q0", "so", 80)])).unwrap().len(), 1);
        let after = session.clone();
        assert_eq!(submit(&mut session, &submission(&[("q0", "so", 80)])), Ok(Vec::new()));
        assert_eq!(session, after);
        let other = submit(&mut session, &submission(&[("q0", "otherwise", 80)]));
        assert_eq!(other, Err(Refusal::AnsweredOtherwise("q0".to_owned())));
        let unknown = submit(&mut session, &submission(&[("q9", "so", 80)]));
        assert_eq!(unknown, Err(Refusal::NotAsked("q9".to_owned())));
    }

    #[test]
    fn answers_at_once_come_to_the_same_as_one_by_one() {
        let (mut at_once, mut one_by_one) = (whole(Plan::Fixed, 3), whole(Plan::Fixed, 3));
        let answers = [("q0", "a", 10), ("q2", "b", 90), ("q1", "c", 50)];
        submit(&mut at_once, &submission(&answers)).unwrap();
        for answer in answers {
            submit(&mut one_by_one, &submission(&[answer])).unwrap();
        }
        assert_eq!(at_once, one_by_one);
        conclude(&mut at_once, 9);
        assert_eq!((at_once.session.status.as_str(), at_once.session.ended_at), (COMPLETED, Some(9)));
    }

    #[test]
    fn another_question_follows_until_the_limit_or_certainty() {
        let mut session = whole(Plan::Adaptive, 1);
        assert!(!wants_another(&session), "the first is not answered");
        submit(&mut session, &submission(&[("q0", "a", 100)])).unwrap();
        assert!(wants_another(&session));
        session.session.estimate.standard_error = ENOUGH;
        assert!(!wants_another(&session));
        session.session.estimate.standard_error = 1.0;
        session.session.limit = 1;
        assert!(!wants_another(&session));
    }

    #[test]
    fn the_next_question_is_the_one_that_says_most() {
        let mut session = whole(Plan::Adaptive, 0).session;
        let candidates = || {
            vec![
                ("far".to_owned(), 1.0, 3.0),
                ("near-b".to_owned(), 1.0, 0.1),
                ("near-a".to_owned(), 1.0, 0.1),
                ("sharp".to_owned(), 2.0, 1.5),
            ]
        };
        assert_eq!(most_informative(&session, candidates()).as_deref(), Some("near-a"));
        session.estimate.ability = 1.4;
        assert_eq!(most_informative(&session, candidates()).as_deref(), Some("sharp"));
        assert_eq!(most_informative(&session, Vec::new()), None);
    }

    #[test]
    fn an_end_can_be_taken_back_unless_it_is_the_last() {
        let mut session = whole(Plan::Adaptive, 1).session;
        assert_eq!(resume(&mut session, Some("s".to_owned())), Ok(Vec::new()));
        assert_eq!(abandon(&mut session, 5).unwrap().len(), 1);
        assert_eq!(abandon(&mut session, 6), Ok(Vec::new()));
        assert_eq!(session.ended_at, Some(5));
        assert_eq!(resume(&mut session, Some("t".to_owned())), Err(Refusal::AlreadyActive("t".to_owned())));
        assert_eq!(resume(&mut session, None).unwrap().len(), 1);
        assert_eq!((session.status.as_str(), session.ended_at), (ACTIVE, None));
        session.status = COMPLETED.to_owned();
        assert_eq!(abandon(&mut session, 7), Err(Refusal::Over(COMPLETED.to_owned())));
        assert_eq!(resume(&mut session, None), Err(Refusal::Over(COMPLETED.to_owned())));
    }
}
