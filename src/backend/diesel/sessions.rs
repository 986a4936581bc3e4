//! The statements on sessions, in Diesel's query language.

use diesel::result::QueryResult;
use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl};

use crate::backend::diesel::{AnyConnection, MultiBackend, questions};
use crate::backend::history::History;
use crate::backend::role::Role;
use crate::backend::schema::{question_roles, questions as bank, session_questions, sessions};
use crate::backend::selection::Selection;
use crate::backend::session::{
    ACTIVE, Asked, AskedRow, Candidate, Plan, Reference, Refusal, Session, SessionRow, Start, Submission, Whole, Write,
    decide,
};
use crate::backend::skill::skills_in;

/// Starts a session, unless the user has one under way.
pub(crate) fn start(connection: &mut AnyConnection, start: &Start) -> QueryResult<Result<Whole, Refusal>> {
    if let Some(active) = active(connection, &start.user)? {
        return Ok(Err(Refusal::AlreadyActive(active)));
    }
    let session = decide::started(start);
    let chosen = match start.plan {
        Plan::Adaptive => next(connection, &session)?.into_iter().collect(),
        Plan::Fixed => {
            let skills = skills_in(&start.job_description);
            let wanted = Selection { role: start.role, skills, difficulty: start.difficulty, count: start.limit };
            questions::choose(connection, &wanted)?
        }
    };
    if chosen.is_empty() {
        return Ok(Err(Refusal::NoQuestions));
    }
    let asked = decide::ask(&session, 0, chosen.into_iter());
    apply(connection, &[Write::Insert(session)])?;
    apply(connection, &asked)?;
    whole(connection, &start.user, &start.id)
}

/// A session with its questions.
pub(crate) fn read(connection: &mut AnyConnection, which: &Reference) -> QueryResult<Result<Whole, Refusal>> {
    whole(connection, &which.user, &which.id)
}

/// Takes answers, and goes on to the next question or to the end.
pub(crate) fn submit(connection: &mut AnyConnection, given: &Submission) -> QueryResult<Result<Whole, Refusal>> {
    let which = &given.session;
    let mut found = match whole(connection, &which.user, &which.id)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let writes = match decide::submit(&mut found, given) {
        Ok(writes) if writes.is_empty() => return Ok(Ok(found)),
        Ok(writes) => writes,
        Err(refusal) => return Ok(Err(refusal)),
    };
    apply(connection, &writes)?;
    let another = if decide::wants_another(&found) { next(connection, &found.session)? } else { None };
    match another {
        Some(question) => {
            let position = i64::try_from(found.asked.len()).unwrap_or(i64::MAX);
            let asked = decide::ask(&found.session, position, std::iter::once(question));
            apply(connection, &[Write::Update(found.session)])?;
            apply(connection, &asked)?;
        }
        None => apply(connection, &[decide::conclude(&mut found, which.now)])?,
    }
    whole(connection, &which.user, &which.id)
}

/// Gives a session up.
pub(crate) fn abandon(connection: &mut AnyConnection, which: &Reference) -> QueryResult<Result<Whole, Refusal>> {
    change(connection, which, |session, _| decide::abandon(session, which.now))
}

/// Goes on with a session that was given up.
pub(crate) fn resume(connection: &mut AnyConnection, which: &Reference) -> QueryResult<Result<Whole, Refusal>> {
    change(connection, which, decide::resume)
}

/// The sessions of a user, and one more than a page has room for.
pub(crate) fn history(connection: &mut AnyConnection, asked: &History) -> QueryResult<Vec<Session>> {
    let mut query = sessions::table.filter(sessions::user_id.eq(asked.user.clone())).into_boxed::<MultiBackend>();
    if let Some(status) = &asked.status {
        query = query.filter(sessions::status.eq(status.clone()));
    }
    if let Some((started, id)) = asked.before.clone() {
        let same = sessions::started_at.eq(started).and(sessions::id.lt(id));
        query = query.filter(sessions::started_at.lt(started).or(same));
    }
    let rows: Vec<SessionRow> = query
        .order((sessions::started_at.desc(), sessions::id.desc()))
        .limit(i64::from(asked.limit).saturating_add(1))
        .load(connection)?;
    Ok(rows.into_iter().map(Session::from).collect())
}

