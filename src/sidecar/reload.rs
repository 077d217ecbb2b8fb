//! Reloading all or nothing: a version that cannot be used as a whole leaves the one before it in force.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use super::{descriptors::Shares, live_settings, source::Source};
use crate::{
    config::{self, Config, KeySource, Loaded},
    fault::chain,
    listener::{self, tls},
    proxy::{Live, Shared, live},
    sync::file,
    telemetry::{Health, Registry, Reloaded},
};

/// Reloads configuration, certificate and keys.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    /// What it was started with: of that, a reload cannot change everything.
    pub(super) started: Config,
    /// Of the descriptors, which a reload shares out no other way.
    pub(super) shares: Shares,
    pub(super) shared: Arc<Shared>,
    pub(super) source: Source,
    pub(super) tls: Option<Arc<tls::Reloader>>,
    pub(super) registry: Arc<Registry>,
    pub(super) health: Arc<Health>,
}

impl Reloader {
    /// Reloads. The text says what came of it, for whoever asked.
    pub(super) async fn reload(&mut self) -> Result<String, String> {
        let result = self.try_reload().await;
        match &result {
            Ok(what) => tracing::info!(result = %what, "reloaded"),
            Err(why) => tracing::error!(error = %why, "not reloaded; the version before stays in force"),
        }
        result
    }

    async fn try_reload(&mut self) -> Result<String, String> {
        // First what changes nothing.
        let (config, live) = match self.compile() {
            Ok(compiled) => compiled,
            Err(why) => return Err(self.failed(Reloaded::Config, why)),
        };
        let certificate = match self.tls.as_ref().map(|tls| tls.reload()).transpose() {
            Ok(changed) => changed.unwrap_or(false),
            Err(error) => return Err(self.failed(Reloaded::Certificate, chain(&error))),
        };
        if certificate {
            self.succeeded(Reloaded::Certificate);
        } else if self.tls.is_some() {
            // What was wrong with the files is mended, whoever had found it.
            self.health.reloaded(Reloaded::Certificate, Ok::<(), String>(()));
        }
        // The source itself counts how it went.
        let keys = self.source.reload(&config).await?;
        self.shared.live.store(Arc::new(live));
        self.succeeded(Reloaded::Config);

        let mut said = format!(
            "configuration reloaded; keys {}; certificate {}",
            if keys == file::Reloaded::Applied { "reloaded" } else { "unchanged" },
            if certificate { "reloaded" } else { "unchanged" },
        );
        let aside = self.source.status().quarantined;
        if aside > 0 {
            said.push_str(&format!("; entries of keys set aside: {aside}"));
        }
        let fixed = fixed(&self.started, &config);
        if !fixed.is_empty() {
            said.push_str("; in force only after a restart: ");
            said.push_str(&fixed.join(", "));
        }
        Ok(said)
    }

    fn compile(&self) -> Result<(Config, Live), String> {
        let Loaded { config, .. } =
            config::load(&self.path, config::environment()).map_err(|faults| faults.to_string())?;
        let mut settings = live_settings(&config);
        keep(&self.started, &mut settings);
        let mut live = Live::new(settings).map_err(|error| chain(&error))?;
        live.succeed(&self.shared.live.load());
        live.bound_upstream_connections(self.shares.upstream);
        Ok((config, live))
    }

    fn succeeded(&self, what: Reloaded) {
        self.registry.reloaded(what, true);
        self.health.reloaded(what, Ok::<(), String>(()));
    }

    fn failed(&self, what: Reloaded, why: String) -> String {
        self.registry.reloaded(what, false);
        self.health.reloaded(what, Err(why.clone()));
        why
    }
}

/// What the listener holds until a restart must not change before one on the request path: the two would bound and
/// trust differently. The field that trusted proxies fill goes with them.
fn keep(started: &Config, settings: &mut live::Settings) {
    settings.facts.trusted_proxies = started.facts.trusted_proxies.clone();
    settings.facts.client_ip_header = started.facts.client_ip_header.clone();
    settings.facts.max_header_bytes = started.facts.max_header_bytes;
}

/// What has changed since the start and cannot change while the process runs.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let same = |old: &dyn Debug, new: &dyn Debug| format!("{old:?}") == format!("{new:?}");
    // In full, so that a new setting of the listener is not forgotten here.
    let listener::Settings {
        addresses,
        tls,
        proxy_protocol,
        trusted_proxies,
        max_connections,
        max_connections_per_ip,
        // A sidecar vouches for nobody, and leaves the rest to the timeouts.
        max_strangers: _,
        max_unacknowledged: _,
        max_header_bytes,
        timeouts,
    } = &old.listener;
    let rows: [(&'static str, bool); 14] = [
        ("[listen] address", *addresses == new.listener.addresses),
        ("[listen.tls]", same(tls, &new.listener.tls)),
        ("[listen] proxy_protocol", *proxy_protocol == new.listener.proxy_protocol),
        ("[listen] trusted_proxies", same(trusted_proxies, &new.listener.trusted_proxies)),
        ("[listen] client_ip_header", old.facts.client_ip_header == new.facts.client_ip_header),
        ("[listen] max_connections", *max_connections == new.listener.max_connections),
        ("[listen] max_connections_per_ip", *max_connections_per_ip == new.listener.max_connections_per_ip),
        ("[listen] max_header_bytes", *max_header_bytes == new.listener.max_header_bytes),
        ("[listen.timeouts]", same(timeouts, &new.listener.timeouts)),
        ("[admin]", old.admin == new.admin),
        ("[shutdown]", same(&old.shutdown, &new.shutdown)),
        ("[keys] file, state, and the url of control", origin(old) == origin(new) && old.keys.state == new.keys.state),
        ("[keys.verification]", same(&old.keys.verification, &new.keys.verification)),
        ("[log]", old.log == new.log),
    ];
    rows.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// Where keys come from, as far as a reload does not change it.
fn origin(config: &Config) -> String {
    match &config.keys.source {
        KeySource::File(file) => file.display().to_string(),
        KeySource::Control(control) => format!("{} {:?}", control.client.url, control.instance),
    }
}
