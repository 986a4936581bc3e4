//! A request that somebody asks about, put together from its parts.

use std::net::IpAddr;
use std::str::FromStr;

use crate::flag::{Attributes, EvaluationContext, Moment, cookie_in};

/// What is known of a request that is asked about. Whatever is not given is missing, but for the path and the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedRequest {
    /// The targeting key.
    pub user: Option<String>,
    /// The method.
    pub method: String,
    /// The path, with a query where there is one.
    pub path: String,
    /// The host; without it, the header's.
    pub host: Option<String>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Why something is no part of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// No such part.
    #[error("there is no `{0}` to ask about; there are user, method, path, host, client and header")]
    Part(String),
    /// A part that a request has once.
    #[error("`{0}` is given twice, and a request has one")]
    Twice(String),
    /// A header without its name.
    #[error("`header` is written `name=value`, not `{0}`")]
    Header(String),
    /// No address.
    #[error("`client` is an address like 192.0.2.1, not `{0}`")]
    Client(String),
    /// No path.
    #[error("`path` begins with `/`, not `{0}`")]
    Path(String),
}

impl AskedRequest {
    /// The request that `parts` describe: `user`, `method`, `path`, `host`, `client`, and any number of `header`s.
    ///
    /// # Errors
    ///
    /// If a part is unknown, or cannot be what it is said to be.
    pub fn from_parts(parts: impl IntoIterator<Item = (String, String)>) -> Result<Self, AskedError> {
        let mut asked = Self::default();
        let mut given = Vec::new();
        for (part, value) in parts {
            if part != "header" && given.contains(&part) {
                return Err(AskedError::Twice(part));
            }
            given.push(part.clone());
            match part.as_str() {
                "user" => asked.user = Some(value),
                "method" => asked.method = value,
                "path" if value.starts_with('/') => asked.path = value,
                "path" => return Err(AskedError::Path(value)),
                "host" => asked.host = Some(value),
                "client" => {
                    let address = IpAddr::from_str(&value).map_err(|_| AskedError::Client(value))?;
                    asked.client = Some(address.to_canonical());
                }
                "header" => {
                    let (name, text) = value.split_once([':', '=']).ok_or_else(|| AskedError::Header(value.clone()))?;
                    asked.headers.push((name.trim().to_ascii_lowercase(), text.trim().to_owned()));
                }
                _ => return Err(AskedError::Part(part)),
            }
        }
        Ok(asked)
    }

    /// What a decision about the request is made on, at `now`.
    #[must_use]
    pub fn context(&self, now: Moment) -> EvaluationContext<'_> {
        EvaluationContext { targeting_key: self.user.as_deref(), now, attributes: self, chosen: None }
    }
}

impl Default for AskedRequest {
    fn default() -> Self {
        let (method, path) = ("GET".to_owned(), "/".to_owned());
        Self { user: None, method, path, host: None, client: None, headers: Vec::new() }
    }
}

impl Attributes for AskedRequest {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.iter().filter(|(found, _)| found == "cookie");
        cookies.filter_map(|(_, value)| cookie_in(value, name)).next()
    }

    fn query(&self) -> Option<&str> {
        self.path.split_once('?').map(|(_, query)| query)
    }

    fn path(&self) -> Option<&str> {
        self.path.split('?').next()
    }

    fn method(&self) -> Option<&str> {
        Some(&self.method)
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref().or_else(|| self.header("host"))
    }

    fn client(&self) -> Option<IpAddr> {
        self.client
    }
}
