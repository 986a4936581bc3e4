//! The statements on sessions, in SQL.

use sqlx::{AnyConnection, Result as Sqlx};

use crate::backend::history::History;
use crate::backend::role::Role;
use crate::backend::selection::Selection;
use crate::backend::session::{
    ACTIVE, Asked, AskedRow, Candidate, Plan, Reference, Refusal, Session, SessionRow, Start, Submission, Whole, Write,
    decide,
};
use crate::backend::skill::skills_in;
use crate::backend::sqlx::questions;
use crate::backend::sqlx::sql::Sql;

/// The columns of a [`SessionRow`].
const SESSION: &str = "SELECT id, user_id, role, job_description, difficulty, plan, question_limit, status, ability, \
                       standard_error, started_at, ended_at FROM sessions WHERE user_id = ";

/// Starts a session, unless the user has one under way.
pub(crate) async fn start(connection: &mut AnyConnection, start: &Start) -> Sqlx<Result<Whole, Refusal>> {
    if let Some(active) = active(connection, &start.user).await? {
        return Ok(Err(Refusal::AlreadyActive(active)));
    }
    let session = decide::started(start);
    let chosen = match start.plan {
        Plan::Adaptive => next(connection, &session).await?.into_iter().collect(),
        Plan::Fixed => {
            let skills = skills_in(&start.job_description);
            let wanted = Selection { role: start.role, skills, difficulty: start.difficulty, count: start.limit };
            questions::choose(connection, &wanted).await?
        }
    };
    if chosen.is_empty() {
        return Ok(Err(Refusal::NoQuestions));
    }
    let asked = decide::ask(&session, 0, chosen.into_iter());
    apply(connection, vec![Write::Insert(session)]).await?;
    apply(connection, asked).await?;
    whole(connection, &start.user, &start.id).await
}

/// A session with its questions.
pub(crate) async fn read(connection: &mut AnyConnection, which: &Reference) -> Sqlx<Result<Whole, Refusal>> {
    whole(connection, &which.user, &which.id).await
}

/// Takes answers, and goes on to the next question or to the end.
pub(crate) async fn submit(connection: &mut AnyConnection, given: &Submission) -> Sqlx<Result<Whole, Refusal>> {
    let which = &given.session;
    let mut found = match whole(connection, &which.user, &which.id).await? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let writes = match decide::submit(&mut found, given) {
        Ok(writes) if writes.is_empty() => return Ok(Ok(found)),
        Ok(writes) => writes,
        Err(refusal) => return Ok(Err(refusal)),
    };
    apply(connection, writes).await?;
    let another = if decide::wants_another(&found) { next(connection, &found.session).await? } else { None };
    match another {
        Some(question) => {
            let position = i64::try_from(found.asked.len()).unwrap_or(i64::MAX);
            let asked = decide::ask(&found.session, position, std::iter::once(question));
            apply(connection, vec![Write::Update(found.session)]).await?;
            apply(connection, asked).await?;
        }
        None => apply(connection, vec![decide::conclude(&mut found, which.now)]).await?,
    }
    whole(connection, &which.user, &which.id).await
}

/// Gives a session up.
pub(crate) async fn abandon(connection: &mut AnyConnection, which: &Reference) -> Sqlx<Result<Whole, Refusal>> {
    change(connection, which, |session, _| decide::abandon(session, which.now)).await
}

/// Goes on with a session that was given up.
pub(crate) async fn resume(connection: &mut AnyConnection, which: &Reference) -> Sqlx<Result<Whole, Refusal>> {
    change(connection, which, decide::resume).await
}

/// The sessions of a user, and one more than a page has room for.
pub(crate) async fn history(connection: &mut AnyConnection, asked: &History) -> Sqlx<Vec<Session>> {
    let mut sql = Sql::new(SESSION).bind(asked.user.clone());
    if let Some(status) = &asked.status {
        sql = sql.push(" AND status = ").bind(status.clone());
    }
    if let Some((started, id)) = &asked.before {
        sql = sql.push(" AND (started_at < ").bind(*started).push(" OR (started_at = ").bind(*started);
        sql = sql.push(" AND id < ").bind(id.clone()).push("))");
    }
    let limit = i64::from(asked.limit).saturating_add(1);
    let sql = sql.push(" ORDER BY started_at DESC, id DESC LIMIT ").bind(limit);
    let rows: Vec<SessionRow> = sql.query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(Session::from).collect())
}

