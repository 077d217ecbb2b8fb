//! What can be chosen for a new key: scopes, owners, and the combinations that many want.

use super::super::{
    super::{desk::Desk, keys::sentence, settings::Offer},
    form::Form,
};
use crate::{
    clock::{self, Wall},
    keys::{
        Mode, Scopes,
        document::{self, KeyRow},
        moments,
        record::PublicPart,
        secret::SecretHash,
        words::administrator,
    },
};

/// What stands for a hash in a key that is only described.
const NO_HASH: &str = "$sha256$0000000000000000000000000000000000000000000000000000000000000000";

/// A combination that many want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combo {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// Which addresses belong on its list.
    pub(super) addresses: &'static str,
    writes: bool,
}

/// The combinations of the documents that we serve.
pub(super) const COMBOS: [Combo; 4] = [
    Combo { id: "bi", title: "Read-only BI sync", addresses: "your BI server's address", writes: false },
    Combo { id: "mobile", title: "Mobile app", addresses: "none: addresses of phones vary", writes: true },
    Combo { id: "script", title: "Trusted internal script", addresses: "your server's address", writes: true },
    Combo {
        id: "bot",
        title: "Slack bot polling KPIs",
        addresses: "the address that the bot calls from",
        writes: false,
    },
];

/// What a description may look like.
pub(super) const EXAMPLES: [&str; 5] =
    ["Accounting export script", "Slack alert bot", "Mobile app v2", "BigQuery sync (read-only)", "Production server"];

/// The scopes of an offer, as they are picked.
#[derive(Debug)]
pub(super) struct Picker {
    /// Read, write, or both: by method.
    pub(super) by_method: bool,
    /// Scopes by name.
    pub(super) named: Vec<Named>,
}

/// A scope with a name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) scope: String,
    pub(super) says: String,
}

impl Picker {
    pub(super) fn new(offer: &Offer) -> Self {
        let is_method = |scope: &String| matches!(scope.as_str(), "read" | "write" | "read_write");
        let named = offer.scopes.iter().filter(|scope| !is_method(scope));
        let named = named.map(|scope| Named { scope: scope.clone(), says: says(scope) }).collect();
        Self { by_method: offer.scopes.is_empty() || offer.scopes.iter().any(is_method), named }
    }

    /// The scopes of a combination.
    fn scopes(&self, writes: bool) -> Vec<String> {
        if self.by_method {
            return vec![if writes { "read_write" } else { "read" }.to_owned()];
        }
        let fits = |named: &&Named| {
            if writes { !named.scope.ends_with(":manage") } else { named.scope.ends_with(":read") }
        };
        self.named.iter().filter(fits).map(|named| named.scope.clone()).collect()
    }
}

/// What a scope allows, in words.
fn says(scope: &str) -> String {
    let Some((resource, verb)) = scope.split_once(':') else { return String::new() };
    let resource = resource.replace(['_', '-'], " ");
    match verb {
        "read" => format!("Look at {resource}"),
        "write" => format!("Make and change {resource}"),
        "create" => format!("Make new {resource}"),
        "manage" if resource == "keys" => "Mint and revoke keys: whoever holds this key may make more".to_owned(),
        "manage" => format!("Do everything with {resource}"),
        verb => format!("{} {resource}", verb.replace(['_', '-'], " ")),
    }
}

/// Fills in what a new key begins with: the narrowest scope, ninety days, or a combination.
pub(super) fn begin(form: &mut Form, offer: &Offer, combo: Option<&Combo>) {
    let fields = &mut form.fields;
    let picker = Picker::new(offer);
    fields.set("preset", offer.name.as_str());
    if fields.one("expires_at").is_empty() {
        fields.set("expires_at", "90d");
    }
    if offer.modes && fields.one("environment").is_empty() {
        fields.set("environment", "test");
    }
    match combo {
        Some(combo) => {
            fields.set("name", combo.title);
            picker.scopes(combo.writes).into_iter().for_each(|scope| fields.add("permissions", scope));
        }
        None if picker.by_method => fields.set("permissions", "read"),
        None => {}
    }
}

