//! Strangers who are slow on purpose hold nobody up.

use std::{io::ErrorKind, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, interval},
};

use super::{answers, check, names};
use crate::harness::{ADMIN_TOKEN, Plane, Upstream, eventually, within};

/// A form for signing in that never comes to its end, from this address.
async fn slow(plane: &Plane, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(plane.address).await.unwrap();
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Cookie: keyside={}\r\nAuthorization: Bearer nothing\r\nContent-Length: 1000\r\n\r\nn",
        plane.address,
        "ab".repeat(32)
    );
    // It may be ended before it has said all.
    drop(stream.write_all(head.as_bytes()).await);
    stream
}

/// More of them than there may be connections: people and programs come in, and the sidecar hears of a revoke.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_slow_forms_takes_no_place_from_those_who_are_let_in() {
    let upstream = Upstream::start().await;
    let plane = Plane::prepare().config("[listen]\nmax_connections = 40").start().await;
    let sidecar = plane.sidecar(&upstream).start().await;
    plane.followed_by(1).await;
    let key = plane.mint("victim").await;
    answers(&sidecar, &key, 200).await;
    let mut flood = Vec::new();
    for n in 1..=100 {
        flood.push(slow(&plane, Ipv4Addr::new(127, 7, 0, n)).await);
    }
    // All but half of what there may be made room, and not by a timeout. Until then there may be no place for anybody.
    let mut answered = [false; 100];
    eventually("the flood to be ended", async || {
        let mut ended = 0;
        for (stream, answered) in flood.iter().zip(&mut answered) {
            match stream.try_read(&mut [0; 512]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => ended += usize::from(!*answered),
                Ok(_) => *answered = true,
            }
        }
        if ended >= 80 { Ok(()) } else { Err(ended) }
    })
    .await;
    let receipt = plane.revoke(&key.id).await;
    assert_eq!(names(&receipt["acknowledged"]).len(), 1, "{receipt}");
    check(&sidecar, &key, 401).await;
}

/// However steadily it goes on: all of a stranger's form has its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_trickles_in_is_not_waited_for() {
    let plane = Plane::prepare().start().await;
    let mut stream = slow(&plane, Ipv4Addr::new(127, 7, 1, 1)).await;
    let (began, mut second) = (Instant::now(), interval(Duration::from_millis(500)));
    let mut answer = [0; 64];
    let read = loop {
        tokio::select! {
            read = stream.read(&mut answer) => break read.unwrap(),
            _ = second.tick() => drop(stream.write_all(b"n").await),
        }
    };
    assert!(answer[..read].starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer[..read]));
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    // What is too large for a form is refused before any of it is read.
    let mut large = TcpStream::connect(plane.address).await.unwrap();
    let head = format!("POST /setup HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000\r\n\r\n", plane.address);
    large.write_all(head.as_bytes()).await.unwrap();
    let read = within("an answer", large.read(&mut answer)).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer[..read]));
}

/// Who was let in by a connection vouches for the connection, and not for the bodies of others that come by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_judged_by_what_its_own_request_shows() {
    let plane = Plane::prepare().start().await;
    let mut stream = TcpStream::connect(plane.address).await.unwrap();
    let token = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let mut ask = async |head: &str, body: usize| {
        let head = format!("{head} HTTP/1.1\r\nHost: {}\r\nContent-Length: {body}\r\n", plane.address);
        let body = "x".repeat(body);
        stream.write_all(format!("{head}Content-Type: application/json\r\n").as_bytes()).await.unwrap();
        stream.write_all(if head.contains("/sign-in") { b"" } else { token.as_bytes() }).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        // What is refused by its size is not read to its end.
        drop(stream.write_all(body.as_bytes()).await);
        let mut answer = [0; 1 << 15];
        let read = within("an answer", stream.read(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(ask("GET /v1/me", 0).await, "200");
    assert_eq!(ask("POST /v1/keys", 100_000).await, "400", "it was read, and is no JSON");
    assert_eq!(ask("POST /sign-in", 100_000).await, "413", "a stranger's");
}
