//! What is kept of one request. Dropping the record writes it: one log line, the counters, the key's last use; so a
//! request whose caller went away is recorded, too.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{Method, Version};

use super::{body::Upload, live::Local};
use crate::{
    clock::{self, Mono, Now},
    facts::{Facts, RequestId},
    keys::KeyRecord,
    limits::Readings,
    listener::{Connection, Cut},
    rejection::{Reason, Rejection},
    telemetry::{AccessLog, KeyOutcome, Line, Metrics, Outcome},
};

/// Where records go; one per serving thread.
#[derive(Debug)]
pub struct Recorder {
    /// The counters of this thread.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub log: AccessLog,
}

/// What is known of one request, until it is over.
#[derive(Debug)]
pub struct Record {
    recorder: Rc<Recorder>,
    local: Rc<Local>,
    connection: Rc<Connection>,
    began: Now,
    version: Version,
    /// The request as it arrived, where it was too unclear to become facts.
    raw: Option<Raw>,
    facts: Option<Facts>,
    route: Option<usize>,
    key: Option<Arc<KeyRecord>>,
    /// What remains of the windows that it was taken from.
    pub(super) readings: Readings,
    status: u16,
    outcome: Outcome,
    reason: Option<Reason>,
    note: Option<Box<str>>,
    upload: Option<Rc<Upload>>,
    upstream_asked: Option<Mono>,
    upstream_answered: Option<Mono>,
    /// What came from the caller beside an upload, which counts its own.
    bytes_in: u64,
    bytes_out: u64,
    answer_ended: bool,
}

#[derive(Debug)]
struct Raw {
    method: Method,
    path: Box<str>,
    host: Box<str>,
    request_id: RequestId,
}

impl Record {
    /// Begins the record of a request.
    pub fn begin(
        recorder: &Rc<Recorder>,
        local: &Rc<Local>,
        connection: &Rc<Connection>,
        version: Version,
        began: Now,
    ) -> Box<Self> {
        Box::new(Self {
            recorder: Rc::clone(recorder),
            local: Rc::clone(local),
            connection: Rc::clone(connection),
            began,
            version,
            raw: None,
            facts: None,
            route: None,
            key: None,
            readings: Readings::default(),
            status: 0,
            // What is dropped before anything was decided was given up by its caller.
            outcome: Outcome::Failed,
            reason: None,
            note: None,
            upload: None,
            upstream_asked: None,
            upstream_answered: None,
            bytes_in: 0,
            bytes_out: 0,
            answer_ended: false,
        })
    }

    /// The request was too unclear to become facts.
    pub fn unclear(&mut self, head: &http::request::Parts, request_id: RequestId) {
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        self.raw =
            Some(Raw { method: head.method.clone(), path: head.uri.path().into(), host: host.into(), request_id });
    }

    /// The facts of the request; they stay here until it is over.
    pub fn set_facts(&mut self, facts: Facts) -> &mut Facts {
        if facts.untrusted_forwarded {
            self.recorder.metrics.untrusted_forwarded();
        }
        self.recorder.metrics.client_ip_source(facts.client_source);
        self.facts.insert(facts)
    }

    /// The facts, once there are any.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// The facts, to be completed.
    pub fn facts_mut(&mut self) -> Option<&mut Facts> {
        self.facts.as_mut()
    }

