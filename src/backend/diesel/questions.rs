//! The statements on the question bank, in Diesel's query language.

use diesel::dsl::count;
use diesel::result::QueryResult;
use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl, RunQueryDsl};

use crate::backend::diesel::AnyConnection;
use crate::backend::role::Role;
use crate::backend::schema::{question_roles, question_skills, questions};
use crate::backend::selection::{Question, Selection, assemble};

/// A trivial query.
pub(crate) fn ping(connection: &mut AnyConnection) -> QueryResult<()> {
    diesel::sql_query("SELECT 1").execute(connection).map(drop)
}

/// Picks, raises and reads, so that no raise is lost, whoever else raises the same questions.
pub(crate) fn take(connection: &mut AnyConnection, wanted: &Selection) -> QueryResult<Vec<Question>> {
    let chosen = choose(connection, wanted)?;
    let raised = raise(connection, &chosen)?;
    let skills = skills(connection, &chosen)?;
    Ok(assemble(&chosen, raised, skills))
}

/// The ids of the questions that suit best.
pub(crate) fn choose(connection: &mut AnyConnection, wanted: &Selection) -> QueryResult<Vec<String>> {
    let mut chosen = Vec::new();
    for role in wanted.roles() {
        if wanted.missing(&chosen) > 0 {
            let more = pick(connection, wanted, role, &chosen)?;
            chosen.extend(more);
        }
    }
    Ok(chosen)
}

fn pick(connection: &mut AnyConnection, wanted: &Selection, role: Role, chosen: &[String]) -> QueryResult<Vec<String>> {
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

fn raise(connection: &mut AnyConnection, ids: &[String]) -> QueryResult<Vec<Question>> {
    let these = || questions::id.eq_any(ids);
    if let AnyConnection::Postgres(connection) = connection {
        // Whoever locks in the order of the ids waits, but never for somebody who waits for them.
        let locked = questions::table.filter(these()).order(questions::id).select(questions::id).for_update();
        let _: Vec<String> = locked.load(connection)?;
    }
    diesel::update(questions::table.filter(these()))
        .set(questions::usage_count.eq(questions::usage_count + 1))
        .execute(connection)?;
    let rows: Vec<(String, String, String, String, i64)> = questions::table
        .filter(these())
        .select((questions::id, questions::text, questions::category, questions::difficulty, questions::usage_count))
        .load(connection)?;
    Ok(rows.into_iter().map(Question::from).collect())
}

/// The roles of questions, in pairs.
pub(crate) fn roles(connection: &mut AnyConnection, ids: &[String]) -> QueryResult<Vec<(String, String)>> {
    question_roles::table
        .filter(question_roles::question_id.eq_any(ids))
        .select((question_roles::question_id, question_roles::role))
        .load(connection)
}

/// The skills of questions, in pairs.
pub(crate) fn skills(connection: &mut AnyConnection, ids: &[String]) -> QueryResult<Vec<(String, String)>> {
    question_skills::table
        .filter(question_skills::question_id.eq_any(ids))
        .select((question_skills::question_id, question_skills::skill))
        .load(connection)
}
