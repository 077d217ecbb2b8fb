//! One caller that takes all it can of what all share on the way to the upstream: something is left for the others.

use futures_util::future::join_all;

use crate::harness::{Answer, Connection, Gate, H1, H2, Key, Sidecar, Upstream, get};

/// Two keys, the first of which will want too much.
fn keys() -> (Key, Key) {
    (Key::pair("greedy").owner("mallory"), Key::pair("modest"))
}

/// Answers that are not read hold connections to the upstream; one key holds two thirds of them at most, on each thread.
#[tokio::test]
async fn one_key_leaves_connections_for_others() {
    let (greedy, modest) = keys();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[upstream]\nmax_connections = 6\nconnect_timeout = \"500ms\"")
        .keys([&greedy, &modest])
        .on_one_core()
        .start()
        .await;
    let slow = get("/slow").key(&greedy);
    let mut held: Vec<Connection> = Vec::new();
    for number in 1..=4 {
        let mut connection = sidecar.connect(H1).await;
        connection.wire().write(slow.head()).await.unwrap();
        upstream.request(number).await;
        held.push(connection);
    }
    let beyond = sidecar.ask(slow).await;
    assert_eq!((beyond.status, beyond.code().as_str()), (503, "overloaded"));
    assert_eq!(beyond.field("retry-after"), "1");
    for _ in 0..20 {
        assert_eq!(sidecar.ask(get("/").key(&modest)).await.status, 200);
    }
    // It may have them again as soon as it has given them back.
    gate.open();
    for mut connection in held {
        assert_eq!(connection.wire().answer("GET").await.unwrap().status, 200);
    }
    let again = join_all((0..20).map(|_| sidecar.ask(get("/").key(&greedy)))).await;
    assert!(again.iter().all(|answer| answer.status == 200), "{again:?}");
}

/// The one that waits for a connection is served when there is one again, also behind many that may not have it.
#[tokio::test]
async fn who_may_have_a_connection_is_not_held_up_by_who_may_not() {
    let (greedy, modest) = keys();
    let upstream = Upstream::start().await;
    let (gate, other) = (Gate::new(), Gate::new());
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    upstream.on("/other", Answer::ok("at last").behind(&other));
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[upstream]\nmax_connections = 3\nconnect_timeout = \"20s\"")
        .keys([&greedy, &modest])
        .on_one_core()
        .start()
        .await;
    // Two of three are the greedy one's, the last is the other's; then more of both wait, the greedy one's first.
    let connection = sidecar.connect(H2).await;
    let ask = |target: &str, key: &Key| {
        let (request, mut connection) = (get(target).key(key), connection.again());
        tokio::spawn(async move { connection.send(&request).await.status })
    };
    let slow: Vec<_> = (0..2).map(|_| ask("/slow", &greedy)).collect();
    upstream.request(2).await;
    let last = ask("/other", &modest);
    upstream.request(3).await;
    let waiting: Vec<_> = (0..10).map(|_| ask("/slow", &greedy)).collect();
    let behind = ask("/", &modest);
    // Streams are looked at in their order, so all of those wait by now.
    assert_eq!(connection.again().send(&get("/")).await.status, 401);
    assert_eq!(upstream.count(), 3);
    other.open();
    assert_eq!(last.await.unwrap(), 200);
    assert_eq!(behind.await.unwrap(), 200);
    gate.open();
    for waiting in slow.into_iter().chain(waiting) {
        assert_eq!(waiting.await.unwrap(), 200);
    }
}

/// Of requests on their way one key may have as many as are allowed; the others find half as many more.
#[tokio::test]
async fn one_key_leaves_places_for_others() {
    let (greedy, modest) = keys();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let sidecar =
        Sidecar::in_front_of(&upstream).config("[upstream]\nmax_in_flight = 30").keys([&greedy, &modest]).start().await;
    let connection = sidecar.connect(H2).await;
    let load: Vec<_> = (0..60)
        .map(|_| {
            let (request, mut connection) = (get("/slow").key(&greedy), connection.again());
            tokio::spawn(async move { connection.send(&request).await.status })
        })
        .collect();
    sidecar.counts("keyside_rejections_total", &[("reason", "overloaded")], 30).await;
    upstream.request(30).await;
    assert_eq!(upstream.count(), 30);
    for _ in 0..20 {
        assert_eq!(sidecar.ask(get("/").key(&modest)).await.status, 200);
    }
    gate.open();
    let mut statuses = Vec::new();
    for load in load {
        statuses.push(load.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 30].as_slice(), &[503; 30]].concat());
}

/// Callers of a public route are told apart by their addresses.
#[tokio::test]
async fn a_caller_without_a_key_leaves_places_for_others() {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[upstream]\nmax_in_flight = 3\n[[route]]\npath = \"/**\"\npublic = true")
        .keys([&Key::pair("unused")])
        .start()
        .await;
    let mut held = Vec::new();
    for number in 1..=3 {
        let mut wire = sidecar.wire().await;
        wire.write(get("/slow").head()).await.unwrap();
        upstream.request(number).await;
        held.push(wire);
    }
    assert_eq!(sidecar.ask(get("/slow")).await.status, 503);
    let mut other = sidecar.connect_from([127, 0, 9, 9].into(), H1).await;
    assert_eq!(other.send(&get("/")).await.status, 200);
    gate.open();
    for mut wire in held {
        assert_eq!(wire.answer("GET").await.unwrap().status, 200);
    }
}

/// An owner with many keys is one caller, and so are all who have none (five addresses, on a public route).
#[tokio::test]
async fn many_keys_and_many_addresses_are_not_many_callers() {
    let greedy: Vec<Key> = (0..5).map(|number| Key::pair(&format!("greedy{number}")).owner("mallory")).collect();
    let modest = Key::pair("modest");
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    upstream.on("/open", Answer::ok("at last").behind(&gate));
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[upstream]\nmax_connections = 30\nconnect_timeout = \"300ms\"")
        .config("[[route]]\npath = \"/open\"\npublic = true\n[[route]]\npath = \"/**\"")
        .keys(greedy.iter().chain([&modest]))
        .on_one_core()
        .start()
        .await;
    let overloaded = [("reason", "overloaded")];
    let mut held = Vec::new();
    for key in &greedy {
        for _ in 0..5 {
            let mut wire = sidecar.wire().await;
            wire.write(get("/slow").key(key).head()).await.unwrap();
            held.push(wire);
        }
    }
    sidecar.counts("keyside_rejections_total", &overloaded, 5).await;
    assert_eq!(upstream.count(), 20);
    assert_eq!(sidecar.ask(get("/").key(&modest)).await.status, 200);
    for last in 1..=5 {
        for _ in 0..3 {
            let mut connection = sidecar.connect_from([127, 0, 8, last].into(), H1).await;
            connection.wire().write(get("/open").head()).await.unwrap();
            held.extend(match connection {
                Connection::H1(wire) => Some(wire),
                Connection::H2 { .. } => None,
            });
        }
    }
    // Of the ten that are left, seven.
    sidecar.counts("keyside_rejections_total", &overloaded, 13).await;
    assert_eq!(upstream.count(), 28);
    for _ in 0..10 {
        assert_eq!(sidecar.ask(get("/").key(&modest)).await.status, 200);
    }
    gate.open();
}
