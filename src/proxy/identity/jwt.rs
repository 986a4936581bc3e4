//! JSON Web Tokens (RFC 7519): a claim of a token is believed once its signature, its time and its audience are.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::proxy::attributes::cookie;
use crate::remade::Remade;

/// The longest token that is looked at, in bytes: as long as servers take a header.
const MAX_TOKEN_BYTES: usize = 8192;

/// The shortest secret of HS256, in bytes (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The shortest modulus of RS256, in bytes (RFC 7518, section 3.3).
const MIN_MODULUS_BYTES: usize = 256;

/// A public key of Ed25519 (RFC 8032, section 5.1.5).
const ED25519_BYTES: usize = 32;

/// Where tokens are, and which are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// The file of keys: a JWKS, a public key in PEM, or a secret.
    pub keys: PathBuf,
    /// Where a request has its token.
    pub place: TokenPlace,
    /// Who has to have issued it.
    pub issuer: Option<String>,
    /// Whom it has to be for.
    pub audience: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

/// Where a request has its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// In this header; in `authorization` after `Bearer`.
    Header(HeaderName),
    /// In this cookie.
    Cookie(String),
}

/// A key, and the one algorithm that it is for. What a token says of its algorithm chooses among keys, and never what is
/// done with one: so no public key is ever taken for a secret.
struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

impl Key {
    fn new(id: Option<String>, key: DecodingKey, algorithm: Algorithm, config: &JwtConfig) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = config.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = config.audience.is_some();
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self { id, key, validation }
    }
}

/// Reads tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    place: TokenPlace,
    pub(crate) keys: Arc<Remade<Keys>>,
}

/// The keys in force.
pub(crate) struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Tokens {
    pub(crate) fn open(config: JwtConfig) -> Result<Self, String> {
        let place = config.place.clone();
        let paths = vec![config.keys.clone()];
        let keys = Remade::open(paths, move |contents| read(contents.first().map_or(&[], Vec::as_slice), &config))?;
        Ok(Self { place, keys: keys.into() })
    }

    /// The claims of the request's token, if it has one that is to be believed. A bad token is none.
    pub(crate) fn claims(&self, request: &Parts) -> Option<Map<String, Value>> {
        let token = match &self.place {
            TokenPlace::Cookie(name) => cookie(request, name)?,
            TokenPlace::Header(name) => {
                let mut values = request.headers.get_all(name).into_iter();
                let value = values.next()?.to_str().ok()?;
                if values.next().is_some() {
                    return None;
                }
                if *name == AUTHORIZATION { bearer(value)? } else { value }
            }
        };
        self.keys.load().claims(token)
    }
}

/// RFC 6750, section 2.1.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a claim is as a targeting key: a text, or a whole number.
pub(crate) fn targeting_key(claims: &Map<String, Value>, claim: &str) -> Option<String> {
    match claims.get(claim)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

impl Keys {
    fn claims(&self, token: &str) -> Option<Map<String, Value>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let header = decode_header(token).ok()?;
        // Nothing that has to be understood is (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return None;
        }
        let fits = |key: &&Key| {
            let named = header.kid.as_ref().zip(key.id.as_ref()).is_none_or(|(asked, id)| asked == id);
            named && key.validation.algorithms.contains(&header.alg)
        };
        let mut fitting = self.0.iter().filter(fits);
        fitting
            .find_map(|key| decode::<Map<String, Value>>(token, &key.key, &key.validation).ok())
            .map(|data| data.claims)
    }
}

/// The keys of a file, told by what it looks like.
fn read(content: &[u8], config: &JwtConfig) -> Result<Keys, String> {
    let text = content.trim_ascii();
    if text.starts_with(b"{") {
        let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("it is no JWKS: {error}"))?;
        let keys = set.keys.iter().filter_map(|jwk| of_jwk(jwk, config).transpose()).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err("it holds no key for RS256, ES256, EdDSA or HS256".to_owned());
        }
        return Ok(Keys(keys));
    }
    let (algorithm, key) = if text.starts_with(b"-----BEGIN") {
        let read = [
            (Algorithm::RS256, DecodingKey::from_rsa_pem(text)),
            (Algorithm::ES256, DecodingKey::from_ec_pem(text)),
            (Algorithm::EdDSA, DecodingKey::from_ed_pem(text)),
        ];
        let mut read = read.into_iter().filter_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
        read.next().ok_or("it holds no public key of RSA, P-256 or Ed25519 in PEM")?
    } else {
        (Algorithm::HS256, DecodingKey::from_secret(text))
    };
    check(&key, algorithm)?;
    Ok(Keys(vec![Key::new(None, key, algorithm, config)]))
}

