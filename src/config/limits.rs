//! `[limits]`.

use super::{
    listen::networks,
    reader::Section,
    value::{choice, integer, list, parsed},
};
use crate::limits::{HeaderStyle, Quota, Settings};

pub(super) fn limits(section: &Section<'_>) -> Settings {
    let quotas = |name| section.required(name, list(parsed::<Quota>));
    let styles = [
        ("draft", HeaderStyle::Draft),
        ("legacy", HeaderStyle::Legacy),
        ("both", HeaderStyle::Both),
        ("none", HeaderStyle::None),
    ];
    section.not_in_this_build("shared", &[]);
    Settings {
        per_ip: quotas("per_ip"),
        per_key: quotas("per_key"),
        per_owner: quotas("per_owner"),
        failures_per_ip: quotas("failures_per_ip"),
        exempt: section.required("exempt", networks),
        ipv6_prefix: section.required("ipv6_prefix", integer(1..=128)),
        headers: section.required("headers", choice(&styles)),
        plans: section.map("plans", plan_name, list(parsed::<Quota>)).into_iter().collect(),
    }
}

fn plan_name(name: &str) -> Result<String, String> {
    let plain = |character: char| !character.is_control() && !character.is_whitespace();
    if !name.is_empty() && name.len() <= 100 && name.chars().all(plain) {
        Ok(name.to_owned())
    } else {
        Err("expected the name of a plan, without spaces".into())
    }
}
