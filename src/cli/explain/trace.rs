//! The decision about one request, step by step, in the order in which the sidecar takes the steps.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderName, HeaderValue, Method};

use crate::{
    clock::Wall,
    facts::{self, ActedOn, Arrival, Facts},
    keys::{KeyRecord, Mode, record::Standing},
    limits::{self, Plan, Quota},
    policy::{self, Need, OpenFor, Outcome, Policy, Step},
    proxy::settings::UpstreamUrl,
    rejection::{Reason, Rejection},
};

/// What decides.
pub(super) struct Rules {
    pub(super) facts: facts::Settings,
    pub(super) policy: Policy,
    pub(super) limits: limits::Settings,
    pub(super) plan: Plan,
    pub(super) upstreams: Upstreams,
    /// Whether the sidecar listens with TLS.
    pub(super) secure: bool,
}

/// Where requests go whose route names no upstream of its own.
pub(super) struct Upstreams {
    pub(super) url: UpstreamUrl,
    pub(super) modes: BTreeMap<Mode, UpstreamUrl>,
}

impl Rules {
    pub(super) fn new(
        facts: facts::Settings,
        policy: &policy::Settings,
        limits: limits::Settings,
        upstreams: Upstreams,
        secure: bool,
    ) -> Self {
        Self { facts, policy: Policy::new(policy), plan: Plan::new(&limits), limits, upstreams, secure }
    }
}

/// What is asked: a request as a client would send it.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) peer: IpAddr,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open(OpenFor),
    Allowed,
    Observed(Reason),
    Refused(Reason),
}

/// Every step, and what becomes of the request.
pub(super) struct Trace {
    pub(super) steps: Vec<Step>,
    pub(super) verdict: Verdict,
}

/// Decides as the sidecar would for a caller whose secret is right.
pub(super) fn trace(rules: &Rules, question: &Question, key: &KeyRecord, now: Wall) -> Trace {
    let mut steps = Vec::new();
    let verdict = take_steps(rules, question, key, now, &mut steps).unwrap_or_else(Verdict::Refused);
    Trace { steps, verdict }
}

fn take_steps(
    rules: &Rules,
    question: &Question,
    key: &KeyRecord,
    now: Wall,
    steps: &mut Vec<Step>,
) -> Result<Verdict, Reason> {
    let facts = read(rules, question).map_err(|(reason, finding)| {
        steps.push(Step::refused("request", reason, finding));
        reason
    })?;
    steps.push(Step::noted("request", describe(&facts)));
    if facts.form_body_pending {
        steps.push(Step::noted(
            "body",
            "a form body is read first; what it overrides is judged too, and is not judged here",
        ));
    }
    let need = rules.policy.route(&facts).map_err(|rejection| {
        steps.push(Step::refused("route", rejection.reason, because(&rejection)));
        rejection.reason
    })?;
    steps.extend(need.explain());
    steps.push(Step::noted("ip limit", ip_limit(rules, &facts, &need)));
    if let Some(open) = need.open() {
        steps.push(Step::noted("key", "no key is needed: a credential is stripped and not judged"));
        steps.push(Step::noted("upstream", upstream(rules, Some(&need), None)));
        return Ok(Verdict::Open(open.reason()));
    }
    if need.open_without_credential().is_some() {
        steps.push(Step::noted("key", "without a credential this preflight goes on; here it is judged with the key"));
    }
    let first = steps.len();
    steps.push(standing(key, now));
    steps.extend(rules.policy.explain(&need, key, &facts));
    steps.push(Step::noted("limits", key_limits(rules, key)));
    let refusal = steps[first..].iter().find_map(|step| match step.outcome {
        Outcome::Refused(reason) => Some(reason),
        Outcome::Noted | Outcome::Passed => None,
    });
    let verdict = match refusal {
        None => Verdict::Allowed,
        Some(reason) if need.observed(reason.into()).is_ok() => Verdict::Observed(reason),
        Some(reason) => return Err(reason),
    };
    steps.push(Step::noted("upstream", upstream(rules, Some(&need), Some(key))));
    Ok(verdict)
}

/// Where the request goes: to its route's upstream, else to that of its key's mode, else to all others'. Without a
/// request: what holds for the key where no route says otherwise.
fn upstream(rules: &Rules, need: Option<&Need<'_>>, key: Option<&KeyRecord>) -> String {
    let Upstreams { url, modes } = &rules.upstreams;
    if let Some(route) = need.and_then(|need| rules.policy.upstreams().get(need.upstream()?)) {
        return format!("{} (the route's own)", route.url);
    }
    let some_have_own = need.is_none() && !rules.policy.upstreams().is_empty();
    let others = if some_have_own { "; some routes have their own" } else { "" };
    match key.map(|key| (key.mode, key.mode.and_then(|mode| modes.get(&mode)))) {
        Some((Some(mode), Some(of_mode))) => format!("{of_mode} ([upstream.modes] {}){others}", mode.as_str()),
        Some((Some(mode), None)) if !modes.is_empty() => {
            format!("{url} (upstream.url: [upstream.modes] names none for {} keys){others}", mode.as_str())
        }
        Some((None, _)) if !modes.is_empty() => format!("{url} (upstream.url: the key has no mode){others}"),
        _ => format!("{url} (upstream.url){others}"),
    }
}

