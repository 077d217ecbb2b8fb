//! Many streams on one connection: each is judged by itself, and none is another's harm.

use super::{
    frames::{Block, HEADERS, Outcome, PREFACE, Peer, reset, settings},
    in_front,
};
use crate::harness::{Answer, Builder, Gate, H1, Key, Sidecar, Upstream, Wire, get, key_file, within};

/// No stream lives on the credential of another (RFC 9113 §5).
#[tokio::test]
async fn each_stream_is_judged_by_its_own_credential() {
    let (one, two) = (Key::pair("one").owner("first"), Key::token("two").owner("second"));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).key_file(key_file([&one, &two])).start().await;
    let mut peer = Peer::new(&sidecar).await;
    let head = |path: &str| Block::request("GET", path);
    // Kept in the table of the connection by the first, and named by number by the last.
    let authorization = one.authorization();
    let kept =
        [&[0x40, 13], &b"authorization"[..], &[u8::try_from(authorization.len()).unwrap()], authorization.as_bytes()]
            .concat();
    let wrong = one.clone().secret(&format!("cs_{}", "0".repeat(40)));
    let rows = [
        ("a credential", head("/1").raw(&kept), 200),
        ("none behind it", head("/2"), 401),
        ("another's", head("/3").key(&two), 200),
        ("a wrong one", head("/4").key(&wrong), 401),
        ("the first again", head("/5").key(&one), 200),
        ("none, of a method that it may not", Block::request("POST", "/6"), 401),
        ("a method that the key may not", Block::request("POST", "/7").key(&one), 403),
        ("the one in the table, by its number", head("/8").raw(&[0x80 | 62]), 200),
        ("none, though the table has one", head("/9"), 401),
    ];
    let mut stream = 1;
    for (rule, block, status) in &rows {
        assert_eq!(peer.ask(stream, block.whole(stream)).await, Outcome::Answer(*status), "{rule}");
        stream += 2;
    }
    let seen = upstream.seen();
    let owners: Vec<_> = seen.iter().map(|seen| (seen.target(), seen.field("x-key-id"))).collect();
    let expected = [("/1", "key_one"), ("/3", "key_two"), ("/5", "key_one"), ("/8", "key_one")];
    assert_eq!(owners, expected.map(|(path, id)| (path.to_owned(), id.to_owned())));

    // All at once, in one piece.
    let first = stream;
    let all: Vec<u8> = (0..90)
        .flat_map(|at| {
            let block = match at % 3 {
                0 => head("/all").key(&one),
                1 => head("/all").key(&two),
                _ => head("/all"),
            };
            block.whole(first + 2 * at)
        })
        .collect();
    peer.write(all).await;
    let mut statuses = [0; 90];
    while statuses.contains(&0) {
        let frame = within("an answer", peer.reading.next()).await.expect("an open connection");
        if frame.kind == HEADERS && frame.stream >= first {
            statuses[((frame.stream - first) / 2) as usize] = frame.status();
        }
    }
    for (at, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, [200, 200, 401][at % 3], "stream {at}");
    }
    for (id, count) in [("key_one", 33), ("key_two", 31)] {
        assert_eq!(upstream.seen().iter().filter(|seen| seen.field("x-key-id") == id).count(), count, "{id}");
    }
}

/// HTTP/2 is spoken where ALPN has chosen it, and nowhere else (RFC 9113 §3.3; h2csmuggler).
#[tokio::test]
async fn http2_is_not_spoken_where_it_was_not_chosen() {
    let key = Key::pair("key");
    let request = [PREFACE, &settings(&[]), &Block::request("GET", "/").key(&key).whole(1)].concat();
    let (upstream, sidecar) = in_front(&key, Builder::plaintext).await;
    let said = within("an end", async {
        let mut wire = Wire::new(sidecar.tcp().await);
        let _ = wire.write(&request).await;
        wire.rest().await
    });
    let said = String::from_utf8_lossy(&said.await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said:?}");
    assert_eq!(upstream.count(), 0);
    // An upgrade to it is not taken up, either.
    let upgrade = get("/").key(&key).field("Connection", "Upgrade, HTTP2-Settings").field("Upgrade", "h2c");
    let answer = sidecar.send(H1, upgrade.field("HTTP2-Settings", "AAMAAABkAAQAAP__")).await;
    assert_eq!(answer.status, 200);
    assert!(!upstream.only().has("upgrade") && !upstream.only().has("http2-settings"));

    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let tls = sidecar.tls().connect(sidecar.tcp().await, protocols).await.unwrap();
        let mut wire = Wire::new(tls);
        let _ = wire.write(&request).await;
        let said = String::from_utf8_lossy(&within("an end", wire.rest()).await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{protocols:?}: {said:?}");
    }
    assert_eq!(upstream.count(), 0);
}

/// Streams beyond those that were offered are refused, and cost the others nothing (RFC 9113 §5.1.2).
#[tokio::test]
async fn streams_beyond_the_offer_are_refused() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[upstream]\nmax_connections = 1000")).await;
    let gate = Gate::new();
    upstream.on("/wait", Answer::ok("at last").behind(&gate));
    let mut peer = Peer::new(&sidecar).await;
    let waiting: Vec<u8> = (0..100).flat_map(|at| Block::request("GET", "/wait").key(&key).whole(2 * at + 1)).collect();
    peer.write(waiting).await;
    upstream.until("the streams", |seen| seen.len() == 100).await;
    for at in 100..110 {
        // REFUSED_STREAM: nothing was done of it.
        assert_eq!(
            peer.ask(2 * at + 1, Block::request("GET", "/").key(&key).whole(2 * at + 1)).await,
            Outcome::Reset(7)
        );
    }
    assert_eq!(upstream.count(), 100);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    gate.open();
    assert_eq!(peer.outcome(1).await, Outcome::Answer(200));
    assert_eq!(peer.ask(301, Block::request("GET", "/").key(&key).whole(301)).await, Outcome::Answer(200));
}

/// Work that its caller gives up counts as any other: resets get nobody past a limit, and the upstream is let go of
/// (CVE-2023-44487).
#[tokio::test]
async fn work_that_is_given_up_counts() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[limits]\nper_key = [\"30/1m\"]")).await;
    upstream.on("/work", Answer::silence());
    let mut peer = Peer::new(&sidecar).await;
    for at in 0..30_u32 {
        peer.write(Block::request("GET", "/work").key(&key).whole(2 * at + 1)).await;
        upstream.request(at as usize + 1).await;
        peer.write(reset(2 * at + 1)).await;
    }
    for at in 30..60 {
        let id = 2 * at + 1;
        let outcome = peer.ask(id, Block::request("GET", "/work").key(&key).whole(id)).await;
        assert_eq!(outcome, Outcome::Answer(429), "stream {id}");
    }
    upstream.until_open(0).await;
    assert_eq!(upstream.count(), 30);
}
