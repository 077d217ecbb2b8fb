//! Key files that are torn, swapped, large or open to others.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::{Duration, Instant},
};

use super::UNLIMITED;
use crate::harness::{H1, H2, Key, Load, Sidecar, Upstream, eventually, get, key_file, keyside, others};

fn revoked() -> Key {
    Key::token("revoked").with("revoked_at = 2026-01-02T00:00:00Z")
}

/// Cut at every byte, by renaming and in place, while callers ask without pause: the revoked key never passes and the
/// good one is never refused.
#[tokio::test]
async fn a_torn_file_changes_nothing_for_anybody() {
    let (good, revoked) = (Key::token("good"), revoked());
    let text = key_file([&good, &revoked]);
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).key_file(&text).start().await;
    let passes = Load::on(&sidecar, &[H1, H2], &get("/").key(&good));
    let refused = Load::on(&sidecar, &[H1, H2], &get("/").key(&revoked));
    for cut in 0..text.len() {
        if cut % 2 == 0 {
            sidecar.replace("keys.toml", &text[..cut]);
        } else {
            // For a moment it is empty, and then it grows.
            fs::write(sidecar.path("keys.toml"), &text[..cut]).unwrap();
        }
        // Not the last byte: it is the end of a line that is whole without it.
        if cut % 3 == 0 && cut < text.len() - 1 {
            assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 422, "cut at {cut}");
        }
        upstream.request(upstream.count() + 2).await;
    }
    let (passes, refused) = (passes.stop().await, refused.stop().await);
    assert!(passes.len() > text.len() && refused.len() > 100, "{} {}", passes.len(), refused.len());
    assert_eq!(others(&passes, 200), Vec::<&Result<u16, String>>::new(), "the good key");
    assert_eq!(others(&refused, 401), Vec::<&Result<u16, String>>::new(), "the revoked key");
    assert!(upstream.seen().iter().all(|seen| seen.field("x-key-id") == good.id));
    let panicked = sidecar.log.all().into_iter().find(|line| line.contains("panic"));
    assert_eq!(panicked, None);
    sidecar.replace("keys.toml", &text);
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
}

/// The same without `[end]`, where a cut file may look whole: each cut is left to be judged. A key whose own row is cut
/// may stop, and none starts.
#[tokio::test]
async fn a_torn_file_without_an_end_revives_nobody() {
    let (good, revoked) = (Key::token("good"), revoked());
    let expired = Key::token("expired").with("expires_at = 2026-01-02T00:00:00Z");
    let text = [&good, &revoked, &expired].map(Key::row).concat();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).key_file(&text).start().await;
    let refused = [&revoked, &expired].map(|key| Load::on(&sidecar, &[H1], &get("/").key(key)));
    let judged = async || sidecar.metrics().await.value("keyside_reloads_total", &[("what", "keys")]);
    let mut connection = sidecar.connect(H1).await;
    // At the ends of lines, where what is left can be read. From the end on: what was cut off and is written again is new
    // for whoever reads it, and what a new row is yet to say only `[end]` tells.
    for (cut, _) in text.rmatch_indices('\n').skip(1) {
        let before = judged().await;
        fs::write(sidecar.path("keys.toml"), &text[..cut]).unwrap();
        eventually("the cut file to be judged", async || {
            let now = judged().await;
            if now > before { Ok(()) } else { Err(format!("{cut}: {now}")) }
        })
        .await;
        if cut >= good.row().len() {
            assert_eq!(connection.send(&get("/").key(&good)).await.status, 200, "cut at {cut}");
        }
    }
    for load in refused {
        let sent = load.stop().await;
        assert!(sent.len() > 50, "{}", sent.len());
        assert_eq!(others(&sent, 401), Vec::<&Result<u16, String>>::new());
    }
    assert!(upstream.seen().iter().all(|seen| seen.field("x-key-id") == good.id));
}

/// No keys never means that none is asked for: at a first start with such a file nothing passes, and it is not ready,
/// unless the file says that it is meant to be empty.
#[tokio::test]
async fn a_start_without_keys_opens_nothing() {
    let key = Key::token("key");
    let whole = key_file([&key]);
    let rows = [
        ("no file", None, "503 keys_unavailable"),
        ("an empty file", Some(""), "503 keys_unavailable"),
        ("a comment alone", Some("# keys to come\n"), "503 keys_unavailable"),
        ("an empty list", Some("key = []\n"), "503 keys_unavailable"),
        ("a list of another kind", Some("[]"), "503 keys_unavailable"),
        ("a table of another kind", Some("[keys]\n"), "503 keys_unavailable"),
        ("a cut file", Some(&whole[..whole.len() / 2]), "503 keys_unavailable"),
        ("counts that do not fit", Some("[end]\nowners = 0\nkeys = 1\n"), "503 keys_unavailable"),
        ("a file that is meant to be empty", Some("[end]\nowners = 0\nkeys = 0\n"), "401 invalid_credentials"),
    ];
    let upstream = Upstream::start().await;
    for (what, text, told) in rows {
        let builder = Sidecar::in_front_of(&upstream).config(UNLIMITED).ready_or_not();
        let builder = if let Some(text) = text { builder.key_file(text) } else { builder };
        let sidecar = builder.start().await;
        for version in [H1, H2] {
            let answer = sidecar.send(version, get("/").key(&key)).await;
            assert_eq!(answer.brief(), told, "{what}: {answer:?}");
            assert_eq!(answer.has("retry-after"), answer.status == 503, "{what}: {answer:?}");
            assert!(sidecar.send(version, get("/")).await.status >= 400, "{what}");
        }
        let ready = if told.starts_with("503") { 503 } else { 200 };
        assert_eq!(sidecar.admin("GET", "/readyz").await.status, ready, "{what}");
        assert_eq!(sidecar.admin("GET", "/livez").await.status, 200, "{what}");
        // And a whole one mends it, without a word.
        sidecar.replace("keys.toml", &whole);
        eventually("the whole file", async || {
            let status = sidecar.ask(get("/").key(&key)).await.status;
            if status == 200 { Ok(()) } else { Err(format!("{what}: {status}")) }
        })
        .await;
        sidecar.ready().await;
    }
    assert_eq!(upstream.count(), 9, "what passed is what was good");
}

