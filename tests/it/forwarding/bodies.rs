//! Bodies on their way up: streamed, bounded, never complete unless the client completed them.

use std::time::Duration;

use super::{BOTH, in_front};
use crate::harness::{Answer, Connection, End, Gate, H1, H2, Key, eventually, get, post, request, within};

fn writer() -> Key {
    Key::pair("writer").scopes(["read_write"])
}

/// The first chunk is there before the second was sent.
#[tokio::test]
async fn an_upload_streams() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let mut wire = sidecar.wire().await;
    let request = request("PUT", "/file").key(&key).chunks(["unused"]);
    wire.write(request.head()).await.unwrap();
    for (index, chunk) in ["one", "two", "three"].iter().enumerate() {
        wire.write(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await.unwrap();
        let expected: String = ["one", "two", "three"][..=index].concat();
        upstream.until(chunk, |seen| seen.last().is_some_and(|seen| seen.body == expected.as_bytes())).await;
        assert_eq!(upstream.only().end, End::Arriving);
    }
    wire.write("0\r\n\r\n").await.unwrap();
    assert_eq!(wire.answer("PUT").await.unwrap().status, 200);
    assert_eq!(upstream.only().end, End::Complete);
}

/// An upstream that does not read is not read for: what is in between holds little.
#[tokio::test]
async fn an_upload_waits_for_the_upstream() {
    const SIZE: usize = 48 << 20;
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[listen]\nmax_body = \"64MiB\"")).await;
    let gate = Gate::new();
    upstream.on("/file", Answer::ok("stored").behind(&gate).early().then_read());
    let mut wire = sidecar.wire().await;
    let head = String::from_utf8(request("PUT", "/file").key(&key).head()).unwrap();
    wire.write(head.replacen("\r\n\r\n", &format!("\r\nContent-Length: {SIZE}\r\n\r\n"), 1)).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    // Stuck once nothing was taken for a second.
    while sent < SIZE && tokio::time::timeout(Duration::from_secs(1), wire.write(&piece)).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < 24 << 20, "{sent} bytes were taken for an upstream that reads nothing");
    gate.open();
    // The piece that was stuck may have gone out in part; the rest is judged by the upstream's end alone.
    upstream.until("the answer", |seen| !seen.is_empty()).await;
    assert_eq!(wire.answer_head("PUT").await.unwrap().status, 200);
}

/// An answer that comes before the end of the upload reaches the caller at once.
#[tokio::test]
async fn an_early_answer_is_passed_on() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/file", Answer::with(422, &[], "too many").early().then_read());
    for version in BOTH {
        let answer = sidecar.send(version, post("/file", "begun").key(&key).stalled()).await;
        assert_eq!((answer.status, answer.text().as_str()), (422, "too many"), "{version:?}");
    }
    // And without the rest, the upstream never saw a whole request.
    for seen in upstream.until("the ends", |seen| seen.iter().all(|seen| seen.end != End::Arriving)).await {
        assert_eq!(seen.end, End::Broken);
    }
}

/// After an answer that came before the end of the upload, the connection is not used again: what would be written next
/// would be read as the rest of the body.
#[tokio::test]
async fn no_request_is_sent_in_the_middle_of_an_upload() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/file", Answer::with(422, &[], "too many").early().then_read());
    let mut connection = sidecar.connect(H2).await;
    let Connection::H2 { client, .. } = &connection else { unreachable!() };
    let upload =
        http::Request::post("https://api.example.com/file").header("authorization", key.authorization()).body(());
    let mut ready = client.clone().ready().await.unwrap();
    // Held to the end of the test: the client has not given up.
    let (answer, mut rest) = ready.send_request(upload.unwrap(), false).unwrap();
    rest.send_data("begun".into(), false).unwrap();
    let mut answer = within("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 422);
    while let Some(piece) = within("its body", answer.body_mut().data()).await {
        piece.unwrap();
    }
    assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n");
    assert_eq!(upstream.last().connection, 2);
    upstream.until("the cut", |seen| seen[0].end == End::Broken).await;
}

