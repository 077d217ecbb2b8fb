//! Stages 1 to 8: whether a request may pass.

use std::{net::IpAddr, rc::Rc};

use http::{HeaderMap, header, request::Parts};
use http_body::Body as _;

use super::{
    authenticate::{authenticate, charge_failure, check_freshness, recognise},
    live::Live,
    pipeline::{Judged, Pipeline, Step},
};
use crate::{
    clock::{self, Now},
    credential::{self, Presented},
    facts::{self, Arrival, Facts},
    keys::Purpose,
    policy::{Identity, Need, Passage},
    rejection::{Reason, Rejection},
};

impl Pipeline {
    /// Stage 1, and those behind it.
    pub(super) fn arrived(&self, head: Parts, judged: &mut Judged) -> Result<Step, Rejection> {
        arrive(head, judged)?;
        if judged.facts()?.form_body_pending { Ok(Step::Form) } else { self.judge(judged) }
    }

    /// The stages behind the first, up to where something has to be waited for.
    pub(super) fn judge(&self, judged: &mut Judged) -> Result<Step, Rejection> {
        let local = Rc::clone(&judged.local);
        let live = &local.live;
        if is_health(live, judged.facts()?) {
            return Ok(Step::Health);
        }
        let need = live.policy.route(judged.facts()?)?;
        judged.record.set_route(need.route().map(|route| route.index()));
        check_length(&need, judged)?;
        self.take_by_address(&need, judged)?;
        match self.permit(&need, judged) {
            Ok(Permission::Granted(passage)) => self.prepare(&passage, &need, judged),
            Ok(Permission::Unverified(presented)) => Ok(Step::Verify(Box::new(presented))),
            // The usual refusal is not moved around.
            Err(rejection) if !need.observes() => Err(rejection),
            Err(rejection) => self.observe(rejection, &need, judged),
        }
    }

    /// What is refused goes on where its route only observes.
    fn observe(&self, rejection: Rejection, need: &Need<'_>, judged: &mut Judged) -> Result<Step, Rejection> {
        let passage = need.observed(rejection)?;
        if let Passage::Observed(observed) = &passage {
            judged.record.observed(observed.rejection());
        }
        self.prepare(&passage, need, judged)
    }

    fn take_by_address(&self, need: &Need<'_>, judged: &mut Judged) -> Result<(), Rejection> {
        if !need.takes_ip_limit() {
            return Ok(());
        }
        let (client, now) = (judged.facts()?.client, judged.record.began().mono);
        let limits = &judged.local.live.limits;
        match judged.kept.as_deref() {
            Some(kept) => {
                let handle = &mut kept.address.borrow_mut();
                self.shared.limiter.take_address_by(handle, limits, client, now, &mut judged.record.readings)
            }
            None => self.shared.limiter.take_address(limits, client, now, &mut judged.record.readings),
        }
        .map_err(Rejection::from)
    }

    /// Stages 4 to 8, as far as nothing has to be waited for: what a route in observe mode only observes.
    fn permit(&self, need: &Need<'_>, judged: &mut Judged) -> Result<Permission, Rejection> {
        let local = Rc::clone(&judged.local);
        let live = &local.live;
        if let Some(open) = need.open() {
            return Ok(Permission::Granted(Passage::Open(open)));
        }
        let (client, query) = {
            let facts = judged.facts()?;
            (facts.client, facts.target.query())
        };
        let headers = &judged.headers;
        let presented = match credential::extract(headers, query, &live.credential) {
            Ok(presented) => presented,
            Err(rejection) => return Err(self.charge_malformed(rejection, client, judged)),
        };
        if presented.is_none()
            && let Some(open) = need.open_without_credential()
        {
            return Ok(Permission::Granted(Passage::Open(open)));
        }
        let began = judged.record.began();
        check_freshness(&self.shared, judged.purpose()?, began)?;
        // Without keys nobody can be told to come with one.
        let Some(presented) = presented else {
            let missing = Rejection::from(Reason::KeysUnavailable).retry_after(5);
            let loaded = self.shared.keys.load().is_some();
            return Err(match credential::untaken(headers, query) {
                _ if !loaded => missing,
                Some(why) => Rejection::from(Reason::MissingCredentials).note(why.as_str()).hint(why),
                None => Reason::MissingCredentials.into(),
            });
        };
        let kept = judged.kept.as_deref().map(|kept| &kept.address);
        match recognise(&self.shared, live, client, &presented, kept, &mut judged.record) {
            Ok(Some(identity)) => self.admit(&identity, began, need, judged).map(Permission::Granted),
            Ok(None) => Ok(Permission::Unverified(presented)),
            Err(rejection) => Err(put_off(rejection, judged)),
        }
    }

