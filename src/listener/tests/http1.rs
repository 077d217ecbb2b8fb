//! HTTP/1.1: framing, refusals without a request, panics, upgrades, PROXY headers.

use super::*;

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.get("/");
    assert!(client.answer().ends_with("hello"));
    client.get("/facts");
    let got = client.answer();
    assert!(
        got.ends_with("peer=127.0.0.1 socket=127.0.0.1 proxied=false secure=false http2=false draining=false thread=0"),
        "{got}"
    );
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /facts HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer().ends_with("hello"));
    assert!(client.answer().contains("peer="));
}

#[track_caller]
fn check_bare(request: &[u8], status: &str, number: impl Fn(&Counters) -> u64) {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(request);
    let got = client.rest();
    assert!(got.starts_with(status), "{got}");
    server.wait_for("counted", number, 1);
}

#[test]
fn what_never_became_a_request_is_answered_bare_and_counted() {
    check_bare(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400 ", |counters| counters.ambiguous_framing.get());
    check_bare(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 400 ",
        |counters| counters.ambiguous_framing.get(),
    );
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    check_bare(long.as_bytes(), "HTTP/1.1 431 ", |counters| counters.headers_too_large.get());
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    check_bare(many.as_bytes(), "HTTP/1.1 431 ", |counters| counters.headers_too_large.get());
}

#[test]
fn an_http2_preface_without_tls_is_refused() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let got = client.rest();
    assert!(!got.contains("200"), "{got}");
    server.wait_for("counted", |counters| counters.ambiguous_framing.get(), 1);
}

#[test]
fn a_head_a_little_too_large_still_reaches_the_service() {
    let server = Server::start(|settings| settings.max_header_bytes = 60 * 1024);
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(62 * 1024)));
    assert!(client.answer().ends_with("hello"));
}

/// Closing with unread bytes in the socket would reset the connection, and take the answer with it (hyper#2384).
#[test]
fn the_answer_to_a_refused_upload_arrives() {
    let server = Server::start(|_| {});
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        client.send(vec![b'x'; 500_000]);
        let got = client.rest();
        assert!(got.starts_with("HTTP/1.1 401 ") && got.ends_with("no"), "{got}");
    }
}

#[test]
fn a_lingering_connection_is_closed_in_time() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 401 "));
    client.restart_watch();
    // The client neither sends on nor closes.
    server.wait_for("connections", |counters| counters.connections.get(), 0);
}

/// Who was not asked for a body may send it or leave it: what follows could be either (RFC 9110 §10.1.1).
#[test]
fn an_answer_in_place_of_an_invitation_says_close() {
    let server = Server::start(|_| {});
    for expects in ["Expect: 100-continue\r\n", ""] {
        let mut client = server.connect();
        client.send(format!("POST /refuse HTTP/1.1\r\nHost: a\r\n{expects}Content-Length: 30\r\n\r\n"));
        let got = client.answer();
        assert_eq!(got.contains("connection: close"), !expects.is_empty(), "{got}");
        client.send("GET / HTTP/1.1\r\nHost: abcde\r\n\r\n");
        assert_eq!(client.rest(), "", "{expects}");
    }
    let mut client = server.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut invitation = [0; 25];
    client.socket.read_exact(&mut invitation).unwrap();
    assert_eq!(&invitation, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("helloGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let got = client.answer();
    assert!(got.ends_with("5 bytes") && !got.contains("close"), "{got}");
    assert!(client.answer().ends_with("hello"));
}

/// Many requests sent ahead, with and without bodies, in pieces that end anywhere.
#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let mut all = String::new();
    for number in 0..200 {
        let (body, chunks) = ("x".repeat(number), format!("{number:x};a\r\n{}\r\n", "x".repeat(number)));
        all += &match number % 4 {
            0 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            1 => format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {number}\r\n\r\n{body}"),
            2 => format!("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
            _ => format!(
                "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX: 1\r\n\r\n"
            ),
        };
    }
    let mut writing = client.socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for piece in all.as_bytes().chunks(977) {
            writing.write_all(piece).unwrap();
        }
    });
    for number in 0..200 {
        let got = client.answer();
        let expected = match number % 4 {
            0 => "hello".to_owned(),
            _ => format!("{number} bytes"),
        };
        assert!(got.ends_with(&expected), "{number}: {got}");
    }
    writer.join().unwrap();
}

