//! TLS: versions, protocols, client certificates; and plaintext, only when asked for.

use super::in_front;
use crate::harness::{Authority, Connection, H1, H2, Key, Sidecar, Tls, Upstream, Wire, get};

#[tokio::test]
async fn both_versions_of_tls_and_both_of_http_are_spoken() {
    let key = Key::pair("key");
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = Tls { versions: vec![version], ..sidecar.tls() };
        let rows: [(&[&str], Option<&[u8]>); 4] = [
            (&["h2", "http/1.1"], Some(b"h2")),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ];
        for (offered, chosen) in rows {
            let stream = tls.connect(sidecar.tcp().await, offered).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version().unwrap(), version.version, "{offered:?}");
            assert_eq!(session.alpn_protocol(), chosen, "{offered:?}");
            let http = if chosen == Some(b"h2") { H2 } else { H1 };
            let answer = Connection::over(http, stream).await.send(&get("/").key(&key)).await;
            assert_eq!(answer.status, 200, "{offered:?}");
        }
        // Another protocol is none of ours.
        assert!(tls.connect(sidecar.tcp().await, &["spdy/3"]).await.is_err());
    }
    sidecar.measures("keyside_tls_handshakes_total", &[("result", "ok")], |count| count >= 8.0).await;
    sidecar.measures("keyside_tls_certificate_expiry_timestamp_seconds", &[], |at| at > 1.8e9).await;
}

#[tokio::test]
async fn with_a_client_ca_nobody_talks_without_its_certificate() {
    let key = Key::pair("key");
    let (inside, outside) = (Authority::new(), Authority::new());
    let (upstream, sidecar) = in_front(&key, |sidecar| {
        sidecar.config("[listen.tls]\nclient_ca = \"tls/ca.crt\"").file("tls/ca.crt", inside.pem())
    })
    .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (shown, welcome) in
            [(None, false), (Some(outside.issue(&["client"])), false), (Some(inside.issue(&["client"])), true)]
        {
            let tls = Tls { versions: vec![version], shown, ..sidecar.tls() };
            // With TLS 1.3 the client learns of its rejection when it reads.
            let answered = match tls.connect(sidecar.tcp().await, &["http/1.1"]).await {
                Err(_) => false,
                Ok(stream) => Connection::over(H1, stream).await.try_send(&get("/").key(&key)).await.is_ok(),
            };
            assert_eq!(answered, welcome, "{:?}", version.version);
        }
    }
    assert_eq!(upstream.count(), 2);
    sidecar.measures("keyside_tls_handshakes_total", &[], |count| count >= 6.0).await;
}

/// What is not TLS is not answered as if it were.
#[tokio::test]
async fn plaintext_at_a_tls_port_is_not_served() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let mut wire = Wire::new(sidecar.tcp().await);
    wire.write(get("/").key(&key).head()).await.unwrap();
    let said = wire.rest().await;
    assert!(!String::from_utf8_lossy(&said).contains(" 200 "), "{said:?}");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn plaintext_is_served_when_asked_for() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.plaintext()).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let seen = upstream.only();
    assert_eq!(seen.field("x-forwarded-proto"), "http");
    assert!(seen.field("forwarded").ends_with("proto=http"));
    // HTTP/2 without TLS: the same policy, or nothing.
    let mut wire = Wire::new(sidecar.tcp().await);
    wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let said = wire.rest().await;
    assert!(!String::from_utf8_lossy(&said).contains(" 200 "), "{said:?}");
    assert_eq!(upstream.count(), 1);
}

/// Neither a certificate nor the word for plaintext: not started.
#[tokio::test]
async fn plaintext_is_never_a_default() {
    let upstream = Upstream::start().await;
    let key = Key::pair("key");
    let started = Sidecar::in_front_of(&upstream).plaintext().config("[listen]\nplaintext = false").keys([&key]);
    let ended = started.try_start().await.err().expect("no start");
    assert_eq!(ended.status, 78, "{}", ended.stderr);
    assert!(ended.stderr.contains("listen.tls") || ended.stderr.contains("plaintext"), "{}", ended.stderr);
}
