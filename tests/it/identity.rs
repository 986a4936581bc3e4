//! Who a request is from: tokens, addresses, and what backends are told of both.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tidegate::access;

use crate::harness::{Gateway, Site, eventually, header, stderr};
use crate::upstream::Upstream;

const SECRET: &str = "a secret that is long enough for anyone";

async fn gateway(identity: &str, files: &[(&str, &str)]) -> (Upstream, Site, Gateway) {
    let upstream = Upstream::start().await;
    let site = Site::with_servers(upstream.address(), upstream.address());
    for (name, text) in files {
        site.write(name, text);
    }
    site.configure(identity);
    let gateway = site.start().await;
    (upstream, site, gateway)
}

/// A pair of keys that exists for one test: the private one in PKCS #8, and the public one.
fn pair(site: &Site, options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let (private, public) = (site.path().join("private.pem"), site.path().join("public.pem"));
    let made = Command::new("openssl").arg("genpkey").args(options).arg("-out").arg(&private).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let written =
        Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public).output();
    assert!(written.unwrap().status.success());
    (std::fs::read(private).unwrap(), std::fs::read(public).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a token's times are those of the wall")]
fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn claims(subject: &str) -> Value {
    json!({"sub": subject, "exp": in_seconds(3600), "iss": "https://id.test", "aud": "gateway"})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// The variant that serves whoever shows `token`: alice is on canary, and nobody else is.
async fn variant(gateway: &Gateway, token: &str) -> String {
    let request = gateway.client.get(format!("{}/api/v1/x", gateway.http)).bearer_auth(token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "a bad token is no error");
    header(response.headers(), "x-tidegate-variant").unwrap().to_owned()
}

const JWT: &str = "[identity]\nsources = [\"jwt:sub\", \"jwt:uid\"]\nanonymous = \"stable\"\n\
                   [identity.jwt]\nkeys = \"jwt.keys\"\nissuer = \"https://id.test\"\naudience = \"gateway\"\n";

#[tokio::test]
async fn a_token_names_a_user_only_if_it_is_good() {
    let (_upstream, site, gateway) = gateway(JWT, &[("jwt.keys", SECRET)]).await;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = |claims: Value| encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    assert_eq!(variant(&gateway, &token(claims("alice"))).await, "async");
    let by_number = with(with(claims("x"), "sub", json!(null)), "uid", json!("alice"));
    assert_eq!(variant(&gateway, &token(by_number)).await, "async", "another claim");

    let good = token(claims("alice"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let another = EncodingKey::from_secret(b"another secret that is long enough as well");
    let other = encode(&Header::new(Algorithm::HS256), &claims("alice"), &another).unwrap();
    let bad = [
        token(with(claims("alice"), "exp", json!(in_seconds(-3600)))),
        token(with(claims("alice"), "exp", json!(null))),
        token(with(claims("alice"), "nbf", json!(in_seconds(3600)))),
        token(with(claims("alice"), "iss", json!("https://other.test"))),
        token(with(claims("alice"), "aud", json!("another"))),
        token(with(claims("alice"), "aud", json!(null))),
        token(with(claims("alice"), "sub", json!(["alice"]))),
        encode(&Header::new(Algorithm::HS512), &claims("alice"), &key).unwrap(),
        encode(&Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) }, &claims("alice"), &key)
            .unwrap(),
        other,
        format!("{signed}."),
        signed.to_owned(),
        format!("{head}.{head}.{signature}"),
        // alg = none
        format!("eyJhbGciOiJub25lIn0.{}.", signed.split_once('.').unwrap().1),
        "nonsense".to_owned(),
        "x".repeat(9000),
    ];
    for token in bad {
        assert_eq!(variant(&gateway, &token).await, "sync", "{token}");
    }
    let twice = gateway.client.get(format!("{}/api/v1/x", gateway.http)).bearer_auth(&good).bearer_auth(&good);
    assert_eq!(header(twice.send().await.unwrap().headers(), "x-tidegate-variant"), Some("sync"));
    assert!(!site.log().contains(signature), "no token is logged");
}

#[tokio::test]
async fn each_key_is_for_one_algorithm_and_changes_when_its_file_does() {
    let (_upstream, site, gateway) = gateway(JWT, &[("jwt.keys", SECRET)]).await;
    let kinds: [(Algorithm, &[&str]); 3] = [
        (Algorithm::RS256, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        (Algorithm::ES256, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        (Algorithm::EdDSA, &["-algorithm", "ED25519"]),
    ];
    for (algorithm, options) in kinds {
        let (private, public) = pair(&site, options);
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&private),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&private),
            _ => EncodingKey::from_ed_pem(&private),
        };
        let token = encode(&Header::new(algorithm), &claims("alice"), &key.unwrap()).unwrap();
        assert_eq!(variant(&gateway, &token).await, "sync", "{algorithm:?} before its key is there");
        std::fs::write(site.path().join("jwt.keys"), &public).unwrap();
        eventually("the key is read", || async { variant(&gateway, &token).await == "async" }).await;
        // The public key, which anyone may know, is no secret that signs.
        for secret in [public.as_slice(), public.trim_ascii()] {
            let forged = encode(&Header::new(Algorithm::HS256), &claims("alice"), &EncodingKey::from_secret(secret));
            assert_eq!(variant(&gateway, &forged.unwrap()).await, "sync", "{algorithm:?} taken for a secret");
        }
    }
    let jwks = json!({"keys": [
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "oct", "kid": "new", "alg": "HS256", "k": "YWFh".repeat(16)},
    ]});
    site.write("jwt.keys", &jwks.to_string());
    let key = EncodingKey::from_secret("aaa".repeat(16).as_bytes());
    let token = |kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims("alice"), &key).unwrap()
    };
    eventually("the set is read", || async { variant(&gateway, &token("new")).await == "async" }).await;
    assert_eq!(variant(&gateway, &token("old")).await, "sync");

    site.write("jwt.keys", "short");
    eventually("a bad file is told", || async {
        gateway.admin_json("/ready").await["problems"].to_string().contains("too short for a secret")
    })
    .await;
    assert_eq!(variant(&gateway, &token("new")).await, "async", "and what was there before stays");
}

