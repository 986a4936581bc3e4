//! The list of questions, in Diesel's query language.

use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use diesel::{
    BoolExpressionMethods, BoxableExpression, EscapeExpressionMethods, ExpressionMethods, QueryDsl, RunQueryDsl,
    TextExpressionMethods,
};

use crate::backend::diesel::{AnyConnection, MultiBackend, questions};
use crate::backend::listing::{Key, Listed, Listing, Order, Place, Row};
use crate::backend::schema::{question_roles, question_skills, questions as bank};

/// A condition on a question.
type Condition = Box<dyn BoxableExpression<bank::table, MultiBackend, SqlType = Bool>>;

/// The questions of a page, and one more if there is one.
pub(crate) fn list(connection: &mut AnyConnection, listing: &Listing) -> QueryResult<Vec<Listed>> {
    let mut query = bank::table.into_boxed::<MultiBackend>();
    let filter = &listing.filter;
    if !filter.ids.is_empty() {
        query = query.filter(bank::id.eq_any(&filter.ids));
    }
    if !filter.categories.is_empty() {
        query = query.filter(bank::category.eq_any(&filter.categories));
    }
    if !filter.difficulties.is_empty() {
        query = query.filter(bank::difficulty.eq_any(&filter.difficulties));
    }
    if !filter.roles.is_empty() {
        let suited = question_roles::table
            .filter(question_roles::role.eq_any(&filter.roles))
            .select(question_roles::question_id);
        query = query.filter(bank::id.eq_any(suited));
    }
    if !filter.skills.is_empty() {
        let probed = question_skills::table
            .filter(question_skills::skill.eq_any(&filter.skills))
            .select(question_skills::question_id);
        query = query.filter(bank::id.eq_any(probed));
    }
    if let Some(pattern) = listing.pattern() {
        query = query.filter(bank::search.like(pattern).escape('\\'));
    }
    if let Some(least) = filter.min_usage {
        query = query.filter(bank::usage_count.ge(least));
    }
    if let Some(most) = filter.max_usage {
        query = query.filter(bank::usage_count.le(most));
    }
    if let Some(condition) = listing.after.as_ref().and_then(|after| behind(&listing.order, after)) {
        query = query.filter(condition);
    }
    for Order { key, descending } in listing.order.iter().copied() {
        query = match (key, descending) {
            (Key::Id, false) => query.then_order_by(bank::id.asc()),
            (Key::Id, true) => query.then_order_by(bank::id.desc()),
            (Key::Category, false) => query.then_order_by(bank::category.asc()),
            (Key::Category, true) => query.then_order_by(bank::category.desc()),
            (Key::Difficulty, false) => query.then_order_by(bank::difficulty_rank.asc()),
            (Key::Difficulty, true) => query.then_order_by(bank::difficulty_rank.desc()),
            (Key::UsageCount, false) => query.then_order_by(bank::usage_count.asc()),
            (Key::UsageCount, true) => query.then_order_by(bank::usage_count.desc()),
            (Key::Discrimination, false) => query.then_order_by(bank::discrimination.asc()),
            (Key::Discrimination, true) => query.then_order_by(bank::discrimination.desc()),
        };
    }
    let rows: Vec<Row> = query
        .limit(i64::from(listing.limit).saturating_add(1))
        .select((
            bank::id,
            bank::text,
            bank::category,
            bank::difficulty,
            bank::usage_count,
            bank::difficulty_rank,
            bank::discrimination,
            bank::location,
        ))
        .load(connection)?;
    let ids: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
    let roles = questions::roles(connection, &ids)?;
    let skills = questions::skills(connection, &ids)?;
    Ok(Listed::assemble(rows, &roles, &skills))
}

/// Whether a question comes behind a place: by its first key, or as that one's equal by the rest.
fn behind(order: &[Order], after: &[Place]) -> Option<Condition> {
    let (first, place) = (order.first()?, after.first()?);
    let beyond = compare(*first, place, false)?;
    match behind(order.get(1..)?, after.get(1..)?) {
        Some(rest) => Some(Box::new(beyond.or(compare(*first, place, true)?.and(rest)))),
        None => Some(beyond),
    }
}

/// Whether a question's key equals a place, or comes beyond it.
fn compare(order: Order, place: &Place, equals: bool) -> Option<Condition> {
    macro_rules! by {
        ($column:expr, $value:expr) => {
            match (equals, order.descending) {
                (true, _) => Box::new($column.eq($value)),
                (false, false) => Box::new($column.gt($value)),
                (false, true) => Box::new($column.lt($value)),
            }
        };
    }
    Some(match (order.key, place) {
        (Key::Id, Place::Text(text)) => by!(bank::id, text.clone()),
        (Key::Category, Place::Text(text)) => by!(bank::category, text.clone()),
        (Key::Difficulty, Place::Whole(number)) => by!(bank::difficulty_rank, *number),
        (Key::UsageCount, Place::Whole(number)) => by!(bank::usage_count, *number),
        (Key::Discrimination, Place::Real(number)) => by!(bank::discrimination, *number),
        // A cursor is checked to fit its order.
        _ => return None,
    })
}
