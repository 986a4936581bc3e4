//! Requests that two readers could understand differently: what is sent, and what the upstream is allowed to see.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Site, eventually, read_to_end};

/// A server that keeps every byte that it is sent, and answers each request with 200 and nothing.
pub(crate) struct Recorder {
    pub(crate) address: String,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let ears = Arc::clone(&ears);
                tokio::spawn(async move {
                    let mut message = Vec::new();
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                        message.extend_from_slice(&bytes[..length]);
                        ears.lock().unwrap().extend_from_slice(&bytes[..length]);
                        while let Some(end) = end_of_message(&message) {
                            message.drain(..end);
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                        }
                    }
                });
            }
        });
        Self { address, heard, task }
    }

    /// What was heard since then, as it came.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    /// What was heard since the last call: the request lines, each with the body that followed.
    pub(crate) fn take(&self) -> String {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let text = String::from_utf8_lossy(&heard).into_owned();
        let mut told = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(end) = end_of_message(rest) {
            let message = String::from_utf8_lossy(&rest[..end]).into_owned();
            let (head, body) = message.split_once("\r\n\r\n").unwrap();
            let line = head.lines().next().unwrap();
            told.push(format!("{line}|{}", body.replace("\r\n", "~")));
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            told.push(format!("incomplete: {}", String::from_utf8_lossy(rest).lines().next().unwrap()));
        }
        told.join(" & ")
    }
}

