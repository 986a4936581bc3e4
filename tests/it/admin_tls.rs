//! The admin API over TLS: whom it is believed to be, and whom certificates of clients stand for.

use std::process::Output;

use rcgen::SanType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, stderr, stdout};
use crate::tls::{Authority, Pair};

/// A site whose admin API speaks TLS and takes certificates, which are optional.
fn site() -> (Site, Authority, Authority) {
    let (servers, clients) = (Authority::new(), Authority::new());
    let site = Site::builtin();
    site.write("servers.pem", servers.pem());
    site.write("clients.pem", clients.pem());
    servers.vouch(&["127.0.0.1"]).write(&site, "admin");
    clients.vouch_for(SanType::Rfc822Name("ann@example.org".try_into().unwrap())).write(&site, "ann");
    clients.vouch_for(SanType::URI("spiffe://example.org/look".try_into().unwrap())).write(&site, "look");
    clients.vouch(&["ann@example.org"]).write(&site, "stranger");
    site.configure(
        "[admin.tls]\ncertificate = \"admin.pem\"\nkey = \"admin.key\"\nclient_ca = \"clients.pem\"\n\
         client_certificate = \"optional\"\n\
         [admin.certificates.ann]\nrole = \"operator\"\nemail = \"ann@example.org\"\n\
         [admin.certificates.look]\nrole = \"viewer\"\nuri = \"spiffe://example.org/look\"\n",
    );
    (site, servers, clients)
}

/// A command with the certificate `shown`, if any.
async fn with(gateway: &Gateway, site: &Site, shown: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = site.command(arguments);
    command.env("TIDEGATE_ADMIN", &gateway.admin).env("TIDEGATE_ADMIN_CA", "servers.pem");
    if let Some(shown) = shown {
        command.args(["--admin-cert", &format!("{shown}.pem"), "--admin-key", &format!("{shown}.key")]);
    }
    timeout(DEADLINE, command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_certificate_stands_for_somebody() {
    let (site, _, _) = site();
    stdout(&site.run(&["check"]).await);
    let gateway = site.start().await;
    assert!(gateway.admin.starts_with("https://127.0.0.1:"), "{}", gateway.admin);
    let set = ["set", FLAG, "20"];
    assert!(stdout(&with(&gateway, &site, Some("ann"), &set).await).contains("canary at 20 %"));
    let history = stdout(&with(&gateway, &site, Some("look"), &["history", "--json"]).await);
    assert!(history.contains("\"actor\": \"ann\""), "{history}");
    let refused = stderr(&with(&gateway, &site, Some("look"), &set).await, 1);
    assert_eq!(refused, "tidegate: `look` is a viewer, and this takes a token of role operator\n");
    let stranger = stderr(&with(&gateway, &site, Some("stranger"), &["status"]).await, 1);
    assert!(stranger.contains("this client certificate is nobody's here"), "{stranger}");
    let nobody = stderr(&with(&gateway, &site, None, &["status"]).await, 1);
    assert!(nobody.contains("this needs a token"), "{nobody}");
    let unbelieved = stderr(&site.run(&["status", "--admin", &gateway.admin]).await, 1);
    assert!(unbelieved.contains("`--admin-ca FILE`"), "{unbelieved}");
    let another = ["status", "--admin-cert", "ann.pem", "--admin-key", "look.key"];
    let another = stderr(&with(&gateway, &site, None, &another).await, 1);
    assert!(another.starts_with("tidegate: ann.pem cannot be shown with look.key: "), "{another}");

    // Taken out of the configuration, it is nobody's.
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write(
        "tidegate.toml",
        &config.replace("uri = \"spiffe://example.org/look\"", "uri = \"spiffe://example.org/x\""),
    );
    assert!(stdout(&with(&gateway, &site, Some("ann"), &["reload"]).await).contains("admin"));
    stderr(&with(&gateway, &site, Some("look"), &["status"]).await, 1);
}

async fn head(gateway: &Gateway, authority: &Authority, shown: Option<&Pair>, path: &str) -> String {
    let address = gateway.admin.strip_prefix("https://").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let mut stream =
        authority.client(&[b"http/1.1"], shown).connect("127.0.0.1".try_into().unwrap(), socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap().split("\r\n\r\n").next().unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn the_dashboard_knows_a_certificate_and_keeps_its_cookie_to_tls() {
    let (site, servers, clients) = site();
    let gateway = site.start().await;
    let ann = clients.vouch_for(SanType::Rfc822Name("ann@example.org".try_into().unwrap()));
    let page = head(&gateway, &servers, Some(&ann), "/").await;
    assert!(page.starts_with("http/1.1 200"), "{page}");
    assert!(
        page.lines().any(|line| line.starts_with("set-cookie: tidegate_session=") && line.ends_with("; secure")),
        "{page}"
    );
    assert!(head(&gateway, &servers, None, "/").await.contains("location: /login"));

    // The files are read anew when they change.
    let others = Authority::new();
    others.vouch(&["127.0.0.1"]).write(&site, "admin");
    let address = gateway.admin.strip_prefix("https://").unwrap().to_owned();
    eventually("the new certificate is shown", || async {
        let socket = TcpStream::connect(&address).await.unwrap();
        others.client(&[b"http/1.1"], None).connect("127.0.0.1".try_into().unwrap(), socket).await.is_ok()
    })
    .await;

    // Whoever speaks no TLS is hung up on, and that is told.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"));
    eventually("it is told", || async { site.log().contains("a TLS handshake with the admin API failed") }).await;
}

#[tokio::test]
async fn what_would_let_everybody_in_is_refused() {
    let site = Site::builtin();
    let config = "[listen]\nadmin = \"0.0.0.0:0\"\n[admin.tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    for (more, told) in [
        ("", "without tokens whoever does may change rollouts"),
        ("client_ca = \"c.pem\"\n", "without tokens whoever does may change rollouts"),
        ("[admin.certificates.ann]\nrole = \"operator\"\ndns = \"a\"\n", "as `client_ca` of `[admin.tls]`"),
        ("client_ca = \"c.pem\"\n[admin.certificates.ann]\nrole = \"operator\"\n", "is known by one of `common_name`"),
        (
            "client_ca = \"c.pem\"\n[admin.certificates.ann]\nrole = \"operator\"\ndns = \"a\"\nemail = \"b\"\n",
            "is known by one of `common_name`",
        ),
        (
            "client_ca = \"c.pem\"\n[admin.certificates]\nann = { role = \"operator\", dns = \"a\" }\n\
             bob = { role = \"viewer\", dns = \"A\" }\n",
            "dns a stands for somebody else already",
        ),
    ] {
        site.write("tidegate.toml", &format!("{config}{more}"));
        for command in ["check", "serve"] {
            let error = stderr(&site.run(&[command]).await, 1);
            assert!(error.contains(told), "{more}: {error}");
        }
    }
    site.write(
        "tidegate.toml",
        &format!("{config}client_ca = \"c.pem\"\n[admin.certificates.ann]\nrole = \"operator\"\ndns = \"a\"\n"),
    );
    for command in ["check", "serve"] {
        let error = stderr(&site.run(&[command]).await, 1);
        assert!(error.contains("a.pem: cannot read"), "{error}");
    }
}
