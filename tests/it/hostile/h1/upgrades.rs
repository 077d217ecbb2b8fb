//! Wishes for another protocol: nothing is a tunnel before the upstream's 101, and nothing is wished for upstream but
//! what the route lists.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Clean, Row, Verdict, check_behind, head, hidden, keys};
use crate::harness::{Answer, Sidecar, Wire, within};

const CONFIG: &str = r#"
    [[route]]
    path = "/socket"
    upgrade = ["websocket"]
    [[route]]
    path = "/**"
"#;

const SOCKET: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

fn socket() -> Clean {
    Clean::new("GET", "/socket")
        .field("connection", "upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn plain(path: &str) -> Clean {
    Clean::new("GET", path).field("sec-websocket-version", "13").field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// Only one known word, nominated, on a route that lists it, is a wish; and it is written anew.
#[tokio::test]
async fn a_wish_is_one_listed_word() {
    let mut rows = Vec::new();
    let source = "RFC 9110 §7.8, CVE-2026-2833, golang#16875 (h2c)";
    let wish = |rule: &str, path: &'static str, fields: &str, wished: bool| {
        let clean = if wished { socket() } else { plain(path) };
        let bytes = head(&format!("GET {path}"), &format!("{fields}\r\n{SOCKET}"));
        Row::clean(format!("{rule}, {path}"), source, bytes, clean.may_close())
    };
    for path in ["/socket", "/elsewhere"] {
        let here = path == "/socket";
        for (rule, fields) in [
            ("the word", "Connection: Upgrade\r\nUpgrade: websocket"),
            ("in another case", "connection: UPGRADE\r\nupgrade: websocket"),
            ("among other options", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket"),
            ("on a second line", "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket"),
            (
                "with settings of HTTP/2",
                "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: websocket",
            ),
            ("beside ours", "Connection: Upgrade, X-Key-Owner, X-Key-Id\r\nUpgrade: websocket"),
        ] {
            rows.push(wish(rule, path, fields, here));
        }
        for (rule, fields) in [
            ("not nominated", "Upgrade: websocket"),
            ("nominated by another field", "Proxy-Connection: Upgrade\r\nUpgrade: websocket"),
            ("nominated and not there", "Connection: Upgrade"),
            ("an empty one", "Connection: Upgrade\r\nUpgrade:"),
            ("h2c", "Connection: Upgrade\r\nUpgrade: h2c"),
            (
                "h2c with its settings",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            ),
            (
                "h2c with settings that are not nominated",
                "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            ),
            ("settings alone", "HTTP2-Settings: AAMAAABkAAQAAP__"),
            ("two settings", "HTTP2-Settings: AAMAAABkAAQAAP__\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
            ("h2c and the word", "Connection: Upgrade\r\nUpgrade: h2c, websocket"),
            ("the word and h2c", "Connection: Upgrade\r\nUpgrade: websocket, h2c"),
            ("the word twice", "Connection: Upgrade\r\nUpgrade: websocket, websocket"),
            ("the word and h2c on two lines", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c"),
            ("h2c and the word on two lines", "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket"),
            ("TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2"),
            ("HTTP/2", "Connection: Upgrade\r\nUpgrade: HTTP/2.0"),
            ("the word with a version", "Connection: Upgrade\r\nUpgrade: websocket/13"),
            ("the word with a parameter", "Connection: Upgrade\r\nUpgrade: websocket;a=b"),
            ("the word in quotes", "Connection: Upgrade\r\nUpgrade: \"websocket\""),
            ("a longer word", "Connection: Upgrade\r\nUpgrade: websocketx"),
            ("a shorter word", "Connection: Upgrade\r\nUpgrade: websocke"),
            ("bytes beyond ASCII", "Connection: Upgrade\r\nUpgrade: webso\u{e7}ket"),
        ] {
            rows.push(wish(rule, path, fields, false));
        }
        for (rule, fields) in [
            ("a space before the colon", "Connection: Upgrade\r\nUpgrade : websocket"),
            ("a folded word", "Connection: Upgrade\r\nUpgrade:\r\n websocket"),
            ("a bare carriage return", "Connection: Upgrade\r\nUpgrade: websocket\r"),
            ("a twin", "Connection: Upgrade\r\nUp_grade: websocket"),
        ] {
            let bytes = head(&format!("GET {path}"), &format!("{fields}\r\n{SOCKET}"));
            rows.push(Row::refused(format!("{rule}, {path}"), source, bytes));
        }
    }
    check_behind(CONFIG, rows, |_| {}).await;
}

/// Whatever the upstream says but 101, what follows the wish is the next request, and judged.
#[tokio::test]
async fn behind_a_refused_wish_comes_the_next_request() {
    let source = "CVE-2026-2833, h2csmuggler, 0ang3el's websocket-smuggle";
    for status in [200, 204, 301, 400, 401, 403, 404, 426, 500, 503] {
        let mut rows = Vec::new();
        for (rule, more) in [
            ("a good wish", "Sec-WebSocket-Version: 13"),
            ("a version that is unknown", "Sec-WebSocket-Version: 777"),
            ("no version", "X-A: b"),
            ("a version of no kind", "Sec-WebSocket-Version: x"),
        ] {
            let (name, value) = more.split_once(": ").unwrap();
            let clean = Clean::new("GET", "/socket")
                .field("connection", "upgrade")
                .field("upgrade", "websocket")
                .field(&name.to_lowercase(), value)
                .status(status)
                .may_close();
            let wish = head("GET /socket", &format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{more}"));
            rows.push(Row::clean(rule, source, wish.clone(), clean.clone()));
            // A body behind the wish is its body.
            let hidden = hidden();
            let length = format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len());
            let bytes = format!("{}{length}", wish.strip_suffix("\r\n").unwrap());
            rows.push(Row::new(
                format!("{rule}, with a body"),
                source,
                bytes,
                Verdict::Sound(Box::new(move |message| {
                    if message.line == "GET /socket HTTP/1.1" { Ok(()) } else { Err(format!("{message:?}")) }
                })),
            ));
        }
        let told = |upstream: &crate::harness::Upstream| upstream.on("/socket", Answer::with(status, &[], "no"));
        check_behind(CONFIG, rows, told).await;
    }
}

/// What a client sends behind its wish waits for the 101: the upstream would take it for its next request.
#[tokio::test]
async fn nothing_goes_ahead_of_the_101() {
    let smuggled = hidden();
    for (answer, joined) in [
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", true),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false),
        ("HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno", false),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", false),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sidecar = Sidecar::in_front_of_url(&url).config(CONFIG).plaintext().keys(&keys()).start().await;
        let mut wire = Wire::new(sidecar.tcp().await);
        let wish = head("GET /socket", &format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{SOCKET}"));
        wire.write(format!("{wish}{smuggled}")).await.unwrap();
        let (mut upstream, _) = within("the sidecar's connection", listener.accept()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            assert_ne!(within("the head", upstream.read_buf(&mut got)).await.unwrap(), 0, "{answer:?}");
        }
        // Not a wait for something: so long nothing comes.
        let ahead = tokio::time::timeout(Duration::from_millis(200), upstream.read_buf(&mut got)).await;
        assert!(ahead.is_err(), "{answer:?}: {:?}", got.escape_ascii().to_string());
        upstream.write_all(answer.as_bytes()).await.unwrap();
        let head = got.len();
        if joined {
            while got.len() < head + smuggled.len() {
                assert_ne!(within("what waited", upstream.read_buf(&mut got)).await.unwrap(), 0);
            }
            assert_eq!(&got[head..], smuggled.as_bytes());
            continue;
        }
        // Not as bytes of a tunnel: at most as a request of its own, with the owner that it was judged to have.
        drop(wire);
        within("the end", upstream.read_to_end(&mut got)).await.unwrap();
        let rest = String::from_utf8_lossy(&got[head..]).into_owned();
        assert!(rest.is_empty() || rest.contains("x-key-owner: of-writer\r\n"), "{answer:?}: {rest:?}");
    }
}
