//! What the control plane is told.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;

use crate::{
    keys::{Kind, mint, secret::Secret},
    listener,
    policy::network::Networks,
    proxy::settings::ShutdownSettings,
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
    /// The address that people type, such as `https://keys.example.com`, for links; none: where it listens.
    pub public_url: Option<String>,
    /// The admin port.
    pub admin: admin::Settings,
    /// How it goes away.
    pub shutdown: ShutdownSettings,
    /// Where keys last.
    pub store: StoreSettings,
    /// Who may sync, and who may ask on behalf of a key.
    pub sync: SyncSettings,
    /// The admin pages.
    pub pages: PagesSettings,
    /// What kinds of keys are offered; never empty.
    pub offers: Vec<Offer>,
    /// The pepper of `hmac-sha256`.
    pub pepper: Option<Secret>,
    /// A file outside of the store to which each new head of the audit log is added, so that a tail that was cut off shows.
    pub anchor: Option<PathBuf>,
    /// The logs.
    pub log: log::Settings,
}

/// Where keys last.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres {
        /// Its URL, without a password.
        url: String,
        /// The password.
        password: Option<Secret>,
    },
}

/// Who may sync, and who may ask on behalf of a key.
#[derive(Clone, Debug, Default)]
pub struct SyncSettings {
    /// SHA-256, in hexadecimal, of each token that sidecars sync with.
    pub tokens: Vec<String>,
    /// SHA-256, in hexadecimal, of what a sidecar in front of the management API sends as Authorization: its owner headers
    /// are believed. None: no sidecar is.
    pub gateway: Option<String>,
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
    /// Whether the mode of a key decides where it may be used.
    pub modes: bool,
    /// The plans that there are.
    pub plans: Vec<String>,
    /// The capabilities that routes ask for.
    pub capabilities: Vec<String>,
    /// Whether some route asks for an approved KYC.
    pub kyc: bool,
}

impl Settings {
    /// Whose word about a client's address is taken.
    pub fn trusted_proxies(&self) -> &Networks {
        &self.listener.trusted_proxies
    }

    /// The kind of key of this name; the first one where none is named.
    pub fn offer(&self, name: Option<&str>) -> Option<&Offer> {
        match name {
            None => self.offers.first(),
            Some(name) => self.offers.iter().find(|offer| offer.name == name),
        }
    }
}
