//! What belongs to one hop, and what is told of the hops before.

use super::{BOTH, in_front};
use crate::harness::{H1, H2, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn what_belongs_to_the_clients_connection_stays_there() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let request = get("/")
        .key(&key)
        .field("Connection", "keep-alive, X-Hop, Upgrade, HTTP2-Settings")
        .field("X-Hop", "1")
        .field("Keep-Alive", "timeout=5")
        .field("Proxy-Connection", "keep-alive")
        .field("Proxy-Authorization", "Basic eDp5")
        .field("TE", "trailers, gzip")
        .field("Upgrade", "h2c")
        .field("HTTP2-Settings", "AAMAAABkAAQAAP__")
        .field("X-End", "kept");
    assert_eq!(sidecar.ask(request).await.status, 200);
    let seen = upstream.only();
    for name in ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "http2-settings"] {
        assert!(!seen.has(name), "{name}: {}", String::from_utf8_lossy(&seen.head.raw));
    }
    assert!(!seen.field("te").contains("gzip"), "{}", String::from_utf8_lossy(&seen.head.raw));
    assert_eq!(seen.field("x-end"), "kept");
}

/// Fields in which some proxy or upstream believes the caller's address, or another path.
#[tokio::test]
async fn an_untrusted_peers_word_on_earlier_hops_is_replaced() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        let request = get("/")
            .key(&key)
            .field("X-Forwarded-For", "203.0.113.42")
            .field("X-Forwarded-For", "127.0.0.1")
            .field("X-Forwarded-Proto", "ftp")
            .field("X-Forwarded-Host", "evil.example")
            .field("X-Forwarded-Port", "1")
            .field("X-Forwarded-Prefix", "/admin")
            .field("X-Forwarded-Uri", "/admin")
            .field("Forwarded", "for=203.0.113.42;host=evil.example")
            .field("X-Real-IP", "203.0.113.42")
            .field("True-Client-IP", "203.0.113.42")
            .field("CF-Connecting-IP", "203.0.113.42")
            .field("X-Original-URL", "/admin")
            .field("X-Rewrite-URL", "/admin");
        assert_eq!(sidecar.send(version, request).await.status, 200);
        let seen = upstream.last();
        let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
        for theirs in ["203.0.113.42", "evil.example", "/admin", "ftp"] {
            assert!(!head.contains(theirs), "{theirs}: {head}");
        }
        assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1", "{head}");
        assert_eq!(seen.field("forwarded"), "for=127.0.0.1;host=\"api.example.com\";proto=https", "{head}");
    }
    sidecar.counts("keyside_untrusted_forwarded_total", &[], 2).await;
    sidecar.counts("keyside_client_ip_source_total", &[("source", "peer")], 2).await;
}

#[tokio::test]
async fn a_trusted_peers_word_on_earlier_hops_is_carried_on() {
    let key = Key::pair("key").with("allow_ips = [\"203.0.113.42\"]");
    let (upstream, sidecar) =
        in_front(&key, |sidecar| sidecar.config("[listen]\ntrusted_proxies = [\"127.0.0.1\"]")).await;
    for version in BOTH {
        let request = get("/")
            .key(&key)
            .field("X-Forwarded-For", "192.0.2.1, 203.0.113.42")
            .field("X-Forwarded-Proto", "http")
            .field("X-Forwarded-Host", "shop.example.com")
            .field("Forwarded", "for=192.0.2.1, for=203.0.113.42")
            .field("Via", "1.1 edge");
        assert_eq!(sidecar.send(version, request).await.status, 200);
        let seen = upstream.last();
        assert_eq!(seen.field("x-forwarded-for"), "192.0.2.1, 203.0.113.42, 127.0.0.1");
        assert_eq!(seen.field("x-forwarded-proto"), "http");
        assert_eq!(seen.field("x-forwarded-host"), "shop.example.com");
        let forwarded = seen.field("forwarded");
        assert!(forwarded.starts_with("for=192.0.2.1, for=203.0.113.42, for=127.0.0.1;"), "{forwarded}");
        let via = seen.field("via");
        assert!(via.starts_with("1.1 edge, ") && via.ends_with(" keyside"), "{via}");
        let line = sidecar.logged(&seen.field("x-request-id")).await;
        assert_eq!((line["client"].as_str(), line["peer"].as_str()), (Some("203.0.113.42"), Some("127.0.0.1")));
    }
    sidecar.counts("keyside_client_ip_source_total", &[("source", "header")], 2).await;
}

