//! Why the database did not do what was asked, sorted by what can be done about it.

use std::time::Duration;

use serde::Serialize;

/// What a driver or a pool said.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The kinds of failure that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// Two transactions waited for each other, and this one was the victim.
    Deadlock,
    /// This transaction and others cannot have happened one after the other.
    Serialization,
    /// A lock was not free in time.
    Busy,
    /// The connection broke, or none could be made.
    ConnectionLost,
    /// No connection of the pool became free in time.
    Exhausted,
    /// A constraint of the schema refused the change.
    Constraint,
    /// Anything else.
    Other,
}

impl Class {
    /// Every class.
    pub(crate) const ALL: [Self; 7] = [
        Self::Deadlock,
        Self::Serialization,
        Self::Busy,
        Self::ConnectionLost,
        Self::Exhausted,
        Self::Constraint,
        Self::Other,
    ];

    /// The name in figures and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Serialization => "serialization",
            Self::Busy => "busy",
            Self::ConnectionLost => "connection_lost",
            Self::Exhausted => "exhausted",
            Self::Constraint => "constraint",
            Self::Other => "other",
        }
    }

    /// The class of a `PostgreSQL` error code (appendix A of its manual).
    pub(crate) fn of_sqlstate(code: &str) -> Self {
        match code {
            "40P01" => Self::Deadlock,
            "40001" => Self::Serialization,
            // lock_not_available, and query_canceled by statement_timeout.
            "55P03" | "57014" => Self::Busy,
            // admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections.
            "57P01" | "57P02" | "57P03" | "53300" => Self::ConnectionLost,
            _ if code.starts_with("08") => Self::ConnectionLost,
            _ if code.starts_with("23") => Self::Constraint,
            _ => Self::Other,
        }
    }

    /// The class of an `SQLite` result code; the upper bits only refine the primary code.
    pub(crate) fn of_sqlite(code: u32) -> Self {
        match code & 0xff {
            // SQLITE_BUSY, SQLITE_LOCKED.
            5 | 6 => Self::Busy,
            // SQLITE_CANTOPEN.
            14 => Self::ConnectionLost,
            // SQLITE_CONSTRAINT.
            19 => Self::Constraint,
            _ => Self::Other,
        }
    }

    /// Whether the same transaction may succeed when it is done again.
    ///
    /// All of these leave nothing behind, but for a connection that broke during the commit: then the work may have been
    /// done. It is not repeated, unless it is known not to have begun (`begun` false).
    pub(crate) fn may_be_retried(self, begun: bool) -> bool {
        match self {
            Self::Deadlock | Self::Serialization | Self::Busy => true,
            Self::ConnectionLost => !begun,
            Self::Exhausted | Self::Constraint | Self::Other => false,
        }
    }
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The driver or the pool failed.
    #[error("the database operation failed ({})", class.name())]
    Failed {
        /// What kind of failure it is.
        class: Class,
        /// Whether a connection was there and work on it may have begun.
        begun: bool,
        /// What was said.
        #[source]
        cause: Cause,
    },
    /// The circuit breaker is open: the database was not asked.
    #[error("the database is away; it is asked again in {} ms", retry_after.as_millis())]
    Away {
        /// When it is asked again.
        retry_after: Duration,
    },
}

impl StoreError {
    /// What went wrong before any work began.
    pub(crate) fn before(class: Class, cause: impl Into<Cause>) -> Self {
        Self::Failed { class, begun: false, cause: cause.into() }
    }

    /// What went wrong during the work.
    pub(crate) fn during(class: Class, cause: impl Into<Cause>) -> Self {
        Self::Failed { class, begun: true, cause: cause.into() }
    }

    /// The class; the breaker's refusal is that of what opened it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Failed { class, .. } => *class,
            Self::Away { .. } => Class::ConnectionLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_have_their_class() {
        for (code, class) in [
            ("40P01", Class::Deadlock),
            ("40001", Class::Serialization),
            ("55P03", Class::Busy),
            ("57P01", Class::ConnectionLost),
            ("08006", Class::ConnectionLost),
            ("23505", Class::Constraint),
            ("42P01", Class::Other),
        ] {
            assert_eq!(Class::of_sqlstate(code), class, "{code}");
        }
        for (code, class) in [
            (5, Class::Busy),
            (261, Class::Busy),
            (2067, Class::Constraint),
            (14, Class::ConnectionLost),
            (1, Class::Other),
        ] {
            assert_eq!(Class::of_sqlite(code), class, "{code}");
        }
    }

    #[test]
    fn only_what_left_nothing_behind_is_repeated() {
        for class in Class::ALL {
            let (begun, before) = (class.may_be_retried(true), class.may_be_retried(false));
            let expected = match class {
                Class::Deadlock | Class::Serialization | Class::Busy => (true, true),
                Class::ConnectionLost => (false, true),
                Class::Exhausted | Class::Constraint | Class::Other => (false, false),
            };
            assert_eq!((begun, before), expected, "{class:?}");
        }
    }
}
