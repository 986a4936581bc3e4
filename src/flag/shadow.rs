//! Which of a flag's requests are copied to its canary, and what of the answers is compared.

use std::fmt;
use std::str::FromStr;

use crate::flag::Percentage;

/// The `[shadow]` of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// The share of the requests that stable answers of which the canary gets a copy.
    pub percentage: Percentage,
    /// The share of the copied requests of which stable gets a copy as well, to see what it answers otherwise by itself.
    pub noise: Percentage,
    /// The methods of requests that are copied.
    pub methods: Vec<String>,
    /// Whether the status is compared.
    pub status: bool,
    /// Whether bodies of JSON are compared.
    pub json: bool,
    /// The headers of the answer that are compared, in lower case.
    pub headers: Vec<String>,
    /// The places of a body that are not compared.
    pub ignore: Vec<JsonPath>,
    /// Copies under way at a time, at most.
    pub max_in_flight: usize,
    /// The most bytes of a request's and of an answer's body that are kept for comparing.
    pub max_body: usize,
}

impl Shadow {
    /// Whether requests of `method` are copied.
    #[must_use]
    pub fn copies(&self, method: &str) -> bool {
        self.methods.iter().any(|copied| copied == method)
    }

    /// Whether what stands at `path` is left out of the comparison.
    #[must_use]
    pub fn ignores(&self, path: &[&str]) -> bool {
        self.ignore.iter().any(|ignored| ignored.covers(path))
    }
}

/// A place in a JSON document (RFC 6901), in which `*` stands for any member of an object or an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<String>);

/// Why a text is no place in a JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place in JSON begins with `/`, like \"/generated_at\" or \"/items/*/id\"")]
pub struct JsonPathError;

impl JsonPath {
    /// Whether `path` is this place, or within it.
    #[must_use]
    pub fn covers(&self, path: &[&str]) -> bool {
        path.len() >= self.0.len() && self.0.iter().zip(path).all(|(own, other)| own == "*" || own == other)
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let members = text.strip_prefix('/').ok_or(JsonPathError)?;
        Ok(Self(members.split('/').map(|member| member.replace("~1", "/").replace("~0", "~")).collect()))
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|member| write!(f, "/{}", member.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ignored: &str, path: &[&str], covers: bool) {
        let ignored: JsonPath = ignored.parse().unwrap();
        assert_eq!(ignored.covers(path), covers, "{ignored} and {path:?}");
    }

    #[test]
    fn a_place_covers_what_is_within() {
        check("/a", &["a"], true);
        check("/a", &["a", "b"], true);
        check("/a/b", &["a"], false);
        check("/a", &["ab"], false);
        check("/items/*/id", &["items", "*", "id"], true);
        check("/items/*/id", &["items", "7", "id"], true);
        check("/items/*/id", &["items", "*", "name"], false);
        check("/a~1b/~0c", &["a/b", "~c"], true);
        check("/", &[""], true);
    }

    #[test]
    fn a_place_begins_with_a_slash() {
        assert_eq!("generated_at".parse::<JsonPath>(), Err(JsonPathError));
        assert_eq!("".parse::<JsonPath>(), Err(JsonPathError));
        assert_eq!("/a~1b/*".parse::<JsonPath>().unwrap().to_string(), "/a~1b/*");
    }
}