    /// The id that caller, upstream and operator share.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.facts.as_ref().map(|facts| &facts.request_id).or(self.raw.as_ref().map(|raw| &raw.request_id))
    }

    /// The method as sent.
    pub fn method(&self) -> &Method {
        match (&self.facts, &self.raw) {
            (Some(facts), _) => &facts.method,
            (None, Some(raw)) => &raw.method,
            (None, None) => &Method::GET,
        }
    }

    /// The method that the upstream would act on: the one as sent, unless something overrides it.
    pub fn effective_method(&self) -> &Method {
        self.facts.as_ref().and_then(|facts| facts.effective_method.as_ref()).unwrap_or_else(|| self.method())
    }

    /// The version of HTTP that the client speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// When the request began.
    pub fn began(&self) -> Now {
        self.began
    }

    /// The route that matched.
    pub fn set_route(&mut self, index: Option<usize>) {
        self.route = index;
    }

    /// The key, as soon as it was recognised.
    pub fn set_key(&mut self, key: &Arc<KeyRecord>) {
        self.key = Some(Arc::clone(key));
    }

    /// The key, once it was recognised.
    pub fn key(&self) -> Option<&Arc<KeyRecord>> {
        self.key.as_ref()
    }

    /// What the operator should know beyond the reason.
    pub fn note(&mut self, note: impl Into<Box<str>>) {
        self.note = Some(note.into());
    }

    /// The request was refused, or could not be forwarded.
    pub fn refused(&mut self, rejection: &mut Rejection, status: u16) {
        let failed = rejection.reason.is_upstream() || rejection.reason == Reason::Internal;
        self.outcome = if failed { Outcome::Failed } else { Outcome::Refused };
        self.reason = Some(rejection.reason);
        self.status = status;
        if let Some(note) = rejection.note.take() {
            self.note = Some(note);
        }
        self.recorder.metrics.rejected(rejection.reason);
    }

    /// The request would have been refused, but its route only observes.
    pub fn observed(&mut self, rejection: &Rejection) {
        self.outcome = Outcome::Observed;
        self.reason = Some(rejection.reason);
        self.recorder.metrics.observed(rejection.reason);
    }

    /// The request is on its way to the upstream.
    pub fn forwarded(&mut self, upload: Option<Rc<Upload>>, now: Mono) {
        self.upload = upload;
        self.upstream_asked = Some(now);
    }

    /// The request was answered, by the upstream or by us.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        if self.outcome != Outcome::Observed {
            self.outcome = Outcome::Allowed;
        }
        if self.upstream_asked.is_some() {
            self.upstream_answered = Some(clock::mono());
        }
    }

    /// Bytes came from the caller that are no upload: a form that was read to be judged, or what a tunnel took.
    pub fn received(&mut self, bytes: usize) {
        self.bytes_in += bytes as u64;
    }

    /// Bytes of the answer's body were handed on.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The last byte of the upstream's answer was handed on.
    pub fn answer_ended(&mut self) {
        self.answer_ended = true;
    }

    /// The exchange was cut after the answer had begun.
    pub fn cut(&mut self, cut: Cut) {
        self.outcome = Outcome::Failed;
        self.note = Some(
            match cut {
                Cut::BodyTimeout => "cut: the caller's body made no progress",
                Cut::WriteTimeout => "cut: the caller did not read the answer",
                Cut::ResponseTimeout => "cut: the upstream made no progress",
                Cut::Revoked => "cut: the key was revoked",
                Cut::Drain => "cut: the time to finish was over",
            }
            .into(),
        );
    }

    /// The upstream's answer broke off after it had begun.
    pub fn upstream_broke(&mut self) {
        self.outcome = Outcome::Failed;
        self.reason = Some(Reason::UpstreamUnreachable);
        self.recorder.metrics.upstream_failed(Reason::UpstreamUnreachable);
        self.note = Some("the upstream's answer broke off".into());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = clock::mono();
        let metrics = &self.recorder.metrics;
        if self.upstream_answered.is_some() && !self.answer_ended && self.outcome == Outcome::Allowed {
            self.outcome = Outcome::Failed;
            self.note.get_or_insert_with(|| "the caller went away before the end of the answer".into());
        }
        let duration = now.since(self.began.mono);
        metrics.request(self.outcome);
        metrics.request_seconds(duration);
        let upstream_duration = self.upstream_asked.map(|asked| {
            let answered = self.upstream_answered.unwrap_or(now);
            answered.since(asked)
        });
        if let Some(duration) = upstream_duration {
            metrics.upstream_seconds(duration);
        }
        if let Some(key) = &self.key {
            let outcome = match self.outcome {
                Outcome::Allowed | Outcome::Failed | Outcome::Observed => KeyOutcome::Allowed,
                Outcome::Refused => KeyOutcome::Refused,
            };
            metrics.key_request(&key.state, outcome);
            if let (KeyOutcome::Refused, Some(reason), Some(facts)) = (outcome, self.reason, &self.facts) {
                key.state.refusals.note(reason as u8, self.began.at(now).wall, facts.client);
            }
        }
        if !self.recorder.log.wants(self.outcome) {
            return;
        }
        // What took no time needs no second look at the wall clock; while a tunnel is open it may be set.
        let wall = if duration < Duration::from_secs(1) { self.began.at(now).wall } else { clock::now().wall };
        let peer = self.connection.peer();
        let (client, method, host, path, request_id) = match (&self.facts, &self.raw) {
            (Some(facts), _) => {
                (facts.client, &facts.method, facts.host.as_bytes(), facts.target.path(), facts.request_id.as_bytes())
            }
            (None, Some(raw)) => (peer, &raw.method, raw.host.as_bytes(), &*raw.path, raw.request_id.as_bytes()),
            (None, None) => (peer, &Method::GET, b"".as_slice(), "", b"".as_slice()),
        };
        self.recorder.log.write(&Line {
            now: wall,
            request_id,
            client,
            peer,
            method: method.as_str(),
            host,
            path,
            http_version: self.version,
            status: self.status,
            outcome: self.outcome,
            reason: self.reason,
            key_id: self.key.as_ref().map(|key| &key.id),
            owner: self.key.as_ref().map(|key| &key.owner.id),
            route: self.route.and_then(|index| self.local.live.policy.route_label(index)),
            note: self.note.as_deref(),
            duration,
            upstream_duration,
            bytes_in: self.bytes_in + self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_out,
            tls: self.connection.secure(),
        });
    }
}
