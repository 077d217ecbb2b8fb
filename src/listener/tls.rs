//! TLS: the certificate in force, and its reload.
//!
//! The whole configuration is one value behind an atomic pointer, which every handshake loads anew. A reload builds the
//! next one completely (files, that the key fits the certificate, the client CA) before it is swapped in, so that a bad
//! version leaves the good one in force.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ServerSessionMemoryCache, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock::{self, Wall};

/// Where the files of TLS lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The certificate and its chain, PEM, the own one first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
    /// With it, clients present a certificate of one of these authorities, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether they must. If not, [`Connection::certified`](super::Connection::certified) says who did.
    pub client_certificate_required: bool,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or holds nothing of the kind it should hold.
    #[error("{path} holds no {wanted} in PEM form", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong with it; absent where it is only empty.
        #[source]
        source: Option<rustls_pki_types::pem::Error>,
    },
    /// The certificate cannot be read as X.509.
    #[error("the certificate in {path} is not valid X.509", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not valid now, while the one in force is.
    #[error("the certificate in {path} is valid from {from} until {until}, and not now", path = path.display())]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        from: Wall,
        /// Its end.
        until: Wall,
    },
    /// The key does not belong to the certificate, or is of a kind that cannot be used.
    #[error(
        "the private key in {key} does not fit the certificate in {certificate}",
        key = key.display(),
        certificate = certificate.display()
    )]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// What the TLS library said.
        #[source]
        source: rustls::Error,
    },
    /// The client CA cannot be used.
    #[error("the client CA in {path} cannot be used: {reason}", path = path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refused the configuration.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The TLS configuration in force, which follows its files.
#[derive(Debug)]
pub struct Reloader {
    settings: Settings,
    config: ArcSwap<ServerConfig>,
    not_after: AtomicI64,
    /// Held for the length of a reload, so that two at once cannot end with the older one.
    digests: Mutex<Digests>,
}

/// What the files held when they were loaded: digests, so that no second copy of the key lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digests {
    certificate: [u8; 32],
    private_key: [u8; 32],
    client_ca: Option<[u8; 32]>,
}

/// Sessions remembered for clients that resume by session id; those with tickets carry theirs themselves.
const SESSIONS: usize = 1024;

impl Reloader {
    /// Loads the files.
    ///
    /// # Errors
    /// When a file cannot be read or used; see [`TlsError`].
    pub fn new(settings: &Settings) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(settings)?;
        let (config, [_, not_after]) = build(settings, &files, None)?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            config: ArcSwap::from_pointee(config),
            not_after: AtomicI64::new(not_after.unix_millis()),
            digests: Mutex::new(files.digests()),
        }))
    }

    /// Loads the files again, if any has changed. True: a new configuration is in force for handshakes to come.
    ///
    /// # Errors
    /// When a file cannot be read or used. The configuration in force stays, and the next call tries again; but a new
    /// client CA does not wait for a certificate that is [not valid now](TlsError::NotValidNow).
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&self.settings)?;
        let new = files.digests();
        if new == *digests {
            return Ok(false);
        }
        // A session begun under another client CA must not be resumed: resumption does not judge the client anew.
        let keep = (new.client_ca == digests.client_ca).then(|| self.config.load_full());
        let (mut config, [from, until]) = build(&self.settings, &files, keep.as_deref())?;
        // No client takes it; one that takes the old one is better served by that.
        let now = clock::now().wall;
        if !(from..until).contains(&now) && now < self.not_after() {
            // Who is let in is another matter, and may have been changed to keep somebody out.
            if new.client_ca != digests.client_ca {
                config.cert_resolver = Arc::clone(&self.config.load().cert_resolver);
                self.config.store(Arc::new(config));
                digests.client_ca = new.client_ca;
                tracing::info!("the client CA was reloaded, without the new certificate");
            }
            return Err(TlsError::NotValidNow { path: self.settings.certificate.clone(), from, until });
        }
        self.config.store(Arc::new(config));
        self.not_after.store(until.unix_millis(), Ordering::Relaxed);
        *digests = new;
        Ok(true)
    }

    /// Until when the certificate in force is valid.
    pub fn not_after(&self) -> Wall {
        Wall::from_unix_millis(self.not_after.load(Ordering::Relaxed))
    }

    /// The files to watch.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let Settings { certificate, private_key, client_ca, .. } = &self.settings;
        [certificate, private_key].into_iter().chain(client_ca).map(PathBuf::as_path)
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

struct Files {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Self, TlsError> {
        let read = |path: &Path| fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self {
            certificate: read(&settings.certificate)?,
            private_key: Zeroizing::new(read(&settings.private_key)?),
            client_ca: settings.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digests(&self) -> Digests {
        Digests {
            certificate: Sha256::digest(&self.certificate).into(),
            private_key: Sha256::digest(self.private_key.as_slice()).into(),
            client_ca: self.client_ca.as_deref().map(|ca| Sha256::digest(ca).into()),
        }
    }
}

/// Builds the configuration, and from and until when its certificate is valid. Sessions of `keep` can be resumed under it.
fn build(
    settings: &Settings,
    files: &Files,
    keep: Option<&ServerConfig>,
) -> Result<(ServerConfig, [Wall; 2]), TlsError> {
    // The provider is named here and not installed for the process, so that no other user of the TLS library can
    // change what this listener offers.
    let provider = Arc::new(provider());

    let chain = certificates(&files.certificate, &settings.certificate)?;
    let validity =
        chain.first().and_then(validity).ok_or_else(|| TlsError::Certificate { path: settings.certificate.clone() })?;
    let key = PrivateKeyDer::from_pem_slice(&files.private_key).map_err(|source| TlsError::Pem {
        path: settings.private_key.clone(),
        wanted: "private key",
        source: Some(source),
    })?;
    // Refuses a key that does not belong to the certificate.
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|source| TlsError::Key {
        key: settings.private_key.clone(),
        certificate: settings.certificate.clone(),
        source,
    })?;

    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?;
    let builder = match (&files.client_ca, &settings.client_ca) {
        (Some(pem), Some(path)) => {
            let fault = |reason: String| TlsError::ClientCa { path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem, path)? {
                roots.add(authority).map_err(|error| fault(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if settings.client_certificate_required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| fault(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // In our own order, since the order of most clients is that of a list somebody wrote.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Early data can be replayed by anyone on the path, and a replayed request would count against a key.
    config.max_early_data_size = 0;
    // Every connection gives the client one for its next.
    config.send_tls13_tickets = 1;
    match keep {
        Some(old) => {
            config.ticketer = Arc::clone(&old.ticketer);
            config.session_storage = Arc::clone(&old.session_storage);
        }
        None => {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
    }
    Ok((config, validity))
}

/// The cipher suites with AES-128 come first: nothing is gained by its longer sister, whose handshakes hash by SHA-384,
/// for which most processors have no instructions. A client that offers others alone gets one of those.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |source| TlsError::Pem { path: path.to_owned(), wanted: "certificate", source };
    let certificates =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| fault(Some(error)))?;
    if certificates.is_empty() { Err(fault(None)) } else { Ok(certificates) }
}

/// From and until when a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Option<[Wall; 2]> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    Some(
        [validity.not_before, validity.not_after].map(|at| Wall::from_unix_millis(at.timestamp().saturating_mul(1000))),
    )
}
