//! The gateways that are measured: each with one thread for traffic, on one processor, splitting 10 % off to a second
//! backend, keeping its connections on both sides, and without an access log.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load;

/// The processor of the gateways.
pub(crate) const GATEWAY_CPU: &str = "0";

/// The processor of the load and the upstream.
pub(crate) const LOAD_CPU: &str = "1";

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    process: Child,
    pub(crate) http1: String,
    pub(crate) http2: String,
}

impl Gateway {
    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub(crate) fn spawn(cpu: &str, program: impl Into<OsString>, arguments: &[&str], directory: &Path) -> Child {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu]).arg(program.into()).args(arguments).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).stdout(Stdio::piped()).spawn().unwrap()
}

/// This program, in its other roles.
pub(crate) fn own_program() -> PathBuf {
    env::current_exe().unwrap()
}

/// The program that the variable `NAME` says.
fn named(name: &str) -> Option<PathBuf> {
    env::var_os(name.to_uppercase()).map(PathBuf::from)
}

/// Where a peer's program is: what its variable says, or the first of its name in `PATH`.
#[expect(clippy::disallowed_methods, reason = "a benchmark's settings")]
fn found(name: &str) -> Option<PathBuf> {
    if let Some(path) = named(name) {
        return Some(path);
    }
    let path = env::var("PATH").unwrap_or_default();
    // Debian keeps servers where not every user looks.
    env::split_paths(&format!("{path}:/usr/sbin")).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Starts Tidegate, bare pingora and every peer that is on this machine, all in front of `backend`.
pub(crate) async fn start_all(directory: &Path, backend: &str) -> Vec<Gateway> {
    let mut all = vec![bare(directory, backend), tidegate(directory, backend, "", "").await.0];
    for (name, start) in [
        ("nginx", nginx as fn(&Path, &Path, &str) -> Gateway),
        ("haproxy", haproxy),
        ("envoy", envoy),
        ("traefik", traefik),
    ] {
        match found(name) {
            Some(program) => all.push(start(&program, directory, backend)),
            None => println!("{name} is not on this machine: set {} to its program", name.to_uppercase()),
        }
    }
    all_listen(&all).await;
    all
}

/// Starts bare pingora, Tidegate, and the builds of Tidegate that are called `NAME=PATH`.
pub(crate) async fn start_builds(directory: &Path, backend: &str, builds: &[&str]) -> Vec<Gateway> {
    let mut all = vec![bare(directory, backend), tidegate(directory, backend, "", "").await.0];
    for build in builds {
        let (name, program) = build.split_once('=').expect("a build is written NAME=PATH");
        let directory = directory.join(name);
        fs::create_dir(&directory).unwrap();
        let (gateway, _) = start(program.into(), &directory, backend, "", "").await;
        all.push(Gateway { name: name.to_owned(), ..gateway });
    }
    all_listen(&all).await;
    all
}

async fn all_listen(all: &[Gateway]) {
    for gateway in all {
        for address in [&gateway.http1, &gateway.http2] {
            assert!(
                load::wait_for(address).await,
                "{} does not listen: run what this program does by hand",
                gateway.name
            );
        }
    }
}

fn bare(directory: &Path, backend: &str) -> Gateway {
    let address = free_address();
    let process = spawn(GATEWAY_CPU, own_program(), &["bare", &address, backend], directory);
    Gateway { name: "bare pingora".to_owned(), process, http1: address.clone(), http2: address }
}

/// Starts Tidegate, with more for its configuration and its flag file; gives the address of its admin API too.
pub(crate) async fn tidegate(directory: &Path, backend: &str, config: &str, flag: &str) -> (Gateway, String) {
    let program = named("tidegate").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    start(program, directory, backend, config, flag).await
}

async fn start(program: PathBuf, directory: &Path, backend: &str, config: &str, flag: &str) -> (Gateway, String) {
    let flags = directory.join("flags");
    fs::create_dir_all(&flags).unwrap();
    let config = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [backends.sync]\nservers = [\"{backend}\"]\n[backends.async]\nservers = [\"{backend}\"]\n{config}"
    );
    fs::write(directory.join("tidegate.toml"), config).unwrap();
    let flag = format!("release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 10\n{flag}");
    fs::write(flags.join("async-database.toml"), flag).unwrap();
    let mut process = spawn(GATEWAY_CPU, program, &["serve"], directory);
    let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut addresses = Vec::new();
    while addresses.len() < 2 {
        let line = tokio::time::timeout(Duration::from_secs(60), greeting.next_line()).await.unwrap().unwrap().unwrap();
        let address = line.trim().strip_prefix("gateway").or_else(|| line.trim().strip_prefix("admin"));
        addresses.extend(address.map(|address| address.trim().trim_start_matches("http://").to_owned()));
    }
    // Whoever reads the greeting goes on reading it, so that nothing is ever written into a closed pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = greeting.next_line().await {} });
    let [http, admin] = addresses.try_into().unwrap();
    (Gateway { name: "tidegate".to_owned(), process, http1: http.clone(), http2: http }, admin)
}

fn nginx(program: &Path, directory: &Path, backend: &str) -> Gateway {
    let (http1, http2) = (free_address(), free_address());
    let place = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {place}/nginx-{name};\n"))
        .collect();
    let upstream =
        |name: &str| format!("upstream {name} {{ server {backend}; keepalive 1024; keepalive_requests 100000000; }}\n");
    let text = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 32768; }}\n\
         http {{\naccess_log off; client_max_body_size 0; proxy_request_buffering off;\n\
         keepalive_requests 100000000; keepalive_timeout 1h;\n{temporary}{}{}\
         split_clients $http_x_user_id $arm {{ 10% canary; * stable; }}\n\
         server {{ listen {http1}; listen {http2} http2;\n\
         location / {{ proxy_pass http://$arm; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}\n}}\n}}\n",
        upstream("stable"),
        upstream("canary"),
    );
    let file = written(directory, "nginx.conf", &text);
    let process = spawn(GATEWAY_CPU, program, &["-e", "stderr", "-p", &place.to_string(), "-c", &file], directory);
    Gateway { name: "nginx".to_owned(), process, http1, http2 }
}

fn haproxy(program: &Path, directory: &Path, backend: &str) -> Gateway {
    let (http1, http2) = (free_address(), free_address());
    let text = format!(
        "global\n  nbthread 1\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n\
         frontend all\n  bind {http1}\n  bind {http2} proto h2\n  default_backend arms\n\
         backend arms\n  balance hdr(x-user-id)\n  server stable {backend} weight 90\n  server canary {backend} weight 10\n"
    );
    let file = written(directory, "haproxy.cfg", &text);
    Gateway {
        name: "HAProxy".to_owned(),
        process: spawn(GATEWAY_CPU, program, &["-db", "-q", "-f", &file], directory),
        http1,
        http2,
    }
}

fn envoy(program: &Path, directory: &Path, backend: &str) -> Gateway {
    let address = free_address();
    let socket = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        format!("{{ socket_address: {{ address: {host}, port_value: {port} }} }}")
    };
    let cluster = |name: &str| {
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 5s\n\
             \x20   circuit_breakers: {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}\n\
             \x20   load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {} }} }}] }}] }}\n",
            socket(backend)
        )
    };
    let text = format!(
        "static_resources:\n  listeners:\n  - name: all\n    address: {}\n    filter_chains:\n    - filters:\n\
         \x20     - name: envoy.filters.network.http_connection_manager\n        typed_config:\n\
         \x20         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
         \x20         stat_prefix: all\n          codec_type: AUTO\n          route_config:\n            virtual_hosts:\n\
         \x20           - name: all\n              domains: [\"*\"]\n              routes:\n\
         \x20             - match: {{ prefix: / }}\n                route:\n                  weighted_clusters:\n\
         \x20                   clusters: [{{ name: stable, weight: 90 }}, {{ name: canary, weight: 10 }}]\n\
         \x20         http_filters:\n          - name: envoy.filters.http.router\n            typed_config:\n\
         \x20             \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n\
         \x20 clusters:\n{}{}",
        socket(&address),
        cluster("stable"),
        cluster("canary"),
    );
    let file = written(directory, "envoy.yaml", &text);
    let arguments = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "critical"];
    let process = spawn(GATEWAY_CPU, program, &arguments, directory);
    Gateway { name: "Envoy".to_owned(), process, http1: address.clone(), http2: address }
}

fn traefik(program: &Path, directory: &Path, backend: &str) -> Gateway {
    let address = free_address();
    let service =
        |name: &str| format!("    {name}: {{ loadBalancer: {{ servers: [{{ url: \"http://{backend}\" }}] }} }}\n");
    let text = format!(
        "http:\n  routers:\n    all: {{ rule: \"PathPrefix(`/`)\", service: arms, entryPoints: [web] }}\n  services:\n\
         \x20   arms: {{ weighted: {{ services: [{{ name: stable, weight: 9 }}, {{ name: canary, weight: 1 }}] }} }}\n{}{}",
        service("stable"),
        service("canary"),
    );
    let file = written(directory, "arms.yaml", &text);
    let arguments = [
        &format!("--entryPoints.web.address={address}"),
        &format!("--providers.file.filename={file}"),
        "--serversTransport.maxIdleConnsPerHost=8192",
        "--log.level=FATAL",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ];
    let process = spawn(GATEWAY_CPU, program, &arguments, directory);
    Gateway { name: "Traefik".to_owned(), process, http1: address.clone(), http2: address }
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}
