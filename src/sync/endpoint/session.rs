//! Talking with the endpoint: the whole set, then the changes, and again when the connection is lost.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    sync::{mpsc, watch},
    time::{Interval, sleep, timeout},
};

use super::{
    Message,
    engine::{Engine, Refused},
    identity::Identity,
    protocol::{StreamLine, stream_line},
    rows::Gathering,
};
use crate::{
    client::{Answer, Client, ClientError, Line, Lines, Opened},
    clock::{self, Moment},
    fault::chain,
};

/// Nothing for so long is a connection that is lost.
const SILENCE: Duration = Duration::from_secs(15);
/// How large a whole set may be, and how long it may take.
const MAX_SET: u64 = 1024 * 1024 * 1024;
const SET_PATIENCE: Duration = Duration::from_secs(600);
/// How many lines are put into force at once.
const BATCH: usize = 10_000;
/// Between which times a lost connection is tried again: each at random, so that a fleet does not come back as one.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(5);
const LATEST_LATER: Duration = Duration::from_secs(15);
/// How often it is looked after what time alone brings.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long a reload waits to hear whether the endpoint takes what it is shown.
const TRIAL: Duration = Duration::from_secs(5);

/// The conversation with one endpoint.
pub(super) struct Session {
    pub(super) engine: Engine,
    pub(super) client: Arc<Client>,
    pub(super) identity: Arc<Identity>,
    pub(super) messages: mpsc::Receiver<Message>,
    /// Who reports uses the same client.
    pub(super) clients: watch::Sender<Arc<Client>>,
    /// Counts connections: after each, what is in force is reported again.
    pub(super) connections: watch::Sender<u64>,
    /// Told once the first attempt is over, however it ended.
    pub(super) first: Option<std::sync::mpsc::Sender<()>>,
    pub(super) failures: u32,
    /// What was said last of what goes wrong: once, not at every attempt.
    pub(super) said: Option<String>,
    /// Whether the whole set has to be taken.
    pub(super) again: bool,
    /// When it is time to look after what time alone brings.
    pub(super) ticks: Interval,
    /// How often it was, since the endpoint last confirmed it.
    pub(super) taken: u32,
}

/// Why a connection ended.
enum End {
    Stop,
    /// Something was reloaded: at once again.
    Reloaded,
    /// It was lost.
    Lost(String),
    /// What came is not believed.
    Doubted(String),
}

/// What went wrong, and what to do about it where that is known.
fn told(error: &ClientError) -> String {
    let mut why = chain(error);
    if error.is_untrusted() {
        why.push_str("; name the authority of its certificate: [keys.control] ca = \"…\"");
    }
    why
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        let why = told(&error);
        match error {
            ClientError::Redirect { .. } | ClientError::TooLarge { .. } | ClientError::Coded => Self::Doubted(why),
            _ => Self::Lost(why),
        }
    }
}

