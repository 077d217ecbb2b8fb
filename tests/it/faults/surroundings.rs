//! What the environment of a process may ask for, and is not given.

use tokio::net::TcpListener;

use super::UNLIMITED;
use crate::harness::{H1, H2, Key, Sidecar, Upstream, get, within};

/// No proxy is asked, no session keys are written, no library is steered.
#[tokio::test]
async fn the_environment_steers_nothing() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut builder = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key]);
    let written = builder.folder().join("written");
    std::fs::create_dir(&written).unwrap();
    let path = |name: &str| written.join(name).to_str().unwrap().to_owned();
    let rows = [
        ("HTTP_PROXY", address.clone()),
        ("http_proxy", address.clone()),
        ("HTTPS_PROXY", address.clone()),
        ("ALL_PROXY", address.clone()),
        ("SSLKEYLOGFILE", path("session-keys")),
        ("SSL_CERT_FILE", path("roots")),
        ("RUST_BACKTRACE", "full".into()),
        ("RUST_LOG", "trace".into()),
        ("RUST_MIN_STACK", "4194304".into()),
        ("MALLOC_ARENA_MAX", "1".into()),
        ("MALLOC_PERTURB_", "165".into()),
        ("MALLOC_CHECK_", "3".into()),
        ("TMPDIR", path("")),
        ("HOME", path("")),
        ("TZ", "Pacific/Kiritimati".into()),
        ("LC_ALL", "tr_TR.UTF-8".into()),
    ];
    for (name, value) in rows {
        builder = builder.environment(name, &value);
    }
    let sidecar = builder.start().await;
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
        let refused = sidecar.send(version, get("/").basic(&key.public, "cs_wrong")).await;
        assert_eq!(refused.status, 401, "{version:?}");
        let line = sidecar.logged(refused.field("x-request-id")).await;
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert_eq!(upstream.count(), 2);
    let printed = sidecar.printed();
    assert!(!printed.contains(&key.secret) && !printed.contains("cs_wrong"));
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(within("the end", sidecar.ended()).await, 0);
    let names: Vec<_> = std::fs::read_dir(&written).unwrap().collect();
    assert!(names.is_empty(), "{names:?}");
    let asked = futures_util::FutureExt::now_or_never(proxy.accept());
    assert!(asked.is_none(), "the proxy was asked");
}
