//! The statements on the question bank, in SQL.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::backend::role::Role;
use crate::backend::selection::{Question, Selection, assemble};

/// Picks, raises and reads; the caller holds the write lock, so that no two pick on the same counts.
pub(crate) async fn take(connection: &mut SqliteConnection, wanted: &Selection) -> Result<Vec<Question>, sqlx::Error> {
    let mut chosen = Vec::new();
    for role in wanted.roles() {
        if wanted.missing(&chosen) > 0 {
            let more = pick(connection, wanted, role, &chosen).await?;
            chosen.extend(more);
        }
    }
    let raised = raise(connection, &chosen).await?;
    let skills = skills(connection, &chosen).await?;
    Ok(assemble(&chosen, raised, skills))
}

async fn pick(
    connection: &mut SqliteConnection,
    wanted: &Selection,
    role: Role,
    chosen: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    let mut query = QueryBuilder::new(
        "SELECT q.id FROM questions q \
         JOIN question_roles r ON r.question_id = q.id \
         LEFT JOIN question_skills s ON s.question_id = q.id AND s.skill IN ",
    );
    push_list(&mut query, wanted.skills.iter().copied());
    query.push(" WHERE r.role = ").push_bind(role.slug());
    query.push(" AND q.difficulty IN ");
    push_list(&mut query, wanted.difficulties().into_iter());
    query.push(" AND q.id NOT IN ");
    push_list(&mut query, chosen.iter().map(String::as_str));
    query.push(" GROUP BY q.id ORDER BY COUNT(s.skill) DESC, q.usage_count, q.id LIMIT ");
    query.push_bind(wanted.missing(chosen));
    query.build_query_scalar().fetch_all(connection).await
}

async fn raise(connection: &mut SqliteConnection, ids: &[String]) -> Result<Vec<Question>, sqlx::Error> {
    let mut query = QueryBuilder::new("UPDATE questions SET usage_count = usage_count + 1 WHERE id IN ");
    push_list(&mut query, ids.iter().map(String::as_str));
    query.push(" RETURNING id, text, category, difficulty, usage_count");
    let rows: Vec<(String, String, String, String, i64)> = query.build_query_as().fetch_all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|(id, text, category, difficulty, usage_count)| Question {
            id,
            text,
            category,
            difficulty,
            skills: Vec::new(),
            usage_count,
        })
        .collect())
}

async fn skills(connection: &mut SqliteConnection, ids: &[String]) -> Result<Vec<(String, String)>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT question_id, skill FROM question_skills WHERE question_id IN ");
    push_list(&mut query, ids.iter().map(String::as_str));
    query.build_query_as().fetch_all(connection).await
}

/// Appends `(?, ?, …)`; `()`, which `SQLite` takes as the empty list, if there is nothing.
fn push_list<'a>(query: &mut QueryBuilder<Sqlite>, values: impl Iterator<Item = &'a str>) {
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.to_owned());
    }
    query.push(")");
}
