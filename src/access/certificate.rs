//! Whom a client's certificate stands for.

use std::fmt;

use crate::access::{Role, TokenName};

/// What is told of somebody in a certificate, by those who vouch for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The common name of its subject.
    CommonName(String),
    /// A name of a host among its alternative names.
    Dns(String),
    /// An address of electronic mail among these.
    Email(String),
    /// A URI among these, such as a SPIFFE ID.
    Uri(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(text) => write!(f, "common_name {text}"),
            Self::Dns(text) => write!(f, "dns {text}"),
            Self::Email(text) => write!(f, "email {text}"),
            Self::Uri(text) => write!(f, "uri {text}"),
        }
    }
}

/// Who is let in with a certificate, instead of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: the actor of what is done with it.
    pub name: TokenName,
    /// What it allows.
    pub role: Role,
    /// What it is known by.
    pub subject: Subject,
}
