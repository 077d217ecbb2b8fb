//! Why TLS with an upstream fails, for the operator's log: each kind once in a while, however many requests meet it.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustls::{AlertDescription, CertificateError, Error};

use crate::clock::Mono;

/// How long a kind of trouble is not told again.
const QUIET: Duration = Duration::from_secs(60);

/// A kind of trouble, as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its authority is none that is trusted.
    UnknownAuthority,
    /// It is for other names.
    OtherName,
    /// It has expired, or is not valid yet.
    NotNow,
    /// Its certificate is wrong otherwise.
    BadCertificate,
    /// It wants a certificate of ours, or another one.
    WantsCertificate,
    /// It ended the handshake.
    Refused,
    /// What it speaks is no TLS that we do.
    NoTls,
}

impl Trouble {
    /// What kind of trouble this error tells of; none where it is not one of TLS.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        use CertificateError as Bad;
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match error {
            // A signature is bad where another authority has the name of the one that is trusted, too.
            Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => Self::UnknownAuthority,
            Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Self::OtherName,
            Error::InvalidCertificate(
                Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
            ) => Self::NotNow,
            Error::InvalidCertificate(_) => Self::BadCertificate,
            Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied,
            ) => Self::WantsCertificate,
            Error::AlertReceived(_) => Self::Refused,
            _ => Self::NoTls,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownAuthority => "unknown_authority",
            Self::OtherName => "other_name",
            Self::NotNow => "not_valid_now",
            Self::BadCertificate => "bad_certificate",
            Self::WantsCertificate => "wants_certificate",
            Self::Refused => "refused",
            Self::NoTls => "no_tls",
        }
    }

    /// What to do about it.
    const fn advice(self) -> &'static str {
        match self {
            Self::UnknownAuthority => "name the authority of its certificate: tls = { ca = \"…\" }",
            Self::OtherName => "name what its certificate is for: tls = { server_name = \"…\" }",
            Self::NotNow => "it needs a new certificate, or a clock is wrong",
            Self::BadCertificate => "it needs another certificate",
            Self::WantsCertificate => {
                "it wants a client certificate that it trusts: tls = { certificate = \"…\", private_key = \"…\" }"
            }
            Self::Refused => "its own log may say why",
            Self::NoTls => "is its url to begin with http, and not with https?",
        }
    }
}

/// When which kind was told last.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<(Trouble, Mono)>>);

impl Told {
    /// Whether this is to be told now.
    fn is_due(&self, trouble: Trouble, now: Mono) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.iter_mut().find(|(kind, _)| *kind == trouble) {
            Some((_, last)) if now.since(*last) < QUIET => false,
            Some((_, last)) => {
                *last = now;
                true
            }
            None => {
                told.push((trouble, now));
                true
            }
        }
    }

    /// Tells of an error, if it is one of TLS and was not told a moment ago.
    pub(super) fn tell(&self, upstream: &str, error: &io::Error, now: Mono) {
        let Some(trouble) = Trouble::of(error).filter(|trouble| self.is_due(*trouble, now)) else { return };
        tracing::error!(
            upstream.authority = upstream, upstream.trouble = trouble.as_str(), %error, advice = trouble.advice(),
            "TLS with the upstream fails"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: Error, expected: Trouble) {
        assert_eq!(Trouble::of(&io::Error::new(io::ErrorKind::InvalidData, error)), Some(expected));
    }

    #[test]
    fn errors_of_tls_have_a_kind() {
        check(Error::InvalidCertificate(CertificateError::UnknownIssuer), Trouble::UnknownAuthority);
        check(Error::InvalidCertificate(CertificateError::NotValidForName), Trouble::OtherName);
        check(Error::InvalidCertificate(CertificateError::Expired), Trouble::NotNow);
        check(Error::InvalidCertificate(CertificateError::BadSignature), Trouble::UnknownAuthority);
        check(Error::InvalidCertificate(CertificateError::InvalidPurpose), Trouble::BadCertificate);
        check(Error::AlertReceived(AlertDescription::CertificateRequired), Trouble::WantsCertificate);
        check(Error::AlertReceived(AlertDescription::InternalError), Trouble::Refused);
        check(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), Trouble::NoTls);
        assert_eq!(Trouble::of(&io::ErrorKind::ConnectionRefused.into()), None);
    }

    #[test]
    fn a_kind_is_told_once_a_minute() {
        let told = Told::default();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        assert!(told.is_due(Trouble::NotNow, at(1)));
        assert!(!told.is_due(Trouble::NotNow, at(60)));
        assert!(told.is_due(Trouble::OtherName, at(60)), "another kind");
        assert!(told.is_due(Trouble::NotNow, at(61)));
    }
}