#[test]
fn a_panic_costs_the_connection_and_not_the_thread() {
    let server = Server::start(|_| {});
    let mut other = server.connect();
    other.get("/");
    other.answer();
    for (path, panics) in [("/panic", 1), ("/panic-at-once", 2)] {
        let mut client = server.connect();
        client.get(path);
        assert_eq!(client.rest(), "");
        other.get("/");
        assert!(other.answer().ends_with("hello"));
        server.wait_for("panics", |counters| counters.panics.get(), panics);
    }
    server.wait_for("connections", |counters| counters.connections.get(), 1);
}

#[test]
fn what_is_sent_ahead_of_an_upgrade_is_not_lost() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nahead");
    assert!(client.answer().starts_with("HTTP/1.1 101"));
    let mut got = [0; 5];
    client.socket.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ahead");
    drop(client);
    server.wait_for("connections", |counters| counters.connections.get(), 0);
}

fn proxied() -> Server {
    Server::start(|settings| {
        settings.proxy_protocol = true;
        settings.trusted_proxies = ["127.0.0.1".parse().unwrap()].into_iter().collect();
    })
}

#[track_caller]
fn check_proxied(header: &[u8], expected: &str) {
    let server = proxied();
    let mut client = server.connect();
    client.send([header, b"GET /facts HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let got = client.answer();
    assert!(got.contains(expected), "{got}");
}

#[test]
fn a_proxy_header_names_the_client() {
    check_proxied(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\r\n", "peer=203.0.113.7 socket=127.0.0.1 proxied=true");
    check_proxied(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\x13\x88\x01\xbb",
        "peer=203.0.113.7 socket=127.0.0.1 proxied=true",
    );
    check_proxied(b"PROXY UNKNOWN\r\n", "peer=127.0.0.1 socket=127.0.0.1 proxied=false");
    check_proxied(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "peer=127.0.0.1 socket=127.0.0.1 proxied=false");
}

#[test]
fn a_proxy_header_in_pieces_is_put_together() {
    let server = proxied();
    let mut client = server.connect();
    for byte in b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\r\n" {
        client.send([*byte]);
        std::thread::sleep(ms(1));
    }
    client.get("/facts");
    assert!(client.answer().contains("peer=203.0.113.7"));
}

#[test]
fn a_connection_without_its_proxy_header_is_closed() {
    let server = proxied();
    for (count, bad) in [
        &b"GET /facts HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.7 10.0.0.1 5000\r\nGET / HTTP/1.1\r\n\r\n",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
        // A length beyond what is taken.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\xcb\0\x71\x07\x0a\0\0\x01\x13\x88\x01\xbb",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.connect();
        client.send(bad);
        assert_eq!(client.rest(), "");
        server.wait_for("refused", |counters| counters.proxy_header_refused.get(), count as u64 + 1);
    }
}

#[test]
fn a_proxy_header_from_a_stranger_is_not_read() {
    let server = Server::start(|settings| {
        settings.proxy_protocol = true;
        settings.trusted_proxies = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
    });
    let mut client = server.connect();
    let _ = client.socket.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.rest(), "");
    server.wait_for("refused", |counters| counters.proxy_header_refused.get(), 1);
}

/// Where it is not asked for, it is a malformed request, and changes no address.
#[test]
fn a_proxy_header_that_nobody_asked_for_is_refused() {
    check_bare(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\r\n\r\n", "HTTP/1.1 400 ", |counters| {
        counters.ambiguous_framing.get()
    });
}