/// A body over the limit that did not declare its length: 413, and the upstream never has a whole one.
#[tokio::test]
async fn a_chunked_body_over_the_limit_never_arrives_whole() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[listen]\nmax_body = \"10KiB\"")).await;
    for version in BOTH {
        let chunks = |count| std::iter::repeat_n("x".repeat(1000), count);
        let answer = sidecar.send(version, post("/", "").key(&key).chunks(chunks(11))).await;
        assert_eq!(answer.brief(), "413 body_too_large", "{version:?}");
        // Within the limit, all is well.
        assert_eq!(sidecar.send(version, post("/", "").key(&key).chunks(chunks(10))).await.status, 200, "{version:?}");
        assert_eq!(upstream.last().body.len(), 10_000);
    }
    // What has gone up already is cut off there without its last chunk.
    let number = upstream.count() + 1;
    let mut wire = sidecar.wire().await;
    let chunk = format!("2800\r\n{}\r\n", "x".repeat(10 << 10));
    wire.write([&post("/", "").key(&key).chunks(["x"]).head(), chunk.as_bytes()].concat()).await.unwrap();
    upstream.until("the beginning", |seen| seen.len() == number && seen[number - 1].body.len() == 10 << 10).await;
    wire.write("1\r\nx\r\n").await.unwrap();
    assert_eq!(wire.answer("POST").await.unwrap().brief(), "413 body_too_large");
    let seen = upstream.until("the cut", |seen| seen[number - 1].end != End::Arriving).await;
    assert_eq!(seen[number - 1].end, End::Broken);
    assert!(!seen[number - 1].raw_body.ends_with(b"0\r\n\r\n"));
    assert_eq!(upstream.seen().iter().filter(|seen| seen.end == End::Complete).count(), 2);
}

/// The limit of a route, where it has one, is its own.
#[tokio::test]
async fn a_route_has_a_limit_of_its_own() {
    let key = writer();
    let config = r#"
        [listen]
        max_body = "10B"
        [[route]]
        path = "/large"
        max_body = "1KiB"
        [[route]]
        path = "/**"
    "#;
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    for version in BOTH {
        for (path, size, status) in [("/", 10, 200), ("/", 11, 413), ("/large", 1024, 200), ("/large", 1025, 413)] {
            let answer = sidecar.send(version, post(path, "x".repeat(size)).key(&key)).await;
            assert_eq!(answer.status, status, "{path} {size} over {version:?}");
        }
    }
}

/// A client that goes away in the middle of its upload: the upstream never takes it for whole.
#[tokio::test]
async fn a_broken_upload_is_broken_upstream() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for (framing, begun) in [("Transfer-Encoding: chunked", "5\r\nbegun\r\n"), ("Content-Length: 100", "begun")] {
        let number = upstream.count() + 1;
        let mut wire = sidecar.wire().await;
        let head = String::from_utf8(request("POST", "/").key(&key).head()).unwrap();
        wire.write(head.replacen("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n{begun}"), 1)).await.unwrap();
        upstream.until("the beginning", |seen| seen.len() == number && seen[number - 1].body == b"begun").await;
        drop(wire);
        let seen = upstream.until("the end", |seen| seen[number - 1].end != End::Arriving).await;
        assert_eq!(seen[number - 1].end, End::Broken, "{framing}");
    }
}

/// `Expect: 100-continue`: the body is asked for only when it is wanted.
#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let head = |authorization: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\n{authorization}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
    };
    let mut wire = sidecar.wire().await;
    wire.write(head(&format!("Authorization: {}\r\n", key.authorization()))).await.unwrap();
    let interim = wire.head().await.unwrap().unwrap();
    assert!(interim.line().starts_with("HTTP/1.1 100"), "{}", interim.line());
    wire.write("body").await.unwrap();
    assert_eq!(wire.answer("POST").await.unwrap().status, 200);
    assert_eq!(upstream.only().body, b"body");
    assert!(!upstream.only().has("expect"));

    // A refused one is refused before its body, and what follows on the connection is not taken for a request.
    let mut wire = sidecar.wire().await;
    wire.write(head("")).await.unwrap();
    let answer = wire.answer("POST").await.unwrap();
    assert_eq!((answer.status, &answer.interim[..], answer.field("connection")), (401, &[][..], "close"));
    let _ = wire.write(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", key.authorization())).await;
    assert_eq!(wire.rest().await, b"");
    assert_eq!(upstream.count(), 1);
}

