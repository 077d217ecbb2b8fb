//! What it is told by, and tells to, the machine around it: systemd, the environment, want of descriptors.

use std::{os::unix::net::UnixDatagram, time::Duration};

use rustix::process::Signal;

use crate::harness::{H1, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn systemd_is_told() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sidecar =
        Sidecar::in_front_of(&upstream).environment("NOTIFY_SOCKET", path.to_str().unwrap()).keys([&key]).start().await;
    let told = || {
        let mut buffer = [0; 1000];
        let count = socket.recv(&mut buffer).expect("a word for systemd");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    assert!(told().contains("READY=1"));
    sidecar.signal(Signal::HUP);
    let reloading = told();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(told().contains("READY=1"));
    sidecar.signal(Signal::TERM);
    assert!(told().contains("STOPPING=1"));
    assert_eq!(sidecar.ended().await, 0);
}

/// Every value can be set by the environment; Kubernetes' own variables are none of ours.
#[tokio::test]
async fn the_environment_overrides_the_file() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .environment("KEYSIDE_ERRORS__FORMAT", "envelope")
        .environment("KEYSIDE_LIMITS__PER_KEY", "[\"1/1m\"]")
        .environment("KEYSIDE_PORT", "tcp://10.0.0.1:8443")
        .environment("KEYSIDE_SERVICE_HOST", "10.0.0.1")
        .keys([&key])
        .start()
        .await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!((answer.status, &answer.json()["success"]), (429, &false.into()), "{answer:?}");

    let misspelt = Sidecar::in_front_of(&upstream).environment("KEYSIDE_LIMITS__PER_KEYS", "[]").keys([&key]);
    let ended = misspelt.try_start().await.err().expect("no start");
    assert_eq!(ended.status, 78, "{}", ended.stderr);
    assert!(ended.stderr.contains("KEYSIDE_LIMITS__PER_KEYS") && ended.stderr.contains("per_key"), "{}", ended.stderr);
}

/// Out of descriptors: who is in is served, nobody is refused for good, and the processor rests.
#[tokio::test]
async fn want_of_descriptors_passes() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let mut inside = sidecar.connect(H1).await;
    assert_eq!(inside.send(&get("/").key(&key)).await.status, 200);
    let open = std::fs::read_dir(format!("/proc/{}/fd", sidecar.id())).unwrap().count() as u64;
    let few = Rlimit { current: Some(open + 5), maximum: rustix::process::getrlimit(Resource::Nofile).maximum };
    let id = Pid::from_raw(i32::try_from(sidecar.id()).unwrap());
    let before = prlimit(id, Resource::Nofile, few).unwrap();
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(sidecar.tcp().await);
    }
    for _ in 0..10 {
        assert_eq!(inside.send(&get("/").key(&key)).await.status, 200);
    }
    let busy = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let used = busy(sidecar.id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    // In hundredths of a second.
    assert!(busy(sidecar.id()) - used < 50, "it spins");
    prlimit(id, Resource::Nofile, before).unwrap();
    drop(crowd);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}

/// A state folder that cannot be written costs an alarm, and no request.
#[tokio::test]
async fn a_lost_state_folder_costs_no_request() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    // A file stands where the folder should be.
    let sidecar = Sidecar::in_front_of(&upstream).file("state", "in the way").keys([&key]).start().await;
    for _ in 0..3 {
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    }
    sidecar.log.find("the alarm", |line| (line.contains("ERROR") && line.contains("state")).then_some(())).await;
    assert_eq!(sidecar.admin("GET", "/readyz").await.status, 200);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, 0);
}

/// A panic, a flood of junk, a thousand odd bytes: the next caller is served.
#[tokio::test]
async fn junk_does_not_end_it() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().keys([&key]).start().await;
    let mut state = 1_u32;
    for round in 0..60 {
        let mut junk = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        for _ in 0..round * 20 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            junk.push((state >> 24) as u8);
        }
        junk.extend(b"\r\n\r\n");
        let mut wire = sidecar.wire().await;
        let _ = wire.write(junk).await;
        let _ = wire.shutdown().await;
        let _ = wire.rest().await;
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(upstream.count(), 1);
}
