//! What `keyside explain` prints, as text and as JSON.

use serde_json::{Value, json};

use super::{
    super::keys::list::table,
    trace::{Trace, Verdict},
};
use crate::{
    policy::{Ability, OpenFor, Outcome, Step},
    rejection::Reason,
};

/// Steps in aligned columns, one a line.
fn lines(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    steps.iter().fold(String::new(), |text, step| {
        text + &format!("{} {:width$}  {}\n", mark(step.outcome), step.name, step.finding)
    })
}

fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Noted => "  ",
        Outcome::Passed => "ok",
        Outcome::Refused(_) => "NO",
    }
}

/// The steps, an empty line, the verdict.
pub(super) fn trace_text(trace: &Trace) -> String {
    format!("{}\n{}", lines(&trace.steps), sentence(trace.verdict))
}

fn sentence(verdict: Verdict) -> String {
    match verdict {
        Verdict::Open(OpenFor::Public) => "allowed: the route is public".to_owned(),
        Verdict::Open(OpenFor::Pass) => "allowed: the method needs no key".to_owned(),
        Verdict::Open(OpenFor::Preflight) => "allowed: preflights are forwarded".to_owned(),
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Observed(reason) => format!(
            "allowed, without owner headers: the route only observes; else {} {}",
            reason.row().status,
            reason.row().code
        ),
        Verdict::Refused(reason) => {
            format!("refused: {} {}. {}", reason.row().status, reason.row().code, reason.row().sentence)
        }
    }
}

/// One object: the verdict, its status, code and reason where there is a refusal, and the steps.
pub(super) fn trace_json(key: &str, trace: &Trace) -> Value {
    let (verdict, reason) = match trace.verdict {
        Verdict::Open(_) => ("open", None),
        Verdict::Allowed => ("allowed", None),
        Verdict::Observed(reason) => ("observed", Some(reason)),
        Verdict::Refused(reason) => ("refused", Some(reason)),
    };
    json!({
        "key": key,
        "verdict": verdict,
        "status": reason.map(|reason| reason.row().status),
        "code": reason.map(|reason| reason.row().code),
        "reason": reason.map(Reason::label),
        "steps": trace.steps.iter().map(step_json).collect::<Vec<_>>(),
    })
}

fn step_json(step: &Step) -> Value {
    let (outcome, reason) = match step.outcome {
        Outcome::Noted => ("noted", None),
        Outcome::Passed => ("passed", None),
        Outcome::Refused(reason) => ("refused", Some(reason.label())),
    };
    json!({ "name": step.name, "finding": step.finding, "outcome": outcome, "reason": reason })
}

/// Methods of one route with one outcome.
struct Row<'a> {
    route: Option<usize>,
    path: &'a str,
    methods: Vec<&'a str>,
    step: &'a Step,
}

/// What differs in nothing but the method becomes one row, but not across routes: two that ask for the same are two.
fn rows(abilities: &[Ability]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for ability in abilities {
        let method = ability.method.as_str();
        let mut of_route = rows.iter_mut().rev().take_while(|row| row.route == ability.route);
        match of_route.find(|row| *row.step == ability.step) {
            Some(row) => row.methods.push(method),
            None => rows.push(Row {
                route: ability.route,
                path: ability.path.as_deref().unwrap_or("every path"),
                methods: vec![method],
                step: &ability.step,
            }),
        }
    }
    rows
}

/// What is known of the key, then a table of what it could do.
pub(super) fn abilities_text(about: &[Step], abilities: &[Ability]) -> String {
    let rows = rows(abilities).into_iter().map(|row| {
        let verdict = match row.step.outcome {
            Outcome::Refused(_) => "no",
            Outcome::Noted | Outcome::Passed => "yes",
        };
        vec![row.methods.join(","), row.path.to_owned(), verdict.to_owned(), row.step.finding.clone()]
    });
    format!("{}\n{}", lines(about), table(&["METHODS", "PATH", "MAY", "WHY"], rows))
}

/// One object: what is known of the key, and what it could do.
pub(super) fn abilities_json(key: &str, about: &[Step], abilities: &[Ability]) -> Value {
    let rows: Vec<Value> = rows(abilities)
        .iter()
        .map(|row| {
            let reason = match row.step.outcome {
                Outcome::Refused(reason) => Some(reason.label()),
                Outcome::Noted | Outcome::Passed => None,
            };
            json!({
                "path": row.path,
                "methods": row.methods,
                "may": reason.is_none(),
                "why": row.step.finding,
                "reason": reason,
            })
        })
        .collect();
    json!({ "key": key, "about": about.iter().map(step_json).collect::<Vec<_>>(), "abilities": rows })
}