/// Where the first message of `bytes` ends, as a lenient server reads it.
fn end_of_message(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.find("\r\n\r\n")? + 4;
    let lower = text[..head].to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        return text[head..].find("0\r\n\r\n").map(|end| head + end + 5);
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

/// One exchange: what is sent, the status of each answer, and what the upstream is allowed to see.
struct Case {
    sent: String,
    statuses: &'static [u16],
    seen: &'static str,
}

fn case(sent: impl Into<String>, statuses: &'static [u16], seen: &'static str) -> Case {
    Case { sent: sent.into(), statuses, seen }
}

const NOTHING: &str = "";

/// A GET with a header line of its own.
fn get(line: &str) -> String {
    format!("GET /x HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n")
}

/// A POST with header lines and a body of its own.
fn post(lines: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{body}")
}

/// A POST in chunks.
fn chunked(body: &str) -> String {
    post("transfer-encoding: chunked", body)
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

fn cases() -> Vec<Case> {
    let mut cases = vec![
        // What is well formed passes.
        case(get("connection: close"), &[200], "GET /x HTTP/1.1|"),
        case(post("connection: close\r\ncontent-length: 5", "hello"), &[200], "POST /x HTTP/1.1|hello"),
        case(post("connection: close\r\ncontent-length:\t 5 ", "hello"), &[200], "POST /x HTTP/1.1|hello"),
        case(
            chunked("5\r\nhello\r\n0\r\n\r\n") + &get("connection: close"),
            &[200, 200],
            "POST /x HTTP/1.1|5~hello~0~~ & GET /x HTTP/1.1|",
        ),
        case(
            post(
                "connection: close\r\nTRANSFER-ENCODING: CHUNKED",
                "2;a=b\r\nhe\r\n3\r\nllo\r\n00\r\nx-sum: 1\r\n\r\n",
            ),
            &[200],
            "POST /x HTTP/1.1|2~he~3~llo~0~~",
        ),
        case(
            post("content-length: 0", "") + &get("connection: close"),
            &[200, 200],
            "POST /x HTTP/1.1| & GET /x HTTP/1.1|",
        ),
        case(
            post("content-length: 2", "ok\r\n") + &get("connection: close"),
            &[200, 200],
            "POST /x HTTP/1.1|ok & GET /x HTTP/1.1|",
        ),
        case("GET /x HTTP/1.0\r\n\r\n", &[200], "GET /x HTTP/1.1|"),
        case(get("x-empty:\r\nconnection: close"), &[200], "GET /x HTTP/1.1|"),
        // A body is what its length says, also if it looks like a request; and what follows it is a request of its own.
        case(
            post(&format!("connection: close\r\ncontent-length: {}", SMUGGLED.len()), SMUGGLED),
            &[200],
            "POST /x HTTP/1.1|GET /smuggled HTTP/1.1~host: a~~",
        ),
        case(
            post("content-length: 0", "") + "GET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            &[200, 200],
            "POST /x HTTP/1.1| & GET /smuggled HTTP/1.1|",
        ),
    ];
    let refused = [
        // Two lengths, or what is none.
        post("content-length: 5\r\ncontent-length: 6", "hello!"),
        post("content-length: 5\r\ncontent-length: 5", "hello"),
        post("content-length: 5\r\nContent_Length: 6", "hello!"),
        post("content-length: 5, 5", "hello"),
        post("content-length: 5, 6", "hello!"),
        post("content-length: +5", "hello"),
        post("content-length: -5", "hello"),
        post("content-length: 0x5", "hello"),
        post("content-length: 5 5", "hello"),
        post("content-length: 5.0", "hello"),
        post("content-length:", "hello"),
        post("content-length: five", "hello"),
        post("content-length: 18446744073709551617", "h"),
        post("content-length: \u{0665}", "hello"),
        // Length and chunks.
        post("content-length: 5\r\ntransfer-encoding: chunked", &format!("0\r\n\r\n{SMUGGLED}")),
        post("transfer-encoding: chunked\r\ncontent-length: 5", &format!("0\r\n\r\n{SMUGGLED}")),
        post("content-length: 5\r\ntransfer_encoding: chunked", &format!("0\r\n\r\n{SMUGGLED}")),
        // Transfer codings that one reader takes for chunked and another does not.
        post("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
        post("transfer-encoding: \u{000b}chunked", "0\r\n\r\n"),
        post("transfer-encoding: \"chunked\"", "0\r\n\r\n"),
        post("transfer-encoding: chunked;q=1", "0\r\n\r\n"),
        post("transfer-encoding:", "0\r\n\r\n"),
        post("transfer-encoding : chunked", "0\r\n\r\n"),
        post("transfer-encoding\t: chunked", "0\r\n\r\n"),
        "POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        // Line ends.
        "GET /x HTTP/1.1\nhost: a\n\n".to_owned(),
        "GET /x HTTP/1.1\r\nhost: a\nx: y\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nhost: a\r\n\n".to_owned(),
        "GET /x HTTP/1.1\rhost: a\r\n\r\n".to_owned(),
        get("x: a\rb"),
        get("x: a\r\r\ny: b"),
        "\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        // Header fields.
        get("x: a\r\n b"),
        get("x: a\r\n\tcontent-length: 5"),
        "GET /x HTTP/1.1\r\n host: a\r\n\r\n".to_owned(),
        get("no colon"),
        get(": no name"),
        get("a name: x"),
        get("name : x"),
        get("na\u{00e9}me: x"),
        get("na(me: x"),
        get("x: a\u{0000}b"),
        get("x: a\u{007f}b"),
        get("x\u{0000}: y"),
        // Hosts.
        "GET /x HTTP/1.1\r\n\r\n".to_owned(),
        get("host: b"),
        "GET /x HTTP/1.1\r\nhost: a, b\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nhost: a/b\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nhost: user@a\r\n\r\n".to_owned(),
        "GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET http://user@a/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        // Request lines.
        "GET  /x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /x  HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET\t/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /x y HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        " GET /x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1 \r\nhost: a\r\n\r\n".to_owned(),
        "GET /x\r\n\r\n".to_owned(),
        "GET /x http/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /x HTTP/1.10\r\nhost: a\r\n\r\n".to_owned(),
        "GET x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /x#y HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /\u{00fc} HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /\u{0000} HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "G@T /x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "\u{0016}\u{0003}\u{0001}\r\n\r\n".to_owned(),
        // Chunks.
        chunked("5\r\nhello0\r\n\r\n"),
        chunked("5\nhello\r\n0\r\n\r\n"),
        chunked("5\r\nhello\n0\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\n\n"),
        chunked("+5\r\nhello\r\n0\r\n\r\n"),
        chunked("0x5\r\nhello\r\n0\r\n\r\n"),
        chunked("-1\r\nhello\r\n0\r\n\r\n"),
        chunked(" 5\r\nhello\r\n0\r\n\r\n"),
        chunked("5 \r\nhello\r\n0\r\n\r\n"),
        chunked("\r\n5\r\nhello\r\n0\r\n\r\n"),
        chunked("5;\u{0000}\r\nhello\r\n0\r\n\r\n"),
        chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunked("g\r\nhello\r\n0\r\n\r\n"),
        chunked("4\r\nhello\r\n0\r\n\r\n"),
        chunked("0\r\nx y: z\r\n\r\n"),
        chunked("0\r\nx: y\r\n z\r\n\r\n"),
        chunked("0\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    ];
    cases.extend(refused.into_iter().map(|sent| case(sent, &[400], NOTHING)));
    cases.extend([
        case(post("transfer-encoding: gzip, chunked", "0\r\n\r\n"), &[501], NOTHING),
        case(post("transfer-encoding: identity", ""), &[501], NOTHING),
        case(post("transfer-encoding: chunked, chunked", "0\r\n\r\n"), &[501], NOTHING),
        case(post("transfer-encoding: xchunked", "0\r\n\r\n"), &[501], NOTHING),
        case("GET /x HTTP/2.0\r\nhost: a\r\n\r\n", &[505], NOTHING),
        case("GET /x HTTP/0.9\r\nhost: a\r\n\r\n", &[505], NOTHING),
        case("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", &[405], NOTHING),
        case(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(17_000)), &[414], NOTHING),
        case(format!("GET /{}", "x".repeat(17_000)), &[414], NOTHING),
        case(get(&format!("x: {}", "y".repeat(70_000))), &[431], NOTHING),
        case(get(&"x: y\r\n".repeat(120)), &[431], NOTHING),
        case(post("content-length: 104857601", ""), &[413], NOTHING),
        // Another way of writing a path leads nowhere else.
        case("GET /api/v1/../../x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400], NOTHING),
        case("GET /%2e%2e/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400], NOTHING),
        case("GET /a%5c..%5cb HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400], NOTHING),
        case("GET /%zz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400], NOTHING),
        // What follows a refused request on its connection is not read any more.
        case(get("name : x") + SMUGGLED, &[400], NOTHING),
        case(
            get("x: y") + &post("content-length: 5\r\ncontent-length: 6", "hello!") + SMUGGLED,
            &[200, 400],
            "GET /x HTTP/1.1|",
        ),
    ]);
    cases
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_reaches_no_upstream() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    for Case { sent, statuses, seen } in cases {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        let answered: Vec<u16> =
            answer.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect();
        let sent: String = sent.chars().take(300).collect();
        assert_eq!(answered, statuses, "{sent:?} was answered {answer:?}");
        if answered.last().is_some_and(|status| *status >= 400) {
            assert!(answer.to_ascii_lowercase().contains("content-type: application/problem+json\r\n"), "{answer}");
            assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
        }
        assert_eq!(upstream.take(), seen, "{sent:?}");
    }
}

#[tokio::test]
async fn a_body_that_goes_wrong_on_its_way_is_never_finished() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(chunked("5\r\nhello\r\n").as_bytes()).await.unwrap();
    eventually("the upstream has the first part", || async { upstream.text().contains("hello") }).await;
    stream.write_all(format!("+1\r\nx\r\n0\r\n\r\n{SMUGGLED}").as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("a chunk's size is no hexadecimal number"), "{answer}");
    assert_eq!(upstream.take(), "incomplete: POST /x HTTP/1.1");
}

#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_in_turn() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let ahead: String = (0..20).map(|number| format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    stream.write_all((ahead + &get("connection: close")).as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 21, "{answer}");
    let seen: Vec<String> = (0..20).map(|number| format!("GET /{number} HTTP/1.1|")).collect();
    assert_eq!(upstream.take(), format!("{} & GET /x HTTP/1.1|", seen.join(" & ")));
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_read_all_the_same() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = post("connection: close\r\ntransfer-encoding: chunked", "5\r\nhello\r\n0\r\nx: y\r\n\r\n");
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = timeout(DEADLINE, read_to_end(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_that_comes_with_its_head_ends_where_it_says() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    for (first, rest) in [("hello", ""), ("he", "llo"), ("", "hello")] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(post("content-length: 5", first).as_bytes()).await.unwrap();
        stream.write_all((rest.to_owned() + &get("connection: close")).as_bytes()).await.unwrap();
        let answer = timeout(DEADLINE, read_to_end(&mut stream)).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert_eq!(upstream.take(), "POST /x HTTP/1.1|hello & GET /x HTTP/1.1|");
    }
}

#[tokio::test]
async fn names_go_on_in_lower_case_and_the_rest_as_it_came() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let fields = "X-Some-Name: Some Value\r\nx-some-name: Another\r\nconnection: close";
    let request = format!("GET http://A.test/Path?Query HTTP/1.1\r\nHost: A.test\r\n{fields}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = timeout(DEADLINE, read_to_end(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let heard = upstream.text();
    assert!(heard.starts_with("GET http://A.test/Path?Query HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("\r\nx-some-name: Some Value\r\nx-some-name: Another\r\n"), "{heard}");
    assert!(heard.contains("\r\nx-forwarded-host: A.test\r\n"), "{heard}");
}