/// The body of a refused request is never read as the next request.
#[tokio::test]
async fn what_follows_a_refusal_is_in_step() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", key.authorization());
    for method in ["GET", "POST", "OPTIONS", "DELETE"] {
        let mut wire = sidecar.wire().await;
        wire.write(request(method, "/").body(&smuggled).head()).await.unwrap();
        let _ = wire.write(&smuggled).await;
        assert_eq!(wire.answer(method).await.unwrap().status, 401, "{method}");
        assert_eq!(wire.rest().await, b"", "{method}");
    }
    assert_eq!(upstream.count(), 0);
    // One that was read to its end leaves the connection as it was.
    let mut connection = sidecar.connect(H1).await;
    for status in [401, 200, 401, 200] {
        let request = if status == 200 { get("/").key(&key) } else { get("/") };
        assert_eq!(connection.send(&request).await.status, status);
    }
}

/// A refused upload is answered, not reset, also when the client sends on.
#[tokio::test]
async fn a_refused_upload_gets_its_answer() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        let answer = sidecar.send(version, post("/", "x".repeat(48 << 10))).await;
        assert_eq!(answer.brief(), "401 missing_credentials", "{version:?}");
    }
    assert_eq!(upstream.count(), 0);
}

/// A body that an HTTP/2 client cut short of its declared length is never whole.
#[tokio::test]
async fn a_body_shorter_than_declared_is_refused() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let request = post("/", "").key(&key).chunks(["four"]).field("content-length", "10");
    let mut connection = sidecar.connect(H2).await;
    if let Ok(answer) = connection.try_send(&request).await {
        assert!(answer.status >= 400, "{answer:?}");
    }
    let seen = upstream.until("no whole body", |seen| seen.iter().all(|seen| seen.end != End::Arriving)).await;
    assert!(seen.iter().all(|seen| seen.end == End::Broken), "{seen:?}");
}

/// Many bodies at once on one HTTP/2 connection: one that is stuck does not hold up the others.
#[tokio::test]
async fn a_stuck_stream_blocks_no_other() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let gate = Gate::new();
    upstream.on("/stuck", Answer::ok("at last").behind(&gate).early().then_read());
    let Connection::H2 { client, driving } = sidecar.connect(H2).await else { unreachable!() };
    let over = |client: &h2::client::SendRequest<bytes::Bytes>| Connection::H2 {
        client: client.clone(),
        driving: tokio::spawn(async {}),
    };
    let (mut stuck, mut free) = (over(&client), over(&client));
    let upload = post("/stuck", vec![b'x'; 8 << 20]).key(&key);
    let stuck = tokio::spawn(async move { stuck.send(&upload).await.status });
    upstream.request(1).await;
    for _ in 0..20 {
        let answer = free.send(&post("/free", vec![b'y'; 100 << 10]).key(&key)).await;
        assert_eq!(answer.status, 200);
    }
    gate.open();
    assert_eq!(stuck.await.unwrap(), 200);
    driving.abort();
}

