//! A statement that is put together at run time, with `$1`, `$2`, … as both databases read them.

use std::fmt::Write as _;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Any, Arguments as _, AssertSqlSafe, Encode, FromRow, Type};

/// A statement and its values. Values are only ever bound, never written into the text.
#[derive(Default)]
pub(crate) struct Sql {
    text: String,
    arguments: AnyArguments,
    bound: usize,
}

impl Sql {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Appends text of the program's own.
    pub(crate) fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends a value.
    pub(crate) fn bind<T: 'static + Encode<'static, Any> + Type<Any> + Send>(mut self, value: T) -> Self {
        // Binding to the any driver merely moves the value.
        if self.arguments.add(value).is_ok() {
            self.bound = self.bound.saturating_add(1);
            let _: std::fmt::Result = write!(self.text, "${}", self.bound);
        }
        self
    }

    /// Appends `(a, b, …)`; for nothing `(NULL)`, which is `IN` nothing.
    pub(crate) fn list<'a>(mut self, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut separator = "(";
        for value in values {
            self = self.push(separator).bind(value.to_owned());
            separator = ", ";
        }
        if separator == "(" { self.push("(NULL)") } else { self.push(")") }
    }

    pub(crate) fn query(self) -> Query<'static, Any, AnyArguments> {
        sqlx::query_with(AssertSqlSafe(self.text), self.arguments)
    }

    pub(crate) fn query_as<R: for<'r> FromRow<'r, AnyRow>>(self) -> QueryAs<'static, Any, R, AnyArguments> {
        sqlx::query_as_with(AssertSqlSafe(self.text), self.arguments)
    }

    pub(crate) fn query_scalar<R>(self) -> QueryScalar<'static, Any, R, AnyArguments>
    where
        (R,): for<'r> FromRow<'r, AnyRow>,
    {
        sqlx::query_scalar_with(AssertSqlSafe(self.text), self.arguments)
    }
}