#[tokio::test]
async fn keys_that_cannot_be_used_stop_the_start_and_the_check() {
    let site = Site::builtin();
    site.configure(JWT);
    for (command, text) in [("serve", None), ("check", None), ("serve", Some("short")), ("check", Some("short"))] {
        if let Some(text) = text {
            site.write("jwt.keys", text);
        }
        let error = stderr(&site.run(&[command]).await, 1);
        assert!(error.contains("jwt.keys: "), "{command}: {error}");
    }
    let site = Site::builtin();
    site.configure("[identity]\nsources = [\"jwt:sub\"]\n");
    let error = stderr(&site.run(&["check"]).await, 1);
    assert!(error.contains("needs `[identity.jwt]`"), "{error}");
    let site = Site::builtin();
    site.configure("[identity]\njwt = { keys = \"jwt.keys\" }\n");
    let error = stderr(&site.run(&["check"]).await, 1);
    assert!(error.contains("`sources` names none"), "{error}");
}

#[tokio::test]
async fn backends_are_told_whom_a_request_is_from_in_the_standard_ways() {
    let forged = [
        ("x-forwarded-for", "192.0.2.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "example.com"),
        ("forwarded", "for=192.0.2.9"),
    ];
    let told = async |gateway: &Gateway| {
        let mut request = gateway.get("/x", "alice").header("host", "a.test");
        for (name, value) in forged {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        forged.map(|(name, _)| header(response.headers(), &format!("got-{name}")).unwrap_or("none").to_owned())
    };
    let (_upstream, _site, trusting) = gateway("", &[]).await;
    let kept =
        ["192.0.2.9, 127.0.0.1", "https", "example.com", "for=192.0.2.9, for=127.0.0.1;host=\"a.test\";proto=http"];
    assert_eq!(told(&trusting).await, kept);

    let (_upstream, _site, wary) = gateway("[identity]\ntrusted_proxies = []\n", &[]).await;
    assert_eq!(told(&wary).await, ["127.0.0.1", "http", "a.test", "for=127.0.0.1;host=\"a.test\";proto=http"]);
}

#[tokio::test]
async fn a_tester_chooses_an_arm_with_a_token_that_may() {
    // Made for this test; `printf %s TOKEN | sha256sum` gives the hash.
    let hash = |token: &str| access::TokenHash::of(token).to_string();
    let tokens = format!(
        "[admin.tokens.ann]\nrole = \"tester\"\nhash = \"{}\"\n[admin.tokens.bob]\nrole = \"viewer\"\nhash = \"{}\"\n",
        hash("tidegate_tester"),
        hash("tidegate_viewer"),
    );
    let (_upstream, site, gateway) = gateway(&tokens, &[]).await;
    let ask = async |user: &str, arm: &str, token: &str| {
        let request = gateway.get("/api/v1/x", user).header("x-tidegate-override", arm);
        let response = request.header("x-tidegate-token", token).send().await.unwrap();
        for ours in ["got-x-tidegate-override", "got-x-tidegate-token"] {
            assert_eq!(header(response.headers(), ours), None, "no backend sees it");
        }
        header(response.headers(), "x-tidegate-variant").unwrap().to_owned()
    };
    assert_eq!(ask("carol", "canary", "tidegate_tester").await, "async");
    assert_eq!(ask("alice", "stable", "tidegate_tester").await, "sync", "over the beta list");
    for (arm, token) in
        [("canary", "tidegate_viewer"), ("canary", "tidegate_nobody"), ("canary", ""), ("both", "tidegate_tester")]
    {
        assert_eq!(ask("carol", arm, token).await, "sync", "{arm} {token}");
    }
    let flag = std::fs::read_to_string(site.flag_file()).unwrap();
    site.write("flags/async-database.toml", &flag.replace("enabled = true", "enabled = false"));
    eventually("the kill switch outranks testers", || async {
        ask("carol", "canary", "tidegate_tester").await == "sync"
    })
    .await;
    assert!(!site.log().contains("tidegate_tester"), "no token is logged");
}

#[tokio::test]
async fn an_address_or_a_parameter_can_be_a_user() {
    let (_upstream, site, gateway) = gateway("[identity]\nsources = [\"query:user\", \"client-ip\"]\n", &[]).await;
    let flag = std::fs::read_to_string(site.flag_file()).unwrap();
    site.write("flags/async-database.toml", &flag.replace("\"bob\"", "\"192.0.2.9\""));
    let url = format!("{}/api/v1/x", gateway.http);
    let variant = async |query: &str, client: &str| {
        let request = gateway.client.get(format!("{url}{query}")).header("x-forwarded-for", client);
        let response = request.send().await.unwrap();
        assert_eq!(header(response.headers(), "set-cookie"), None, "everyone has an address");
        header(response.headers(), "x-tidegate-variant").unwrap().to_owned()
    };
    eventually("the list is read", || async { variant("", "192.0.2.9").await == "async" }).await;
    assert_eq!(variant("?user=%61lice", "192.0.2.1").await, "async");
    let cookie_key = site.path().join("tidegate.key");
    assert!(cookie_key.exists(), "made at the start");
}
