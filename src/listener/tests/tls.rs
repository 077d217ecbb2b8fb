//! TLS: versions, ALPN, the reload, client certificates.

use std::{io, sync::Arc};

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use super::*;
use crate::listener::tls::{Reloader, TlsError};

pub(super) fn client_config(
    certificates: &Certificates,
    alpn: &[&str],
    identity: Option<(String, String)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificates.authority.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn connect(server: &Server, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), server.connect().socket)
}

/// One request, and what came of it; closed connections without a farewell are the client's business.
fn get(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<String> {
    stream.write_all(b"GET /facts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    Ok(String::from_utf8_lossy(&got).into_owned())
}

fn leaf(stream: &StreamOwned<ClientConnection, TcpStream>) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

fn server(certificates: &Certificates) -> Server {
    Server::start(|settings| settings.tls = Some(certificates.settings()))
}

#[test]
fn http_over_tls() {
    let certificates = Certificates::new();
    let server = server(&certificates);
    let mut stream = connect(&server, client_config(&certificates, &["http/1.1"], None));
    let got = get(&mut stream).unwrap();
    assert!(got.contains("secure=true http2=false"), "{got}");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    server.wait_for("handshakes", |counters| counters.handshakes_ok.get(), 1);
    // Without ALPN: HTTP/1.1 as well.
    assert!(get(&mut connect(&server, client_config(&certificates, &[], None))).unwrap().contains("http2=false"));
}

/// With suites in the order of the client's list, the one that is agreed upon.
#[track_caller]
fn check_suite(offered: &[rustls::SupportedCipherSuite], agreed: CipherSuite) {
    let certificates = Certificates::new();
    let server = server(&certificates);
    let provider = CryptoProvider { cipher_suites: offered.to_vec(), ..aws_lc_rs::default_provider() };
    let mut roots = RootCertStore::empty();
    roots.add(certificates.authority.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = connect(&server, config);
    assert!(get(&mut stream).unwrap().contains("secure=true"));
    assert_eq!(stream.conn.negotiated_cipher_suite().unwrap().suite(), agreed);
}

#[test]
fn the_quick_suites_are_preferred_and_others_taken() {
    use aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let all = [TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256];
    check_suite(&all, CipherSuite::TLS13_AES_128_GCM_SHA256);
    check_suite(&all[..1], CipherSuite::TLS13_AES_256_GCM_SHA384);
    check_suite(&all[1..2], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    let old = [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    check_suite(&old, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    check_suite(&old[..1], CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
}

#[test]
fn a_failed_handshake_is_counted() {
    let certificates = Certificates::new();
    let server = server(&certificates);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!client.rest().contains("HTTP/1.1 200"));
    server.wait_for("failed handshakes", |counters| counters.handshakes_failed.get(), 1);
}

#[test]
fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let certificates = Certificates::new();
    let server = server(&certificates);
    let reloader = server.listener.reloader().unwrap();
    let handshake = || {
        let mut stream = connect(&server, client_config(&certificates, &[], None));
        get(&mut stream).unwrap();
        leaf(&stream)
    };
    let first = handshake();
    assert!(!reloader.reload().unwrap(), "nothing has changed");

    // One connection that was there before lives on.
    let mut old = connect(&server, client_config(&certificates, &[], None));
    old.write_all(b"").unwrap();
    old.conn.complete_io(&mut old.sock).unwrap();

    certificates.issue();
    assert!(reloader.reload().unwrap());
    let second = handshake();
    assert_ne!(first, second);
    assert!(get(&mut old).unwrap().contains("HTTP/1.1 200"));

    // The key of another certificate.
    std::fs::write(certificates.path("tls.key"), certificates.pair().1).unwrap();
    assert!(matches!(reloader.reload(), Err(TlsError::Key { .. })));
    assert_eq!(handshake(), second);
    // Still wrong, and said again.
    assert!(matches!(reloader.reload(), Err(TlsError::Key { .. })));

    std::fs::write(certificates.path("tls.crt"), "not PEM").unwrap();
    assert!(matches!(reloader.reload(), Err(TlsError::Pem { .. })));
    std::fs::remove_file(certificates.path("tls.crt")).unwrap();
    assert!(matches!(reloader.reload(), Err(TlsError::Read { .. })));
    assert_eq!(handshake(), second);

    certificates.issue();
    assert!(reloader.reload().unwrap());
    assert_ne!(handshake(), second);
}

#[test]
fn the_end_of_the_certificate_is_known() {
    let certificates = Certificates::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 2, 3);
    std::fs::write(certificates.path("tls.crt"), params.signed_by(&key, &certificates.authority).unwrap().pem())
        .unwrap();
    std::fs::write(certificates.path("tls.key"), key.serialize_pem()).unwrap();
    let reloader = Reloader::new(&certificates.settings()).unwrap();
    assert_eq!(reloader.not_after().to_string(), "2031-02-03T00:00:00Z");
}

/// A certificate for these years, and its key, over the old ones.
fn issue_for(certificates: &Certificates, from: i32, until: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
    let pem = params.signed_by(&key, &certificates.authority).unwrap().pem();
    std::fs::write(certificates.path("tls.crt"), pem).unwrap();
    std::fs::write(certificates.path("tls.key"), key.serialize_pem()).unwrap();
}

/// A certificate that no client takes does not replace one that they take; but one that is no better off.
#[test]
fn a_certificate_that_is_not_valid_now_waits() {
    let certificates = Certificates::new();
    let issue = |from, until| issue_for(&certificates, from, until);
    let reloader = Reloader::new(&certificates.settings()).unwrap();
    for (from, until) in [(2001, 2002), (3001, 3002)] {
        issue(from, until);
        assert!(matches!(reloader.reload(), Err(TlsError::NotValidNow { .. })), "{from}");
    }
    issue(2001, 2003);
    let reloader = Reloader::new(&certificates.settings()).unwrap();
    issue(2001, 2002);
    assert!(reloader.reload().unwrap());
}

/// Who is let in is another matter than who we are: a client CA that was taken away is gone, whatever the certificate.
#[test]
fn a_new_client_ca_does_not_wait_for_the_certificate() {
    let certificates = Certificates::new();
    let strangers = Certificates::new();
    let server = Server::start(|settings| {
        settings.tls =
            Some(tls_room::Settings { client_ca: Some(certificates.path("ca.crt")), ..certificates.settings() });
    });
    let reloader = server.listener.reloader().unwrap();
    let ask_as = |whose: &Certificates| {
        let mut stream = connect(&server, client_config(&certificates, &[], Some(whose.pair())));
        get(&mut stream).map(|_| leaf(&stream))
    };
    let first = ask_as(&certificates).unwrap();
    let until = reloader.not_after();
    issue_for(&certificates, 3001, 3002);
    std::fs::write(certificates.path("ca.crt"), strangers.authority.pem()).unwrap();
    for _ in 0..2 {
        assert!(matches!(reloader.reload(), Err(TlsError::NotValidNow { .. })), "it is still to be mended");
        assert_eq!(ask_as(&strangers).unwrap(), first);
        assert!(ask_as(&certificates).is_err());
        assert_eq!(reloader.not_after(), until);
    }
    certificates.issue();
    assert!(reloader.reload().unwrap());
    assert_ne!(ask_as(&strangers).unwrap(), first);
}

#[test]
fn faults_name_their_file() {
    let certificates = Certificates::new();
    let mut settings = certificates.settings();
    settings.private_key = certificates.path("tls.crt");
    let error = Reloader::new(&settings).unwrap_err().to_string();
    assert_eq!(error, format!("{} holds no private key in PEM form", certificates.path("tls.crt").display()));
    let mut settings = certificates.settings();
    settings.certificate = certificates.path("tls.key");
    let error = Reloader::new(&settings).unwrap_err().to_string();
    assert_eq!(error, format!("{} holds no certificate in PEM form", certificates.path("tls.key").display()));
}

#[test]
fn a_client_must_present_a_certificate_where_it_is_asked_for() {
    let certificates = Certificates::new();
    let strangers = Certificates::new();
    let server = Server::start(|settings| {
        settings.tls =
            Some(tls_room::Settings { client_ca: Some(certificates.path("ca.crt")), ..certificates.settings() });
    });
    let identity = Some(certificates.pair());
    assert!(get(&mut connect(&server, client_config(&certificates, &[], identity))).unwrap().contains("HTTP/1.1 200"));
    for identity in [None, Some(strangers.pair())] {
        let got = get(&mut connect(&server, client_config(&certificates, &[], identity)));
        assert!(got.is_err(), "{got:?}");
    }
    server.wait_for("failed handshakes", |counters| counters.handshakes_failed.get(), 2);
}

/// A resumed session is not judged anew, so that it must not outlive the authority that vouched for the client.
#[test]
fn a_session_does_not_outlive_its_client_ca() {
    let certificates = Certificates::new();
    let strangers = Certificates::new();
    let server = Server::start(|settings| {
        settings.tls =
            Some(tls_room::Settings { client_ca: Some(certificates.path("ca.crt")), ..certificates.settings() });
    });
    let config = client_config(&certificates, &[], Some(certificates.pair()));
    let mut stream = connect(&server, config.clone());
    get(&mut stream).unwrap();
    let mut stream = connect(&server, config.clone());
    get(&mut stream).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));

    // A new certificate keeps the sessions, a new authority does not.
    certificates.issue();
    assert!(server.listener.reloader().unwrap().reload().unwrap());
    let mut stream = connect(&server, config.clone());
    get(&mut stream).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));

    std::fs::write(certificates.path("ca.crt"), strangers.authority.pem()).unwrap();
    assert!(server.listener.reloader().unwrap().reload().unwrap());
    assert!(get(&mut connect(&server, config)).is_err());
}