/// Thousands of keys and a long address list: loaded, and swapped without a pause that a caller would notice.
#[tokio::test]
async fn a_large_file_is_swapped_beside_the_traffic() {
    const KEYS: usize = 3000;
    let listed: Vec<String> = (0..2000).map(|n| format!("\"10.{}.{}.0/24\"", n / 250, n % 250)).collect();
    let good = Key::token("good").with(&format!("allow_ips = [\"127.0.0.0/8\", {}]", listed.join(", ")));
    let many: Vec<Key> = (0..KEYS).map(|number| Key::token(&format!("many-{number}"))).collect();
    let added: Vec<Key> = (0..3).map(|number| Key::token(&format!("added-{number}"))).collect();
    let file = |added: &[Key]| key_file(many.iter().chain([&good]).chain(added));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).key_file(file(&[])).start().await;
    sidecar.counts("keyside_keys", &[("status", "active")], KEYS as u64 + 1).await;
    let load = Load::on(&sidecar, &[H1, H2], &get("/").key(&good));
    for count in 1..=added.len() {
        sidecar.replace("keys.toml", file(&added[..count]));
        eventually("the new key", async || {
            let status = sidecar.ask(get("/").key(&added[count - 1])).await.status;
            if status == 200 { Ok(()) } else { Err(status) }
        })
        .await;
    }
    let sent = load.stop().await;
    assert_eq!(others(&sent, 200), Vec::<&Result<u16, String>>::new());
    let slowest = sent.iter().map(|sent| sent.ended - sent.began).max().unwrap();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(sidecar.ask(get("/").key(&many[KEYS - 1])).await.status, 200);
}

/// Who else may read or write the key file is said, by the sidecar and by `check`, and whatever name it goes by.
#[tokio::test]
async fn a_file_that_others_may_touch_is_warned_of() {
    let rows = [
        (0o600, None),
        (0o640, None),
        (0o644, Some("everybody may read it")),
        (0o660, Some("its group may write to it")),
        (0o666, Some("everybody may write to it")),
    ];
    let key = Key::token("key");
    let upstream = Upstream::start().await;
    for link in [false, true] {
        for (mode, warning) in rows {
            let row = format!("mode {mode:o}, symlink {link}");
            let builder = Sidecar::in_front_of(&upstream).file("real.toml", key_file([&key]));
            let real = builder.folder().join("real.toml");
            fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
            let named = builder.folder().join("keys.toml");
            if link {
                symlink("real.toml", named).unwrap()
            } else {
                fs::rename(real, named).unwrap()
            }
            let sidecar = builder.start().await;
            // It is used all the same: who would gain by a service that is down?
            assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200, "{row}");
            let path = sidecar.path("keyside.toml");
            let checked = keyside(["check", "--config", path.to_str().unwrap()]).await;
            let said = [checked.stdout, checked.stderr].concat();
            for (who, said) in [("check", said), ("the sidecar", sidecar.log.all().join("\n"))] {
                match warning {
                    Some(warning) => assert!(said.contains(warning), "{row}: {who} says\n{said}"),
                    None => {
                        assert!(!said.contains(" may read") && !said.contains(" may write"), "{row}: {who}\n{said}")
                    }
                }
            }
        }
    }
}

/// What is no file is not waited for, and does not take the last good set away.
#[tokio::test]
async fn what_is_no_file_takes_nothing_away() {
    let key = Key::token("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let path = sidecar.path("keys.toml");
    let whole = fs::read(&path).unwrap();
    for (number, what) in ["a folder", "a device", "a pipe", "a loop", "nothing"].into_iter().enumerate() {
        fs::remove_file(&path).unwrap();
        match what {
            "a folder" => fs::create_dir(&path).unwrap(),
            "a device" => symlink("/dev/zero", &path).unwrap(),
            "a pipe" => rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap(),
            "a loop" => symlink("keys.toml", &path).unwrap(),
            _ => {}
        }
        let began = Instant::now();
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 422, "{what}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200, "{what}");
        if what == "a folder" {
            fs::remove_dir(&path).unwrap()
        } else {
            drop(fs::remove_file(&path))
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200, "after {what}, the {number}th");
    }
}
