//! Whether a key has what a request needs, stage by stage.

use super::{
    Identity, Need, Permit, Policy,
    need::{Asks, Demand},
};
use crate::{
    facts::Facts,
    keys::{KeyRecord, Kyc},
    rejection::{Reason, Rejection},
};

/// A question that is asked of a key, in the order of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// May the key be used from this address?
    Address,
    /// Does the host accept the key's mode?
    Mode,
    /// Is there a route at all?
    Route,
    /// Has the key the scope?
    Scope,
    /// Has its owner the capability?
    Capability,
    /// Is its owner's KYC approved?
    Kyc,
}

impl Stage {
    /// All stages, in the order of refusals: what is about the key alone first, what is about its owner last.
    pub const ALL: [Self; 6] = [Self::Address, Self::Mode, Self::Route, Self::Scope, Self::Capability, Self::Kyc];
}

impl Policy {
    /// Whether the key has all that the request needs. Each stage is put to all demands before the next one is, so
    /// that the order of refusals holds whichever reading fails.
    ///
    /// # Errors
    ///
    /// The refusal of the first stage that fails.
    pub fn decide(&self, need: &Need<'_>, identity: &Identity, facts: &Facts) -> Result<Permit, Rejection> {
        for stage in Stage::ALL {
            self.judge(stage, need, identity.record(), facts)?;
        }
        Ok(Permit::new(identity.record().clone()))
    }

    /// Puts one stage to the key.
    #[inline]
    pub(super) fn judge(
        &self,
        stage: Stage,
        need: &Need<'_>,
        record: &KeyRecord,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        match stage {
            Stage::Address => address(record, facts),
            Stage::Mode => self.mode(record, facts),
            Stage::Route => need.demands().try_for_each(route),
            Stage::Scope => need.demands().try_for_each(|demand| scope(demand, record)),
            Stage::Capability => need.demands().try_for_each(|demand| capability(demand, record)),
            Stage::Kyc => need.demands().try_for_each(|demand| kyc(demand, record)),
        }
    }

    fn mode(&self, record: &KeyRecord, facts: &Facts) -> Result<(), Rejection> {
        let Some(mode) = record.mode else { return Ok(()) };
        if !self.binds_hosts() {
            return Ok(());
        }
        match self.mode_of(facts.host.name()) {
            Some(accepted) if accepted == mode => Ok(()),
            Some(accepted) => Err(Rejection::from(Reason::ModeMismatch).note(format!(
                "a {} key on a {} host",
                mode.as_str(),
                accepted.as_str()
            ))),
            None => Err(Rejection::from(Reason::ModeMismatch)
                .note(format!("a {} key on a host that [hosts] does not list", mode.as_str()))),
        }
    }
}

/// The stages that depend on neither the caller's address nor the host, put to one demand.
pub(super) fn key_and_owner(demand: &Demand<'_>, record: &KeyRecord) -> Result<(), Rejection> {
    route(demand)?;
    scope(demand, record)?;
    capability(demand, record)?;
    kyc(demand, record)
}

fn address(record: &KeyRecord, facts: &Facts) -> Result<(), Rejection> {
    if record.allow_ips.is_empty() || record.allow_ips.contains(facts.client) {
        Ok(())
    } else {
        Err(Reason::ForbiddenCallerIp.into())
    }
}

fn route(demand: &Demand<'_>) -> Result<(), Rejection> {
    match demand.asks {
        Asks::Nobody => Err(refuse(
            Reason::RouteNotAllowed,
            demand,
            match demand.route {
                None => "no route",
                Some(_) => "a route without scope, and a method that [policy.methods] does not list",
            },
        )),
        Asks::NoKey(_) | Asks::Key(_) => Ok(()),
    }
}

fn scope(demand: &Demand<'_>, record: &KeyRecord) -> Result<(), Rejection> {
    let Asks::Key(asked) = demand.asks else { return Ok(()) };
    let [first, others @ ..] = asked else { return Ok(()) };
    if asked.iter().any(|permission| record.scopes.hold(permission)) {
        return Ok(());
    }
    let list = others.iter().fold(first.to_string(), |list, other| format!("{list} or {other}"));
    let mut rejection = refuse(Reason::InsufficientScope, demand, &format!("needs {list}"));
    rejection.hint = Some(format!("It needs the scope {list}.").into());
    // A challenge can only list scopes that are all needed (RFC 6750 §3): the first one alone is enough.
    rejection.scope = Some(first.to_string().into());
    Err(rejection)
}

fn capability(demand: &Demand<'_>, record: &KeyRecord) -> Result<(), Rejection> {
    let Some(asked) = owner_demands(demand).and_then(|route| route.capability.as_deref()) else { return Ok(()) };
    if record.owner.capabilities.iter().any(|held| **held == *asked) {
        return Ok(());
    }
    Err(refuse(Reason::PermissionDenied, demand, &format!("needs the capability {asked}")))
}

fn kyc(demand: &Demand<'_>, record: &KeyRecord) -> Result<(), Rejection> {
    match owner_demands(demand) {
        Some(route) if route.kyc && record.owner.kyc != Kyc::Approved => {
            Err(refuse(Reason::KycRequired, demand, "needs an approved KYC"))
        }
        _ => Ok(()),
    }
}

/// The route that may ask something of the owner: none where no key is asked for.
fn owner_demands<'p>(demand: &Demand<'p>) -> Option<&'p super::Route> {
    match demand.asks {
        Asks::Key(_) => demand.route,
        Asks::NoKey(_) | Asks::Nobody => None,
    }
}

/// A refusal whose note names what was lacking, and in which reading where that is not the plain one.
fn refuse(reason: Reason, demand: &Demand<'_>, lacking: &str) -> Rejection {
    Rejection::from(reason).note(if demand.reading.is_literal() {
        lacking.to_owned()
    } else {
        format!("{lacking} ({})", demand.reading)
    })
}
