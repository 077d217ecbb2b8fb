//! The life of a request, from its head to its answer.
//!
//! | # | stage | takes → gives | may refuse with |
//! |---|---|---|---|
//! | 1 | arrive | head, peer → [`Facts`] | `bad_request`, `method_not_allowed`, 414, 431 |
//! | 2 | route | [`Facts`] → [`Need`] | `bad_request`, `method_not_allowed`, 413 |
//! | 3 | take by address | [`Facts`], [`Need`] → – | `ip_limit` |
//! | 4 | extract | head → [`Presented`] | `missing_credentials`, `malformed`, two at once |
//! | 5, 6 | find, verify | credential → [`Identity`](crate::policy::Identity) | `unknown_key`, `wrong_secret`, `failure_limit`, … |
//! | 7 | decide | identity, need, facts → [`Permit`](crate::policy::Permit) | address, mode, route, scope, capability, KYC |
//! | 8 | take by key and owner | permit → what remains | `key_limit`, `owner_limit` |
//! | 9 | forward | request, [`Passage`] → answer | `upstream_*` |
//! | 10 | record | dropping the [`Record`] writes it | – |
//!
//! Stages 1 to 8 are in the file `judge`. Only what has to be waited for is a future: a form, a secret, the upstream.
//!
//! The order is the order of refusals in the manual. The cheap and protective stages come first; nothing is charged to
//! a key before its secret was verified; and only what policy made can be forwarded.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;

use super::{
    Shared,
    body::{Body, Forwarded, RequestBody, StreamedRequest, Upload},
    client_body::{BodyEnd, ClientBody},
    failure::{bad_answer, or_cut},
    form,
    live::Local,
    outgoing::{Identity, Outgoing, Way},
    record::{Record, Recorder},
    respond::{self, Afterwards},
    settings::HostRule,
    tunnel,
    upstream::{self, Caller, RequestFraming, Sending, answer::Asked},
};
use crate::{
    clock,
    credential::{self, Presented},
    facts::Facts,
    limits::AddressHandle,
    listener::{self, Connection, Exchange, Fields, Incoming, Service, Serving},
    policy::{Need, Passage},
    rejection::{Reason, Rejection},
};

/// Judges and forwards the requests of one serving thread.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) shared: Arc<Shared>,
    recorder: Rc<Recorder>,
    threads: usize,
    local: RefCell<Rc<Local>>,
    /// Room for the forms that are being read to be judged.
    forms: Rc<form::Room>,
}

/// What requests of one connection have in common, so that it is found or written once.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The counters of its address.
    pub(super) address: RefCell<AddressHandle>,
    /// What the upstream is told of the way that its requests took.
    pub(super) way: Way,
}

/// One request on its way through the stages.
pub(super) struct Judged {
    pub(super) local: Rc<Local>,
    pub(super) connection: Rc<Connection>,
    pub(super) exchange: Exchange,
    /// The fields of the request, from when they were judged until they are handed on.
    pub(super) headers: HeaderMap,
    /// The body, until it is handed on.
    pub(super) body: Option<ClientBody>,
    /// The body, where it had to be read to be judged.
    pub(super) form: Option<Bytes>,
    pub(super) bodiless: bool,
    pub(super) end: BodyEnd,
    pub(super) record: Box<Record>,
    /// What is kept with the connection.
    pub(super) kept: Option<Rc<Kept>>,
}

/// What is to be done for a request, as far as it is known without waiting.
pub(super) enum Step {
    /// Its form is to be read before it can be judged.
    Form,
    /// The credential it has shown is to be verified.
    Verify(Box<Presented>),
    /// It is to be forwarded.
    Forward(Box<Sending>),
    /// The health path is asked for.
    Health,
}

/// What it came to that a request was shown to the pipeline, unless that panicked.
type Outcome<T> = std::thread::Result<Result<T, Rejection>>;

impl Pipeline {
    /// The pipeline of one of `threads` serving threads.
    pub fn new(shared: Arc<Shared>, recorder: Recorder, threads: usize) -> Self {
        let local = Local::new(shared.live.load_full(), threads, None);
        Self { shared, recorder: Rc::new(recorder), threads, local: RefCell::new(local), forms: Rc::default() }
    }

    /// This thread's view of the settings in force.
    fn local(&self) -> Rc<Local> {
        let live = self.shared.live.load();
        let mut local = self.local.borrow_mut();
        if !Arc::ptr_eq(&live, &local.live) {
            *local = Local::new(Arc::clone(&live), self.threads, Some(&local));
        }
        Rc::clone(&local)
    }

    /// Drops kept connections that have lain too long. Called once a second.
    pub fn tick(&self) {
        let now = clock::mono();
        for pool in self.local().pools() {
            pool.prune(now);
        }
    }

