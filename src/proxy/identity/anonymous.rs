//! The cookie that keeps an anonymous client on its variant. It is signed, so that nobody picks a variant by trying ids.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// The cookie's name.
pub(crate) const COOKIE: &str = "tidegate_id";

/// A year: longer than a rollout takes, and within what browsers allow.
const MAX_AGE_S: u32 = 365 * 24 * 60 * 60;

/// What is signed begins with this, so that no signature made for something else fits.
const CONTEXT: &[u8] = b"tidegate_id:";

/// How much of a signature a cookie has: 128 bits, in hexadecimal digits.
const TAG_BYTES: usize = 16;

/// The bytes of a key, and the fewest digits of one in a file.
const KEY_BYTES: usize = 32;

/// Signs and checks the cookie: HMAC (RFC 2104) with SHA-256, each key ready to sign.
pub(crate) struct CookieKeys(Vec<Hmac<Sha256>>);

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl CookieKeys {
    /// The keys in a file, one a line: the first signs, all are believed.
    pub(crate) fn read(content: &[u8]) -> Result<Self, String> {
        let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let keys: Vec<_> = lines
            .map(|line| if line.len() >= KEY_BYTES { Hmac::new_from_slice(line).ok() } else { None })
            .collect::<Option<_>>()
            .ok_or_else(|| format!("each line is a key of at least {KEY_BYTES} characters"))?;
        if keys.is_empty() { Err("it holds no key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// Makes the file with a new key, unless it is there.
    pub(crate) fn make_file(path: &Path) -> Result<(), String> {
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            let key = format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            file.write_all(key.as_bytes())
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(format!(
                    "{}: cannot make a key for the cookies of anonymous clients: {error}; name a file in `identity.cookie_key`, or set `identity.anonymous = \"stable\"`",
                    path.display()
                ))
            }
            Ok(()) => Ok(()),
        }
    }

    /// The id in a cookie's value, if it is one that we gave out.
    pub(crate) fn verified<'v>(&self, value: &'v str) -> Option<&'v str> {
        let (id, tag) = value.split_once('.')?;
        if id.len() != Hyphenated::LENGTH || Uuid::try_parse(id).is_err() || tag.len() != 2 * TAG_BYTES {
            return None;
        }
        self.0.iter().any(|key| bool::from(signature(key, id).as_bytes().ct_eq(tag.as_bytes()))).then_some(id)
    }

    /// The header that gives a client the cookie for `id`.
    pub(crate) fn set_cookie(&self, id: &str, secure: bool) -> Option<HeaderValue> {
        let tag = signature(self.0.first()?, id);
        let secure = if secure { "; Secure" } else { "" };
        let cookie = format!("{COOKIE}={id}.{tag}; Path=/; Max-Age={MAX_AGE_S}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&cookie).ok()
    }
}

fn signature(key: &Hmac<Sha256>, id: &str) -> String {
    let signed = key.clone().chain_update(CONTEXT).chain_update(id).finalize().into_bytes();
    signed.iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b3ad5a5-5c3e-4a9b-9a3e-6f2f1a2b3c4d";

    #[test]
    fn only_what_was_signed_is_believed() {
        let (old, new) = ("o".repeat(KEY_BYTES), "n".repeat(KEY_BYTES));
        let before = CookieKeys::read(old.as_bytes()).unwrap();
        let after = CookieKeys::read(format!("{new}\n{old}\n").as_bytes()).unwrap();
        let value = |keys: &CookieKeys| {
            let cookie = keys.set_cookie(ID, false).unwrap().to_str().unwrap().to_owned();
            cookie.split([';', '=']).nth(1).unwrap().to_owned()
        };
        assert_eq!(before.verified(&value(&before)), Some(ID));
        assert_eq!(after.verified(&value(&before)), Some(ID), "keys can be changed without anyone flipping");
        assert_eq!(before.verified(&value(&after)), None);
        let signed = value(&before);
        for forged in
            [ID, &format!("{ID}."), &signed.to_uppercase(), &signed[..signed.len() - 1], &format!("{signed}0"), "", "."]
        {
            assert_eq!(before.verified(forged), None, "{forged}");
        }
        assert_eq!(before.verified(&signed.replacen('0', "1", 1)), None);
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidegate.key");
        CookieKeys::make_file(&path).unwrap();
        let made = fs::read(&path).unwrap();
        assert!(CookieKeys::read(&made).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        CookieKeys::make_file(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), made);
        assert!(CookieKeys::read(b"short").is_err() && CookieKeys::read(b"").is_err());
        assert!(CookieKeys::make_file(&directory.path().join("none/key")).is_err());
    }
}
