//! `explain` for a sidecar that has its keys from a control plane: by what it keeps on its disk, whoever is there.

use rustix::process::Signal;

use crate::harness::{Ended, Plane, Sidecar, Upstream, eventually, keyside};

async fn explain(sidecar: &Sidecar, key: &str) -> Ended {
    let config = sidecar.path("keyside.toml").display().to_string();
    let words = ["explain", "--config", &config, "--key", key, "--method", "GET", "--path", "/", "--ip", "127.0.0.1"];
    keyside(words).await
}

#[tokio::test]
async fn keys_of_a_control_plane_are_explained_from_the_disk() {
    let plane = Plane::start().await;
    let upstream = Upstream::start().await;
    let sidecar = plane.sidecar(&upstream).start().await;
    plane.followed_by(1).await;
    let (kept, revoked) = (plane.mint("kept").await, plane.mint("revoked").await);
    plane.api("DELETE", &format!("/v1/keys/{}?wait=10", revoked.id), &serde_json::Value::Null).await;
    let told = eventually("the revocation on the disk", async || {
        let ended = explain(&sidecar, &revoked.id).await;
        if ended.stdout.contains("revoked") { Ok(ended) } else { Err(format!("{ended:?}")) }
    })
    .await;
    assert_eq!(told.status, 1, "{told:?}");

    let revision = plane.api("GET", "/v1/sidecars", &serde_json::Value::Null).await["revision"].clone();
    let url = plane.url();
    let stopped = plane.stop(Signal::TERM).await;
    let told = explain(&sidecar, "kept").await.done();
    assert!(told.stdout.contains("allowed"), "{told:?}");
    assert!(told.stderr.contains(&format!("of revision {revision} of {url}")), "{}", told.stderr);
    assert!(told.stderr.contains("its newest at ") && told.stderr.contains(" ago"), "{}", told.stderr);
    assert!(!(told.stdout + &told.stderr).contains(&kept.secret));
    // It only looked: the file is as it was.
    let journal = sidecar.path("state/keys.journal");
    let mut text = std::fs::read(&journal).unwrap();
    text[20] ^= 1;
    std::fs::write(&journal, &text).unwrap();
    let damaged = explain(&sidecar, "kept").await;
    assert!(damaged.status == 1 && damaged.stderr.contains("keys.journal"), "{damaged:?}");
    assert_eq!(std::fs::read(&journal).unwrap(), text);
    std::fs::remove_file(&journal).unwrap();
    let none = explain(&sidecar, "kept").await;
    assert!(none.status == 1 && none.stderr.contains("holds no keys of"), "{none:?}");
    drop(stopped);
}