/// The caller is the first from the right whom no trusted proxy answers for.
#[tokio::test]
async fn the_caller_is_found_from_the_right_through_trusted_proxies() {
    let key = Key::pair("key").with("allow_ips = [\"203.0.113.42\", \"2001:db8::/32\"]");
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let rows: [(&str, &[&str], u16); 14] = [
        ("the last hop is the caller", &["203.0.113.42"], 200),
        ("what stands to its left is hearsay", &["8.8.8.8, 203.0.113.42"], 200),
        ("trusted hops are passed over", &["203.0.113.42, 10.1.2.3, 10.0.0.1"], 200),
        ("lines are one list", &["203.0.113.42", "10.1.2.3"], 200),
        ("the order of lines counts", &["203.0.113.42", "8.8.8.8"], 403),
        ("a prepended address does not help", &["203.0.113.42, 8.8.8.8"], 403),
        ("nor behind a trusted hop", &["203.0.113.42, 8.8.8.8, 10.0.0.1"], 403),
        ("a mapped address is the one it maps", &["::ffff:203.0.113.42"], 200),
        ("IPv6", &["2001:db8::1"], 200),
        ("IPv6 from elsewhere", &["2001:db9::1"], 403),
        ("junk is not skipped", &["203.0.113.42, junk"], 403),
        ("leading zeros are junk", &["203.0.113.042"], 403),
        ("nobody before the proxy", &[], 403),
        ("all hops trusted: the first", &["10.0.0.7, 10.0.0.1"], 403),
    ];
    for (rule, values, status) in rows {
        for version in BOTH {
            let request =
                values.iter().fold(get("/").key(&key), |request, value| request.field("X-Forwarded-For", value));
            let answer = sidecar.send(version, request).await;
            assert_eq!(answer.status, status, "{rule}: {values:?} over {version:?}");
        }
    }
}

/// Exactly one field is read; the others are nothing but text that a client wrote.
#[tokio::test]
async fn only_the_configured_field_names_the_caller() {
    let key = Key::pair("key").with("allow_ips = [\"203.0.113.42\"]");
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\nclient_ip_header = \"CF-Connecting-IP\"";
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    for (name, status) in [
        ("CF-Connecting-IP", 200),
        ("X-Forwarded-For", 403),
        ("X-Real-IP", 403),
        ("Forwarded", 403),
        ("X-Client-IP", 403),
    ] {
        let value = if name == "Forwarded" { "for=203.0.113.42" } else { "203.0.113.42" };
        assert_eq!(sidecar.ask(get("/").key(&key).field(name, value)).await.status, status, "{name}");
    }
}

/// The field that trusted proxies use is a forgery from anybody else, whatever it is called.
#[tokio::test]
async fn a_forged_client_address_does_not_arrive() {
    let key = Key::pair("key");
    for (trusted, arrives) in [("\"127.0.0.1\"", true), ("", false)] {
        let config = format!("[listen]\ntrusted_proxies = [{trusted}]\nclient_ip_header = \"Fly-Client-IP\"");
        let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(&config)).await;
        assert_eq!(sidecar.ask(get("/").key(&key).field("Fly-Client-IP", "203.0.113.9")).await.status, 200);
        assert_eq!(upstream.only().has("fly-client-ip"), arrives, "trusted: {trusted}");
    }
}

#[tokio::test]
async fn the_host_is_kept_or_set_as_configured() {
    let key = Key::pair("key");
    for setting in ["preserve", "upstream", "inner.example.com"] {
        let config = format!("[upstream]\nhost = {setting:?}");
        let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(&config)).await;
        let expected = match setting {
            "preserve" => "api.example.com:8443",
            "upstream" => upstream.authority(),
            name => name,
        };
        for version in [H1, H2] {
            assert_eq!(sidecar.send(version, get("/").key(&key).host("api.example.com:8443")).await.status, 200);
            let seen = upstream.last();
            assert_eq!(seen.field("host"), expected, "{setting} over {version:?}");
            assert_eq!(seen.field("x-forwarded-host"), "api.example.com:8443", "{setting} over {version:?}");
        }
    }
}

/// A trace that begins before us is continued, and one that is none is not passed on.
#[tokio::test]
async fn a_trace_is_continued() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(sidecar.ask(get("/").key(&key).field("traceparent", theirs)).await.status, 200);
    assert!(upstream.last().field("traceparent").contains("0af7651916cd43dd8448eb211c80319c"));
    for junk in ["", "00-zz", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        assert_eq!(sidecar.ask(get("/").key(&key).field("traceparent", junk)).await.status, 200);
        let made = upstream.last().field("traceparent");
        assert!(made != junk && made.len() == 55, "{junk:?} became {made:?}");
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 has one field (RFC 9113 §8.2.3).
#[tokio::test]
async fn cookie_crumbs_are_joined() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let request = get("/").key(&key).field("Cookie", "a=1").field("Cookie", "b=2").field("Cookie", "c=3");
    for version in BOTH {
        assert_eq!(sidecar.send(version, request.clone()).await.status, 200);
        assert_eq!(upstream.last().field("cookie"), "a=1; b=2; c=3");
    }
}
