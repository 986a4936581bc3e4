//! The list of questions, in SQL.

use sqlx::{AnyConnection, Result};

use crate::backend::listing::{Listed, Listing, Order, Place, Row};
use crate::backend::sqlx::questions;
use crate::backend::sqlx::sql::Sql;

/// The questions of a page, and one more if there is one.
pub(crate) async fn list(connection: &mut AnyConnection, listing: &Listing) -> Result<Vec<Listed>> {
    let mut sql = Sql::new(
        "SELECT id, text, category, difficulty, usage_count, difficulty_rank, discrimination, location \
         FROM questions WHERE 1 = 1",
    );
    let filter = &listing.filter;
    for (column, values) in
        [("id", &filter.ids), ("category", &filter.categories), ("difficulty", &filter.difficulties)]
    {
        if !values.is_empty() {
            sql = sql.push(" AND ").push(column).push(" IN ").list(values.iter().map(String::as_str));
        }
    }
    for (table, column, values) in
        [("question_roles", "role", &filter.roles), ("question_skills", "skill", &filter.skills)]
    {
        if !values.is_empty() {
            sql = sql.push(" AND id IN (SELECT question_id FROM ").push(table).push(" WHERE ").push(column);
            sql = sql.push(" IN ").list(values.iter().map(String::as_str)).push(")");
        }
    }
    if let Some(pattern) = listing.pattern() {
        sql = sql.push(" AND search LIKE ").bind(pattern).push(" ESCAPE '\\'");
    }
    if let Some(least) = filter.min_usage {
        sql = sql.push(" AND usage_count >= ").bind(least);
    }
    if let Some(most) = filter.max_usage {
        sql = sql.push(" AND usage_count <= ").bind(most);
    }
    if let Some(after) = &listing.after {
        sql = behind(sql.push(" AND "), &listing.order, after);
    }
    let mut separator = " ORDER BY ";
    for order in &listing.order {
        let direction = if order.descending { " DESC" } else { "" };
        sql = sql.push(separator).push(order.key.column()).push(direction);
        separator = ", ";
    }
    let limit = i64::from(listing.limit).saturating_add(1);
    let rows: Vec<Row> = sql.push(" LIMIT ").bind(limit).query_as().fetch_all(&mut *connection).await?;
    let ids: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
    let roles = questions::roles(connection, &ids).await?;
    let skills = questions::skills(connection, &ids).await?;
    Ok(Listed::assemble(rows, &roles, &skills))
}

/// Appends whether a question comes behind a place: by its first key, or as that one's equal by the rest.
fn behind(mut sql: Sql, order: &[Order], after: &[Place]) -> Sql {
    let mut open = 0_usize;
    let mut keys = order.iter().zip(after).peekable();
    while let Some((order, place)) = keys.next() {
        let column = order.key.column();
        sql = value(sql.push("(").push(column).push(if order.descending { " < " } else { " > " }), place);
        open = open.saturating_add(1);
        if keys.peek().is_some() {
            sql = value(sql.push(" OR (").push(column).push(" = "), place).push(" AND ");
            open = open.saturating_add(1);
        }
    }
    sql.push(&")".repeat(open))
}

fn value(sql: Sql, place: &Place) -> Sql {
    match place {
        Place::Whole(number) => sql.bind(*number),
        Place::Real(number) => sql.bind(*number),
        Place::Text(text) => sql.bind(text.clone()),
    }
}