/// What the key that is typed will be able to do; or what is still missing.
pub(super) fn preview(form: &Form) -> String {
    described(form, clock::now().wall).unwrap_or_else(|missing| missing)
}

fn described(form: &Form, now: Wall) -> Result<String, String> {
    let scopes = form.fields.all("permissions");
    if scopes.is_empty() {
        return Err("Choose what the key may do, and this line will say it.".to_owned());
    }
    let owner = form.value("owner").trim();
    let owner = if owner.is_empty() { "its-owner" } else { owner };
    let expires_at = match form.value("expires_at").trim() {
        "" => None,
        text => moments::expiry(text).ok().and_then(|expiry| expiry.from(now)).map(whole),
    };
    let unclear = |what: &str| format!("{what} cannot be read yet.");
    let limits = form.fields.list("limits").iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    let limits = limits.map_err(|_| unclear("A limit"))?;
    let networks = form.fields.list("allow_ips").iter().map(|text| document::network(text)).collect::<Result<_, _>>();
    let row = KeyRow {
        id: "key".parse().map_err(|_| unclear("The key"))?,
        name: form.value("name").into(),
        kind: crate::keys::Kind::Token,
        public: PublicPart::Clear("".into()),
        hash: SecretHash::parse(NO_HASH).map_err(|_| unclear("The key"))?,
        owner: owner.parse().map_err(|_| unclear("The owner"))?,
        scopes: Scopes::parse(scopes.iter().map(String::as_str)).map_err(|_| unclear("A scope"))?,
        mode: match form.value("environment") {
            "live" => Some(Mode::Live),
            "test" => Some(Mode::Test),
            _ => None,
        },
        allow_ips: networks.map_err(|_| unclear("An address"))?,
        limits: (!limits.is_empty()).then_some(limits),
        created_at: None,
        expires_at,
        revoked_at: None,
        rotated_from: None,
        minted_by: None,
    };
    Ok(sentence(&row))
}

/// To the second, as keys keep it.
fn whole(at: Wall) -> Wall {
    Wall::from_unix_millis(at.unix_seconds().saturating_mul(1000))
}

/// The owner that is typed: what it brings with it.
#[derive(Debug, Default)]
pub(super) struct OwnerSays {
    pub(super) capabilities: Vec<String>,
    pub(super) plan: String,
    /// What is likely not meant.
    pub(super) warning: String,
}

impl OwnerSays {
    pub(super) fn of(desk: &Desk, id: &str) -> Self {
        let id = id.trim();
        if id.is_empty() {
            return Self::default();
        }
        desk.ledger.read(|image| {
            let Some(owner) = image.owners().get(id) else {
                let warning = "There is no owner of this id: the key will have no capabilities, and no KYC.".to_owned();
                return Self { warning, ..Self::default() };
            };
            let warning = match administrator(owner) {
                Some(capability) => format!(
                    "This owner is an administrator ({capability}): whoever holds the key may do everything that its scopes \
                     let through. An owner with the few capabilities that the integration needs is safer."
                ),
                None if owner.suspended_at.is_some() => "This owner is suspended: the key works once that is lifted.".to_owned(),
                None => String::new(),
            };
            Self {
                capabilities: owner.capabilities.iter().map(ToString::to_string).collect(),
                plan: owner.plan.as_deref().unwrap_or_default().to_owned(),
                warning,
            }
        })
    }
}

/// Owners to choose from, as far as a list of them is of use.
pub(super) fn owners(desk: &Desk) -> Vec<(String, String)> {
    let name = |owner: &document::OwnerRow| owner.name.as_deref().unwrap_or_default().to_owned();
    desk.ledger
        .read(|image| image.owners().values().take(200).map(|owner| (owner.id.to_string(), name(owner))).collect())
}