    /// A request arrives: as far as it goes without waiting for anybody.
    fn answer(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Serving<Body> {
        let (head, body) = request.into_parts();
        let body = ClientBody::new(body, head.version);
        let (bodiless, end) = (body.is_end_stream(), body.end());
        let now = clock::now();
        let exchange = connection.begin(now.mono);
        let local = self.local();
        let record = Record::begin(&self.recorder, &local, &connection, head.version, now);
        let (kept, headers, body) = (connection.kept(), HeaderMap::new(), Some(body));
        let mut judged = Judged { local, connection, exchange, headers, body, form: None, bodiless, end, record, kept };
        // A panic ends this exchange alone.
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.arrived(head, &mut judged))) {
            Ok(Ok(Step::Health)) => Ok(Ok(Answer::Health)),
            Ok(Ok(step)) => return Serving::Awaited(Box::pin(self.go_on(judged, step))),
            Ok(Err(rejection)) => Ok(Err(rejection)),
            Err(panic) => Err(panic),
        };
        Serving::Answered(judged.complete(outcome))
    }

    /// What is left to do where somebody has to be waited for.
    #[expect(clippy::manual_async_fn, reason = "a function's future has room for its arguments twice")]
    fn go_on(self: Rc<Self>, mut judged: Judged, step: Step) -> impl Future<Output = listener::Answer<Body>> {
        async move {
            let outcome = {
                let mut steps = pin!(self.steps(&mut judged, step));
                poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| steps.as_mut().poll(cx))) {
                    Ok(poll) => poll.map(Ok),
                    Err(panic) => Poll::Ready(Err(panic)),
                })
                .await
            };
            judged.complete(outcome)
        }
    }

    async fn steps(&self, judged: &mut Judged, mut step: Step) -> Result<Answer, Rejection> {
        if let Step::Form = step {
            // Large and seldom needed, so neither this nor the next is a part of the future.
            Box::pin(self.read_form(judged)).await?;
            step = self.judge(judged)?;
        }
        if let Step::Verify(presented) = step {
            let verified = Box::pin(self.verify(&presented, judged)).await;
            step = self.verified(verified, judged)?;
        }
        match step {
            Step::Forward(sending) => self.forward(sending, judged).await,
            Step::Health => Ok(Answer::Health),
            // Both are done.
            Step::Form | Step::Verify(_) => Err(Reason::Internal.into()),
        }
    }

    async fn read_form(&self, judged: &mut Judged) -> Result<(), Rejection> {
        let client = judged.facts()?.client;
        let form = form::read(&mut judged.body, &self.forms, client, &judged.exchange).await?;
        judged.record.received(form.len());
        let facts = judged.record.facts_mut().ok_or(Reason::Internal)?;
        facts.judge_form(&form, &judged.local.live.facts)?;
        judged.form = Some(form);
        Ok(())
    }

    /// Stage 9, before anything is sent: the request as the upstream gets it. It is no part of the future that waits.
    pub(super) fn prepare(&self, passage: &Passage, need: &Need<'_>, judged: &mut Judged) -> Result<Step, Rejection> {
        let local = Rc::clone(&judged.local);
        let live = &local.live;
        let overloaded = || Rejection::from(Reason::Overloaded).retry_after(1);
        let key = passage.record();
        let client = judged.facts()?.client;
        let (body, form) = (judged.body.take(), judged.form.take());
        let place = live.in_flight.enter(key.map(|key| &**key), client).ok_or_else(overloaded)?;
        let caller = key.map_or_else(|| Caller::at(client), |key| Caller::with(key));
        // Of a request that is only observed, too, the upstream is the one of its key's mode.
        let mode = judged.record.key().and_then(|key| key.mode);
        let pool = local.pool(need.upstream(), mode);

        let has_body = form.is_some() || body.as_ref().is_some_and(|body| !body.is_end_stream());
        let version = judged.record.version();
        let facts = judged.record.facts_mut().ok_or(Reason::Internal)?;
        let upgrade = tunnel::wanted(&judged.headers, version, &facts.method, need).filter(|_| !has_body);
        credential::strip(&mut judged.headers, &mut facts.target, &live.credential);

        let response_timeout = need.response_timeout().unwrap_or(live.response_timeout);
        let now = clock::mono();
        if let Some(key) = key {
            judged.exchange.watch_key(Arc::clone(&key.state), live.cut_on_revoke || upgrade.is_some());
        }
        let (body, upload) = match (form, body) {
            (Some(form), _) => (RequestBody::Judged(Some(form)), None),
            (None, Some(incoming)) if !incoming.is_end_stream() => {
                let upload = Upload::new(judged.exchange.clone(), need.max_body(live.max_body), response_timeout);
                let stream = StreamedRequest { incoming, upload: Rc::clone(&upload), local: Rc::clone(&local) };
                (RequestBody::Stream(stream), Some(upload))
            }
            (None, _) => (RequestBody::Empty, None),
        };
        if upload.is_none() {
            judged.exchange.await_upstream(now.plus(response_timeout));
        }
        judged.record.forwarded(upload.clone(), now);
        let facts = judged.facts()?;
        let framing = RequestFraming::of(&body);
        let head = live.rules.write_request(
            &judged.headers,
            &Outgoing {
                method: &facts.method,
                base_path: &pool.destination().base_path,
                facts,
                identity: key.map_or(Identity::Nobody, |key| Identity::Key(key)),
                peer: judged.connection.peer(),
                way: judged.kept.as_deref().map(|kept| &kept.way),
                host: match &live.host {
                    HostRule::Preserve => facts.host.authority().as_bytes(),
                    HostRule::Upstream => pool.destination().authority.as_bytes(),
                    HostRule::Name(name) => name.as_bytes(),
                },
                authorization: live.authorization(need.upstream()),
                upgrade: upgrade.as_ref(),
                framing,
            },
        );
        let asked = Asked { head: facts.method == http::Method::HEAD };
        // All that is asked of them has been asked; the next request finds their memory warm.
        judged.connection.take_back(mem::take(&mut judged.headers));
        let pool = Rc::clone(pool);
        Ok(Step::Forward(Box::new(Sending { pool, caller, head, body, framing, asked, upload, upgrade, place, now })))
    }

    async fn forward(&self, sending: Box<Sending>, judged: &mut Judged) -> Result<Answer, Rejection> {
        let upload = sending.upload.clone();
        let upgrade = sending.upgrade.clone();
        let sent = pin!(upstream::send(sending));
        let (answer, lease) =
            or_cut(&judged.exchange, sent).await.map_err(|failure| failure.rejection(upload.as_deref()))?;
        if let Some(upload) = &upload {
            upload.answered();
        }
        judged.exchange.idle();

        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(protocol) = upgrade else {
                return Err(bad_answer("the upstream switched protocols without being asked to"));
            };
            let fields = self.fields(&answer.fields, judged);
            return tunnel::accept(&answer, fields, lease, &protocol)
                .map(Answer::Tunnel)
                .ok_or_else(|| bad_answer("the upstream switched to another protocol than asked for"));
        }
        let mut fields = self.fields(&answer.fields, judged);
        if let Some(length) = answer.length {
            fields.set_length(length);
        }
        if !judged.end.is_clear() {
            fields.close();
        }
        if answer.body.is_end_stream() {
            lease.answer_ended(answer.body.leaves_connection());
        }
        let upstream::Answer { status, reason, body, .. } = *answer;
        let answer = listener::Answer::new(status, fields, body).reason(reason);
        Ok(Answer::Upstream(Forwarded { status, answer, lease }))
    }

    /// The fields of an answer: the upstream's that pass, and ours.
    fn fields(&self, received: &upstream::Received, judged: &Judged) -> Fields {
        let live = &judged.local.live;
        let mut fields = judged.connection.fields();
        live.rules.copy_answer(received, |name| judged.record.readings.replaces(live.limit_headers, name), &mut fields);
        if let Some(request_id) = judged.record.request_id() {
            fields.put_ours(&respond::X_REQUEST_ID, request_id.header_value());
        }
        respond::put_readings(&judged.record.readings, live, &mut fields);
        for subject in judged.record.readings.near() {
            self.recorder.metrics.limit_near(subject);
        }
        fields
    }
}

