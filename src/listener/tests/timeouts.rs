//! Every timeout, with a stopwatch: never early, and not much late.

use std::{sync::atomic::Ordering, thread::sleep};

use super::*;

#[test]
fn a_dripping_head_is_cut_with_408() {
    let server = Server::start(|settings| settings.timeouts.header = ms(300));
    let mut client = server.connect();
    let mut writer = client.socket.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ".iter().chain([b'x'; 1000].iter()) {
            if writer.write_all(&[*byte]).is_err() {
                break;
            }
            sleep(ms(20));
        }
    });
    let got = client.rest();
    client.check_watch(ms(300));
    assert!(got.starts_with("HTTP/1.1 408 "), "{got}");
    server.wait_for("request timeouts", |counters| counters.request_timeouts.get(), 1);
    dripping.join().unwrap();
}

#[test]
fn a_second_head_that_is_not_finished_is_cut_with_408() {
    let server = Server::start(|settings| settings.timeouts.header = ms(300));
    let mut client = server.connect();
    client.get("/");
    client.answer();
    sleep(ms(400));
    client.restart_watch();
    client.send("GET / HT");
    let got = client.rest();
    client.check_watch(ms(300));
    assert!(got.starts_with("HTTP/1.1 408 "), "{got}");
}

#[test]
fn a_client_that_never_says_a_word_is_closed_without_one() {
    let server = Server::start(|settings| settings.timeouts.header = ms(300));
    let mut client = server.connect();
    assert_eq!(client.rest(), "");
    client.check_watch(ms(300));
    server.wait_for("idle timeouts", |counters| counters.idle_timeouts.get(), 1);
    assert_eq!(server.counters.request_timeouts.get(), 0);
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Server::start(|settings| settings.timeouts.idle = ms(300));
    let mut client = server.connect();
    client.get("/");
    client.answer();
    sleep(ms(150));
    client.get("/");
    client.restart_watch();
    client.answer();
    assert_eq!(client.rest(), "");
    client.check_watch(ms(300));
    server.wait_for("connections", |counters| counters.connections.get(), 0);
}

#[test]
fn a_body_without_progress_is_cut() {
    let server = Server::start(|settings| settings.timeouts.body = ms(300));
    let mut client = server.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    sleep(ms(200));
    client.restart_watch();
    client.send("ab");
    let got = client.rest();
    client.check_watch(ms(300));
    assert!(got.ends_with("BodyTimeout"), "{got}");
}

#[test]
fn a_slow_body_with_progress_is_not_cut() {
    let server = Server::start(|settings| settings.timeouts.body = ms(300));
    let mut client = server.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        sleep(ms(100));
        client.send("x");
    }
    assert!(client.answer().ends_with("10 bytes"));
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_given_up() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\nX-Deadline: 100\r\n\r\n");
    let got = client.answer();
    client.check_watch(ms(100));
    assert!(got.ends_with("ResponseTimeout"), "{got}");
    client.get("/wait");
    assert!(client.answer().ends_with("waited"));
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let server = Server::start(|settings| settings.timeouts.write = ms(300));
    let mut client = server.connect();
    client.get("/endless");
    server.wait_for("write timeouts", |counters| counters.write_timeouts.get(), 1);
    client.check_watch(ms(300));
    server.wait_for("connections", |counters| counters.connections.get(), 0);
    assert!(client.rest().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_takes_slowly_is_not_cut() {
    let server = Server::start(|settings| settings.timeouts.write = ms(500));
    let mut client = server.connect();
    client.get("/endless");
    let mut buffer = vec![0; 4 * 1024 * 1024];
    while clock::mono().since(client.began) < ms(2000) {
        assert!(client.socket.read(&mut buffer).unwrap() > 0);
        sleep(ms(10));
    }
    assert_eq!(server.counters.write_timeouts.get(), 0);
}

#[test]
fn a_dead_key_cuts_what_it_has_in_flight() {
    let server = Server::start_with(&settings(), Tuning::default(), 1);
    let mut client = server.connect();
    client.get("/key");
    sleep(ms(100));
    client.restart_watch();
    server.key.dead.store(true, Ordering::Relaxed);
    assert!(client.answer().ends_with("Revoked"));
    assert!(clock::mono().since(client.began) < Duration::from_secs(1));
}

#[test]
fn a_cut_that_nobody_acts_on_closes_the_connection() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.get("/deaf");
    assert_eq!(client.rest(), "");
    client.check_watch(ms(50));
    server.wait_for("connections", |counters| counters.connections.get(), 0);
}

#[test]
fn a_silent_handshake_is_cut() {
    let certificates = Certificates::new();
    let server = Server::start(|settings| {
        settings.tls = Some(certificates.settings());
        settings.timeouts.handshake = ms(300);
    });
    let mut client = server.connect();
    assert_eq!(client.rest(), "");
    client.check_watch(ms(300));
    let mut client = server.connect();
    // The beginning of a ClientHello.
    client.send([0x16, 3, 1, 2, 0, 1, 0]);
    assert_eq!(client.rest(), "");
    client.check_watch(ms(300));
    server.wait_for("handshake timeouts", |counters| counters.handshakes_timeout.get(), 2);
}

#[test]
fn a_missing_proxy_header_is_waited_for_no_longer_than_a_head() {
    let server = Server::start(|settings| {
        settings.proxy_protocol = true;
        settings.trusted_proxies = ["127.0.0.1".parse().unwrap()].into_iter().collect();
        settings.timeouts.header = ms(300);
    });
    let mut client = server.connect();
    client.send("PROXY TC");
    assert_eq!(client.rest(), "");
    client.check_watch(ms(300));
    server.wait_for("refused", |counters| counters.proxy_header_refused.get(), 1);
}

#[test]
fn an_upgraded_connection_may_idle_but_dies_with_its_key() {
    let server = Server::start(|settings| settings.timeouts.idle = ms(100));
    let mut client = server.connect();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.answer().starts_with("HTTP/1.1 101"));
    // Idle time does not count on it.
    sleep(ms(400));
    client.send("still here");
    let mut got = [0; 10];
    client.socket.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
    server.key.dead.store(true, Ordering::Relaxed);
    assert_eq!(client.rest(), "");
    server.wait_for("connections", |counters| counters.connections.get(), 0);
}

/// What is passed over of a body that nobody read is no beginning of the next head.
#[test]
fn the_rest_of_a_body_is_no_head() {
    let server = Server::start(|settings| {
        settings.timeouts.header = ms(200);
        settings.timeouts.idle = ms(900);
    });
    let mut client = server.connect();
    let body = "x".repeat(30_000);
    client.send(format!("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n{body}"));
    assert!(client.answer().ends_with("no"));
    client.restart_watch();
    assert_eq!(client.rest(), "");
    client.check_watch(ms(800));
    server.wait_for("idle", |counters| counters.idle_timeouts.get(), 1);
}

/// Empty lines right behind a request begin nothing.
#[test]
fn an_empty_line_is_no_head() {
    let server = Server::start(|settings| {
        settings.timeouts.header = ms(200);
        settings.timeouts.idle = ms(900);
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\n");
    assert!(client.answer().ends_with("hello"));
    client.restart_watch();
    assert_eq!(client.rest(), "");
    client.check_watch(ms(800));
}
