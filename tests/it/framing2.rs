//! HTTP/2 requests that would be others in HTTP/1.1: what is sent, and what the upstream is allowed to see.
//!
//! The frames are written byte by byte (RFC 9113, section 4.1; RFC 7541, section 6.2.2), since no library sends such.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::framing::Recorder;
use crate::harness::{DEADLINE, Gateway, Site};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The indexed field `:status: 200` (RFC 7541, appendix A).
const OK: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

/// Fields as literals that are not indexed, lengths in one byte.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "{text}");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// How a request ended for the client.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With an answer of 200.
    Good,
    /// With another answer, a reset stream or a closed connection.
    Refused,
}

use End::{Good, Refused};

/// Sends one request and hears how it ends.
async fn ask(gateway: &Gateway, head: &[(&str, &str)], body: Option<&str>) -> End {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    let end = if body.is_none() { END_STREAM } else { 0 };
    sent.extend(frame(HEADERS, END_HEADERS | end, 1, &fields(head)));
    if let Some(body) = body {
        sent.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    stream.write_all(&sent).await.unwrap();
    let heard = async {
        loop {
            let mut header = [0; 9];
            if stream.read_exact(&mut header).await.is_err() {
                return Refused;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return Refused;
            }
            match header[3] {
                HEADERS => return if payload.first() == Some(&OK) { Good } else { Refused },
                RST_STREAM | GOAWAY => return Refused,
                _ => {}
            }
        }
    };
    timeout(DEADLINE, heard).await.unwrap()
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")];
const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/x")];

/// A request within a body, where that ends at once if the framing is not what it should be.
const ANOTHER: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn what_would_be_another_request_in_http1_reaches_no_upstream() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let mut gateway = site.start().await;
    let with = |fields: &[(&'static str, &'static str)]| [&GET[..], fields].concat();
    let posted = |fields: &[(&'static str, &'static str)]| [&POST[..], fields].concat();
    let instead = |name: &str, value: &'static str| GET.map(|(its, was)| (its, if its == name { value } else { was }));

    // What is well formed passes.
    assert_eq!(ask(&gateway, &GET, None).await, Good);
    assert_eq!(upstream.take(), "GET /x HTTP/1.1|");
    assert_eq!(ask(&gateway, &posted(&[("content-length", "5")]), Some("hello")).await, Good);
    assert_eq!(upstream.take(), "POST /x HTTP/1.1|hello");
    // A body without a length is one message all the same, whatever it looks like.
    assert_eq!(ask(&gateway, &POST, Some(ANOTHER)).await, Good);
    assert_eq!(upstream.take(), "POST /x HTTP/1.1|23~GET /smuggled HTTP/1.1~host: a~~~0~~");

    let refused = [
        // Lengths.
        (posted(&[("content-length", "0")]), Some(SMUGGLED)),
        (posted(&[("content-length", "5")]), Some("hello and more")),
        (posted(&[("content-length", "50")]), Some("too little")),
        (posted(&[("content-length", "5"), ("content-length", "6")]), Some("hello")),
        (posted(&[("content-length", "+5")]), Some("hello")),
        (posted(&[("content-length", "5, 5")]), Some("hello")),
        // Fields of the connection.
        (posted(&[("transfer-encoding", "chunked")]), Some(SMUGGLED)),
        (with(&[("connection", "keep-alive")]), None),
        (with(&[("upgrade", "h2c")]), None),
        (with(&[("te", "chunked")]), None),
        // What ends a line.
        (with(&[("x", "a\r\nevil: b")]), None),
        (with(&[("x", "a\nevil: b")]), None),
        (with(&[("x", "a\r")]), None),
        (with(&[("x", "a\0b")]), None),
        (with(&[("x\r\nevil", "b")]), None),
        (instead(":path", "/x HTTP/1.1\r\nevil: b\r\nx: y").to_vec(), None),
        (instead(":method", "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\nGET").to_vec(), None),
        (instead(":authority", "a\r\nevil: b").to_vec(), None),
        // Names.
        (with(&[("X-Upper", "b")]), None),
        (with(&[("x y", "b")]), None),
        (with(&[("x:", "b")]), None),
        (with(&[("", "b")]), None),
        // Paths, hosts and other pseudo-fields.
        (instead(":path", "/x y").to_vec(), None),
        (instead(":path", "x").to_vec(), None),
        (instead(":path", "").to_vec(), None),
        (instead(":authority", "a b").to_vec(), None),
        (with(&[("host", "b")]), None),
        (with(&[(":path", "/y")]), None),
        (with(&[("x", "y"), (":path", "/y")]), None),
        (with(&[(":status", "200")]), None),
        (GET[..3].to_vec(), None),
        (GET[1..].to_vec(), None),
    ];
    let mut passed = Vec::new();
    for (head, body) in refused {
        if ask(&gateway, &head, body).await != Refused {
            passed.push(format!("{head:?} {body:?}"));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
    // What goes to the upstream may go later than the client is told. Of all these, it may have the beginning of the three
    // whose bodies are not as long as they say, since bodies are passed on as they come; and nothing beyond that length.
    gateway.terminate().await;
    assert_eq!(gateway.ended().await, Some(0));
    let heard = upstream.text();
    assert!(heard.matches(" HTTP/1.1\r\n").count() <= 3, "{heard}");
    for foreign in ["GET ", "smuggled", "more", "evil"] {
        assert!(!heard.contains(foreign), "{foreign}: {heard}");
    }
}
