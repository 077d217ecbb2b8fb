//! The files that a configuration names: certificates, private keys, secrets, and who may read them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    clock::Wall,
    config::Loaded,
    fault::{Fault, chain},
    listener::tls,
    proxy::{
        settings::{Endpoint, UpstreamTls, UpstreamUrl},
        upstream::Destination,
    },
};

/// A certificate that ends sooner is warned of.
const SOON_MILLIS: i64 = 14 * 24 * 60 * 60 * 1000;

/// Checks certificates and the modes of files that hold secrets.
pub(super) fn check(loaded: &Loaded, now: Wall, faults: &mut Vec<Fault>) {
    let config = &loaded.config;
    let mut about = |setting: &str, fault: Fault| faults.push(loaded.effective.mark(setting, fault));
    if let Some(settings) = &config.listener.tls {
        listen(settings, "listen.tls.client_ca", now, &mut about);
    }
    upstreams(loaded, now, &mut about);
    control(loaded, now, &mut about);
    for setting in ["keys.pepper", "keys.control.token", "upstream.authorization"] {
        if let Some(fault) = loaded.secret_file(setting).and_then(open_to_all) {
            about(setting, fault);
        }
    }
}

/// Checks what is shown to clients; `client_ca` is the setting that names the authority of theirs.
pub(super) fn listen(settings: &tls::Settings, client_ca: &str, now: Wall, about: &mut impl FnMut(&str, Fault)) {
    if let Some(fault) = unusable(settings) {
        about("listen.tls.certificate", fault);
    }
    if let Some(fault) = validity(&settings.certificate, now) {
        about("listen.tls.certificate", fault);
    }
    if let Some(fault) = settings.client_ca.as_ref().and_then(|authority| validity(authority, now)) {
        about(client_ca, fault);
    }
    if let Some(fault) = open_to_all(&settings.private_key) {
        about("listen.tls.private_key", fault);
    }
}

fn control(loaded: &Loaded, now: Wall, about: &mut impl FnMut(&str, Fault)) {
    let Some(control) = loaded.config.keys.control() else { return };
    if let Some(fault) = control.client.ca.as_ref().and_then(|authority| validity(authority, now)) {
        about("keys.control.ca", fault);
    }
    let Some((certificate, private_key)) = &control.client.identity else { return };
    if let Some(fault) = validity(certificate, now) {
        about("keys.control.certificate", fault);
    }
    if let Some(fault) = open_to_all(private_key) {
        about("keys.control.private_key", fault);
    }
}

/// Why the files of TLS cannot be used, if they cannot.
pub(super) fn unusable(settings: &tls::Settings) -> Option<Fault> {
    let error = tls::Reloader::new(settings).err()?;
    Some(Fault::error(format!("`listen.tls`: {}", chain(&error))))
}

fn upstreams(loaded: &Loaded, now: Wall, about: &mut impl FnMut(&str, Fault)) {
    let upstream = &loaded.config.upstream;
    let (mut urls, mut own) = (vec![upstream.url.clone()], Vec::new());
    urls.extend(upstream.modes.values().cloned());
    for (index, route) in loaded.config.policy.routes.iter().enumerate() {
        let Some(of_route) = &route.upstream else { continue };
        let Ok(url) = of_route.url.parse::<UpstreamUrl>() else { continue };
        match &of_route.tls {
            None => urls.push(url),
            Some(tls) => own.push((index, url, UpstreamTls::from(tls))),
        }
    }
    let setting = if upstream.tls.is_some() { "upstream.tls" } else { "upstream.url" };
    // The same files serve all upstreams: one fault of theirs is not said for each.
    let mut said = Vec::new();
    for url in urls.iter().filter(|url| matches!(url.endpoint, Endpoint::Https { .. })) {
        if let Err(error) = Destination::new(url, upstream.tls.as_ref(), upstream.connect_timeout) {
            let message = format!("`{setting}`: {}", chain(&error));
            if !said.contains(&message) {
                about(setting, Fault::error(message.clone()));
                said.push(message);
            }
        }
    }
    for (index, url, tls) in &own {
        let setting = format!("route[{index}].tls");
        if let Err(error) = Destination::new(url, Some(tls), upstream.connect_timeout) {
            about(&setting, Fault::error(format!("route {}: `tls`: {}", index + 1, chain(&error))));
        }
        upstream_files(tls, &setting, now, about);
    }
    if let Some(tls) = &upstream.tls {
        upstream_files(tls, setting, now, about);
    }
}

fn upstream_files(tls: &UpstreamTls, setting: &str, now: Wall, about: &mut impl FnMut(&str, Fault)) {
    for file in [&tls.ca, &tls.certificate].into_iter().flatten() {
        if let Some(fault) = validity(file, now) {
            about(setting, fault);
        }
    }
    if let Some(fault) = tls.private_key.as_deref().and_then(open_to_all) {
        about(setting, fault);
    }
}

/// Whether the first certificate of a file is valid, and stays so for a while. What cannot be read is no business of
/// this function.
fn validity(path: &Path, now: Wall) -> Option<Fault> {
    let der = CertificateDer::from_pem_file(path).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let millis = |seconds: i64| Wall::from_unix_millis(seconds.saturating_mul(1000));
    let validity = certificate.validity();
    let (from, to) = (millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp()));
    let file = path.display();
    if now < from {
        return Some(Fault::error(format!("the certificate in {file} is not valid before {from}")));
    }
    if now >= to {
        return Some(Fault::error(format!("the certificate in {file} expired at {to}")));
    }
    let left = to.unix_millis() - now.unix_millis();
    (left < SOON_MILLIS)
        .then(|| Fault::warning(format!("the certificate in {file} expires at {to}, in {} days", left / 86_400_000)))
}

/// A file with a secret that everybody on the machine may read.
pub(super) fn open_to_all(path: &Path) -> Option<Fault> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let fault = Fault::warning(format!("{} may be read by everybody (mode {:04o})", path.display(), mode & 0o7777));
    (mode & 0o007 != 0).then(|| fault.suggest(format!("chmod 600 {}", path.display())))
}
