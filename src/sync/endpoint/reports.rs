//! What the endpoint is told: what is in force, at once; what keys were used, within seconds; and that we go.
//!
//! It runs on a thread of its own, so that no large set that is being built holds up the word that a key is dead.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use super::{protocol::Position, session::random_between, tally::Tally};
use crate::{
    client::{Client, Connection},
    fault::chain,
    keys::KeyStore,
};

/// How often uses are gathered: they are told within five seconds.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How large it may be: it says nothing that is read.
const MOST: usize = 64 * 1024;
/// How long a failed report waits.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(5);
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// What is reported on.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) instance: Arc<str>,
    pub(super) store: Arc<KeyStore>,
    /// What is in force, and what of it is on the disk.
    pub(super) applied: watch::Receiver<Option<Position>>,
    pub(super) durable: watch::Receiver<Option<Position>>,
    /// Who asks.
    pub(super) clients: watch::Receiver<Arc<Client>>,
    /// How often a stream was opened: an endpoint that was restarted knows nothing of us.
    pub(super) connections: watch::Receiver<u64>,
}

/// The thread that reports.
#[derive(Debug)]
pub(super) struct Reports {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reports {
    pub(super) fn start(facts: Facts) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("keys-reports".into()).spawn(move || {
            runtime.block_on(async {
                let mut uses =
                    Uses { facts: facts.clone(), line: Line::new(&facts), tally: Tally::default(), sent: None };
                tokio::select! {
                    // Told or dropped: either way it is over.
                    _ = stopped => {}
                    () = uses.run() => {}
                    // Whoever only has nothing more to acknowledge still serves: that is no goodbye.
                    () = async {
                        acknowledge(facts.clone()).await;
                        std::future::pending::<()>().await;
                    } => {}
                }
                // Nobody there to hear it: that must not hold up the end.
                let _ = timeout(GOODBYE, uses.say_goodbye()).await;
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Facts {
    /// What is in force now, as a report begins; none before the first set.
    fn report(&self) -> Option<(Value, (Position, bool))> {
        let position = self.applied.borrow().clone()?;
        let durable = self.durable.borrow().as_ref() == Some(&position);
        let report = json!({
            "instance": &*self.instance,
            "epoch": position.epoch,
            "revision": position.revision,
            "digest": position.digest,
            "durable": durable,
        });
        Some((report, (position, durable)))
    }
}

/// Says what is in force whenever that changes.
async fn acknowledge(mut facts: Facts) {
    let mut line = Line::new(&facts);
    let mut told = None;
    let mut latest = SOONEST;
    loop {
        // Seen before it is read: what changes in between is told next.
        facts.applied.mark_unchanged();
        facts.durable.mark_unchanged();
        let connection = *facts.connections.borrow_and_update();
        let mut failed = false;
        if let Some((report, state)) = facts.report() {
            let state = (state, connection);
            // Before the stream is there, nobody knows us.
            if connection > 0 && told.as_ref() != Some(&state) {
                failed = !line.post(&report).await;
                if !failed {
                    (told, latest) = (Some(state), SOONEST);
                }
            }
        }
        let again = async {
            if failed {
                sleep(random_between(SOONEST, latest)).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = facts.applied.changed() => if changed.is_err() { return },
            _ = facts.durable.changed() => {}
            _ = facts.connections.changed() => {}
            () = again => latest = (latest * 2).min(LATEST),
        }
    }
}

/// Says what keys were used.
struct Uses {
    facts: Facts,
    line: Line,
    tally: Tally,
    /// What was sent and not answered: it is sent again as it was, so that it counts once.
    sent: Option<Value>,
}

impl Uses {
    async fn run(&mut self) {
        loop {
            sleep(EVERY).await;
            while self.tell().await {}
        }
    }

    /// True: there is more to tell at once.
    async fn tell(&mut self) -> bool {
        if self.sent.is_none() {
            let Some((report, _)) = self.facts.report() else { return false };
            self.sent = self.gather(report);
        }
        let Some(report) = &self.sent else { return false };
        if !self.line.post(report).await {
            return false;
        }
        self.sent = None;
        self.tally.settle();
        self.tally.has_more()
    }

    /// A report with what has happened since the last one; none where nothing has.
    fn gather(&mut self, mut report: Value) -> Option<Value> {
        let held = self.facts.store.load().as_ref().map(Arc::clone)?;
        let (seq, usage) = self.tally.gather(&held)?;
        report["seq"] = seq.into();
        report["usage"] = usage.into();
        Some(report)
    }

    /// What is left to tell, and that we go.
    async fn say_goodbye(&mut self) {
        while self.tell().await {}
        if let Some((mut report, _)) = self.facts.report() {
            report["goodbye"] = true.into();
            self.line.post(&report).await;
        }
    }
}

/// A connection for reports, one after the other.
struct Line {
    clients: watch::Receiver<Arc<Client>>,
    connection: Option<Connection>,
    failing: bool,
}

impl Line {
    fn new(facts: &Facts) -> Self {
        Self { clients: facts.clients.clone(), connection: None, failing: false }
    }

    /// Posts a report. Whether it was taken.
    async fn post(&mut self, report: &Value) -> bool {
        let body = report.to_string().into_bytes();
        let outcome = match timeout(PATIENCE, self.try_post(body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("it took too long".to_owned()),
        };
        if let Err(why) = &outcome {
            self.connection = None;
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(error = %why, "a report to the control endpoint was not taken; it is sent again");
            }
        } else {
            self.failing = false;
        }
        outcome.is_ok()
    }

    async fn try_post(&mut self, body: Vec<u8>) -> Result<(), String> {
        if self.clients.has_changed().unwrap_or(false) {
            self.connection = None;
        }
        let client = Arc::clone(&self.clients.borrow_and_update());
        // A kept connection may have been closed meanwhile: that says nothing of the next one.
        for kept in [true, false] {
            let connection = match self.connection.take().filter(|connection| kept && connection.is_open()) {
                Some(connection) => connection,
                None if kept => continue,
                None => client.connect().await.map_err(|error| chain(&error))?,
            };
            let connection = self.connection.insert(connection);
            let posted = connection.request(&client, Method::POST, "/sync/v1/report", Some(body.clone()), MOST).await;
            match posted {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                Ok(answer) => return Err(format!("status {}", answer.status.as_u16())),
                Err(_) if kept => self.connection = None,
                Err(error) => return Err(chain(&error)),
            }
        }
        Err("there is no connection".to_owned())
    }
}
