//! Slow clients, floods of connections, and the end of those that are open when the sidecar ends.

mod crowd;
mod descriptors;
mod drain;
mod slow;
mod tls;

use std::time::{Duration, Instant};

use tokio::{sync::watch, task::JoinHandle};

use crate::harness::{Connection, H1, H2, Key, Request, Sidecar, Version, get};

/// A request of a verified caller may take so long, whatever strangers do. What it really takes is some milliseconds;
/// the rest is for a machine that does ten other things.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// For a machine that does ten other things: the upstream is a task of the test, and may be late to accept.
const PATIENT: &str = "[upstream]\nconnect_timeout = \"10s\"";

/// Lets the test itself have as many descriptors as the system allows: it holds both ends of many connections.
fn with_many_descriptors() {
    let limit = keyside::listener::raise_descriptor_limit();
    assert!(limit.is_none_or(|limit| limit >= 8192), "these tests need 8192 descriptors, and may have {limit:?}");
}

/// A verified caller who asks again and again, on kept connections and on new ones, until it is told to stop.
struct Bystander {
    stop: watch::Sender<bool>,
    asking: JoinHandle<Served>,
}

/// What a bystander was given.
#[derive(Debug, Default)]
struct Served {
    count: usize,
    worst: Duration,
    failures: Vec<String>,
}

impl Bystander {
    /// One that has a connection of each version already, and opens others where `new_connections`.
    async fn beside(sidecar: &Sidecar, key: &Key, new_connections: bool) -> Self {
        let mut kept = [sidecar.connect(H1).await, sidecar.connect(H2).await];
        let (dialer, request) = (sidecar.dialer(), get("/bystander").key(key));
        for connection in &mut kept {
            assert_eq!(connection.send(&request).await.status, 200);
        }
        let (stop, stopped) = watch::channel(false);
        let asking = tokio::spawn(async move {
            let mut served = Served::default();
            loop {
                for connection in &mut kept {
                    served.ask(connection, &request, Instant::now()).await;
                }
                let new: &[Version] = if new_connections { &[H1, H2] } else { &[] };
                for &version in new {
                    let began = Instant::now();
                    match dialer.connect(version).await {
                        Ok(mut connection) => served.ask(&mut connection, &request, began).await,
                        Err(error) => served.failures.push(format!("connecting: {error}")),
                    }
                }
                if *stopped.borrow() {
                    return served;
                }
                // Not a wait for something: the pace of a caller.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, asking }
    }

    /// Every request was answered with 200 in time, and there were some.
    async fn was_served(self, what: &str) -> Served {
        self.stop.send_replace(true);
        let served = self.asking.await.unwrap();
        assert!(served.failures.is_empty(), "{what}: of {}: {:?}", served.count, served.failures);
        assert!(served.count > 0 && served.worst < SERVED_WITHIN, "{what}: {served:?}");
        served
    }
}

impl Served {
    async fn ask(&mut self, connection: &mut Connection, request: &Request, began: Instant) {
        self.count += 1;
        match tokio::time::timeout(SERVED_WITHIN, connection.try_send(request)).await {
            Ok(Ok(answer)) if answer.status == 200 => self.worst = self.worst.max(began.elapsed()),
            Ok(answer) => self.failures.push(format!("{answer:?}")),
            Err(_) => self.failures.push("no answer".into()),
        }
    }
}
