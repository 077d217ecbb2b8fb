//! The client against an endpoint that says what the test says.

use std::time::Duration;

use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{clock, fault::chain};

const PATIENCE: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// A client, and the other end of its next connection once it has asked.
async fn pair() -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
    let token = Some(Secret::new(b"the-token"));
    (Client::new(&Settings { url, token, ca: None, identity: None }).unwrap(), listener)
}

/// Takes a connection and reads a request's head.
async fn asked(listener: &TcpListener) -> (TcpStream, String) {
    let (mut peer, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await.unwrap());
    }
    (peer, String::from_utf8(head).unwrap())
}

/// What a request comes to that is answered with these bytes, after which the connection is closed.
#[track_caller]
fn check(answer: &str, expected: Result<(u16, &str), &str>) {
    let outcome = run(async {
        let (client, listener) = pair().await;
        let asking = client.request(Method::GET, "/x", None, 16, PATIENCE);
        let answering = async {
            let (mut peer, head) = asked(&listener).await;
            assert!(head.starts_with("GET /base/x HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nauthorization: Bearer the-token\r\n"), "{head}");
            let _ = peer.write_all(answer.as_bytes()).await;
        };
        tokio::join!(asking, answering).0
    });
    match (outcome, expected) {
        (Ok(answer), Ok(expected)) => {
            assert_eq!((answer.status.as_u16(), &*answer.body), (expected.0, expected.1.as_bytes()))
        }
        (Err(error), Err(expected)) => assert!(chain(&error).contains(expected), "{}", chain(&error)),
        (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
    }
}

#[test]
fn an_answer_is_whole_and_bounded() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok((200, "hi")));
    check("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Ok((500, "")));
    check("HTTP/1.1 304 Not Modified\r\n\r\n", Ok((304, "")));
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Ok((200, "hi")));
    check("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n12345678901234567", Err("the answer is larger than 16 bytes"));
    check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", Err("the connection broke"));
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", Err("the connection broke"));
    check("+OK POP3 ready\r\n\r\n", Err("spoke no HTTP"));
    check("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", Err("content coding"));
    let redirect = "HTTP/1.1 307 Away\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n";
    check(redirect, Err("a redirect to http://elsewhere/, which is not followed (status 307)"));
    check(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)), Err("the connection broke"));
}

#[test]
fn a_connection_is_asked_again_and_again() {
    run(async {
        let (client, listener) = pair().await;
        let answering = async {
            let (mut peer, head) = asked(&listener).await;
            assert!(head.starts_with("POST ") && head.contains("\r\ncontent-length: 2\r\n"), "{head}");
            for answer in ["HTTP/1.1 204 Ok\r\n\r\n", "HTTP/1.1 204 Ok\r\nConnection: close\r\n\r\n"] {
                assert_eq!(peer.read_u16().await.unwrap(), u16::from_be_bytes(*b"{}"));
                peer.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = [0; 4096];
                if answer.contains("close") {
                    break;
                }
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let read = peer.read(&mut rest[..1]).await.unwrap();
                    head.extend_from_slice(&rest[..read]);
                }
            }
        };
        let asking = async {
            let mut connection = client.connect().await.unwrap();
            for open in [true, false] {
                let body = Some(b"{}".to_vec());
                let answer = connection.request(&client, Method::POST, "/x", body, 16).await.unwrap();
                assert_eq!((answer.status.as_u16(), connection.is_open()), (204, open));
            }
        };
        tokio::join!(answering, asking);
    });
}

#[test]
fn a_stalled_answer_is_given_up() {
    run(async {
        let (client, listener) = pair().await;
        let fields = HeaderMap::new();
        let asking = client.stream("/x", &fields, 100, Duration::from_millis(50));
        let (peer, opened) = tokio::join!(asked(&listener), asking);
        assert!(matches!(opened, Err(ClientError::Late(_))), "{opened:?}");
        drop(peer);
    });
}

async fn lines(client: &Client, listener: &TcpListener, idle: Duration) -> (Box<Lines>, TcpStream) {
    let answering = async {
        let (mut peer, _) = asked(listener).await;
        peer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        peer
    };
    let fields = HeaderMap::new();
    match tokio::join!(client.stream("/x", &fields, 3 * 1024 * 1024, idle), answering) {
        (Ok(Opened::Lines(lines)), peer) => (lines, peer),
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn lines_come_one_by_one_and_are_bounded() {
    run(async {
        let (client, listener) = pair().await;
        let (mut found, mut peer) = lines(&client, &listener, PATIENCE).await;
        peer.write_all(b"one\r\ntwo\nhalf").await.unwrap();
        assert_eq!(&*found.next().await.unwrap().unwrap().text, b"one");
        assert_eq!(&*found.next_now().unwrap().unwrap().text, b"two");
        assert!(found.next_now().unwrap().is_none() && !found.has_ended());
        drop(peer);
        assert!(found.next().await.unwrap().is_none() && found.has_ended());

        let (mut found, mut peer) = lines(&client, &listener, PATIENCE).await;
        let long = vec![b'x'; lines::MAX_LINE + 2];
        let (_, line) = tokio::join!(peer.write_all(&long), found.next());
        assert!(chain(&line.unwrap_err()).contains("a line is larger than 1048576 bytes"));

        let (mut found, mut peer) = lines(&client, &listener, PATIENCE).await;
        let much = [vec![b'x'; 1000], vec![b'\n']].concat().repeat(4000);
        let writing = async { drop(peer.write_all(&much).await) };
        let reading = async {
            let error = loop {
                match found.next().await {
                    Ok(line) => assert!(line.is_some()),
                    Err(error) => break error,
                }
            };
            // Who goes on sending finds nobody.
            drop(found);
            error
        };
        let (_, error) = tokio::join!(writing, reading);
        assert!(chain(&error).contains("the answer is larger than 3145728 bytes"), "{error}");
    });
}

/// What waited in the socket while nobody read is no fresher than what came before it.
#[test]
fn a_line_is_as_fresh_as_the_last_silence() {
    run(async {
        let (client, listener) = pair().await;
        let (mut found, mut peer) = lines(&client, &listener, PATIENCE).await;
        let before = clock::moment();
        assert!(found.next_now().unwrap().is_none(), "a silence");
        let after = clock::moment();
        peer.write_all(b"one\n").await.unwrap();
        let one = found.next().await.unwrap().unwrap();
        assert!((before.boot..=after.boot).contains(&one.fresh.boot) || one.fresh.boot > after.boot);
        let read = clock::moment();
        // This thread reads nothing now, as if it were stopped.
        peer.write_all(b"two\nthr").await.unwrap();
        peer.write_all(b"ee\n").await.unwrap();
        let stopped = clock::moment();
        assert!(stopped.boot > read.boot);
        for _ in 0..2 {
            let old = found.next().await.unwrap().unwrap();
            assert!(old.fresh.boot <= stopped.boot, "old news must not look new");
        }
        assert!(found.next_now().unwrap().is_none());
        peer.write_all(b"four\n").await.unwrap();
        let four = found.next().await.unwrap().unwrap();
        assert!(four.fresh.boot > stopped.boot, "new news do");
    });
}
