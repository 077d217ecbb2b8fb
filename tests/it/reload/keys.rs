//! A change of the key file counts within a second, however the file is changed.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{H1, Key, Sidecar, Upstream, eventually, get, key_file};

/// How long it takes until this key is answered with this status.
async fn takes_effect(sidecar: &Sidecar, key: &Key, status: u16) -> Duration {
    let began = Instant::now();
    let mut connection = sidecar.connect(H1).await;
    eventually("the change", async || {
        let answer = connection.send(&get("/").key(key)).await;
        if answer.status == status { Ok(()) } else { Err(answer.status) }
    })
    .await;
    began.elapsed()
}

#[tokio::test]
async fn a_change_counts_within_a_second() {
    let keys: Vec<Key> = (0..12).map(|number| Key::token(&format!("key-{number}"))).collect();
    let upstream = Upstream::start().await;
    let sidecar =
        Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = []").keys(&keys[..1]).start().await;
    let mut took = Vec::new();
    for count in 2..=keys.len() {
        let text = key_file(&keys[..count]);
        match count % 2 {
            // As editors and Keyside's own commands do.
            0 => sidecar.replace("keys.toml", text),
            // As a shell's redirection does.
            _ => fs::write(sidecar.path("keys.toml"), text).unwrap(),
        }
        took.push(takes_effect(&sidecar, &keys[count - 1], 200).await);
    }
    took.sort();
    // One that met a pause of the machine may have taken longer.
    assert!(took[took.len() - 2] < Duration::from_secs(1), "{took:?}");
    sidecar.counts("keyside_keys", &[("status", "active")], keys.len() as u64).await;
    sidecar.measures("keyside_reloads_total", &[("what", "keys"), ("result", "ok")], |count| count >= 11.0).await;
}

/// Kubernetes shows a Secret through two symlinks, and changes it by swapping one of them.
#[tokio::test]
async fn a_swapped_symlink_is_a_change() {
    let (old, new, newest) = (Key::token("old"), Key::token("new"), Key::token("newest"));
    let upstream = Upstream::start().await;
    let builder = Sidecar::in_front_of(&upstream).config("[keys]\nfile = \"secret/keys.toml\"");
    let folder = builder.folder().join("secret");
    let publish = |version: &str, key: &Key| {
        fs::create_dir_all(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("keys.toml"), key_file([key])).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..2026_01", &old);
    symlink("..data/keys.toml", folder.join("keys.toml")).unwrap();
    let sidecar = builder.start().await;
    assert_eq!(sidecar.ask(get("/").key(&old)).await.status, 200);
    let mut took = Vec::new();
    for (version, gone, key) in [("..2026_02", "..2026_01", &new), ("..2026_03", "..2026_02", &newest)] {
        publish(version, key);
        fs::remove_dir_all(folder.join(gone)).unwrap();
        took.push(takes_effect(&sidecar, key, 200).await);
    }
    assert_eq!(sidecar.ask(get("/").key(&old)).await.status, 401);
    assert!(took.iter().min() < Some(&Duration::from_secs(1)), "{took:?}");
}

/// One bad entry: that key is not accepted, the rest is.
#[tokio::test]
async fn a_bad_entry_sets_one_key_aside() {
    let (good, bad) = (Key::token("good"), Key::token("bad"));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&good, &bad]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&bad)).await.status, 200);
    let faults = [
        "allow_ips = [\"203.0.113.042\"]",
        "expires_at = \"tomorrow\"",
        "limits = [\"many\"]",
        "mode = \"prod\"",
        "colour = \"red\"",
    ];
    for fault in faults {
        sidecar.replace_keys([&good, &bad.clone().with(fault)]);
        takes_effect(&sidecar, &bad, 401).await;
        assert_eq!(sidecar.ask(get("/").key(&good)).await.status, 200, "{fault}");
        sidecar.counts("keyside_quarantined_entries", &[], 1).await;
        sidecar.log.find("the bad entry", |line| line.contains("key_bad").then_some(())).await;
        sidecar.replace_keys([&good, &bad]);
        takes_effect(&sidecar, &bad, 200).await;
    }
    // A revocation that can be read counts, whatever else is wrong with the entry, and for good.
    sidecar.replace_keys([&good, &bad.clone().with("mode = \"prod\"\nrevoked_at = 2026-01-02T00:00:00Z")]);
    takes_effect(&sidecar, &bad, 401).await;
    let more = Key::token("more");
    sidecar.replace_keys([&good, &bad, &more]);
    takes_effect(&sidecar, &more, 200).await;
    assert_eq!(sidecar.ask(get("/").key(&bad)).await.status, 401);
}

/// Not TOML at all: the last good set stays, and why is said.
#[tokio::test]
async fn an_unreadable_file_leaves_the_last_good_set() {
    let key = Key::token("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    for (number, text) in ["[[key", "\u{0}\u{1}", "key = 3", ""].iter().enumerate() {
        sidecar.replace("keys.toml", text);
        let failed = number as u64 + 1;
        let labels = [("what", "keys"), ("result", "failed")];
        sidecar.counts("keyside_reloads_total", &labels, failed).await;
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200, "{text:?}");
        // The counter is raised before the line is written.
        let said = |line: &str| (line.contains("ERROR") && line.contains("keys.toml")).then_some(());
        sidecar.log.find("why the key file is refused", said).await;
    }
    fs::remove_file(sidecar.path("keys.toml")).unwrap();
    sidecar.measures("keyside_reloads_total", &[("what", "keys"), ("result", "failed")], |count| count >= 5.0).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let verbose = sidecar.admin("GET", "/readyz?verbose").await;
    assert!(verbose.text().contains("keys"), "{}", verbose.text());
    // And even over a restart with a torn one: better the set that was good than none.
    sidecar.replace("keys.toml", "[[key");
    let sidecar = sidecar.restart().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}

/// Without `[end]`, much less than before is refused until somebody says that it is meant.
#[tokio::test]
async fn a_file_that_shrank_must_be_meant() {
    let keys: Vec<Key> = (0..5).map(|number| Key::token(&format!("key-{number}"))).collect();
    let open = |keys: &[Key]| keys.iter().map(Key::row).collect::<String>();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).key_file(open(&keys)).start().await;
    for few in [&keys[..2], &keys[..0]] {
        sidecar.replace("keys.toml", open(few));
        sidecar
            .measures("keyside_reloads_total", &[("what", "keys"), ("result", "failed")], |count| count >= 1.0)
            .await;
        assert_eq!(sidecar.ask(get("/").key(&keys[4])).await.status, 200);
    }
    sidecar.replace("keys.toml", open(&keys[..2]));
    sidecar.signal(Signal::HUP);
    takes_effect(&sidecar, &keys[4], 401).await;
    assert_eq!(sidecar.ask(get("/").key(&keys[0])).await.status, 200);
}

/// What was wrong with the file is told for as long as it is.
#[tokio::test]
async fn a_repaired_file_is_no_fault_any_more() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let whole = fs::read(sidecar.path("keys.toml")).unwrap();
    let told = async |expected: bool| {
        eventually("readyz", async || {
            let text = sidecar.admin("GET", "/readyz?verbose").await.text();
            if text.contains("[!]keys") == expected { Ok(()) } else { Err(text) }
        })
        .await;
    };
    for _ in 0..2 {
        sidecar.replace("keys.toml", &whole[..whole.len() / 2]);
        told(true).await;
        // The very same bytes: nothing new is put into force.
        sidecar.replace("keys.toml", &whole);
        told(false).await;
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}
