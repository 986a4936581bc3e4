//! A server of a backend as it is written: `10.0.0.5:8001`, `https://app.internal`, `unix:/run/app.sock`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where one server of a backend listens, and whether by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As it is written: what it is called in logs and metrics.
    pub text: String,
    /// Whether connections to it are encrypted.
    pub tls: bool,
    /// Where it listens.
    pub place: ServerPlace,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    /// A TCP port of an address.
    Address(SocketAddr),
    /// A TCP port of every address that a name stands for.
    Name(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A text that names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no address of a server; write host:port, http:// or https:// and the host, or unix: and the absolute \
     path of a socket"
)]
pub struct ServerError(String);

impl Server {
    /// What the server's certificate has to name, unless it is configured: the host.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        match &self.place {
            ServerPlace::Address(address) => Some(address.ip().to_string()),
            ServerPlace::Name(name, _) => Some(name.clone()),
            ServerPlace::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self { text: address.to_string(), tls: false, place: ServerPlace::Address(address) }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let error = || ServerError(text.to_owned());
        let (rest, tls, default_port) = match text.split_once("://") {
            Some(("http", rest)) => (rest, false, Some(80)),
            Some(("https", rest)) => (rest, true, Some(443)),
            Some(_) => return Err(error()),
            None => (text, false, None),
        };
        let rest = rest.strip_suffix('/').filter(|_| default_port.is_some()).unwrap_or(rest);
        let place = if let Some(path) = rest.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() == 1 {
                return Err(error());
            }
            ServerPlace::Unix(path.into())
        } else {
            authority(rest, default_port).ok_or_else(error)?
        };
        Ok(Self { text: text.to_owned(), tls, place })
    }
}

fn authority(text: &str, default_port: Option<u16>) -> Option<ServerPlace> {
    let with_port = match (text.rsplit_once(':'), default_port) {
        (Some((host, port)), _) if !port.ends_with(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host.to_owned(), port.parse().ok()?)
        }
        (_, Some(port)) => (text.to_owned(), port),
        _ => return None,
    };
    let (host, port) = with_port;
    if port == 0 {
        return None;
    }
    if let Ok(address) = format!("{host}:{port}").parse() {
        return Some(ServerPlace::Address(address));
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && host.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    is_name.then_some(ServerPlace::Name(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, tls: bool, place: &ServerPlace) {
        let server: Server = text.parse().unwrap();
        assert_eq!((server.tls, &server.place), (tls, place), "{text}");
    }

    #[test]
    fn what_names_a_server() {
        let address = |text: &str| ServerPlace::Address(text.parse().unwrap());
        let name = |name: &str, port| ServerPlace::Name(name.to_owned(), port);
        check("10.0.0.5:8001", false, &address("10.0.0.5:8001"));
        check("[::1]:8001", false, &address("[::1]:8001"));
        check("http://10.0.0.5", false, &address("10.0.0.5:80"));
        check("https://[::1]/", true, &address("[::1]:443"));
        check("https://[::1]:8443", true, &address("[::1]:8443"));
        check("localhost:1", false, &name("localhost", 1));
        check("https://app_1.internal", true, &name("app_1.internal", 443));
        check("unix:/run/app.sock", false, &ServerPlace::Unix("/run/app.sock".into()));
        check("https://unix:/run/app.sock", true, &ServerPlace::Unix("/run/app.sock".into()));
    }

    #[test]
    fn what_names_none() {
        let bad = ["", "app", "app:", "app:0", "app:65536", ":80", "::1", "::1:80", "ftp://a", "http://a/b", "a b:1"];
        for text in bad.into_iter().chain(["unix:app.sock", "unix:/", "1.2.3:80", "user@a:1", "http://"]) {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
