//! Names with a fixed alphabet: flag keys and backends.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in bytes: that of a DNS label, so that a name can be one.
const MAX_BYTES: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 of a-z, 0-9 and `-`, and begins with a letter or a digit")]
pub struct NameError;

fn check(name: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match name.as_bytes() {
        [first, rest @ ..] if inner(*first) && rest.len() < MAX_BYTES => {
            if rest.iter().all(|byte| inner(*byte) || *byte == b'-') { Ok(()) } else { Err(NameError) }
        }
        _ => Err(NameError),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check(name)?;
                Ok(Self(name.into()))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A flag's key: `[a-z0-9][a-z0-9-]{0,62}`. Cloning is cheap.
    FlagKey
}

name! {
    /// A backend's name, of the same alphabet as a flag's key. As the answer to a decision it is called the variant.
    BackendName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, valid: bool) {
        assert_eq!(name.parse::<FlagKey>().is_ok(), valid, "{name:?}");
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        check("async-database", true);
        check("0", true);
        check(&"a".repeat(63), true);
        check(&"a".repeat(64), false);
        check("", false);
        check("-a", false);
        check("Async", false);
        check("a_b", false);
        check("a.b", false);
        check("../a", false);
        check("ä", false);
    }
}
