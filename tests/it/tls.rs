//! Clients that speak TLS, and those that come through a proxy which says so first.

use std::io;
use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::{DEADLINE, Gateway, Site, eventually, header, read_to_end, stderr};
use crate::upstream::Upstream;

/// Somebody who vouches for servers or clients of one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for somebody of this name.
    pub(crate) fn vouch_for(&self, name: SanType) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn vouch(&self, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that believes this authority, speaks `protocols` and may show a certificate.
    pub(crate) fn client(&self, protocols: &[&[u8]], shown: Option<&Pair>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.leaf()], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl Pair {
    pub(crate) fn write(&self, site: &Site, name: &str) {
        site.write(&format!("{name}.pem"), &self.certificate);
        site.write(&format!("{name}.key"), &self.key);
    }

    fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// A site whose one upstream serves both arms, and that speaks TLS as `more` says with the certificate `a`.
async fn site(more: &str) -> (Upstream, Site, Authority) {
    let upstream = Upstream::start().await;
    let site = Site::with_servers(upstream.address(), upstream.address());
    let authority = Authority::new();
    authority.vouch(&["a.test"]).write(&site, "a");
    site.configure(&format!(
        "[listen.https]\naddress = \"127.0.0.1:0\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n{more}"
    ));
    (upstream, site, authority)
}

async fn connect(gateway: &Gateway, client: &TlsConnector, name: &'static str) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(gateway.https.as_ref().unwrap()).await?;
    client.connect(ServerName::try_from(name).unwrap(), socket).await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// The answer to one request that is the connection's last.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, headers: &str) -> io::Result<String> {
    let request = format!("GET /api/v1/x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap()?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let (_upstream, site, authority) = site(
        "certificates = [{ certificate = \"b.pem\", key = \"b.key\" }, { certificate = \"c.pem\", key = \"c.key\" }]\n",
    )
    .await;
    let (b, c) = (authority.vouch(&["b.test", "*.b.test"]), authority.vouch(&["x.b.test"]));
    b.write(&site, "b");
    c.write(&site, "c");
    let gateway = site.start().await;
    let client = authority.client(&[], None);
    for (name, pair) in [("b.test", &b), ("y.b.test", &b), ("x.b.test", &c), ("X.B.Test", &c)] {
        let stream = connect(&gateway, &client, name).await.unwrap();
        assert_eq!(shown(&stream), pair.leaf(), "{name}");
    }
    let mut first = connect(&gateway, &client, "a.test").await.unwrap();
    let answer = ask(&mut first, "").await.unwrap();
    assert!(answer.contains("got-x-forwarded-proto: https\r\n"), "{answer}");
    assert!(answer.contains("SameSite=Lax; Secure\r\n"), "{answer}");
    for stranger in ["c.test", "z.y.b.test"] {
        let error = connect(&gateway, &client, stranger).await.unwrap_err().to_string();
        assert!(error.contains("not valid for name"), "{stranger} is shown the first: {error}");
    }
    assert!(gateway.metric("tidegate_tls_handshakes_total{result=\"completed\"}").await >= 5.0);
    assert!(gateway.metric("tidegate_tls_certificate_expiry_timestamp_seconds{file=\"a.pem\"}").await > 0.0);
}

#[tokio::test]
async fn http_2_is_agreed_on_by_alpn() {
    let (_upstream, site, authority) = site("").await;
    let gateway = site.start().await;
    let stream = connect(&gateway, &authority.client(&[b"h2", b"http/1.1"], None), "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for user in ["alice", "carol"] {
        let request = http::Request::get("https://a.test/api/v1/x").header("x-user-id", user);
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(response.headers(), "got-x-forwarded-proto"), Some("https"));
        assert_eq!(header(response.headers(), "got-x-forwarded-host"), Some("a.test"));
        let variant = if user == "alice" { "async" } else { "sync" };
        assert_eq!(header(response.headers(), "x-tidegate-variant"), Some(variant));
    }
    drop(sender);
    connection.await.unwrap().unwrap();

    let mut stream = connect(&gateway, &authority.client(&[b"http/1.1"], None), "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert!(ask(&mut stream, "").await.unwrap().starts_with("HTTP/1.1 200 "));
    let error = connect(&gateway, &authority.client(&[b"spdy/3"], None), "a.test").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn certificates_change_with_their_files_and_a_bad_one_leaves_the_last_good_one() {
    let (_upstream, site, authority) = site("").await;
    let gateway = site.start().await;
    let client = authority.client(&[], None);
    let mut before = connect(&gateway, &client, "a.test").await.unwrap();
    let second = authority.vouch(&["a.test"]);
    assert_ne!(shown(&before), second.leaf());
    second.write(&site, "a");
    let shows_second = async || shown(&connect(&gateway, &client, "a.test").await.unwrap()) == second.leaf();
    eventually("the second certificate is shown", &shows_second).await;
    assert!(ask(&mut before, "").await.unwrap().starts_with("HTTP/1.1 200 "), "who was connected stays so");

    site.write("a.key", &authority.vouch(&["a.test"]).key);
    eventually("it is told", || async { gateway.metric("tidegate_problems").await == 1.0 }).await;
    let problems = gateway.admin_json("/ready").await["problems"].to_string();
    assert!(problems.contains("a.key: is not the key of a.pem"), "{problems}");
    assert!(site.log().contains("a.key: is not the key of a.pem"));
    assert!(shows_second().await);
    std::fs::remove_file(site.path().join("a.pem")).unwrap();
    eventually("a missing file is told", || async {
        gateway.admin_json("/ready").await["problems"].to_string().contains("a.pem: cannot read")
    })
    .await;
    assert!(shows_second().await);
    second.write(&site, "a");
    eventually("all is well again", || async { gateway.metric("tidegate_problems").await == 0.0 }).await;
}

#[tokio::test]
async fn clients_prove_who_they_are_where_they_have_to() {
    let (mine, other) = (Authority::new(), Authority::new());
    let (good, bad) = (mine.vouch(&["client"]), other.vouch(&["client"]));
    for (demand, without) in [("required", false), ("optional", true)] {
        let more = format!("client_ca = \"clients.pem\"\nclient_certificate = \"{demand}\"\n");
        let (_upstream, site, authority) = site(&more).await;
        site.write("clients.pem", &mine.pem);
        let gateway = site.start().await;
        // A client of TLS 1.3 is told of a refusal only when it reads.
        let served = async |shown: Option<&Pair>| {
            let mut stream = connect(&gateway, &authority.client(&[], shown), "a.test").await.unwrap();
            ask(&mut stream, "").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        };
        assert!(served(Some(&good)).await, "{demand}");
        assert!(!served(Some(&bad)).await, "{demand}");
        assert_eq!(served(None).await, without, "{demand}");
        site.write("clients.pem", &other.pem);
        eventually("other clients are let in", || async { served(Some(&bad)).await }).await;
        assert!(!served(Some(&good)).await, "{demand}");
    }
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let (_upstream, site, authority) = site("[limits]\nhandshake_timeout = \"300ms\"\nhandshakes = 1\n").await;
    let gateway = site.start().await;
    let mut silent = TcpStream::connect(gateway.https.as_ref().unwrap()).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, "", "it is closed");
    let counted = || async { gateway.metric("tidegate_tls_handshakes_total{result=\"timed_out\"}").await == 1.0 };
    eventually("it is counted", counted).await;
    // On a slow machine the time may be over for them, too; each counts once as what it was.
    let mut begun = 1.0;
    let count =
        async |result: &str| gateway.metric(&format!("tidegate_tls_handshakes_total{{result=\"{result}\"}}")).await;
    eventually("one fails", || {
        begun += 1.0;
        async {
            let mut plain = TcpStream::connect(gateway.https.as_ref().unwrap()).await.unwrap();
            let _ = plain.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
            read_to_end(&mut plain).await;
            count("failed").await >= 1.0
        }
    })
    .await;
    eventually("one is completed", || {
        begun += 1.0;
        async {
            let Ok(mut stream) = connect(&gateway, &authority.client(&[], None), "a.test").await else { return false };
            ask(&mut stream, "").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        }
    })
    .await;
    eventually("all are counted", || async {
        count("failed").await + count("timed_out").await + count("completed").await == begun
    })
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_and_the_check() {
    let (_upstream, site, authority) = site("client_ca = \"clients.pem\"\n").await;
    let other = authority.vouch(&["a.test"]).key;
    let wrong = [
        ("clients.pem", "", "clients.pem: holds no certificate"),
        ("a.key", &other, "a.key: is not the key of a.pem"),
        ("a.key", "nothing", "a.key: holds no private key in PEM"),
        ("a.pem", "nothing", "a.pem: holds no certificate"),
    ];
    site.write("clients.pem", &authority.pem);
    for (file, text, expected) in wrong {
        site.write(file, text);
        for command in ["check", "serve"] {
            let error = stderr(&site.run(&[command]).await, 1);
            assert!(error.contains(expected), "{command}: {error}");
        }
    }
    let (_upstream, site, _) = self::site("client_certificate = \"optional\"\n").await;
    let error = stderr(&site.run(&["check"]).await, 1);
    assert!(error.contains("`client_ca = \"FILE\"`, which is missing"), "{error}");
}

#[tokio::test]
async fn a_trusted_proxy_says_first_whom_it_speaks_for() {
    let (_upstream, site, authority) = site("[limits]\nconnections_per_address = 1\n").await;
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write("tidegate.toml", &config.replacen("[listen]\n", "[listen]\nproxy_protocol = true\n", 1));
    let gateway = site.start().await;
    let proxied = async |client: &str| {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        let header = format!("PROXY TCP4 {client} 198.51.100.1 56324 80\r\n");
        socket.write_all(header.as_bytes()).await.unwrap();
        socket
    };
    let mut first = proxied("192.0.2.7").await;
    let answer = ask(&mut first, "x-user-id: alice\r\nx-forwarded-for: 192.0.2.9\r\n").await.unwrap();
    assert!(answer.contains("got-x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
    assert!(!answer.contains("got-x-user-id"), "the client is no trusted proxy: {answer}");

    let mut held = proxied("192.0.2.8").await;
    held.write_all(b"GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    timeout(DEADLINE, held.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let second = read_to_end(&mut proxied("192.0.2.8").await).await;
    assert!(second.starts_with("HTTP/1.1 429 "), "an address has one connection here: {second}");

    let mut own = TcpStream::connect(gateway.address()).await.unwrap();
    own.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    assert!(ask(&mut own, "x-user-id: alice\r\n").await.unwrap().contains("got-x-user-id: alice\r\n"));
    let mut none = TcpStream::connect(gateway.address()).await.unwrap();
    none.write_all(b"GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut none).await, "");

    let mut socket = TcpStream::connect(gateway.https.as_ref().unwrap()).await.unwrap();
    socket
        .write_all(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\xdc\x04\x01\xbb")
        .await
        .unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let mut stream = authority.client(&[], None).connect(name, socket).await.unwrap();
    let answer = ask(&mut stream, "").await.unwrap();
    assert!(answer.contains("got-x-forwarded-for: 192.0.2.9\r\n"), "{answer}");
}
