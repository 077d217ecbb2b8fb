//! Where it listens, and whom it takes a connection to come from.

use std::net::TcpListener;

use super::in_front;
use crate::harness::{Connection, H1, H2, Key, Sidecar, Upstream, Wire, get, within};

#[tokio::test]
async fn several_addresses_are_one_door() {
    let key = Key::pair("key").with("allow_ips = [\"127.0.0.1\", \"::1\"]");
    let v6 = TcpListener::bind("[::1]:0").is_ok();
    let addresses =
        if v6 { "\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"" } else { "\"127.0.0.1:0\", \"127.0.0.2:0\"" };
    let config = format!("[listen]\naddress = [{addresses}]");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(&config)).await;
    assert_eq!(sidecar.addresses.len(), if v6 { 3 } else { 2 });
    for &address in &sidecar.addresses {
        for version in [H1, H2] {
            let from = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
            let mut connection = sidecar.dialer_to(address).connect_from(from.parse().unwrap(), version).await.unwrap();
            assert_eq!(connection.send(&get("/").key(&key)).await.status, 200, "{address}");
            assert_eq!(upstream.last().field("x-forwarded-for"), from);
        }
    }
}

/// A port that is taken ends the start with one clear line.
#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = Upstream::start().await;
    let key = Key::pair("key");
    for section in ["listen", "admin"] {
        let config = format!("[{section}]\naddress = {address:?}");
        let ended = Sidecar::in_front_of(&upstream).config(&config).keys([&key]).try_start().await;
        let ended = ended.err().expect("no start");
        assert_eq!(ended.status, 1, "{section}: {}", ended.stderr);
        assert!(ended.stderr.contains(&address), "{section}: {}", ended.stderr);
    }
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [V2, &[0x20 | command, family], &u16::try_from(rest.len()).unwrap().to_be_bytes(), rest].concat()
}

/// The address that a trusted balancer names is the caller's; without a header, or a whole one, there is no talk.
#[tokio::test]
async fn a_proxy_header_names_the_caller() {
    let key = Key::pair("key").with("allow_ips = [\"203.0.113.42\", \"2001:db8::7\"]");
    let config = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let v4 = [&[203, 0, 113, 42, 127, 0, 0, 1][..], &[0x1f, 0x90, 0x20, 0xfb]].concat();
    let mut v6 = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    v6.extend([0; 16]);
    v6.extend([0x1f, 0x90, 0x20, 0xfb]);
    let with_tlv = [&v4[..], &[0xee, 0, 3, 1, 2, 3]].concat();
    let rows: Vec<(&str, Vec<u8>, Option<u16>)> = vec![
        ("v1, IPv4", b"PROXY TCP4 203.0.113.42 127.0.0.1 8080 8443\r\n".to_vec(), Some(200)),
        ("v1, IPv6", b"PROXY TCP6 2001:db8::7 ::1 8080 8443\r\n".to_vec(), Some(200)),
        ("v1, from elsewhere", b"PROXY TCP4 8.8.8.8 127.0.0.1 8080 8443\r\n".to_vec(), Some(403)),
        ("v1, unknown: the balancer itself", b"PROXY UNKNOWN\r\n".to_vec(), Some(403)),
        ("v2, IPv4", v2(1, 0x11, &v4), Some(200)),
        ("v2, IPv6", v2(1, 0x21, &v6), Some(200)),
        ("v2 with a field behind it", v2(1, 0x11, &with_tlv), Some(200)),
        ("v2, local: the balancer itself", v2(0, 0, &[]), Some(403)),
        ("none", Vec::new(), None),
        ("v1, leading zeros", b"PROXY TCP4 203.0.113.042 127.0.0.1 8080 8443\r\n".to_vec(), None),
        ("v1, too long", [b"PROXY TCP4 ", &[b'1'; 100][..], b"\r\n"].concat(), None),
        ("v1, no port", b"PROXY TCP4 203.0.113.42 127.0.0.1\r\n".to_vec(), None),
        ("v1, bare newline", b"PROXY TCP4 203.0.113.42 127.0.0.1 8080 8443\n".to_vec(), None),
        ("v2, too short for its family", v2(1, 0x11, &v4[..8]), None),
        ("v2, unknown version", [V2, &[0x31, 0x11, 0, 12], &v4].concat(), None),
        ("v2, a field beyond its end", v2(1, 0x11, &[&v4[..], &[0xee, 0, 9, 1]].concat()), None),
    ];
    for (rule, header, expected) in rows {
        for version in [H1, H2] {
            let mut stream = sidecar.tcp().await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, &header).await.unwrap();
            let protocols: &[&str] = if version == H1 { &["http/1.1"] } else { &["h2"] };
            let tls = sidecar.tls();
            let status = match within(rule, tls.connect(stream, protocols)).await {
                Err(_) => None,
                Ok(stream) => {
                    let answer = Connection::over(version, stream).await.send(&get("/").key(&key)).await;
                    Some(answer.status)
                }
            };
            assert_eq!(status, expected, "{rule} over {version:?}");
        }
    }
    assert_eq!(upstream.seen()[0].field("x-forwarded-for"), "203.0.113.42");
}

/// From anybody else a PROXY header is a lie, and where none is expected it is not understood.
#[tokio::test]
async fn a_proxy_header_from_a_stranger_is_refused() {
    let key = Key::pair("key");
    let line = "PROXY TCP4 203.0.113.42 127.0.0.1 8080 8443\r\n";
    let untrusted = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"192.0.2.1\"]";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.plaintext().config(untrusted)).await;
    let mut wire = Wire::new(sidecar.tcp().await);
    let _ = wire.write([line.as_bytes(), &get("/").key(&key).head()].concat()).await;
    assert_eq!(wire.rest().await, b"");
    assert_eq!(upstream.count(), 0);

    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.plaintext()).await;
    let mut wire = Wire::new(sidecar.tcp().await);
    let _ = wire.write([line.as_bytes(), &get("/").key(&key).head()].concat()).await;
    let said = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    assert_eq!(upstream.count(), 0);
}

/// The path for balancers that cannot hold a key, on this port.
#[tokio::test]
async fn the_health_path_needs_no_key() {
    let key = Key::pair("key");
    let (upstream, sidecar) =
        in_front(&key, |sidecar| sidecar.config("[listen]\nhealth_path = \"/healthz\"\n[limits]\nper_ip = [\"1/1h\"]"))
            .await;
    for version in [H1, H2] {
        for _ in 0..3 {
            assert_eq!(sidecar.send(version, get("/healthz")).await.status, 200);
        }
        assert_eq!(sidecar.send(version, get("/healthz/x").field("X-Forwarded-For", "1.1.1.1")).await.status / 100, 4);
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn the_admin_port_is_not_the_door() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for path in ["/metrics", "/livez", "/readyz", "/version", "/-/reload", "/.well-known/jwks.json"] {
        assert_eq!(sidecar.ask(get(path)).await.brief(), "401 missing_credentials", "{path}");
    }
    assert_eq!(upstream.count(), 0);
}
