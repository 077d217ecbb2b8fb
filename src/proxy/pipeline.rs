//! The life of a request, from its head to its answer.
//!
//! | # | stage | takes → gives | may refuse with |
//! |---|---|---|---|
//! | 1 | arrive | head, peer → [`Facts`] | `bad_request`, `method_not_allowed`, 414, 431 |
//! | 2 | route | [`Facts`] → [`Need`] | `bad_request`, `method_not_allowed`, 413 |
//! | 3 | take by address | [`Facts`], [`Need`] → – | `ip_limit` |
//! | 4 | extract | head → [`Presented`](crate::credential::Presented) | `missing_credentials`, `malformed`, two at once |
//! | 5, 6 | find, verify | credential → [`Identity`](crate::policy::Identity) | `unknown_key`, `wrong_secret`, `failure_limit`, … |
//! | 7 | decide | identity, need, facts → [`Permit`](crate::policy::Permit) | address, mode, route, scope, capability, KYC |
//! | 8 | take by key and owner | permit → what remains | `key_limit`, `owner_limit` |
//! | 9 | forward | request, [`Passage`] → answer | `upstream_*` |
//! | 10 | record | dropping the [`Record`] writes it | – |
//!
//! The order is the order of refusals in the manual. The cheap and protective stages come first; nothing is charged to
//! a key before its secret was verified; and only what policy made can be forwarded.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header, request::Parts};
use http_body::Body as _;

use super::{
    Shared,
    authenticate::{authenticate, charge_failure, check_freshness, recognise},
    body::{Body, Forwarded, RequestBody, StreamedRequest, Upload},
    client_body::{BodyEnd, ClientBody},
    failure::{bad_answer, or_cut},
    form,
    live::{Live, Local},
    outgoing::{Identity, Outgoing, Way},
    record::{Record, Recorder},
    respond::{self, Afterwards},
    settings::HostRule,
    tunnel,
    upstream::{self, Caller, RequestFraming, Sending, answer::Asked},
};
use crate::{
    clock, credential,
    facts::{self, Arrival, Facts},
    keys::Purpose,
    limits::{AddressHandle, Readings},
    listener::{self, Connection, Exchange, Fields, Incoming, OurField, Service},
    policy::{Need, Passage},
    rejection::{Reason, Rejection},
};

/// Judges and forwards the requests of one serving thread.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    recorder: Rc<Recorder>,
    threads: usize,
    local: RefCell<Rc<Local>>,
    /// Room for the forms that are being read to be judged.
    forms: Rc<form::Room>,
}

/// What requests of one connection have in common, so that it is found or written once.
#[derive(Debug, Default)]
struct Kept {
    /// The counters of its address.
    address: RefCell<AddressHandle>,
    /// What the upstream is told of the way that its requests took.
    way: Way,
}

