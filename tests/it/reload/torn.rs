//! A key file that breaks off, at every byte: no cut makes any key more permissive than the last good set.

use crate::harness::{Connection, H1, Key, Load, Sidecar, Upstream, get, key_file_of, post};

/// Keys that would do more if a part of their row, or of their owner's, were missing.
fn keys() -> (String, Vec<(&'static str, Key)>) {
    let owners =
        "[[owner]]\nid = \"plain\"\nplan = \"none\"\n[[owner]]\nid = \"gone\"\nsuspended_at = 2026-01-02T00:00:00Z\n";
    let keys = vec![
        ("revoked", Key::token("r").owner("plain").with("revoked_at = 2026-01-02T00:00:00Z")),
        ("expired", Key::token("e").owner("plain").with("expires_at = 2026-01-02T00:00:00Z")),
        ("elsewhere", Key::token("a").owner("plain").with("allow_ips = [\"203.0.113.42\"]")),
        ("test", Key::token("m").owner("plain").with("mode = \"test\"")),
        ("spent", Key::token("l").owner("plain").with("limits = [\"0/1m\"]")),
        ("of a plan", Key::token("p").owner("plain")),
        ("suspended", Key::token("s").owner("gone")),
    ];
    (owners.into(), keys)
}

const CONFIG: &str = r#"
    [hosts]
    "api.example.com" = "live"
    [limits]
    per_ip = []
    per_key = []
    failures_per_ip = []
    [limits.plans]
    none = ["0/1m"]
"#;

/// None of them may do what it may not do, whatever stands in the file.
async fn all_are_bound(connection: &mut Connection, keys: &[(&str, Key)], when: &str) {
    for (rule, key) in keys {
        let answer = connection.send(&get("/").key(key)).await;
        assert!([401, 403, 429].contains(&answer.status), "{when}: {rule}: {answer:?}");
    }
}

#[tokio::test]
async fn no_cut_makes_a_key_more_permissive() {
    let (owners, keys) = keys();
    let reader = Key::token("reader").owner("free");
    let text = key_file_of(&owners, keys.iter().map(|(_, key)| key).chain([&reader]));
    // As it is typed by hand, without what no test needs.
    let text = text.replace("created_at = 2026-01-01T00:00:00Z\n", "").replace("\n\n", "\n");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(CONFIG).key_file(&text).start().await;
    let mut connection = sidecar.connect(H1).await;
    all_are_bound(&mut connection, &keys, "whole").await;
    assert_eq!(connection.send(&get("/").key(&reader)).await.status, 200);

    // All the while a caller may ask with a key that the file never ceases to hold for long.
    let load = Load::on(&sidecar, &[H1], &get("/").key(&reader));
    for cut in 0..text.len() {
        sidecar.replace("keys.toml", &text[..cut]);
        // By its own watch, or because it is told to look: either way it has looked when this returns.
        if cut % 2 == 0 {
            sidecar.admin("POST", "/-/reload").await;
        }
        all_are_bound(&mut connection, &keys, &format!("cut at {cut}")).await;
        let write = connection.send(&post("/", "").key(&reader)).await;
        assert!([401, 403].contains(&write.status), "cut at {cut}: {write:?}");
    }
    let sent = load.stop().await;
    // A file whose end was seen is never taken for whole without it: the last good set stayed all along.
    assert!(sent.iter().all(|sent| sent.result == Ok(200)), "{:?}", crate::harness::others(&sent, 200).first());
    assert!(upstream.seen().iter().all(|seen| seen.field("x-key-id") == "key_reader"));
    sidecar.replace("keys.toml", &text);
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
    all_are_bound(&mut connection, &keys, "whole again").await;
}

/// A writer in no hurry: what is half written is not believed.
#[tokio::test]
async fn a_slow_write_in_place_is_waited_for() {
    use std::io::Write as _;
    let (owners, keys) = keys();
    let (reader, added) = (Key::token("reader").owner("free"), Key::token("added").owner("free"));
    let all = |more: &[&Key]| key_file_of(&owners, keys.iter().map(|(_, key)| key).chain(more.iter().copied()));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(CONFIG).key_file(all(&[&reader])).start().await;
    let mut connection = sidecar.connect(H1).await;
    let text = all(&[&reader, &added]);
    let mut file = std::fs::File::create(sidecar.path("keys.toml")).unwrap();
    for piece in text.as_bytes().chunks(64) {
        file.write_all(piece).unwrap();
        all_are_bound(&mut connection, &keys, "half written").await;
        assert_eq!(connection.send(&get("/").key(&reader)).await.status, 200);
    }
    drop(file);
    crate::harness::eventually("the whole file", async || {
        let status = connection.send(&get("/").key(&added)).await.status;
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    all_are_bound(&mut connection, &keys, "whole").await;
}
