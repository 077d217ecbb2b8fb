//! Where keys come from: the key file or a control endpoint, started, reloaded and told of alike.

use std::sync::{Arc, Mutex, PoisonError};

use super::StartError;
use crate::{
    clock,
    config::{Config, KeySource},
    keys::{KeySet, KeyStore, store::Terms},
    sync::{
        endpoint::{self, Limits},
        file::{self, FileSource, Prepare, Reloaded as Outcome, Status},
    },
    telemetry::{Family, Health, Registry, Reloaded},
    usage::{Folder, Restorer},
};

const FINE: Result<(), String> = Ok(());

/// A source at work. Dropping it stops it.
#[derive(Debug)]
pub(super) enum Source {
    File(file::Handle),
    Endpoint(endpoint::Handle),
}

impl Source {
    /// Starts the source that the configuration names, and gives the store that it fills. What was saved of keys in
    /// `folder` is restored before any request sees them.
    pub(super) fn start(
        config: &Config,
        folder: Folder,
        registry: &Arc<Registry>,
        health: &Arc<Health>,
        restorer: Restorer,
    ) -> Result<(Self, Arc<KeyStore>), StartError> {
        let prepare: Prepare = Box::new(move |set: &KeySet| restorer.restore(set, clock::now()));
        let (registry, health) = (Arc::clone(registry), Arc::clone(health));
        match &config.keys.source {
            KeySource::File(file) => {
                let state = Some(folder);
                let settings = file::Settings { file: file.clone(), state, terms: terms(config) };
                let report = move |event: &file::Event<'_>| file_event(event, &registry, &health);
                let mut source = FileSource::new(settings, Box::new(report), prepare);
                source.load();
                let keys = Arc::clone(source.store());
                let handle = file::watch(source)
                    .map_err(|source| StartError::Thread { what: "the watch of the key file", source })?;
                Ok((Self::File(handle), keys))
            }
            KeySource::Control(control) => {
                let settings = endpoint::Settings {
                    client: control.client.clone(),
                    instance: control.instance.clone(),
                    terms: terms(config),
                    limits: limits(config),
                };
                let report = move |event: &endpoint::Event<'_>| endpoint_event(event, &registry, &health);
                let handle =
                    endpoint::start(settings, folder, Box::new(report), prepare).map_err(StartError::Control)?;
                let keys = Arc::clone(handle.store());
                Ok((Self::Endpoint(handle), keys))
            }
        }
    }

    /// Takes what of the configuration it can take while it runs.
    pub(super) async fn reload(&self, config: &Config) -> Result<Outcome, String> {
        match (self, config.keys.control()) {
            (Self::File(handle), None) => handle.reload(Some(terms(config))).await,
            (Self::Endpoint(handle), Some(control)) => {
                handle.reload(&control.client, terms(config), limits(config)).await
            }
            // Another source is for a restart.
            (Self::File(_) | Self::Endpoint(_), _) => Ok(Outcome::Unchanged),
        }
    }

    /// How it is doing.
    pub(super) fn status(&self) -> Status {
        self.shared_status().lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, for whoever outlives it.
    pub(super) fn shared_status(&self) -> Arc<Mutex<Status>> {
        match self {
            Self::File(handle) => handle.shared_status(),
            Self::Endpoint(handle) => handle.shared_status(),
        }
    }

    /// The revision that is shown is the endpoint's own, where there is one.
    pub(super) fn feed_revision(&self, registry: &Registry) {
        if let Self::Endpoint(handle) = self {
            let status = handle.shared_status();
            registry.feed(Family::SyncRevision, move |samples| {
                samples.count(&[], status.lock().unwrap_or_else(PoisonError::into_inner).revision);
            });
        }
    }
}

/// What rows are read by.
fn terms(config: &Config) -> Terms {
    Terms { mint: config.keys.mint.clone(), pepper: config.keys.pepper.clone() }
}

fn limits(config: &Config) -> Limits {
    Limits { reads: config.keys.max_stale, writes: config.keys.max_stale_write }
}

fn file_event(event: &file::Event<'_>, registry: &Registry, health: &Health) {
    match event {
        file::Event::Applied { applied, latency, .. } => {
            registry.reloaded(Reloaded::Keys, true);
            if let (Some(latency), 1..) = (latency, applied.cut_off) {
                registry.revocation_latency(*latency);
            }
            health.set_keys(FINE);
            health.reloaded(Reloaded::Keys, FINE);
        }
        file::Event::Refused(refused) => {
            registry.reloaded(Reloaded::Keys, false);
            health.reloaded(Reloaded::Keys, Err(refused.to_string()));
        }
        file::Event::Unreadable(error) => {
            registry.reloaded(Reloaded::Keys, false);
            health.reloaded(Reloaded::Keys, Err(error.to_string()));
        }
        file::Event::Recovered => {
            registry.reloaded(Reloaded::Keys, true);
            health.reloaded(Reloaded::Keys, FINE);
        }
        file::Event::State { .. } => {}
    }
}

fn endpoint_event(event: &endpoint::Event<'_>, registry: &Registry, health: &Health) {
    match event {
        endpoint::Event::Applied { from_endpoint, .. } => {
            // Whether they are fresh enough to be served is said apart.
            if *from_endpoint {
                registry.reloaded(Reloaded::Keys, true);
            }
        }
        endpoint::Event::Refused(why) => {
            registry.reloaded(Reloaded::Keys, false);
            health.reloaded(Reloaded::Keys, Err((*why).to_owned()));
        }
        endpoint::Event::Recovered => health.reloaded(Reloaded::Keys, FINE),
        endpoint::Event::Reachable(trouble) => {
            let trouble = trouble.map(|why| format!("is not heard; the last keys are served on for a while: {why}"));
            health.notice("control endpoint", trouble);
        }
        endpoint::Event::Stale { reads, writes } => {
            health.set_keys(if *reads {
                Err("the control endpoint has not confirmed them for keys.max_stale")
            } else {
                Ok(())
            });
            let trouble = writes.then(|| "are refused: keys.max_stale_write is over".to_owned());
            health.notice("writes", trouble);
        }
    }
}