impl Service for Pipeline {
    type Body = Body;

    fn serve(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Serving<Body> {
        self.answer(connection, request)
    }
}

impl Judged {
    pub(super) fn facts(&self) -> Result<&Facts, Rejection> {
        // There are none only before stage 1, which nothing else precedes.
        self.record.facts().ok_or_else(|| Reason::Internal.into())
    }

    /// The answer. With it goes the record, which is written when it has been sent.
    fn complete(self, outcome: Outcome<Answer>) -> listener::Answer<Body> {
        let Self { local, connection, exchange, headers, body, bodiless, end, record, .. } = self;
        connection.take_back(headers);
        let rejection = match outcome {
            Ok(Ok(Answer::Upstream(response))) => return response.complete(record, &exchange, &local),
            Ok(Ok(Answer::Tunnel(accepted))) => return accepted.complete(record, &exchange, &connection),
            Ok(Ok(Answer::Health)) => {
                return respond::health(record, exchange, connection.draining(), Afterwards::keep_if(end.is_clear()));
            }
            Ok(Err(rejection)) => rejection,
            Err(_) => {
                tracing::error!("a request made the pipeline panic");
                Reason::Internal.into()
            }
        };
        // Of a body that was handed on, nobody knows here how much was read.
        let unread = !bodiless && body.is_none_or(|body| !body.is_end_stream());
        // Nor where the request ends, if a field may have told another reader so (RFC 9112 §11.2).
        let unclear = matches!(rejection.reason, Reason::AmbiguousFraming | Reason::AmbiguousFieldName);
        let afterwards = Afterwards::keep_if(!unread && !unclear && end.is_clear());
        respond::refuse(rejection, &local.live, record, exchange, afterwards)
    }
}

/// What a request is answered with.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, which a box would only make dearer")]
enum Answer {
    Upstream(Forwarded),
    Tunnel(Box<tunnel::Accepted>),
    Health,
}