fn change(
    connection: &mut AnyConnection,
    which: &Reference,
    decide: impl FnOnce(&mut Session, Option<String>) -> Result<Vec<Write>, Refusal>,
) -> QueryResult<Result<Whole, Refusal>> {
    let mut found = match whole(connection, &which.user, &which.id)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let active = active(connection, &which.user)?;
    match decide(&mut found.session, active) {
        Ok(writes) => {
            apply(connection, &writes)?;
            Ok(Ok(found))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn active(connection: &mut AnyConnection, user: &str) -> QueryResult<Option<String>> {
    sessions::table
        .filter(sessions::user_id.eq(user).and(sessions::status.eq(ACTIVE)))
        .select(sessions::id)
        .first(connection)
        .optional()
}

fn whole(connection: &mut AnyConnection, user: &str, id: &str) -> QueryResult<Result<Whole, Refusal>> {
    let row: Option<SessionRow> =
        sessions::table.filter(sessions::id.eq(id).and(sessions::user_id.eq(user))).first(connection).optional()?;
    let Some(row) = row else { return Ok(Err(Refusal::NotFound)) };
    let rows: Vec<AskedRow> = session_questions::table
        .inner_join(bank::table)
        .filter(session_questions::session_id.eq(id))
        .order(session_questions::position)
        .select((
            session_questions::position,
            bank::id,
            bank::text,
            bank::category,
            bank::difficulty,
            bank::discrimination,
            bank::location,
            session_questions::answer,
            session_questions::score,
            session_questions::analysis,
            session_questions::ability,
            session_questions::standard_error,
        ))
        .load(connection)?;
    Ok(Ok(Whole { session: Session::from(row), asked: rows.into_iter().map(Asked::from).collect() }))
}

/// The question that would say most among the role's own, or, when they are used up, among the general ones.
fn next(connection: &mut AnyConnection, session: &Session) -> QueryResult<Option<String>> {
    for role in [session.role.as_str(), Role::General.slug()] {
        let suited = question_roles::table.filter(question_roles::role.eq(role)).select(question_roles::question_id);
        let used = session_questions::table
            .filter(session_questions::session_id.eq(session.id.clone()))
            .select(session_questions::question_id);
        let mut query =
            bank::table.filter(bank::id.eq_any(suited)).filter(bank::id.ne_all(used)).into_boxed::<MultiBackend>();
        if let Some(difficulty) = &session.difficulty {
            query = query.filter(bank::difficulty.eq(difficulty.clone()));
        }
        let candidates: Vec<Candidate> =
            query.select((bank::id, bank::discrimination, bank::location)).load(connection)?;
        if let Some(best) = decide::most_informative(session, candidates) {
            return Ok(Some(best));
        }
    }
    Ok(None)
}

fn apply(connection: &mut AnyConnection, writes: &[Write]) -> QueryResult<()> {
    for write in writes {
        match write {
            Write::Insert(session) => {
                diesel::insert_into(sessions::table)
                    .values((
                        sessions::id.eq(&session.id),
                        sessions::user_id.eq(&session.user),
                        sessions::role.eq(&session.role),
                        sessions::job_description.eq(&session.job_description),
                        sessions::difficulty.eq(session.difficulty.as_deref()),
                        sessions::plan.eq(&session.plan),
                        sessions::question_limit.eq(session.limit),
                        sessions::status.eq(&session.status),
                        sessions::ability.eq(session.estimate.ability),
                        sessions::standard_error.eq(session.estimate.standard_error),
                        sessions::started_at.eq(session.started_at),
                        sessions::ended_at.eq(session.ended_at),
                    ))
                    .execute(connection)?;
            }
            Write::Update(session) => {
                diesel::update(sessions::table.filter(sessions::id.eq(&session.id)))
                    .set((
                        sessions::status.eq(&session.status),
                        sessions::ability.eq(session.estimate.ability),
                        sessions::standard_error.eq(session.estimate.standard_error),
                        sessions::ended_at.eq(session.ended_at),
                    ))
                    .execute(connection)?;
            }
            Write::Ask { session, position, question } => {
                diesel::insert_into(session_questions::table)
                    .values((
                        session_questions::session_id.eq(session),
                        session_questions::position.eq(position),
                        session_questions::question_id.eq(question),
                    ))
                    .execute(connection)?;
            }
            Write::Answer { session, position, answered, now } => {
                let this = session_questions::session_id.eq(session).and(session_questions::position.eq(position));
                diesel::update(session_questions::table.filter(this))
                    .set((
                        session_questions::answer.eq(&answered.answer),
                        session_questions::score.eq(answered.score),
                        session_questions::analysis.eq(&answered.analysis),
                        session_questions::ability.eq(answered.estimate.ability),
                        session_questions::standard_error.eq(answered.estimate.standard_error),
                        session_questions::answered_at.eq(now),
                    ))
                    .execute(connection)?;
            }
        }
    }
    Ok(())
}
