//! PostgreSQL by TLS: both modes reach it, and neither believes a server that it cannot verify.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tidegate::backend::{self, Config, Mode};

use crate::backend::running::{MODES, Running};
use crate::postgres::Cluster;

/// An authority of its own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn asked(mode: Mode, url: &str) -> Config {
    Config {
        mode,
        database_url: url.to_owned(),
        migrate: true,
        pool: backend::PoolConfig::default(),
        ai: None,
        fault: backend::Fault::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_verified_and_reached_by_tls() {
    let (ours, another, key) = (authority(), authority(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a database");
    let certificate = params.signed_by(&key, &ours).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let cluster = Cluster::with_tls(port, &certificate.pem(), &key.serialize_pem());
    let database = cluster.database().await;
    let directory = TempDir::new().unwrap();
    let root = |name: &str, pem: String| {
        let path = directory.path().join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let (ours, another) = (root("ours.pem", ours.pem()), root("another.pem", another.pem()));
    let place = |host: &str| format!("postgres://postgres@{host}:{port}/{}", database.name());
    let verified =
        |host: &str, root: &Path| format!("{}?sslmode=verify-full&sslrootcert={}", place(host), root.display());

    for url in [format!("{}?sslmode=require", place("127.0.0.1")), verified("localhost", &ours)] {
        for mode in MODES {
            let running = Running::start(asked(mode, &url)).await;
            assert_eq!(running.get("/ready").await.status(), 200, "{url}");
            let by_tls = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                          WHERE ssl AND datname = current_database() AND pid <> pg_backend_pid()";
            let sessions: i64 = sqlx::query_scalar(by_tls).fetch_one(&mut database.connect().await).await.unwrap();
            assert!(sessions > 0, "{mode:?} at {url}");
            running.stop().await;
        }
    }
    // The certificate is for `localhost`, and by one authority only.
    for url in [verified("127.0.0.1", &ours), verified("localhost", &another)] {
        for mode in MODES {
            let refused = backend::open(Config { migrate: false, ..asked(mode, &url) }).await.unwrap_err();
            let told = format!("{:#}", anyhow::Error::from(refused));
            assert!(told.contains("certificate") || told.contains("SSL"), "{told}");
        }
    }
}