impl Session {
    /// Until it is told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let end = self.converse().await;
            self.engine.forget_unfinished();
            // The first attempt is over, however it ended.
            self.first.take();
            match end {
                End::Stop => return,
                End::Reloaded => {}
                End::Lost(why) | End::Doubted(why) => {
                    self.failures = self.failures.saturating_add(1);
                    if self.said.as_ref() != Some(&why) {
                        tracing::warn!(url = %self.client.url(), error = %why, "the control endpoint is lost; the keys in force stay");
                    }
                    self.engine.reachable(Some(&why));
                    self.said = Some(why);
                    if self.pause().await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt. True: it is to stop.
    async fn pause(&mut self) -> bool {
        let latest = if self.failures <= 2 { LATEST } else { LATEST_LATER };
        let mut wait = std::pin::pin!(sleep(random_between(SOONEST, latest)));
        loop {
            tokio::select! {
                () = &mut wait => return false,
                _ = self.ticks.tick() => self.engine.tick(clock::moment()),
                message = self.messages.recv() => match message {
                    None | Some(Message::Stop) => return true,
                    Some(message) => {
                        self.reload(message).await;
                        return false;
                    }
                },
            }
        }
    }

    async fn converse(&mut self) -> End {
        self.taken = 0;
        loop {
            if self.again || self.engine.position().is_none() {
                // Twice in one go is an endpoint that contradicts itself.
                if self.taken == 2 {
                    return End::Lost("it asks for its whole set to be taken again and again".to_owned());
                }
                self.taken += 1;
                match self.take_whole().await {
                    Ok(()) => self.again = false,
                    Err(end) => return end,
                }
                self.first.take();
            }
            match self.follow().await {
                Ok(()) => self.again = true,
                Err(end) => return end,
            }
        }
    }

    /// Takes the whole set.
    async fn take_whole(&mut self) -> Result<(), End> {
        let asked = clock::moment();
        let path = format!("/sync/v1/keys?{}", self.query());
        let (client, identity) = (Arc::clone(&self.client), Arc::clone(&self.identity));
        let fetch = async {
            let mut lines = lines_of(client.stream(&path, &identity.replaces(), MAX_SET, SILENCE).await?)?;
            drop(identity.registered());
            let mut gathering = Gathering::default();
            while let Some(line) = lines.next().await? {
                gathering.line(&line.text).map_err(End::Doubted)?;
            }
            gathering.finish().map_err(End::Doubted)
        };
        let fetched = self.attend(timeout(SET_PATIENCE, fetch)).await?;
        let outcome = match fetched {
            Err(_) => Err(End::Doubted("it took too long".to_owned())),
            Ok(Err(end)) => Err(end),
            Ok(Ok(whole)) => {
                let taken = self.engine.whole(whole, asked, clock::moment());
                taken.map_err(|refused| End::Doubted(refused.to_string()))
            }
        };
        outcome.map_err(|end| self.judged("its whole set", end))
    }

    /// Waits for something, and does meanwhile what cannot wait for that.
    async fn attend<T>(&mut self, wanted: impl Future<Output = T>) -> Result<T, End> {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            tokio::select! {
                got = &mut wanted => return Ok(got),
                _ = self.ticks.tick() => self.engine.tick(clock::moment()),
                message = self.messages.recv() => match message {
                    None | Some(Message::Stop) => return Err(End::Stop),
                    Some(message) => if self.reload(message).await {
                        return Err(End::Reloaded);
                    },
                },
            }
        }
    }

    /// Follows the changes. Ok: the whole set has to be taken again.
    async fn follow(&mut self) -> Result<(), End> {
        let Some(position) = self.engine.position() else { return Ok(()) };
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (epoch, digest) = (encoded(&position.epoch), encoded(&position.digest));
        let path =
            format!("/sync/v1/changes?{}&epoch={epoch}&since={}&digest={digest}", self.query(), position.revision);
        let asked = clock::moment();
        let client = Arc::clone(&self.client);
        let replaces = self.identity.replaces();
        let opened = match self.attend(client.stream(&path, &replaces, u64::MAX, SILENCE)).await? {
            Ok(Opened::Other(Answer { status: http::StatusCode::GONE, .. })) => return Ok(()),
            other => other.map_err(|error| self.judged("its changes", error.into()))?,
        };
        let mut lines = lines_of(opened).map_err(|end| self.judged("its changes", end))?;
        drop(self.identity.registered());
        lines.asked_at(asked);
        self.connections.send_modify(|number| *number += 1);
        loop {
            let line = self.attend(lines.next()).await?.map_err(|error| self.judged("its changes", error.into()))?;
            let Some(line) = line else { return Err(End::Lost("it ended the stream of changes".to_owned())) };
            match self.take(line, &mut lines) {
                Ok(confirmed) => {
                    if let Some(at) = confirmed {
                        self.confirmed(at);
                    }
                }
                Err(Refused::Again(why)) => {
                    tracing::warn!(reason = %why, "the whole key set is taken again");
                    return Ok(());
                }
                // What contradicts itself is asked again from the beginning, later.
                Err(refused) => {
                    self.again = true;
                    return Err(self.judged("a line of its changes", End::Doubted(refused.to_string())));
                }
            }
        }
    }

    /// Takes a line and all that are here behind it, at once. Gives when the newest was confirmed, if it was.
    fn take(&mut self, line: Line, lines: &mut Lines) -> Result<Option<Moment>, Refused> {
        let mut confirmed = None;
        let mut next = Some(line);
        let mut count = 0;
        let mut refused = None;
        while let Some(line) = next {
            let taken = match stream_line(&line.text).map_err(Refused::Nonsense) {
                Ok(StreamLine::Change(change)) => self.engine.change(change, line.text),
                Ok(StreamLine::Heartbeat(revision)) => {
                    self.engine.heartbeat(revision).map(|()| confirmed = Some(line.fresh))
                }
                Err(nonsense) => Err(nonsense),
            };
            if let Err(why) = taken {
                refused = Some(why);
                break;
            }
            count += 1;
            // An error of the connection shows again at the next line.
            next = if count < BATCH { lines.next_now().unwrap_or_default() } else { None };
        }
        self.engine.acknowledge_cuts();
        // What came before something that is not believed was good.
        self.engine.settle(clock::moment())?;
        match refused {
            Some(refused) => Err(refused),
            None => Ok(confirmed),
        }
    }

    fn confirmed(&mut self, at: Moment) {
        self.engine.confirm(at);
        if self.failures > 0 {
            tracing::info!(url = %self.client.url(), "the control endpoint is back");
        }
        self.failures = 0;
        self.said = None;
        self.taken = 0;
        self.first.take();
        self.engine.reachable(None);
    }

    /// Of something that is not believed: an alarm, and the keys in force stay.
    fn judged(&mut self, what: &str, end: End) -> End {
        let End::Doubted(why) = end else { return end };
        let why = format!("{what} is not taken: {why}");
        if self.said.as_ref() != Some(&why) {
            tracing::error!(url = %self.client.url(), "{why}; the keys in force stay");
        }
        self.engine.refused(&why);
        self.said = Some(why.clone());
        End::Doubted(why)
    }

    fn query(&self) -> String {
        let [(_, read), (_, write)] = self.engine.wanted().each();
        format!(
            "instance={}&max_stale={}&max_stale_write={}",
            utf8_percent_encode(&self.identity.instance, NON_ALPHANUMERIC),
            read.as_secs(),
            write.as_secs()
        )
    }

    /// Takes new settings. True: they were taken, and the connection has to be made anew.
    async fn reload(&mut self, message: Message) -> bool {
        let Message::Reload { client, terms, limits, answer } = message else { return false };
        let outcome = self.try_out(&client).await;
        let taken = outcome.is_ok();
        if taken {
            self.client = Arc::new(*client);
            self.clients.send_replace(Arc::clone(&self.client));
            self.engine.reload(*terms, limits, clock::moment());
        }
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
        taken
    }

    /// Whether the endpoint, if it can be reached, takes what this client shows it.
    async fn try_out(&self, client: &Client) -> Result<(), String> {
        let path = format!("/sync/v1/changes?{}&epoch=&since=0&digest=", self.query());
        match client.stream(&path, &HeaderMap::new(), MAX_SET, TRIAL).await {
            Ok(Opened::Other(answer)) if matches!(answer.status.as_u16(), 401 | 403) => Err(answered(&answer)),
            Err(error @ ClientError::Tls { .. }) => Err(told(&error)),
            // With TLS 1.3 a certificate of ours is refused after the handshake, instead of an answer.
            Err(error @ ClientError::Http(_)) if client.shows_certificate() => Err(told(&error)),
            // Where nobody answers, nobody has refused.
            _ => Ok(()),
        }
    }
}

/// The lines of an answer, if it has any.
fn lines_of(opened: Opened) -> Result<Box<Lines>, End> {
    match opened {
        Opened::Lines(lines) if is_ndjson(&lines.headers) => Ok(lines),
        Opened::Lines(_) => Err(End::Doubted("it answered with something that is no application/x-ndjson".to_owned())),
        Opened::Other(answer) => Err(End::Doubted(answered(&answer))),
    }
}

fn answered(answer: &Answer) -> String {
    match answer.status.as_u16() {
        status @ (401 | 403) => {
            format!("it does not accept our token or certificate (status {status}){}", said(answer))
        }
        status => format!("it answered with status {status}{}", said(answer)),
    }
}

/// What an endpoint like ours says of a refusal, as far as that can be shown.
fn said(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    let plain: String = message.chars().filter(|char| !char.is_control()).take(400).collect();
    if plain.is_empty() { plain } else { format!(": {plain}") }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-ndjson")
}

/// Some time between two others.
pub(super) fn random_between(least: Duration, most: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the middle has to do.
    let share = match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    };
    least + (most.saturating_sub(least)).mul_f64(share)
}
