//! Upstreams that misbehave at each point of an exchange. After each the client has a correct answer or a clean end, the
//! outcome is charged once and to whom it belongs, no connection is used again that should not be, and nothing goes on.

use std::future::pending;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, interval};

use crate::harness::{Gateway, Site, eventually, read_to_end};
use crate::upstream::{Upstream, nobody};

/// What a scripted upstream does with a connection once it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Is not there: nobody listens at its address.
    Refuses,
    /// Resets before it has read anything.
    ResetAtOnce,
    /// Resets after the request.
    ResetAfterRequest,
    /// Resets in the middle of the answer's head.
    ResetInHead,
    /// Resets after the head of an answer of known length.
    ResetAfterHead,
    /// Resets in the middle of the answer's body.
    ResetInBody,
    /// Resets after the last chunk, before the end of the trailers.
    ResetInTrailers,
    /// Announces an answer, and resets.
    ResetAfterInterim,
    /// Closes its side after the request, and goes on reading.
    HalfClose,
    /// Sends less than it says.
    TooShort,
    /// Sends more than it says: the rest may not be taken for the next answer.
    TooLong,
    /// Breaks a chunked answer off.
    ChunksCutOff,
    /// Sends no HTTP.
    Garbage,
    /// Sends a chunk whose size is no number.
    BadChunk,
    /// Says two lengths.
    TwoLengths,
    /// Says a length that is no number.
    NoLength,
    /// Says a length, and that it does not count.
    LengthAndChunks,
    /// Has a body where none may be: the body may not be taken for the next answer.
    BodyOfNothing,
    /// Changes to another protocol that nobody asked for.
    SwitchesUnasked,
    /// Sends header fields for ever.
    HeadForEver,
    /// Reads the request and says nothing.
    Stalls,
    /// Sends a head and nothing more.
    StallsAfterHead,
    /// Sends a chunk and nothing more.
    StallsInBody,
    /// Sends 103 for ever.
    InterimForEver,
}

impl Fault {
    /// Every one.
    pub(crate) const ALL: [Self; 24] = [
        Self::Refuses,
        Self::ResetAtOnce,
        Self::ResetAfterRequest,
        Self::ResetInHead,
        Self::ResetAfterHead,
        Self::ResetInBody,
        Self::ResetInTrailers,
        Self::ResetAfterInterim,
        Self::HalfClose,
        Self::TooShort,
        Self::TooLong,
        Self::ChunksCutOff,
        Self::Garbage,
        Self::BadChunk,
        Self::TwoLengths,
        Self::NoLength,
        Self::LengthAndChunks,
        Self::BodyOfNothing,
        Self::SwitchesUnasked,
        Self::HeadForEver,
        Self::Stalls,
        Self::StallsAfterHead,
        Self::StallsInBody,
        Self::InterimForEver,
    ];

    /// Whether the gateway has to give up waiting.
    fn stalls(self) -> bool {
        matches!(self, Self::Stalls | Self::StallsAfterHead | Self::StallsInBody)
    }
}

pub(crate) async fn misbehave(mut stream: TcpStream, fault: Fault) {
    let reset = |stream: TcpStream| stream.set_zero_linger().unwrap();
    if let Fault::ResetAtOnce = fault {
        reset(stream);
        return;
    }
    let mut head = vec![0; 8192];
    let _ = stream.read(&mut head).await;
    let answer: &[u8] = match fault {
        Fault::Refuses | Fault::ResetAtOnce | Fault::ResetAfterRequest | Fault::HalfClose | Fault::Stalls => b"",
        Fault::ResetInHead => b"HTTP/1.1 200 OK\r\ncontent-le",
        Fault::ResetAfterHead | Fault::StallsAfterHead => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        Fault::TooShort | Fault::ResetInBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Fault::TooLong => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        }
        Fault::ChunksCutOff | Fault::StallsInBody => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        }
        Fault::ResetInTrailers => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx-sum: 1",
        Fault::ResetAfterInterim | Fault::InterimForEver => b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        Fault::NoLength => b"HTTP/1.1 200 OK\r\ncontent-length: four\r\n\r\ngood",
        Fault::LengthAndChunks => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"
        }
        Fault::BodyOfNothing => b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        Fault::SwitchesUnasked => b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nevil",
        Fault::HeadForEver => b"HTTP/1.1 200 OK\r\n",
        Fault::Garbage => b"\x00\x01\x02 what is this?\r\n\r\n",
        Fault::BadChunk => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n0\r\n\r\n",
        Fault::TwoLengths => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\ngood!",
    };
    let _ = stream.write_all(answer).await;
    match fault {
        Fault::ResetAfterRequest
        | Fault::ResetInHead
        | Fault::ResetAfterHead
        | Fault::ResetInBody
        | Fault::ResetInTrailers
        | Fault::ResetAfterInterim => reset(stream),
        Fault::HalfClose => {
            let _ = stream.shutdown().await;
            while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
        }
        // Until the gateway gives up.
        Fault::Stalls
        | Fault::StallsAfterHead
        | Fault::StallsInBody
        | Fault::TooLong
        | Fault::BodyOfNothing
        | Fault::SwitchesUnasked => while stream.read(&mut head).await.is_ok_and(|read| read > 0) {},
        Fault::HeadForEver => while stream.write_all(b"x-more: and more and more\r\n").await.is_ok() {},
        Fault::InterimForEver => while stream.write_all(answer).await.is_ok() {},
        _ => {}
    }
}

