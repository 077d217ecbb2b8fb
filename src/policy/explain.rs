//! Why a request is allowed or refused, and what a key could do, in sentences.

use std::fmt;

use http::Method;

use super::{
    Need, OpenFor, Policy, Route, Stage,
    need::{Asks, Demand},
    route::asks_of,
};
use crate::{
    facts::Facts,
    keys::{KeyRecord, Kyc, Permission},
    rejection::Reason,
};

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// What was found, without a full stop.
    pub finding: String,
    /// What follows from it.
    pub outcome: Outcome,
}

/// What follows from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it is worth knowing.
    Noted,
    /// The request goes on.
    Passed,
    /// The request is refused.
    Refused(Reason),
}

impl Step {
    /// A step that is worth knowing.
    pub fn noted(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, finding: finding.into(), outcome: Outcome::Noted }
    }

    /// A step that lets the request go on.
    pub fn passed(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, finding: finding.into(), outcome: Outcome::Passed }
    }

    /// A step that refuses the request.
    pub fn refused(name: &'static str, reason: Reason, finding: impl Into<String>) -> Self {
        Self { name, finding: finding.into(), outcome: Outcome::Refused(reason) }
    }
}

/// What a key may do with one method on one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ability {
    /// The place of the route in the settings; `None` where no route is configured.
    pub route: Option<usize>,
    /// The path pattern of the route; `None` where no route is configured and the method decides.
    pub path: Option<String>,
    /// The method.
    pub method: Method,
    /// What follows, and why.
    pub step: Step,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Stage {
    /// The stage in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Mode => "mode",
            Self::Route => "route",
            Self::Scope => "scope",
            Self::Capability => "capability",
            Self::Kyc => "KYC",
        }
    }
}

impl Need<'_> {
    /// Which route each reading of the request leads to, and what it asks.
    pub fn explain(&self) -> Vec<Step> {
        self.demands()
            .map(|demand| {
                let route = match demand.route {
                    Some(route) => format!("{} (route {})", route.label(), route.index() + 1),
                    None => "no route".to_owned(),
                };
                let asks = match demand.asks {
                    Asks::NoKey(OpenFor::Public) => "public: no key needed".to_owned(),
                    Asks::NoKey(OpenFor::Pass) => "the method passes: no key needed".to_owned(),
                    Asks::NoKey(OpenFor::Preflight) => "a preflight: no key needed".to_owned(),
                    Asks::Key(scopes) => asked(scopes, demand.route),
                    Asks::Nobody => "no key is enough".to_owned(),
                };
                let observed = if demand.route.is_some_and(|route| route.observe) { "; observed only" } else { "" };
                Step::noted("route", format!("{}: {route}, {asks}{observed}", demand.reading))
            })
            .collect()
    }
}

fn asked(scopes: &[Permission], route: Option<&Route>) -> String {
    let mut text = match scopes {
        [] => "needs any key".to_owned(),
        scopes => format!("needs {}", either(scopes)),
    };
    if let Some(capability) = route.and_then(|route| route.capability.as_deref()) {
        text += &format!(", an owner with {capability}");
    }
    if route.is_some_and(|route| route.kyc) {
        text += ", an approved KYC";
    }
    text
}