/// One request while it is judged.
struct Judged<'a> {
    local: &'a Rc<Local>,
    connection: &'a Rc<Connection>,
    exchange: &'a Exchange,
    record: Box<Record>,
    readings: Readings,
    /// What is kept with the connection.
    kept: Option<Rc<Kept>>,
    end: BodyEnd,
}

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

    async fn answer(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> listener::Answer<Body> {
        let (mut head, body) = request.into_parts();
        let body = ClientBody::new(body, head.version);
        let (bodiless, end) = (body.is_end_stream(), body.end());
        let mut body = Some(body);
        let now = clock::now();
        let exchange = connection.begin(now.mono);
        let local = self.local();
        let record = Record::begin(&self.recorder, &local, &connection, head.version, now);
        let kept = connection.kept();
        let (local, connection, exchange, readings) = (&local, &connection, &exchange, Readings::default());
        let mut judged = Judged { local, connection, exchange, record, readings, kept, end };
        // A panic ends this exchange alone.
        let outcome = {
            let mut judging = pin!(self.judge_and_forward(&mut head, &mut body, &mut judged));
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| judging.as_mut().poll(cx))) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            })
            .await
        };
        let Judged { record, readings, end, .. } = judged;
        connection.take_back(std::mem::take(&mut head.headers));
        let rejection = match outcome {
            Ok(Ok(Answer::Upstream(response))) => return response.complete(record, exchange, local),
            Ok(Ok(Answer::Tunnel(accepted))) => return accepted.complete(record, exchange, connection),
            Ok(Ok(Answer::Health)) => {
                let afterwards = Afterwards::keep_if(end.is_clear());
                return respond::health(record, exchange.clone(), connection.draining(), afterwards);
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
        respond::refuse(rejection, &local.live, record, exchange.clone(), &readings, afterwards)
    }

    async fn judge_and_forward(
        &self,
        head: &mut Parts,
        body: &mut Option<ClientBody>,
        judged: &mut Judged<'_>,
    ) -> Result<Answer, Rejection> {
        let live = &judged.local.live;
        let mut form = None;

        arrive(head, judged)?;
        if judged.facts()?.form_body_pending {
            let client = judged.facts()?.client;
            let read = Box::pin(form::read(body, &self.forms, client, judged.exchange)).await?;
            judged.record.received(read.len());
            let facts = judged.record.facts_mut().ok_or(Reason::Internal)?;
            facts.judge_form(&read, &live.facts)?;
            form = Some(read);
        }
        if is_health(live, judged.facts()?) {
            return Ok(Answer::Health);
        }
        let need = live.policy.route(judged.facts()?)?;
        judged.record.set_route(need.route().map(|route| route.index()));
        check_length(body.as_ref(), form.as_ref(), &need, live)?;
        self.take_by_address(&need, judged)?;
        let passage = match self.permit(head, &need, judged).await {
            Ok(passage) => passage,
            Err(rejection) => need.observed(rejection)?,
        };
        if let Passage::Observed(observed) = &passage {
            judged.record.observed(observed.rejection());
        }
        let sending = self.prepare(head, body.take(), form, &passage, &need, judged)?;
        self.forward(sending, judged).await
    }

    fn take_by_address(&self, need: &Need<'_>, judged: &mut Judged<'_>) -> Result<(), Rejection> {
        if !need.takes_ip_limit() {
            return Ok(());
        }
        let (client, now) = (judged.facts()?.client, judged.record.began().mono);
        let limits = &judged.local.live.limits;
        match judged.kept.as_deref() {
            Some(kept) => {
                let handle = &mut kept.address.borrow_mut();
                self.shared.limiter.take_address_by(handle, limits, client, now, &mut judged.readings)
            }
            None => self.shared.limiter.take_address(limits, client, now, &mut judged.readings),
        }
        .map_err(Rejection::from)
    }

    /// Stages 4 to 8: what a route in observe mode only observes.
    async fn permit(&self, head: &Parts, need: &Need<'_>, judged: &mut Judged<'_>) -> Result<Passage, Rejection> {
        let live = &judged.local.live;
        if let Some(open) = need.open() {
            return Ok(Passage::Open(open));
        }
        let (client, query) = {
            let facts = judged.facts()?;
            (facts.client, facts.target.query())
        };
        let presented = match credential::extract(&head.headers, query, &live.credential) {
            Ok(presented) => presented,
            Err(rejection) => return Err(self.charge_malformed(rejection, client, judged)),
        };
        if presented.is_none()
            && let Some(open) = need.open_without_credential()
        {
            return Ok(Passage::Open(open));
        }
        let purpose = if live.policy.only_reads(judged.facts()?) { Purpose::Read } else { Purpose::Write };
        let began = judged.record.began();
        check_freshness(&self.shared, purpose, began)?;
        // Without keys nobody can be told to come with one.
        let Some(presented) = presented else {
            let missing = Rejection::from(Reason::KeysUnavailable).retry_after(5);
            let loaded = self.shared.keys.load().is_some();
            return Err(match credential::untaken(&head.headers, query) {
                _ if !loaded => missing,
                Some(why) => Rejection::from(Reason::MissingCredentials).note(why.as_str()).hint(why),
                None => Reason::MissingCredentials.into(),
            });
        };
        let kept = judged.kept.as_deref().map(|kept| &kept.address);
        let recognised = match recognise(&self.shared, live, client, &presented, kept, &mut judged.record) {
            Ok(Some(identity)) => Ok((identity, began)),
            // Large and seldom needed, so it is no part of this future. A slow verification may lie in it.
            Ok(None) => Box::pin(authenticate(&self.shared, live, client, &presented, &mut judged.record))
                .await
                .and_then(|identity| {
                    let now = clock::now();
                    check_freshness(&self.shared, purpose, now).map(|()| (identity, now))
                }),
            Err(rejection) => Err(rejection),
        };
        let (identity, now) = recognised.map_err(|rejection| put_off(rejection, judged))?;
        identity.record().state.last_use.note(now.wall, client);

        if let Some(kept) = &judged.kept {
            self.shared.limiter.note_authenticated(&kept.address.borrow(), &live.limits, client);
        }
        let permit = live.policy.decide(need, &identity, judged.facts()?)?;
        let key = permit.record();
        self.shared.limiter.take_key(&live.limits, key, now.mono, &mut judged.readings).map_err(Rejection::from)?;
        Ok(Passage::Permitted(permit))
    }

    /// What was meant to be a credential and is none is a failed authentication like any other.
    fn charge_malformed(&self, rejection: Rejection, client: IpAddr, judged: &Judged<'_>) -> Rejection {
        if rejection.reason != Reason::Malformed {
            return rejection;
        }
        let kept = judged.kept.as_deref().map(|kept| &kept.address);
        match charge_failure(&self.shared, &judged.local.live, client, kept, judged.record.began().mono) {
            Ok(()) => rejection,
            Err(exceeded) => put_off(exceeded.into(), judged),
        }
    }

    /// Stage 9, before anything is sent: the request as the upstream gets it. It is no part of the future that waits.
    fn prepare(
        &self,
        head: &mut Parts,
        body: Option<ClientBody>,
        form: Option<Bytes>,
        passage: &Passage,
        need: &Need<'_>,
        judged: &mut Judged<'_>,
    ) -> Result<Sending, Rejection> {
        let local = judged.local;
        let live = &local.live;
        let overloaded = || Rejection::from(Reason::Overloaded).retry_after(1);
        let key = passage.record();
        let client = judged.facts()?.client;
        let place = live.in_flight.enter(key.map(|key| &**key), client).ok_or_else(overloaded)?;
        let caller = key.map_or_else(|| Caller::at(client), |key| Caller::with(key));
        // Of a request that is only observed, too, the upstream is the one of its key's mode.
        let mode = judged.record.key().and_then(|key| key.mode);
        let pool = local.pool(need.upstream(), mode);

        let has_body = form.is_some() || body.as_ref().is_some_and(|body| !body.is_end_stream());
        let upgrade = tunnel::wanted(head, need).filter(|_| !has_body);
        let facts = judged.record.facts_mut().ok_or(Reason::Internal)?;
        credential::strip(&mut head.headers, &mut facts.target, &live.credential);

        let response_timeout = need.response_timeout().unwrap_or(live.response_timeout);
        let now = clock::mono();
        if let Some(key) = key {
            judged.exchange.watch_key(Arc::clone(&key.state), live.cut_on_revoke || upgrade.is_some());
        }
        let (body, upload) = match (form, body) {
            (Some(form), _) => (RequestBody::Judged(Some(form)), None),
            (None, Some(incoming)) if !incoming.is_end_stream() => {
                let upload = Upload::new(judged.exchange.clone(), need.max_body(live.max_body), response_timeout);
                let stream = StreamedRequest { incoming, upload: Rc::clone(&upload), local: Rc::clone(local) };
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
            &head.headers,
            &Outgoing {
                method: &head.method,
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
        Ok(Sending { pool: Rc::clone(pool), caller, head, body, framing, asked, upload, upgrade, place, now })
    }

    async fn forward(&self, sending: Sending, judged: &mut Judged<'_>) -> Result<Answer, Rejection> {
        let upload = sending.upload.clone();
        let upgrade = sending.upgrade.clone();
        let sent = pin!(upstream::send(sending));
        let (answer, lease) =
            or_cut(judged.exchange, sent).await.map_err(|failure| failure.rejection(upload.as_deref()))?;
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
        let upstream::Answer { status, reason, body, .. } = answer;
        let answer = listener::Answer::new(status, fields, body).reason(reason);
        Ok(Answer::Upstream(Forwarded { status, answer, lease }))
    }

    /// The fields of an answer: the upstream's that pass, and ours.
    fn fields(&self, received: &upstream::Received, judged: &Judged<'_>) -> Fields {
        let live = &judged.local.live;
        let mut fields = judged.connection.fields();
        live.rules.copy_answer(received, |name| judged.readings.replaces(live.limit_headers, name), &mut fields);
        if let Some(request_id) = judged.record.request_id() {
            fields.put_ours(respond::X_REQUEST_ID, request_id.header_value());
        }
        judged.readings.write(live.limit_headers, |start, value| fields.put_text(OurField::new(start), value));
        for subject in judged.readings.near() {
            self.recorder.metrics.limit_near(subject);
        }
        fields
    }
}

impl Service for Pipeline {
    type Body = Body;

    fn serve(
        self: Rc<Self>,
        connection: Rc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = listener::Answer<Body>> + 'static {
        self.answer(connection, request)
    }
}

impl Judged<'_> {
    fn facts(&self) -> Result<&Facts, Rejection> {
        // There are none only before stage 1, which nothing else precedes.
        self.record.facts().ok_or_else(|| Reason::Internal.into())
    }
}

/// Stage 1: reads the head.
fn arrive(head: &mut Parts, judged: &mut Judged<'_>) -> Result<(), Rejection> {
    let settings = &judged.local.live.facts;
    let connection = judged.connection;
    let arrival = Arrival { peer: connection.peer(), secure: connection.secure(), http2: connection.http2() };
    match Facts::from_head(head, &arrival, settings) {
        Ok(facts) => {
            let odd_fields = judged.record.set_facts(facts).odd_fields;
            if odd_fields {
                facts::drop_odd_fields(&mut head.headers, settings);
            }
        }
        Err((rejection, request_id)) => {
            judged.record.unclear(head, request_id);
            return Err(rejection);
        }
    }
    // The listener takes a list that ends in "chunked"; the upstream might take the list (RFC 9112 §6.1).
    if is_clear(&head.headers) { Ok(()) } else { Err(Reason::AmbiguousFraming.into()) }
}

/// Whether a message is framed by nothing but `chunked`, or by no coding.
fn is_clear(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// A retry needs the windows that this request has used up, too.
fn put_off(mut rejection: Rejection, judged: &Judged<'_>) -> Rejection {
    if rejection.reason == Reason::FailureLimit {
        let now = judged.record.began().mono;
        rejection.retry_after = rejection.retry_after.map(|seconds| judged.readings.put_off(seconds, now));
    }
    rejection
}

fn is_health(live: &Live, facts: &Facts) -> bool {
    live.health_path.as_deref().is_some_and(|path| path == facts.target.path())
        && matches!(facts.method, http::Method::GET | http::Method::HEAD)
}

/// A declared length over the limit is refused before the upstream sees anything; one without a length is cut on its
/// way.
fn check_length(
    body: Option<&ClientBody>,
    form: Option<&Bytes>,
    need: &Need<'_>,
    live: &Live,
) -> Result<(), Rejection> {
    let declared = form.map_or_else(|| body.map_or(0, |body| body.size_hint().lower()), |form| form.len() as u64);
    if declared > need.max_body(live.max_body) { Err(Reason::BodyTooLarge.into()) } else { Ok(()) }
}

/// What a request is answered with.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, which a box would only make dearer")]
enum Answer {
    Upstream(Forwarded),
    Tunnel(Box<tunnel::Accepted>),
    Health,
}