/// An upstream that does the same to everybody.
async fn faulty(fault: Fault) -> (String, JoinHandle<()>) {
    if let Fault::Refuses = fault {
        let (address, bound) = nobody();
        let kept = tokio::spawn(async move {
            let _bound = bound;
            pending().await
        });
        return (address, kept);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut each = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            each.spawn(misbehave(stream, fault));
        }
    });
    (address, task)
}

/// A header that has pingora proxy the request, where the gateway would by itself.
pub(crate) const BY_PINGORA: &str = "te: trailers\r\n";

/// Sends one request with these `headers` on a connection of its own and reads to the end of the connection.
async fn exchange(gateway: &Gateway, method: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "{method} /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

/// The final answer's status; answers of 1xx before it are passed over.
fn status(answer: &str) -> u16 {
    let mut heads = answer.split("HTTP/1.1 ").skip(1).map(|head| head[..3].parse::<u16>().unwrap());
    heads.find(|status| *status >= 200).unwrap_or(0)
}

/// A head that was passed on, or lost on the way to the gateway by what came after it.
const CUT_OFF: &[u16] = &[200, 502, 0];

/// A head that was passed on, or came too late to be.
const GIVEN_UP: &[u16] = &[200, 504, 0];

/// An answer that breaks off, which is a `failure`, may not look complete.
#[track_caller]
fn is_sound(fault: Fault, answer: &str, failure: bool) {
    let stables = answer.contains("x-tidegate-variant: sync");
    assert!(!failure || stables || !answer.ends_with("0\r\n\r\n"), "{fault:?} looks complete: {answer}");
    assert!(!answer.contains("evil"), "{fault:?}: what nobody asked for: {answer}");
    assert!(!answer.to_ascii_lowercase().contains("content-length: 3\r\n"), "{fault:?}: another length: {answer}");
}

/// What a POST (which may not be repeated) and a GET (which may) come to, and whether the POST is charged as a failure;
/// whichever way they are proxied.
async fn check(fault: Fault, post: &[u16], get: &[u16], failure: bool) {
    for headers in ["", BY_PINGORA] {
        check_with(headers, fault, post, get, failure).await;
    }
}

async fn check_with(headers: &str, fault: Fault, post: &[u16], get: &[u16], failure: bool) {
    let stable = Upstream::start().await;
    let (address, task) = faulty(fault).await;
    // Whoever means to answer is waited for, however busy the machine is.
    let read = if fault.stalls() { "300ms" } else { "30s" };
    let site = Site::with_impatience(stable.address(), &address, read);
    let gateway = site.start().await;

    let answer = exchange(&gateway, "POST", headers).await;
    assert!(post.contains(&status(&answer)), "{fault:?}: {answer}");
    is_sound(fault, &answer, failure);
    if !matches!(fault, Fault::Refuses | Fault::ResetAtOnce) {
        assert_eq!(stable.requests(), 0, "{fault:?}: it may not be sent twice");
    }
    let count = async |outcome: &str| gateway.outcomes("async", outcome).await;
    let charged = async || (count("success").await, count("failure").await, count("not_counted").await);
    let once = if failure { (0.0, 1.0, 0.0) } else { (1.0, 0.0, 0.0) };
    eventually(&format!("{fault:?} is charged"), || async { charged().await == once }).await;

    let answer = exchange(&gateway, "GET", headers).await;
    assert!(get.contains(&status(&answer)), "{fault:?}: {answer}");
    is_sound(fault, &answer, failure);
    let twice = if failure { (0.0, 2.0, 0.0) } else { (2.0, 0.0, 0.0) };
    eventually(&format!("{fault:?} is charged again"), || async { charged().await == twice }).await;
    let rescued = gateway.metric("tidegate_rescued_requests_total{flag=\"async-database\"}").await;
    assert_eq!(rescued, stable.requests() as f64, "{fault:?}");
    if stable.requests() > 0 {
        assert!(answer.contains("x-tidegate-variant: sync"), "{fault:?}: {answer}");
    }

    // The gateway goes on as if nothing had been, and nothing is left under way.
    let other = gateway.get("/elsewhere", "alice").send().await.unwrap();
    assert_eq!(other.status(), 200, "{fault:?}");
    gateway.terminate().await;
    let mut gateway = gateway;
    assert_eq!(gateway.ended().await, Some(0), "{fault:?}");
    assert!(!site.log().contains("broken off"), "{fault:?}: a request was still under way");
    task.abort();
}

#[tokio::test]
async fn an_upstream_that_resets() {
    // It was never sent, so that stable may serve it.
    check(Fault::Refuses, &[200], &[200], true).await;
    // If the reset comes before the request is written, it was never sent, and stable serves it.
    check(Fault::ResetAtOnce, &[502, 200], &[200], true).await;
    check(Fault::ResetAfterRequest, &[502], &[200], true).await;
    check(Fault::ResetInHead, &[502], &[200], true).await;
    // The client has the head already: it is cut off, and sees it, since the length is missing.
    check(Fault::ResetAfterHead, CUT_OFF, CUT_OFF, true).await;
    check(Fault::ResetInBody, CUT_OFF, CUT_OFF, true).await;
    check(Fault::ResetInTrailers, CUT_OFF, CUT_OFF, true).await;
    check(Fault::ResetAfterInterim, &[502], &[200], true).await;
}

#[tokio::test]
async fn an_upstream_that_closes_too_early() {
    check(Fault::HalfClose, &[502], &[200], true).await;
    check(Fault::TooShort, CUT_OFF, CUT_OFF, true).await;
    check(Fault::ChunksCutOff, CUT_OFF, CUT_OFF, true).await;
}

#[tokio::test]
async fn an_upstream_that_lies() {
    check(Fault::TooLong, &[200], &[200], false).await;
    check(Fault::BodyOfNothing, &[204], &[204], false).await;
    check(Fault::TwoLengths, &[502], &[200], true).await;
    // What counts is the chunks (RFC 9112, section 6.3), and the client is not told of the length.
    check(Fault::LengthAndChunks, &[200], &[200], false).await;
    check(Fault::NoLength, &[502], &[200], true).await;
    check(Fault::SwitchesUnasked, &[502], &[200], true).await;
    check(Fault::Garbage, &[502], &[200], true).await;
    check(Fault::BadChunk, CUT_OFF, CUT_OFF, true).await;
}

#[tokio::test]
async fn an_upstream_that_never_comes_to_the_point() {
    check(Fault::Stalls, &[504], &[200], true).await;
    check(Fault::StallsAfterHead, GIVEN_UP, GIVEN_UP, true).await;
    check(Fault::StallsInBody, GIVEN_UP, GIVEN_UP, true).await;
    check(Fault::InterimForEver, &[502], &[200], true).await;
    check(Fault::HeadForEver, &[502], &[200], true).await;
}

#[tokio::test]
async fn an_upstream_that_trickles_is_waited_for() {
    let stable = Upstream::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let mut ticks = interval(Duration::from_millis(2));
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\npatient" {
                ticks.tick().await;
                stream.write_all(&[*byte]).await.unwrap();
            }
        }
    });
    let site = Site::with_impatience(stable.address(), &address, "5s");
    let gateway = site.start().await;
    for (headers, charged) in [("", 1.0), (BY_PINGORA, 2.0)] {
        let answer = exchange(&gateway, "GET", headers).await;
        assert!(status(&answer) == 200 && answer.ends_with("patient"), "{answer}");
        eventually("it is charged", || async { gateway.outcomes("async", "success").await == charged }).await;
    }
    task.await.unwrap();
}
