//! What the control plane is told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::HeaderName;

use super::store::Place;
use crate::{
    keys::{Kind, mint, secret::Secret},
    listener::{self, ShutdownSettings},
    policy::network::Networks,
    telemetry::{admin, log},
};

/// What the control plane is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where and how it listens.
    pub listener: listener::Settings,
    /// The one field that is read for the client's address, from trusted proxies.
    pub client_ip_header: HeaderName,
    /// The largest body of a request, in bytes. Reports of sidecars may have 4 MiB.
    pub max_body: u64,
    /// A path that is answered without a credential, for balancers.
    pub health_path: Option<Box<str>>,
    /// The address that people type, such as `https://keys.example.com`, for links; none: where it listens.
    pub public_url: Option<String>,
    /// A request that a new key may make, for the line that pages print; none: a place holder.
    pub example_url: Option<String>,
    /// The admin port.
    pub admin: admin::Settings,
    /// How it goes away.
    pub shutdown: ShutdownSettings,
    /// Where keys last.
    pub store: Place,
    /// Who may sync, and who may ask on behalf of a key.
    pub sync: SyncSettings,
    /// The admin pages.
    pub pages: PagesSettings,
    /// Who is there at the first start.
    pub setup: SetupSettings,
    /// What kinds of keys are offered; never empty.
    pub offers: Vec<Offer>,
    /// The pepper of `hmac-sha256`.
    pub pepper: Option<Secret>,
    /// Whether a key with `keys:manage` may mint others that have it too.
    pub managers_mint_managers: bool,
    /// A file outside of the store to which each new head of the audit log is added, so that a tail that was cut off shows.
    pub anchor: Option<PathBuf>,
    /// The logs.
    pub log: log::Settings,
}

/// Who may sync, and who may ask on behalf of a key.
#[derive(Clone, Debug, Default)]
pub struct SyncSettings {
    /// SHA-256, in hexadecimal, of each token that sidecars sync with.
    pub tokens: Vec<String>,
    /// SHA-256, in hexadecimal, of what a sidecar in front of the management API sends as Authorization: its owner headers
    /// are believed. None: no sidecar is.
    pub gateway: Option<String>,
    /// Whether whoever shows a certificate of the client CA may sync.
    pub certified: bool,
    /// Whether the owner headers of such a one are believed.
    pub certified_gateway: bool,
    /// The longest that a sidecar may serve without a word of us.
    pub max_stale: Duration,
}

/// The admin pages.
#[derive(Clone, Copy, Debug)]
pub struct PagesSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// A session that was not used for so long has ended.
    pub session_idle: Duration,
    /// A session ends after so long, however it is used.
    pub session_max: Duration,
}

/// Who is there at the first start.
#[derive(Clone, Debug)]
pub struct SetupSettings {
    /// The name of the first operator, an admin.
    pub operator: String,
    /// Their password; none: they set themselves up by a link.
    pub password: Option<Secret>,
    /// A token of theirs.
    pub token: Option<Secret>,
}

/// A kind of key that can be minted: what a preset, or a sidecar's configuration, says of it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The name of the preset; `keyside` where there is none.
    pub name: String,
    /// The kind of key that can be presented.
    pub kind: Kind,
    /// The shapes of keys.
    pub mint: mint::Settings,
    /// The scopes that routes ask for, and those of methods, in the order of the routes.
    pub scopes: Vec<String>,
    /// Whether a key has a mode: it shows in tokens, and decides where a key may be used.
    pub modes: bool,
    /// The plans that there are.
    pub plans: Vec<String>,
    /// The capabilities that routes ask for.
    pub capabilities: Vec<String>,
    /// Whether some route asks for an approved KYC.
    pub kyc: bool,
    /// The field that keys are sent in, where it is not Authorization.
    pub header: Option<String>,
}

impl Settings {
    /// Whose word about a client's address is taken.
    pub fn trusted_proxies(&self) -> &Networks {
        &self.listener.trusted_proxies
    }

    /// The first address that can be reached from outside.
    pub fn beyond_loopback(&self) -> Option<SocketAddr> {
        self.listener.addresses.iter().copied().find(|address| !address.ip().is_loopback())
    }

    /// The kind of key of this name; the first one where none is named.
    pub fn offer(&self, name: Option<&str>) -> Option<&Offer> {
        match name {
            None => self.offers.first(),
            Some(name) => self.offers.iter().find(|offer| offer.name == name),
        }
    }
}
