//! Callers that ask without pause, and what they were answered.

use std::time::Instant;

use tokio::{sync::watch, task::JoinHandle};

use super::{PATIENCE, Request, Sidecar, Version, client::Dialer};

/// Requests under way, until they are stopped.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<Vec<Sent>>>,
}

/// One request of a load.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// The status, or why there was no whole answer.
    pub(crate) result: Result<u16, String>,
}

impl Load {
    /// One caller per version, each on a kept connection.
    pub(crate) fn on(sidecar: &Sidecar, versions: &[Version], request: &Request) -> Self {
        Self::of(sidecar, versions, request, true)
    }

    /// One caller per version, each with a new connection for every request.
    pub(crate) fn on_new_connections(sidecar: &Sidecar, versions: &[Version], request: &Request) -> Self {
        Self::of(sidecar, versions, request, false)
    }

    fn of(sidecar: &Sidecar, versions: &[Version], request: &Request, keep: bool) -> Self {
        let stop = watch::Sender::new(false);
        let callers = versions
            .iter()
            .map(|&version| tokio::spawn(call(sidecar.dialer(), version, request.clone(), keep, stop.subscribe())))
            .collect();
        Self { stop, callers }
    }

    /// Lets requests under way end, and gives all of them.
    pub(crate) async fn stop(self) -> Vec<Sent> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for caller in self.callers {
            all.extend(caller.await.unwrap());
        }
        all
    }
}

async fn call(
    dialer: Dialer,
    version: Version,
    request: Request,
    keep: bool,
    stop: watch::Receiver<bool>,
) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut kept = None;
    while !*stop.borrow() {
        let began = Instant::now();
        let asked = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => dialer.connect(version).await.map_err(|error| format!("connecting: {error}"))?,
            };
            let answer = connection.try_send(&request).await?;
            if keep && answer.field("connection") != "close" {
                kept = Some(connection);
            }
            match answer.broken {
                Some(why) => Err(why),
                None => Ok(answer.status),
            }
        };
        let result = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".into()));
        sent.push(Sent { began, ended: Instant::now(), result });
    }
    sent
}

/// Those that were not answered with this status.
pub(crate) fn others(sent: &[Sent], status: u16) -> Vec<&Result<u16, String>> {
    sent.iter().map(|sent| &sent.result).filter(|result| **result != Ok(status)).collect()
}
