//! The statements on the question bank, in Diesel's query language.

use diesel::dsl::count;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl, RunQueryDsl};

use crate::backend::role::Role;
use crate::backend::schema::{question_roles, question_skills, questions};
use crate::backend::selection::{Question, Selection, assemble};

/// Picks, raises and reads; the caller holds the write lock, so that no two pick on the same counts.
pub(crate) fn take(connection: &mut SqliteConnection, wanted: &Selection) -> Result<Vec<Question>, DieselError> {
    let mut chosen = Vec::new();
    for role in wanted.roles() {
        if wanted.missing(&chosen) > 0 {
            let more = pick(connection, wanted, role, &chosen)?;
            chosen.extend(more);
        }
    }
    let raised = raise(connection, &chosen)?;
    let skills = skills(connection, &chosen)?;
    Ok(assemble(&chosen, raised, skills))
}

fn pick(
    connection: &mut SqliteConnection,
    wanted: &Selection,
    role: Role,
    chosen: &[String],
) -> Result<Vec<String>, DieselError> {
    let probed = question_skills::question_id.eq(questions::id).and(question_skills::skill.eq_any(&wanted.skills));
    questions::table
        .inner_join(question_roles::table)
        .left_join(question_skills::table.on(probed))
        .filter(question_roles::role.eq(role.slug()))
        .filter(questions::difficulty.eq_any(wanted.difficulties()))
        .filter(questions::id.ne_all(chosen))
        .group_by(questions::id)
        .order((count(question_skills::skill.nullable()).desc(), questions::usage_count.asc(), questions::id.asc()))
        .limit(wanted.missing(chosen))
        .select(questions::id)
        .load(connection)
}

fn raise(connection: &mut SqliteConnection, ids: &[String]) -> Result<Vec<Question>, DieselError> {
    let rows: Vec<(String, String, String, String, i64)> =
        diesel::update(questions::table.filter(questions::id.eq_any(ids)))
            .set(questions::usage_count.eq(questions::usage_count + 1))
            .returning(questions::all_columns)
            .get_results(connection)?;
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

fn skills(connection: &mut SqliteConnection, ids: &[String]) -> Result<Vec<(String, String)>, DieselError> {
    question_skills::table
        .filter(question_skills::question_id.eq_any(ids))
        .select((question_skills::question_id, question_skills::skill))
        .load(connection)
}
