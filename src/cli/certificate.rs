//! A certificate for development: an authority that signs once and whose key is thrown away, and a certificate for
//! this machine's own names.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::clock::Wall;

/// An authority's certificate and a certificate it signed, in PEM.
pub(super) struct Issued {
    /// What clients trust.
    pub(super) ca: String,
    /// What the server shows: its certificate.
    pub(super) certificate: String,
    /// The key of the server's certificate. That of the authority is gone: nobody can sign more.
    pub(super) private_key: String,
}

/// How many days a development certificate is valid. Some clients refuse more than 825 days.
const DAYS: i64 = 825;

/// Issues a certificate for these names and addresses, valid from yesterday (clocks differ) on.
///
/// # Errors
///
/// When a name is none, or the system has no random numbers.
pub(super) fn issue(names: &[&str], now: Wall) -> Result<Issued, rcgen::Error> {
    let day = |days: i64| {
        let moment = Wall::from_unix_millis(now.unix_millis() + days * 86_400_000);
        let date = moment.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // The day before counts too.
    let validity = (day(-1), day(DAYS - 1));
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Keyside development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = validity;
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?;

    let mut server = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    server.distinguished_name.push(DnType::CommonName, "Keyside development server");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Strict verifiers (Python 3.13 and later) ask for it: RFC 5280 §4.2.1.1.
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = validity;
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::new(authority, authority_key))?;
    Ok(Issued { ca: ca.pem(), certificate: certificate.pem(), private_key: server_key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

    use super::*;

    #[track_caller]
    fn check(name: &str, now: Wall, expected: bool) {
        let issued = issue(&["localhost", "127.0.0.1", "::1"], crate::clock::now().wall).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(issued.ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_seconds().unsigned_abs()));
        let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier,
            &certificate,
            &[],
            &name,
            &[],
            now,
        );
        assert_eq!(verified.is_ok(), expected, "{name:?}: {verified:?}");
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_the_certificate() {
        let now = crate::clock::now().wall;
        check("localhost", now, true);
        check("127.0.0.1", now, true);
        check("::1", now, true);
        check("example.com", now, false);
        check("localhost", now.plus(Duration::from_secs(825 * 86_400)), false);
    }

    /// From its first moment to its last, as those clients count that refuse more.
    #[test]
    fn it_is_valid_for_no_more_days_than_clients_take() {
        let issued = issue(&["localhost"], crate::clock::now().wall).unwrap();
        for pem in [&issued.certificate, &issued.ca] {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
            let validity = certificate.validity();
            let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
            assert_eq!(seconds, DAYS * 86_400);
        }
    }
}
