//! The statements on the question bank, in SQL.

use sqlx::{AnyConnection, Result};

use crate::backend::role::Role;
use crate::backend::selection::{Question, Selection, assemble};
use crate::backend::sqlx::is_postgres;
use crate::backend::sqlx::sql::Sql;

/// A trivial query.
pub(crate) async fn ping(connection: &mut AnyConnection) -> Result<()> {
    sqlx::query("SELECT 1").execute(connection).await.map(drop)
}

/// Picks, raises and reads, so that no raise is lost, whoever else raises the same questions.
pub(crate) async fn take(connection: &mut AnyConnection, wanted: &Selection) -> Result<Vec<Question>> {
    let chosen = choose(connection, wanted).await?;
    let raised = raise(connection, &chosen).await?;
    let skills = skills(connection, &chosen).await?;
    Ok(assemble(&chosen, raised, skills))
}

/// The ids of the questions that suit best.
pub(crate) async fn choose(connection: &mut AnyConnection, wanted: &Selection) -> Result<Vec<String>> {
    let mut chosen = Vec::new();
    for role in wanted.roles() {
        if wanted.missing(&chosen) > 0 {
            let more = pick(connection, wanted, role, &chosen).await?;
            chosen.extend(more);
        }
    }
    Ok(chosen)
}

async fn pick(
    connection: &mut AnyConnection,
    wanted: &Selection,
    role: Role,
    chosen: &[String],
) -> Result<Vec<String>> {
    let mut sql = Sql::new(
        "SELECT q.id FROM questions q \
         JOIN question_roles r ON r.question_id = q.id \
         LEFT JOIN question_skills s ON s.question_id = q.id AND s.skill IN ",
    )
    .list(wanted.skills.iter().copied())
    .push(" WHERE r.role = ")
    .bind(role.slug().to_owned())
    .push(" AND q.difficulty IN ")
    .list(wanted.difficulties());
    // `NOT IN (NULL)` would be true of nothing.
    if !chosen.is_empty() {
        sql = sql.push(" AND q.id NOT IN ").list(chosen.iter().map(String::as_str));
    }
    sql.push(" GROUP BY q.id ORDER BY COUNT(s.skill) DESC, q.usage_count, q.id LIMIT ")
        .bind(wanted.missing(chosen))
        .query_scalar()
        .fetch_all(connection)
        .await
}

async fn raise(connection: &mut AnyConnection, ids: &[String]) -> Result<Vec<Question>> {
    let ids = || ids.iter().map(String::as_str);
    if is_postgres(connection) {
        // Whoever locks in the order of the ids waits, but never for somebody who waits for them.
        let lock = Sql::new("SELECT id FROM questions WHERE id IN ").list(ids()).push(" ORDER BY id FOR UPDATE");
        lock.query().execute(&mut *connection).await?;
    }
    let rows: Vec<(String, String, String, String, i64)> =
        Sql::new("UPDATE questions SET usage_count = usage_count + 1 WHERE id IN ")
            .list(ids())
            .push(" RETURNING id, text, category, difficulty, usage_count")
            .query_as()
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(Question::from).collect())
}

/// The roles of questions, in pairs.
pub(crate) async fn roles(connection: &mut AnyConnection, ids: &[String]) -> Result<Vec<(String, String)>> {
    Sql::new("SELECT question_id, role FROM question_roles WHERE question_id IN ")
        .list(ids.iter().map(String::as_str))
        .query_as()
        .fetch_all(connection)
        .await
}

/// The skills of questions, in pairs.
pub(crate) async fn skills(connection: &mut AnyConnection, ids: &[String]) -> Result<Vec<(String, String)>> {
    Sql::new("SELECT question_id, skill FROM question_skills WHERE question_id IN ")
        .list(ids.iter().map(String::as_str))
        .query_as()
        .fetch_all(connection)
        .await
}
