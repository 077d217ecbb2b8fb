//! How many connections there may be, and where they go.

use super::*;

fn open(server: &Server, path: &str) -> Client {
    let mut client = server.connect();
    client.get(path);
    client
}

#[test]
fn connections_beyond_the_cap_are_closed_and_counted() {
    let server = Server::start(|settings| settings.max_connections = 2);
    let mut first = open(&server, "/");
    first.answer();
    let mut second = open(&server, "/");
    second.answer();
    assert_eq!(server.connect().rest(), "");
    server.wait_for("refused", |counters| counters.refused.get(), 1);
    drop(first);
    server.wait_for("connections", |counters| counters.connections.get(), 1);
    assert!(open(&server, "/").answer().ends_with("hello"));
}

#[test]
fn connections_of_one_address_are_capped() {
    let server = Server::start(|settings| settings.max_connections_per_ip = 1);
    let mut first = open(&server, "/");
    first.answer();
    assert_eq!(server.connect().rest(), "");
    server.wait_for("refused", |counters| counters.refused.get(), 1);
    drop(first);
    server.wait_for("connections", |counters| counters.connections.get(), 0);
    assert!(open(&server, "/").answer().ends_with("hello"));
}

/// Clients that are slow on purpose: the oldest goes when others come, and whoever was let in stays.
#[test]
fn who_was_vouched_for_stays_when_strangers_come() {
    let server = Server::start(|settings| settings.max_strangers = Some(2));
    let mut known = open(&server, "/vouch");
    known.answer();
    let mut slow: Vec<_> = (0..5)
        .map(|n| {
            let mut client = server.connect();
            client.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx");
            server.wait_for("connections", |counters| counters.accepted.get(), n + 2);
            client
        })
        .collect();
    server.wait_for("ended", |counters| counters.refused.get(), 3);
    for gone in &mut slow[..3] {
        assert_eq!(gone.rest(), "");
    }
    assert!(open(&server, "/").answer().ends_with("hello"));
    known.get("/");
    assert!(known.answer().ends_with("hello"));
    // The last one goes on, and is answered.
    slow[4].send("x".repeat(999));
    assert!(slow[4].answer().ends_with("1000 bytes"));
}

#[test]
fn a_trusted_proxy_is_not_one_address() {
    let server = Server::start(|settings| {
        settings.max_connections_per_ip = 1;
        settings.trusted_proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    });
    let mut clients: Vec<_> = (0..5).map(|_| open(&server, "/")).collect();
    assert!(clients.iter_mut().all(|client| client.answer().ends_with("hello")));
}

#[test]
fn behind_proxy_headers_the_client_is_counted() {
    let server = Server::start(|settings| {
        settings.max_connections_per_ip = 1;
        settings.proxy_protocol = true;
        settings.trusted_proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    });
    let connect = |address: &str| {
        let mut client = server.connect();
        client.send(format!("PROXY TCP4 {address} 10.0.0.1 5000 443\r\n"));
        client.get("/");
        client
    };
    let mut first = connect("203.0.113.7");
    assert!(first.answer().ends_with("hello"));
    assert_eq!(connect("203.0.113.7").rest(), "");
    assert!(connect("203.0.113.8").answer().ends_with("hello"));
}

#[test]
fn connections_are_spread_over_the_threads() {
    let server = Server::start_with(&settings(), tuning(), 2);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    // A request weighs more than a connection, so nobody asks before all are in.
    server.wait_for("connections", |counters| counters.accepted.get(), 8);
    clients.iter_mut().for_each(|client| client.get("/facts"));
    let threads: Vec<_> = clients.iter_mut().map(|client| client.answer()).collect();
    assert_eq!(threads.iter().filter(|answer| answer.ends_with("thread=0")).count(), 4);
}

#[test]
fn several_addresses_of_both_families() {
    let mut settings = settings();
    settings.addresses = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let server = Server::start_with(&settings, tuning(), 1);
    for &address in server.listener.local_addrs() {
        let socket = TcpStream::connect(address).unwrap();
        let mut client = Client { socket, began: clock::mono() };
        client.get("/facts");
        assert!(client.answer().contains(&format!("peer={} ", address.ip())));
    }
}

/// [::] alone takes both families, and its IPv4 clients are IPv4 clients; beside 0.0.0.0 it must not take the port.
#[test]
fn any_address() {
    let mut settings = settings();
    settings.addresses = vec!["[::]:0".parse().unwrap()];
    let server = Server::start_with(&settings, tuning(), 1);
    let socket = TcpStream::connect(("127.0.0.1", server.address.port())).unwrap();
    let mut client = Client { socket, began: clock::mono() };
    client.get("/facts");
    assert!(client.answer().contains("peer=127.0.0.1 "));

    let holder = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    drop(holder);
    settings.addresses = vec![SocketAddr::from(([0, 0, 0, 0], port)), format!("[::]:{port}").parse().unwrap()];
    bind(&settings).unwrap();
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start(|_| {});
    let mut settings = settings();
    settings.addresses = vec![server.address];
    let error = bind(&settings).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen at {}", server.address));
}

#[test]
fn when_the_last_handle_is_dropped_everything_ends() {
    let server = Server::start(|_| {});
    let mut client = open(&server, "/");
    client.answer();
    let Server { listener, counters, address, .. } = server;
    drop(listener);
    assert_eq!(client.rest(), "");
    let began = clock::mono();
    while counters.connections.get() > 0 || TcpStream::connect(address).is_ok() {
        assert!(clock::mono().since(began) < SLACK);
        std::thread::sleep(ms(10));
    }
}

/// Without descriptors, accept neither ends, nor spins, nor harms who is there; with them, it goes on.
///
/// The limit is the process's, so that the test runs itself again as the one that serves.
#[test]
fn accept_backs_off_without_descriptors_and_recovers() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use rustix::process::{Resource, Rlimit, setrlimit};

    const CHILD: &str = "KEYSIDE_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
        let server = Server::start(|_| {});
        println!("\nLISTENING {}", server.address);
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert!(server.counters.accept_errors.get() > 0);
        // Backing off, it tries a few times a second.
        assert!(server.counters.accept_errors.get() < 60, "{}", server.counters.accept_errors.get());
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "listener::tests::caps::accept_backs_off_without_descriptors_and_recovers", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let address: SocketAddr = (&mut output)
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("LISTENING ").map(|address| address.parse().unwrap()))
        .unwrap();
    let connect = || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { socket, began: clock::mono() }
    };
    let mut there = connect();
    there.get("/");
    there.answer();
    let crowd: Vec<_> = (0..100).map(|_| connect()).collect();
    std::thread::sleep(ms(1500));
    there.get("/");
    assert!(there.answer().ends_with("hello"));
    drop(crowd);
    let mut later = connect();
    later.get("/");
    assert!(later.answer().ends_with("hello"));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
}

#[test]
fn the_descriptor_limit_is_raised_to_the_hard_one() {
    use rustix::process::{Resource, getrlimit};
    assert_eq!(crate::listener::raise_descriptor_limit(), getrlimit(Resource::Nofile).maximum);
}