fn either(scopes: &[Permission]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl Policy {
    /// Every question that is asked of the key, with its answer, also those after the first refusal.
    pub fn explain(&self, need: &Need<'_>, record: &KeyRecord, facts: &Facts) -> Vec<Step> {
        Stage::ALL
            .into_iter()
            .map(|stage| {
                let finding = self.finding(stage, need, record, facts);
                match self.judge(stage, need, record, facts) {
                    Ok(()) => Step::passed(stage.name(), finding),
                    Err(rejection) => Step::refused(
                        stage.name(),
                        rejection.reason,
                        match rejection.note {
                            // The finding says it already.
                            Some(_) if stage == Stage::Route && need.route().is_none() => finding,
                            Some(note) => format!("{finding}; {note}"),
                            None => finding,
                        },
                    ),
                }
            })
            .collect()
    }

    fn finding(&self, stage: Stage, need: &Need<'_>, record: &KeyRecord, facts: &Facts) -> String {
        match stage {
            Stage::Address if record.allow_ips.is_empty() => "the key may be used from any address".to_owned(),
            Stage::Address => {
                let list: Vec<String> = record.allow_ips.iter().map(|network| network.to_string()).collect();
                format!("{} against the key's {}", facts.client, list.join(", "))
            }
            Stage::Mode => match (record.mode, self.binds_hosts()) {
                (None, _) => "a key without mode passes on any host".to_owned(),
                (Some(mode), false) => {
                    format!("a {} key; every host takes it, since there are no [hosts]", mode.as_str())
                }
                (Some(mode), true) => format!("a {} key on {}", mode.as_str(), facts.host.name()),
            },
            Stage::Route => match need.route() {
                Some(route) => format!("covered by {}", route.label()),
                None if self.routes.is_empty() => "no routes are configured: the method decides".to_owned(),
                None => "covered by no route".to_owned(),
            },
            Stage::Scope => format!("the key holds {}", held(&record.scopes.to_string())),
            Stage::Capability if !need.routes().flatten().any(|route| route.capability.is_some()) => {
                "no capability is asked for".to_owned()
            }
            Stage::Capability => format!("the owner has {}", held(&record.owner.capabilities.join(", "))),
            Stage::Kyc if !need.routes().flatten().any(|route| route.kyc) => "no KYC is asked for".to_owned(),
            Stage::Kyc => match record.owner.kyc {
                Kyc::Approved => "the owner's KYC is approved",
                Kyc::Pending => "the owner's KYC is pending",
                Kyc::None => "the owner has no KYC",
            }
            .to_owned(),
        }
    }

    /// What the key could do: every route with every method it covers, in the order in which routes are tried, but for
    /// what a route before it takes. The caller's address and host are not looked at. `standing` says whether the key
    /// may be used at all.
    pub fn abilities(&self, record: &KeyRecord, standing: &Step) -> Vec<Ability> {
        let mut abilities = Vec::new();
        if self.routes.is_empty() {
            for method in self.known.iter() {
                let demand = self.demand_on(None, method);
                abilities.push(Ability {
                    route: None,
                    path: None,
                    method: method.clone(),
                    step: ability(&demand, record, standing),
                });
            }
        }
        for route in &self.routes {
            let methods = route.methods.as_ref().unwrap_or(&self.known).iter();
            for method in methods.filter(|method| self.taken_before(route, method).is_none()) {
                let demand = self.demand_on(Some(route), method);
                let path = Some(route.label().to_owned());
                abilities.push(Ability {
                    route: Some(route.index()),
                    path,
                    method: method.clone(),
                    step: ability(&demand, record, standing),
                });
            }
        }
        abilities
    }

    /// On which hosts the key may be used, in words.
    pub fn hosts_for(&self, record: &KeyRecord) -> String {
        match record.mode {
            None => "any: the key has no mode".to_owned(),
            Some(_) if !self.binds_hosts() => "any: there are no [hosts] that keep modes apart".to_owned(),
            Some(mode) => match self.hosts_of(mode).collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => format!("none: no host takes {} keys", mode.as_str()),
                hosts => hosts,
            },
        }
    }

    fn demand_on<'p>(&'p self, route: Option<&'p Route>, method: &Method) -> Demand<'p> {
        let class = self.classes.of(method);
        let asks = match route {
            Some(route) => asks_of(route, class),
            None => super::route::asks_by_class(class),
        };
        Demand { route, asks, reading: super::Reading::default() }
    }
}

/// What a key may do with one demand, of the stages that depend on neither address nor host.
fn ability(demand: &Demand<'_>, record: &KeyRecord, standing: &Step) -> Step {
    let refused = |reason, mut why: String| {
        if demand.route.is_some_and(|route| route.observe) {
            why += "; only observed: it goes on, without owner headers";
        }
        Step::refused("refused", reason, why)
    };
    if let (Outcome::Refused(reason), false) = (standing.outcome, matches!(demand.asks, Asks::NoKey(_))) {
        return refused(reason, standing.finding.clone());
    }
    match super::decide::key_and_owner(demand, record) {
        Err(rejection) => refused(rejection.reason, rejection.note.map_or_else(String::new, String::from)),
        Ok(()) => match demand.asks {
            Asks::NoKey(_) => Step::passed("allowed", "no key needed"),
            Asks::Key(scopes) => Step::passed("allowed", asked(scopes, demand.route)),
            Asks::Nobody => Step::refused("refused", Reason::RouteNotAllowed, "no key is enough"),
        },
    }
}

fn held(list: &str) -> &str {
    if list.is_empty() { "nothing" } else { list }
}