/// Over HTTP/2, a client that is still sending gets the refusal, and no reset behind it: some lose the answer by that.
#[tokio::test]
async fn a_refused_upload_over_http2_is_not_reset() {
    let key = writer();
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let Connection::H2 { client, driving } = sidecar.connect(H2).await else { unreachable!() };
    for _ in 0..5 {
        let mut ready = client.clone().ready().await.unwrap();
        let request = http::Request::post("https://api.example.com/").header("content-length", "4").body(()).unwrap();
        let (answer, mut body) = ready.send_request(request, false).unwrap();
        let mut answer = within("the refusal", answer).await.unwrap();
        assert_eq!(answer.status(), 401);
        while let Some(bytes) = answer.body_mut().data().await {
            bytes.unwrap();
        }
        // The answer is complete; what is sent only now is taken all the same.
        body.send_data("body".into(), true).unwrap();
        let reset = std::future::poll_fn(|cx| match body.poll_reset(cx) {
            std::task::Poll::Ready(reset) => std::task::Poll::Ready(Some(reset)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        });
        assert!(reset.await.is_none_or(|reset| reset.is_err()), "the stream was reset");
    }
    driving.abort();
}

/// An upstream that has begun to answer and takes nothing more of the upload: it is given up like one that is silent.
#[tokio::test]
async fn an_upload_that_stalls_behind_its_answer_is_cut() {
    let key = writer();
    let config = "[upstream]\nresponse_timeout = \"1s\"\n[listen]\nmax_body = \"64MiB\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let gate = Gate::new();
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
    upstream.on("/file", Answer::raw(begun).early().then(&gate, ""));
    let upload = post("/file", vec![b'x'; 48 << 20]).key(&key).field("X-Request-Id", "stalled");
    let mut connection = sidecar.connect(H2).await;
    let answer = connection.send(&upload).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "begun"));
    assert!(answer.broken.is_some());
    assert_eq!(sidecar.logged("stalled").await["outcome"], "failed");
    // The upstream finds its connection closed, and no whole request on it.
    gate.open();
    upstream.until("the end", |seen| seen[0].end == End::Broken).await;
    upstream.until_open(0).await;
    assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
    assert_eq!(upstream.last().connection, 2);
}

/// Forms are read before anybody has shown a key: one client holds so many of them at once, and no more.
#[tokio::test]
async fn forms_that_wait_have_a_ceiling() {
    let key = writer();
    let config = r#"
        [policy]
        effective_path_parameter = "rest_route"
        [listen.timeouts]
        body = "10m"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let small = post("/", "a=1").key(&key).field("Content-Type", "application/x-www-form-urlencoded");
    // Each connection has room for one stream more, and those of three are more than one thread has room for.
    let most = 3 * 99 * std::thread::available_parallelism().unwrap().get();
    let mut waiting = Vec::new();
    let (mut connection, full) = loop {
        assert!(waiting.len() < most, "there is room for {} forms", waiting.len());
        let mut connection = sidecar.connect(H2).await;
        let Connection::H2 { client, .. } = &connection else { unreachable!() };
        for _ in 0..99 {
            let form = http::Request::post("https://api.example.com/")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(())
                .unwrap();
            waiting.push(client.clone().ready().await.unwrap().send_request(form, false).unwrap());
        }
        let answer = connection.send(&small).await;
        if answer.status != 200 {
            break (connection, answer);
        }
    };
    assert_eq!((full.brief().as_str(), full.field("retry-after")), ("503 overloaded", "1"));
    assert!(waiting.len() > 256, "{}", waiting.len());
    // What is no form needs no such room, and others have theirs.
    assert_eq!(connection.send(&post("/", "a=1").key(&key)).await.status, 200);
    for last in 1..8 {
        let mut other = sidecar.connect_from([127, 44, 7, last].into(), H2).await;
        assert_eq!(other.send(&small).await.status, 200);
    }
    let before = upstream.count();
    drop(waiting);
    let answer = eventually("room for a form", async || {
        let answer = connection.send(&small).await;
        if answer.status == 503 { Err(answer) } else { Ok(answer) }
    });
    assert_eq!(answer.await.status, 200);
    assert_eq!(upstream.count(), before + 1);
}

/// However a form drips in, it is awaited no longer than a body may rest.
#[tokio::test]
async fn a_form_that_drips_is_given_up() {
    let key = writer();
    let config = r#"
        [policy]
        effective_path_parameter = "rest_route"
        [listen.timeouts]
        body = "1s"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let mut wire = sidecar.wire().await;
    let form = post("/", [b'a'; 1000]).key(&key).field("Content-Type", "application/x-www-form-urlencoded");
    wire.write(form.head()).await.unwrap();
    let answer = loop {
        tokio::select! {
            biased;
            answer = wire.answer("POST") => break answer.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        wire.write("a").await.unwrap();
    };
    assert_eq!((answer.brief().as_str(), upstream.count()), ("408 request_timeout", 0));
}