async fn change(
    connection: &mut AnyConnection,
    which: &Reference,
    decide: impl FnOnce(&mut Session, Option<String>) -> Result<Vec<Write>, Refusal> + Send,
) -> Sqlx<Result<Whole, Refusal>> {
    let mut found = match whole(connection, &which.user, &which.id).await? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let active = active(connection, &which.user).await?;
    match decide(&mut found.session, active) {
        Ok(writes) => {
            apply(connection, writes).await?;
            Ok(Ok(found))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

async fn active(connection: &mut AnyConnection, user: &str) -> Sqlx<Option<String>> {
    Sql::new("SELECT id FROM sessions WHERE user_id = ")
        .bind(user.to_owned())
        .push(" AND status = ")
        .bind(ACTIVE.to_owned())
        .query_scalar()
        .fetch_optional(connection)
        .await
}

async fn whole(connection: &mut AnyConnection, user: &str, id: &str) -> Sqlx<Result<Whole, Refusal>> {
    let sql = Sql::new(SESSION).bind(user.to_owned()).push(" AND id = ").bind(id.to_owned());
    let row: Option<SessionRow> = sql.query_as().fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(Err(Refusal::NotFound)) };
    let rows: Vec<AskedRow> = Sql::new(
        "SELECT s.position, q.id, q.text, q.category, q.difficulty, q.discrimination, q.location, s.answer, s.score, \
         s.analysis, s.ability, s.standard_error \
         FROM session_questions s JOIN questions q ON q.id = s.question_id WHERE s.session_id = ",
    )
    .bind(id.to_owned())
    .push(" ORDER BY s.position")
    .query_as()
    .fetch_all(connection)
    .await?;
    Ok(Ok(Whole { session: Session::from(row), asked: rows.into_iter().map(Asked::from).collect() }))
}

/// The question that would say most among the role's own, or, when they are used up, among the general ones.
async fn next(connection: &mut AnyConnection, session: &Session) -> Sqlx<Option<String>> {
    for role in [session.role.as_str(), Role::General.slug()] {
        let mut sql = Sql::new(
            "SELECT id, discrimination, location FROM questions \
             WHERE id IN (SELECT question_id FROM question_roles WHERE role = ",
        )
        .bind(role.to_owned())
        .push(") AND id NOT IN (SELECT question_id FROM session_questions WHERE session_id = ")
        .bind(session.id.clone())
        .push(")");
        if let Some(difficulty) = &session.difficulty {
            sql = sql.push(" AND difficulty = ").bind(difficulty.clone());
        }
        let candidates: Vec<Candidate> = sql.query_as().fetch_all(&mut *connection).await?;
        if let Some(best) = decide::most_informative(session, candidates) {
            return Ok(Some(best));
        }
    }
    Ok(None)
}

async fn apply(connection: &mut AnyConnection, writes: Vec<Write>) -> Sqlx<()> {
    for write in writes {
        let sql = match write {
            Write::Insert(session) => Sql::new(
                "INSERT INTO sessions (id, user_id, role, job_description, difficulty, plan, question_limit, status, \
                 ability, standard_error, started_at, ended_at) VALUES (",
            )
            .bind(session.id)
            .push(", ")
            .bind(session.user)
            .push(", ")
            .bind(session.role)
            .push(", ")
            .bind(session.job_description)
            .push(", ")
            .bind(session.difficulty)
            .push(", ")
            .bind(session.plan)
            .push(", ")
            .bind(session.limit)
            .push(", ")
            .bind(session.status)
            .push(", ")
            .bind(session.estimate.ability)
            .push(", ")
            .bind(session.estimate.standard_error)
            .push(", ")
            .bind(session.started_at)
            .push(", ")
            .bind(session.ended_at)
            .push(")"),
            Write::Update(session) => Sql::new("UPDATE sessions SET status = ")
                .bind(session.status)
                .push(", ability = ")
                .bind(session.estimate.ability)
                .push(", standard_error = ")
                .bind(session.estimate.standard_error)
                .push(", ended_at = ")
                .bind(session.ended_at)
                .push(" WHERE id = ")
                .bind(session.id),
            Write::Ask { session, position, question } => {
                Sql::new("INSERT INTO session_questions (session_id, position, question_id) VALUES (")
                    .bind(session)
                    .push(", ")
                    .bind(position)
                    .push(", ")
                    .bind(question)
                    .push(")")
            }
            Write::Answer { session, position, answered, now } => Sql::new("UPDATE session_questions SET answer = ")
                .bind(answered.answer)
                .push(", score = ")
                .bind(answered.score)
                .push(", analysis = ")
                .bind(answered.analysis)
                .push(", ability = ")
                .bind(answered.estimate.ability)
                .push(", standard_error = ")
                .bind(answered.estimate.standard_error)
                .push(", answered_at = ")
                .bind(now)
                .push(" WHERE session_id = ")
                .bind(session)
                .push(" AND position = ")
                .bind(position),
        };
        sql.query().execute(&mut *connection).await?;
    }
    Ok(())
}