    /// Stages 5 and 6 where a secret is verified for the first time, or in vain.
    pub(super) async fn verify(
        &self,
        presented: &Presented,
        judged: &mut Judged,
    ) -> Result<(Identity, Now), Rejection> {
        let client = judged.facts()?.client;
        match authenticate(&self.shared, &judged.local.live, client, presented, &mut judged.record).await {
            Ok(identity) => {
                let now = clock::now();
                check_freshness(&self.shared, judged.purpose()?, now).map(|()| (identity, now))
            }
            Err(rejection) => Err(rejection),
        }
        .map_err(|rejection| put_off(rejection, judged))
    }

    /// What follows that.
    pub(super) fn verified(
        &self,
        verified: Result<(Identity, Now), Rejection>,
        judged: &mut Judged,
    ) -> Result<Step, Rejection> {
        let local = Rc::clone(&judged.local);
        // The same as before: it depends on nothing but the settings and the facts.
        let need = local.live.policy.route(judged.facts()?)?;
        match verified.and_then(|(identity, now)| self.admit(&identity, now, &need, judged)) {
            Ok(passage) => self.prepare(&passage, &need, judged),
            Err(rejection) => self.observe(rejection, &need, judged),
        }
    }

    /// Stages 7 and 8: what a verified key may do.
    fn admit(&self, identity: &Identity, now: Now, need: &Need<'_>, judged: &mut Judged) -> Result<Passage, Rejection> {
        let live = &judged.local.live;
        let client = judged.facts()?.client;
        identity.record().state.last_use.note(now.wall, client);
        if let Some(kept) = &judged.kept {
            self.shared.limiter.note_authenticated(&kept.address.borrow(), &live.limits, client);
        }
        let permit = live.policy.decide(need, identity, judged.facts()?)?;
        let key = permit.record();
        self.shared
            .limiter
            .take_key(&live.limits, key, now.mono, &mut judged.record.readings)
            .map_err(Rejection::from)?;
        Ok(Passage::Permitted(permit))
    }

    /// What was meant to be a credential and is none is a failed authentication like any other.
    fn charge_malformed(&self, rejection: Rejection, client: IpAddr, judged: &Judged) -> Rejection {
        if rejection.reason != Reason::Malformed {
            return rejection;
        }
        let kept = judged.kept.as_deref().map(|kept| &kept.address);
        match charge_failure(&self.shared, &judged.local.live, client, kept, judged.record.began().mono) {
            Ok(()) => rejection,
            Err(exceeded) => put_off(exceeded.into(), judged),
        }
    }
}

impl Judged {
    /// What its keys have to be fresh enough for.
    fn purpose(&self) -> Result<Purpose, Rejection> {
        let reads = self.local.live.policy.only_reads(self.facts()?);
        Ok(if reads { Purpose::Read } else { Purpose::Write })
    }
}

/// Stage 1: reads the head.
fn arrive(mut head: Parts, judged: &mut Judged) -> Result<(), Rejection> {
    let Judged { local, connection, record, .. } = judged;
    let settings = &local.live.facts;
    let arrival = Arrival { peer: connection.peer(), secure: connection.secure(), http2: connection.http2() };
    match Facts::from_head(&head, &arrival, settings) {
        Ok(facts) => {
            let odd_fields = record.set_facts(facts).odd_fields;
            if odd_fields {
                facts::drop_odd_fields(&mut head.headers, settings);
            }
        }
        Err((rejection, request_id)) => {
            record.unclear(&head, request_id);
            judged.headers = head.headers;
            return Err(rejection);
        }
    }
    // The listener takes a list that ends in "chunked"; the upstream might take the list (RFC 9112 §6.1).
    judged.headers = head.headers;
    if is_clear(&judged.headers) { Ok(()) } else { Err(Reason::AmbiguousFraming.into()) }
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
fn put_off(mut rejection: Rejection, judged: &Judged) -> Rejection {
    if rejection.reason == Reason::FailureLimit {
        let now = judged.record.began().mono;
        rejection.retry_after = rejection.retry_after.map(|seconds| judged.record.readings.put_off(seconds, now));
    }
    rejection
}

fn is_health(live: &Live, facts: &Facts) -> bool {
    live.health_path.as_deref().is_some_and(|path| path == facts.target.path())
        && matches!(facts.method, http::Method::GET | http::Method::HEAD)
}

/// A declared length over the limit is refused before the upstream sees anything; one without a length is cut on its
/// way.
fn check_length(need: &Need<'_>, judged: &Judged) -> Result<(), Rejection> {
    let declared = match (&judged.form, &judged.body) {
        (Some(form), _) => form.len() as u64,
        (None, Some(body)) => body.size_hint().lower(),
        (None, None) => 0,
    };
    if declared > need.max_body(judged.local.live.max_body) { Err(Reason::BodyTooLarge.into()) } else { Ok(()) }
}

/// What stages 4 to 8 came to.
enum Permission {
    /// The request may pass.
    Granted(Passage),
    /// Its credential is still to be verified.
    Unverified(Presented),
}
