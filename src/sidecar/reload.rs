//! Reloading all or nothing: a version that cannot be used as a whole leaves the one before it in force.

use std::{error::Error, path::PathBuf, sync::Arc};

use super::{live_settings, terms};
use crate::{
    config::{self, Config, Loaded},
    listener::tls,
    proxy::{Live, Shared},
    sync::file::{self, Handle},
    telemetry::{Health, Registry, Reloaded},
};

/// Reloads configuration, certificate and keys.
pub(super) struct Reloader {
    path: PathBuf,
    /// What is in force, to say what a reload cannot change.
    config: Config,
    shared: Arc<Shared>,
    source: Handle,
    tls: Option<Arc<tls::Reloader>>,
    registry: Arc<Registry>,
    health: Arc<Health>,
}

impl Reloader {
    pub(super) fn new(
        path: PathBuf,
        config: Config,
        shared: Arc<Shared>,
        source: Handle,
        tls: Option<Arc<tls::Reloader>>,
        registry: Arc<Registry>,
        health: Arc<Health>,
    ) -> Self {
        Self { path, config, shared, source, tls, registry, health }
    }

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
        }
        // The source itself counts how it went.
        let keys = self.source.reload(Some(terms(&config))).await?;
        self.shared.live.store(Arc::new(live));
        self.succeeded(Reloaded::Config);

        let fixed = self.fixed(&config);
        self.config = config;
        let mut said = format!(
            "configuration reloaded; keys {}; certificate {}",
            if keys == file::Reloaded::Applied { "reloaded" } else { "unchanged" },
            if certificate { "reloaded" } else { "unchanged" },
        );
        if !fixed.is_empty() {
            said.push_str("; in force only after a restart: ");
            said.push_str(&fixed.join(", "));
        }
        Ok(said)
    }

    fn compile(&self) -> Result<(Config, Live), String> {
        let Loaded { config, .. } =
            config::load(&self.path, config::environment()).map_err(|faults| faults.to_string())?;
        let mut live = Live::new(live_settings(&config)).map_err(|error| chain(&error))?;
        live.succeed(&self.shared.live.load());
        Ok((config, live))
    }

    /// What has changed and cannot change while the process runs.
    fn fixed(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.config;
        let same = |old: &dyn std::fmt::Debug, new: &dyn std::fmt::Debug| format!("{old:?}") == format!("{new:?}");
        let mut fixed = Vec::new();
        if !same(&old.listener, &new.listener) {
            fixed.push("[listen]");
        }
        if old.admin != new.admin {
            fixed.push("[admin]");
        }
        if old.keys.file != new.keys.file || old.keys.state != new.keys.state {
            fixed.push("[keys] file and state");
        }
        if old.log != new.log {
            fixed.push("[log]");
        }
        fixed
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

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