fn read(rules: &Rules, question: &Question) -> Result<Facts, (Reason, String)> {
    let mut request = http::Request::builder()
        .method(question.method.clone())
        .uri(&*question.target)
        .header(http::header::HOST, &question.host);
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| (Reason::AmbiguousPath, format!("not a request: {error}")))?;
    let arrival = Arrival { peer: question.peer, secure: rules.secure, http2: false };
    Facts::from_head(&request.into_parts().0, &arrival, &rules.facts)
        .map_err(|(rejection, _)| (rejection.reason, because(&rejection)))
}

fn describe(facts: &Facts) -> String {
    let mut text = format!("{} {} for {}", facts.method, facts.target.path(), facts.host.name());
    if let Some(method) = &facts.effective_method {
        text += &format!("; the upstream may act on {method}");
    }
    match facts.acted_on() {
        ActedOn::Sent(path) if path == facts.target.path() => {}
        ActedOn::Sent(path) | ActedOn::Named(path) => text += &format!("; the upstream acts on {path}"),
        ActedOn::Either { named, .. } => text += &format!("; the upstream may act on {named}"),
    }
    text + &format!("; from {} ({})", facts.client, facts.client_source.label())
}

/// Why something was refused: what is noted for the operator, else what the caller is told.
fn because(rejection: &Rejection) -> String {
    let sentence = rejection.note.as_deref().or(rejection.hint.as_deref()).unwrap_or(rejection.reason.row().sentence);
    sentence.trim_end_matches('.').to_owned()
}

fn ip_limit(rules: &Rules, facts: &Facts, need: &Need<'_>) -> String {
    if rules.limits.per_ip.is_empty() {
        "none is configured".to_owned()
    } else if !need.takes_ip_limit() {
        "the route takes nothing from it".to_owned()
    } else if rules.plan.is_exempt(facts.client) {
        format!("{} is exempt", facts.client)
    } else {
        format!("takes one of {} from {}", quotas(&rules.limits.per_ip), facts.client)
    }
}

/// Whether the key may be used at all.
pub(super) fn standing(key: &KeyRecord, now: Wall) -> Step {
    let at = |moment: Option<Wall>| moment.map_or_else(String::new, |moment| format!(" {moment}"));
    match key.standing(now) {
        Standing::Active => Step::passed(
            "key",
            match key.expires_at {
                Some(expires_at) => format!("active; expires {expires_at}"),
                None => "active".to_owned(),
            },
        ),
        Standing::Revoked => {
            let since = key.revoked_at.map_or_else(String::new, |since| format!(" {since}"));
            Step::refused("key", Reason::Revoked, format!("revoked{since}"))
        }
        Standing::Expired => Step::refused("key", Reason::Expired, format!("expired{}", at(key.expires_at))),
        Standing::Suspended => Step::refused(
            "key",
            Reason::OwnerSuspended,
            format!("its owner {} was suspended{}", key.owner.id, at(key.owner.suspended_at)),
        ),
    }
}

/// Which limits the key and its owner have.
pub(super) fn key_limits(rules: &Rules, key: &KeyRecord) -> String {
    let own = rules.plan.key_rules(key);
    let whose = match &key.owner.plan {
        _ if key.limits.is_some() => "its own".to_owned(),
        Some(plan) if rules.plan.has_plan(plan) => format!("of its owner's plan {plan}"),
        Some(_) | None => "of every key".to_owned(),
    };
    let mut text = match own.quotas() {
        [] => "the key has none".to_owned(),
        some => format!("the key has {} ({whose})", quotas(some)),
    };
    if !rules.limits.per_owner.is_empty() {
        text += &format!("; all keys of {} together have {}", key.owner.id, quotas(&rules.limits.per_owner));
    }
    text
}

fn quotas(quotas: &[Quota]) -> String {
    quotas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// What holds for the key on every route.
pub(super) fn about(rules: &Rules, key: &KeyRecord, now: Wall) -> Vec<Step> {
    let owner = match (&key.owner.name, key.owner.listed) {
        (_, false) => format!("{}, who has no row: no capabilities, no KYC", key.owner.id),
        (Some(name), true) => format!("{} ({name})", key.owner.id),
        (None, true) => key.owner.id.to_string(),
    };
    let addresses: Vec<String> = key.allow_ips.iter().map(|network| network.to_string()).collect();
    let some = |list: String, none: &str| if list.is_empty() { none.to_owned() } else { list };
    vec![
        standing(key, now),
        Step::noted("name", &*key.name),
        Step::noted("owner", owner),
        Step::noted("scopes", some(key.scopes.to_string(), "none")),
        Step::noted("addresses", some(addresses.join(", "), "any")),
        Step::noted("hosts", rules.policy.hosts_for(key)),
        Step::noted("upstream", upstream(rules, None, Some(key))),
        Step::noted("limits", key_limits(rules, key)),
    ]
}
