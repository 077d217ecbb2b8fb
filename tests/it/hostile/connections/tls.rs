//! What is too old or too weak is refused in the first message (threat 83). `rustls` would not ask for it, so
//! the ClientHello is written by hand.

use crate::harness::{H1, Key, Sidecar, Upstream, Wire, get, within};

/// What the first record of the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// A handshake message: it goes on.
    Hello,
    /// A fatal alert of this number (RFC 8446 §6), and the end.
    Alert(u8),
}

const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// A ClientHello of this version for these cipher suites, with the extensions that everybody sends.
fn client_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    let extension = |number: u16, body: &[u8]| [&number.to_be_bytes()[..], &length(body), body].concat();
    let extensions = [
        // localhost, as RFC 6066 §3 has it.
        extension(0, b"\x00\x0c\x00\x00\x09localhost"),
        // The groups x25519 and secp256r1; points uncompressed.
        extension(10, b"\x00\x04\x00\x1d\x00\x17"),
        extension(11, b"\x01\x00"),
        // Signatures: ECDSA and RSA with SHA-256, and SHA-1.
        extension(13, b"\x00\x08\x04\x03\x04\x01\x02\x03\x02\x01"),
        // No renegotiation yet (RFC 5746 §3.4), and extended master secrets (RFC 7627).
        extension(0xff01, b"\x00"),
        extension(23, b""),
    ]
    .concat();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0],
        &length(&suites),
        &suites,
        &[1, 0],
        &length(&extensions),
        &extensions,
    ]
    .concat();
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[0x16, 3, 1][..], &length(&message), &message].concat()
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_refused() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    const GOOD: &[u16] = &[0xc02b, 0xc02f];
    let rows: [(&str, &str, u16, &[u16], Reply); 11] = [
        ("TLS 1.2 with ECDHE and AES-GCM", "RFC 9325 §4.2", 0x0303, GOOD, Reply::Hello),
        ("SSL 3.0", "RFC 7568", 0x0300, GOOD, Reply::Alert(PROTOCOL_VERSION)),
        ("TLS 1.0", "RFC 8996", 0x0301, GOOD, Reply::Alert(PROTOCOL_VERSION)),
        ("TLS 1.1", "RFC 8996", 0x0302, GOOD, Reply::Alert(PROTOCOL_VERSION)),
        ("no encryption", "RFC 9325 §4.1", 0x0303, &[0x0001, 0x0002, 0xc006], Reply::Alert(HANDSHAKE_FAILURE)),
        ("export ciphers", "CVE-2015-0204", 0x0303, &[0x0003, 0x0006, 0x0008], Reply::Alert(HANDSHAKE_FAILURE)),
        ("RC4", "RFC 7465", 0x0303, &[0x0005, 0xc007, 0xc011], Reply::Alert(HANDSHAKE_FAILURE)),
        ("3DES", "CVE-2016-2183", 0x0303, &[0x000a, 0xc008, 0xc012], Reply::Alert(HANDSHAKE_FAILURE)),
        ("CBC", "CVE-2013-0169", 0x0303, &[0xc009, 0xc013, 0xc023, 0xc027], Reply::Alert(HANDSHAKE_FAILURE)),
        ("no forward secrecy", "CVE-2017-13099", 0x0303, &[0x002f, 0x009c, 0x009d], Reply::Alert(HANDSHAKE_FAILURE)),
        ("no authentication", "RFC 9325 §4.1", 0x0303, &[0x0018, 0x0034, 0xc018], Reply::Alert(HANDSHAKE_FAILURE)),
    ];
    let mut faults = Vec::new();
    for (name, source, version, suites, expected) in rows {
        let mut wire = Wire::new(sidecar.tcp().await);
        wire.write(client_hello(version, suites)).await.unwrap();
        let head = within("a record", wire.exactly(7)).await;
        let reply = match head.as_deref() {
            Ok([0x16, ..]) => Reply::Hello,
            Ok(&[0x15, _, _, 0, 2, 2, alert]) => {
                let after = within("the end", wire.rest()).await;
                assert_eq!(after, b"", "{name}: nothing follows an alert");
                Reply::Alert(alert)
            }
            other => panic!("{name} ({source}): {other:?}"),
        };
        if reply != expected {
            faults.push(format!("{name} ({source}): {reply:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // The first was begun and left.
    sidecar.counts("keyside_tls_handshakes_total", &[("result", "failed")], 11).await;
    assert_eq!(sidecar.connect(H1).await.send(&get("/").key(&key)).await.status, 200);
}