/// Neither those who say nothing nor those who said a byte once: it is the oldest who make room.
#[test]
fn half_open_handshakes_do_not_keep_others_out() {
    let certificates = Certificates::new();
    for said in [&[][..], &[0x16]] {
        let server = server(&certificates);
        let half_open: Vec<_> = (0..600)
            .map(|_| {
                let mut client = server.connect();
                client.send(said);
                client
            })
            .collect();
        // Handshakes may take half of the 1,000 connections.
        server.wait_for("evicted", |counters| counters.handshakes_timeout.get(), 600 - 500);
        for number in 1..=20 {
            let got = get(&mut connect(&server, client_config(&certificates, &[], None)));
            assert!(got.as_ref().is_ok_and(|got| got.contains("HTTP/1.1 200")), "{said:?}, {number}: {got:?}");
        }
        assert_eq!(server.counters.handshakes_timeout.get(), 600 + 1 - 500, "{said:?}: one place is enough for all");
        drop(half_open);
    }
}

/// However few connections there may be, half of them are nobody's who does not finish; and a single one gets through.
#[test]
fn few_connections_have_room_for_who_finishes() {
    let certificates = Certificates::new();
    for max_connections in [1, 2, 20] {
        let server = Server::start(|settings| {
            settings.tls = Some(certificates.settings());
            settings.max_connections = max_connections;
        });
        let half = max_connections / 2;
        let half_open: Vec<_> = (0..3 * (max_connections - 1)).map(|_| server.connect()).collect();
        let gone = |counters: &Counters| counters.refused.get() + counters.handshakes_timeout.get();
        server.wait_for("gone", gone, (half_open.len() - half) as u64);
        for _ in 0..5 {
            let got = get(&mut connect(&server, client_config(&certificates, &[], None)));
            assert!(got.as_ref().is_ok_and(|got| got.contains("HTTP/1.1 200")), "{max_connections}: {got:?}");
            // One made room, and that was enough.
            let left = half.saturating_sub(1) as u64;
            server.wait_for("open connections", |counters| counters.connections.get(), left);
        }
        drop(half_open);
    }
}
