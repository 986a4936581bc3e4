//! A pingora proxy that does nothing but proxy.

use std::sync::Arc;
use std::thread::available_parallelism;

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_error::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

pub(crate) fn run(listen: &str, upstream: &str) {
    let threads = available_parallelism().map_or(1, usize::from);
    let conf = || ServerConf { threads, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    let bare = Bare { peer: HttpPeer::new(upstream, false, String::new()) };
    let mut service = http_proxy_service(&Arc::new(conf()), bare);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    service.app_logic_mut().unwrap().server_options = Some(options);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
