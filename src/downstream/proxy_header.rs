//! The PROXY protocol: what a load balancer says, before anything else, of the client whose bytes it passes on. Versions 1 and
//! 2 of <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, its line end included.
const MAX_LINE: usize = 107;

/// More than any balancer adds to the addresses of version 2.
const MAX_BLOCK: usize = 4096;

/// Reads the header and nothing after it. `None` is a connection of the balancer's own, such as its health check.
///
/// # Errors
///
/// If there is no header, or none that can be read.
pub(crate) async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Option<SocketAddr>> {
    // Shorter than any header of either version.
    let mut begin = [0; 12];
    socket.read_exact(&mut begin).await?;
    if &begin == SIGNATURE { version_2(socket).await } else { version_1(socket, &begin).await }
}

async fn version_1<S: AsyncRead + Unpin>(socket: &mut S, begin: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = begin.to_vec();
    if !line.starts_with(b"PROXY ") {
        return Err(refused("a connection of a trusted proxy begins without a PROXY header"));
    }
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(refused("a PROXY header is too long"));
        }
        // Byte by byte, so that nothing of what follows is taken.
        line.push(socket.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| refused("a PROXY header is no text"))?;
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let source = |host: &str, port: &str| -> Option<SocketAddr> {
        Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
    };
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), host, _, port, _] => source(host, port)
            .filter(|source| source.is_ipv4() == (*family == "TCP4"))
            .map(Some)
            .ok_or_else(|| refused("a PROXY header holds no address")),
        _ => Err(refused("a PROXY header cannot be read")),
    }
}

async fn version_2<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Option<SocketAddr>> {
    let (command, family, length) = (socket.read_u8().await?, socket.read_u8().await?, socket.read_u16().await?);
    let mut block = vec![0; usize::from(length)];
    if block.len() > MAX_BLOCK {
        return Err(refused("a PROXY header is too long"));
    }
    socket.read_exact(&mut block).await?;
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(refused("a PROXY header is of an unknown version or command")),
    }
    let mut block = block.as_slice();
    let missing = || refused("a PROXY header holds no address");
    let address: IpAddr = match family {
        0x11 => {
            let (addresses, ports) = block.split_at_checked(8).ok_or_else(missing)?;
            block = ports;
            Ipv4Addr::from(*addresses.first_chunk::<4>().ok_or_else(missing)?).into()
        }
        0x21 => {
            let (addresses, ports) = block.split_at_checked(32).ok_or_else(missing)?;
            block = ports;
            Ipv6Addr::from(*addresses.first_chunk::<16>().ok_or_else(missing)?).into()
        }
        // Unspecified, Unix sockets: there is a client, but none with an address.
        _ => return Ok(None),
    };
    let port = u16::from_be_bytes(*block.first_chunk::<2>().ok_or_else(missing)?);
    Ok(Some(SocketAddr::new(address, port)))
}

fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[u8], expected: Result<Option<&str>, &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let follows = b"GET / HTTP/1.1\r\n";
        let mut all = sent.to_vec();
        all.extend(follows);
        let mut left = all.as_slice();
        let read = runtime.block_on(read(&mut left));
        match (read, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found, expected.map(|address| address.parse().unwrap()));
                assert_eq!(left, follows, "nothing else is taken");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    fn second(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        header.extend(block);
        header
    }

    #[test]
    fn both_versions_name_the_client() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Ok(Some("192.0.2.1:56324")));
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", Ok(Some("[2001:db8::1]:56324")));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None));
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb, 3, 0, 0];
        check(&second(0x21, 0x11, &four), Ok(Some("192.0.2.1:56324")));
        let mut six = Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1).octets().to_vec();
        six.extend([0; 16]);
        six.extend([0xdc, 0x04, 1, 0xbb]);
        check(&second(0x21, 0x21, &six), Ok(Some("[2001:db8::1]:56324")));
        check(&second(0x20, 0x11, &four), Ok(None));
        check(&second(0x21, 0, &[]), Ok(None));
        check(&second(0x21, 0x31, &[0; 216]), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        check(b"GET / HTTP/1.1\r\n", Err("without a PROXY header"));
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", Err("cannot be read"));
        check(b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n", Err("no address"));
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 66000 443\r\n", Err("no address"));
        check(b"PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n", Err("cannot be read"));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).as_bytes(), Err("too long"));
        check(&second(0x31, 0x11, &[0; 12]), Err("unknown version"));
        check(&second(0x22, 0x11, &[0; 12]), Err("unknown version"));
        check(&second(0x21, 0x11, &[0; 9]), Err("no address"));
        check(&second(0x21, 0x11, &[0; 5000]), Err("too long"));
    }
}
