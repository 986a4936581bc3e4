//! Who may do what: access tokens and their roles.
//!
//! A token is 256 random bits, so its SHA-256 is all that is kept of it, and enough: a slow hash makes it dear to guess a
//! password that a person chose, and these cannot be guessed at any speed.

mod certificate;
mod rate;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

pub use crate::access::certificate::{Certificate, Subject};
pub use crate::access::rate::RateLimit;

/// What every token begins with, so that people and scanners for leaked secrets know one when they see it.
const PREFIX: &str = "tidegate_";

/// What every hash begins with.
const SCHEME: &str = "sha256:";

/// The bytes of a token's secret, and of its hash.
const BYTES: usize = 32;

/// Actors of the audit trail that are nobody's names.
const RESERVED: [&str; 5] = ["file", "judge", "local", "ramp", "tidegate"];

/// What a token allows. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Chooses the arm of requests of their own, too.
    Tester,
    /// Changes rollouts, too.
    Operator,
}

impl Role {
    /// As written in files and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Tester => "tester",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something is no token's name, role or hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a role.
    #[error("a role is `viewer`, `tester` or `operator`")]
    Role,
    /// Not a name.
    #[error("a token's name is 1 to 63 of a-z, 0-9, `.`, `_`, `@` and `-`, and begins with a letter or a digit")]
    Name,
    /// A name that the audit trail needs.
    #[error("`file`, `judge`, `local`, `ramp` and `tidegate` are actors of their own; choose another name")]
    Reserved,
    /// Not a hash.
    #[error("a hash is `sha256:` and 64 hexadecimal digits, as `tidegate token new` writes it")]
    Hash,
}

impl FromStr for Role {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let roles = [Self::Viewer, Self::Tester, Self::Operator];
        roles.into_iter().find(|role| role.as_str() == text).ok_or(TokenError::Role)
    }
}

/// Whose a token is: the actor of what is done with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenName(Arc<str>);

impl TokenName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._@-".contains(&byte);
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
        if !begins || text.len() > 63 || !text.bytes().all(plain) {
            return Err(TokenError::Name);
        }
        if RESERVED.contains(&text) { Err(TokenError::Reserved) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text that somebody shows to be let in, made of 256 random bits.
#[must_use]
pub fn secret(random: [u8; BYTES]) -> String {
    format!("{PREFIX}{}", hexadecimal(&random))
}

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; BYTES]);

impl TokenHash {
    /// The hash of what somebody shows.
    #[must_use]
    pub fn of(shown: &str) -> Self {
        Self(Sha256::digest(shown.as_bytes()).into())
    }
}

impl FromStr for TokenHash {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.strip_prefix(SCHEME).filter(|digits| digits.len() == 2 * BYTES).ok_or(TokenError::Hash)?;
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let [high, low] = pair else { return Err(TokenError::Hash) };
            *byte = digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low).ok_or(TokenError::Hash)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", hexadecimal(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:…")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub name: TokenName,
    /// What it allows.
    pub role: Role,
    /// What it is known by.
    pub hash: TokenHash,
}

/// The tokens in force, or none at all: then whoever reaches the address may do everything.
#[derive(Debug)]
pub struct Access {
    tokens: Option<ArcSwap<Vec<Token>>>,
    certificates: ArcSwap<Vec<Certificate>>,
    /// What is wrong with the file of tokens, if those in force are not what it holds.
    problem: ArcSwapOption<String>,
}

impl Access {
    /// For an address that only this machine reaches.
    #[must_use]
    pub fn open() -> Self {
        Self { tokens: None, certificates: ArcSwap::default(), problem: ArcSwapOption::empty() }
    }

    /// Only with one of `tokens`; if there are none, for nobody.
    #[must_use]
    pub fn guarded(tokens: Vec<Token>) -> Self {
        Self { tokens: Some(ArcSwap::from_pointee(tokens)), ..Self::open() }
    }

    /// Lets those in, too, who have one of `certificates`, and nobody with another.
    pub fn certify(&self, certificates: Vec<Certificate>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Whom a certificate stands for that tells `subjects`: the first that is named in the configuration.
    #[must_use]
    pub fn certified(&self, subjects: &[Subject]) -> Option<Certificate> {
        self.certificates.load().iter().find(|certificate| subjects.contains(&certificate.subject)).cloned()
    }

    /// The tokens in force.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.tokens.as_ref().map_or_else(Vec::new, |tokens| Vec::clone(&tokens.load()))
    }

    /// Whether tokens or certificates are needed.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.tokens.is_some()
    }

    /// Puts other tokens in force, if tokens are needed.
    pub fn replace(&self, tokens: Vec<Token>) {
        if let Some(in_force) = &self.tokens {
            in_force.store(Arc::new(tokens));
        }
        self.problem.store(None);
    }

    /// Notes that the tokens in force are not what their file holds, and why.
    pub fn keep(&self, problem: String) {
        self.problem.store(Some(Arc::new(problem)));
    }

    /// Why the tokens in force are not what their file holds, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// The token that `shown` is, if it is one. How long this takes says nothing about which it might be.
    #[must_use]
    pub fn find(&self, shown: &str) -> Option<Token> {
        let tokens = self.tokens.as_ref()?.load();
        let hash = TokenHash::of(shown);
        let same = |token: &&Token| -> Choice { token.hash.0.ct_eq(&hash.0) };
        // All of them, whichever it is.
        tokens.iter().filter(|token| bool::from(same(token))).fold(None, |found, token| found.or(Some(token))).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, role: Role, secret: &str) -> Token {
        Token { name: name.parse().unwrap(), role, hash: TokenHash::of(secret) }
    }

    #[test]
    fn a_token_is_found_by_what_is_shown() {
        let (ann, bob) = (secret([1; BYTES]), secret([2; BYTES]));
        let access = Access::guarded(vec![token("ann", Role::Viewer, &ann), token("bob", Role::Operator, &bob)]);
        assert_eq!(access.find(&bob).unwrap().name.as_str(), "bob");
        assert_eq!(access.find(&ann).unwrap().role, Role::Viewer);
        for wrong in ["", "tidegate_", &bob[..bob.len() - 1], &bob.to_uppercase(), &format!("{bob} ")] {
            assert_eq!(access.find(wrong), None, "{wrong}");
        }
        access.replace(Vec::new());
        assert_eq!(access.find(&bob), None, "revoked");
        assert_eq!(Access::open().find(&bob), None);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        // `printf %s tidegate_ | sha256sum`
        let hash = TokenHash::of("tidegate_");
        assert_eq!(hash.to_string().parse(), Ok(hash.clone()));
        assert_eq!(hash.to_string().len(), 71);
        for wrong in ["", "sha256:", "md5:00", &hash.to_string()[..70], &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(wrong.parse::<TokenHash>(), Err(TokenError::Hash), "{wrong}");
        }
    }

    #[test]
    fn names_and_roles_are_checked() {
        for name in ["ann", "ann.b@c-d_e", "0"] {
            assert_eq!(name.parse::<TokenName>().unwrap().as_str(), name);
        }
        for name in ["", "Ann", "-ann", "a b", "a\n", &"a".repeat(64)] {
            assert_eq!(name.parse::<TokenName>(), Err(TokenError::Name), "{name}");
        }
        assert_eq!("judge".parse::<TokenName>(), Err(TokenError::Reserved));
        assert!(Role::Viewer < Role::Tester && Role::Tester < Role::Operator);
        assert_eq!("admin".parse::<Role>(), Err(TokenError::Role));
    }
}