/// A key of a JWKS; `None` if it is for something else. Key sets are published with keys of all kinds (RFC 7517, section 5).
fn of_jwk(jwk: &Jwk, config: &JwtConfig) -> Result<Option<Key>, String> {
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return Ok(None),
    };
    let for_this = jwk.common.key_algorithm.is_none_or(|asked| asked == named)
        && jwk.common.public_key_use.as_ref().is_none_or(|asked| *asked == PublicKeyUse::Signature);
    if !for_this {
        return Ok(None);
    }
    let id = jwk.common.key_id.clone();
    let told = |problem: String| match &id {
        Some(id) => format!("the key {id:?}: {problem}"),
        None => problem,
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|error| told(error.to_string()))?;
    check(&key, algorithm).map_err(told)?;
    Ok(Some(Key::new(id.clone(), key, algorithm, config)))
}

/// Refuses a key that is broken, or weak enough to be guessed, while there is somebody to read about it.
fn check(key: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
    let bytes = match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) | DecodingKeyKind::RsaModulusExponent { n: bytes, .. } => bytes,
    };
    match key.family() {
        AlgorithmFamily::Hmac if bytes.len() < MIN_SECRET_BYTES => {
            Err(format!("it is too short for a secret: {MIN_SECRET_BYTES} bytes at least"))
        }
        AlgorithmFamily::Rsa => {
            let der = matches!(key.kind(), DecodingKeyKind::SecretOrDer(_));
            let modulus = if der {
                let components = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
                components(bytes).map_err(|_| "it is no public key of RSA")?.0
            } else {
                bytes.clone()
            };
            let length = modulus.iter().skip_while(|byte| **byte == 0).count();
            if length < MIN_MODULUS_BYTES {
                return Err(format!("its {} bits are too few: {} at least", length * 8, MIN_MODULUS_BYTES * 8));
            }
            Ok(())
        }
        // The library takes the first 32 bytes without looking whether there are so many.
        AlgorithmFamily::Ed if bytes.len() != ED25519_BYTES => Err("it is no public key of Ed25519".to_owned()),
        AlgorithmFamily::Hmac => Ok(()),
        // What signs nothing shows whether the key can be read.
        AlgorithmFamily::Ec | AlgorithmFamily::Ed => {
            verify("", b"", key, algorithm).map(drop).map_err(|_| "it is no public key of P-256 or Ed25519".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<usize, &str>) {
        let place = TokenPlace::Header(AUTHORIZATION);
        let config = JwtConfig { keys: PathBuf::new(), place, issuer: None, audience: None, leeway: Duration::ZERO };
        let keys = read(text.as_bytes(), &config).map(|keys| keys.0.len());
        match (keys, expected) {
            (Ok(count), Ok(expected)) => assert_eq!(count, expected, "{text}"),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{text}: {problem}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    fn bytes(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xc5; length])
    }

    #[test]
    fn a_key_that_is_broken_or_weak_is_told_and_one_for_something_else_passed_over() {
        let set = |keys: &[String]| format!("{{\"keys\": [{}]}}", keys.join(","));
        let rsa = |length, more: &str| {
            format!("{{\"kty\": \"RSA\", \"kid\": \"r\", \"e\": \"AQAB\", \"n\": \"{}\"{more}}}", bytes(length))
        };
        let ed = |length| format!("{{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"{}\"}}", bytes(length));
        let secret = |length| format!("{{\"kty\": \"oct\", \"k\": \"{}\"}}", bytes(length));
        let point = "{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"AA\", \"y\": \"AA\"}".to_owned();
        check(&set(&[rsa(256, ""), secret(32)]), Ok(2));
        check(&set(&[rsa(256, ", \"use\": \"enc\""), rsa(256, ", \"alg\": \"RS512\""), secret(32)]), Ok(1));
        check(&set(&[rsa(128, "")]), Err("the key \"r\": its 1024 bits are too few"));
        check(&set(&[ed(31), secret(32)]), Err("no public key of Ed25519"));
        check(&set(&[point]), Err("no public key of P-256"));
        check(&set(&[secret(31)]), Err("too short for a secret"));
        check(&set(&[]), Err("it holds no key"));
        check("{}", Err("it is no JWKS"));
        check(&"s".repeat(32), Ok(1));
        check(&"s".repeat(31), Err("too short for a secret"));
        check("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", Err("it holds no public key"));
    }
}
