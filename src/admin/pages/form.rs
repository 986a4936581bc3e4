//! What a page's form sends.

use crate::admin::problem::AdminError;

/// The fields of a form, in the order in which they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// The fields of a body or of a query, as browsers write them (WHATWG URL, `application/x-www-form-urlencoded`).
    ///
    /// # Errors
    ///
    /// If a field is no text.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, AdminError> {
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let field = |pair: &[u8]| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            Ok((decoded(parts.next().unwrap_or_default())?, decoded(parts.next().unwrap_or_default())?))
        };
        Ok(Self(pairs.map(field).collect::<Result<_, AdminError>>()?))
    }

    /// The first value of a field; nothing if there is none, or only spaces.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Every value of a field, as it was sent.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The users that a field names: one a line, or with commas between.
    pub(crate) fn typed(&self, name: &str) -> Vec<String> {
        let parts = self.all(name).flat_map(|value| value.split([',', '\n'])).map(str::trim);
        parts.filter(|user| !user.is_empty()).map(str::to_owned).collect()
    }
}

fn decoded(text: &[u8]) -> Result<String, AdminError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => break,
            [b'+', rest @ ..] => {
                bytes.push(b' ');
                rest
            }
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(*high).unwrap_or_default() * 16 + digit(*low).unwrap_or_default());
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| AdminError::Invalid("the form holds what is no text in UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_browsers_write_them() {
        let form = Form::parse("reason=b%C3%BCro+%26+more&empty=&blank=++&a=1&a=2&odd=%zz%2&%3D=x".as_bytes()).unwrap();
        assert_eq!(form.get("reason"), Some("büro & more"));
        assert_eq!((form.get("empty"), form.get("blank"), form.get("none")), (None, None, None));
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("odd"), Some("%zz%2"));
        assert_eq!(form.get("="), Some("x"));
        assert!(Form::parse(b"a=%ff").is_err());
        let users = Form::parse(b"add=ann%0D%0Abob%2C+cyd+x&remove=").unwrap();
        assert_eq!(users.typed("add"), ["ann", "bob", "cyd x"]);
        assert_eq!(users.typed("remove"), [""; 0]);
        assert_eq!(users.all("remove").collect::<Vec<_>>(), [""]);
    }
}
