//! Whether a browser says that a request comes from our own pages.

use http::{HeaderMap, StatusCode, Uri, header};

use super::super::{answer::Problem, front::Peer};

/// Refuses what another site has sent. `Sec-Fetch-Site` and `Origin` must both agree where they are there, and one of
/// them must be: all browsers send `Origin` with a form. (Our pages say `Referrer-Policy: same-origin`; under
/// `no-referrer` a form would say `Origin: null`.)
///
/// # Errors
///
/// It was sent by another site, or it is not known by whom.
pub(super) fn same_origin(public_url: Option<&str>, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    let site = sites.next().map(|site| site.as_bytes() == b"same-origin");
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let origin =
        origins.next().map(|origin| origin.to_str().is_ok_and(|origin| is_ours(public_url, peer, headers, origin)));
    let twice = sites.next().is_some() || origins.next().is_some();
    match (site, origin) {
        (Some(true), Some(true)) | (None, Some(true)) | (Some(true), None) if !twice => Ok(()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "This form was not sent by a page of the control plane: nothing was done.",
        )),
    }
}

/// The origin that people type, or, where none is set, the host that was asked for.
fn is_ours(public_url: Option<&str>, peer: Peer, headers: &HeaderMap, origin: &str) -> bool {
    if let Some(url) = public_url
        && origin_of(url).is_some_and(|ours| ours.eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let scheme = if peer.secure { "https" } else { "http" };
    host.is_some_and(|host| !host.is_empty() && origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")))
}

fn origin_of(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme_str()?, url.authority()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(public: Option<&str>, secure: bool, fields: &[(&str, &str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(http::HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
        }
        let peer = Peer { ip: [127, 0, 0, 1].into(), secure, certified: false };
        assert_eq!(same_origin(public, peer, &headers).is_ok(), expected, "{fields:?}");
    }

    #[test]
    fn only_our_own_pages_send_forms() {
        let host = ("host", "keys.test:8443");
        let ours = ("origin", "http://keys.test:8443");
        check(None, false, &[host, ours], true);
        check(None, false, &[host, ("sec-fetch-site", "same-origin")], true);
        check(None, false, &[host, ours, ("sec-fetch-site", "same-origin")], true);
        for bad in [
            "http://keys.test",
            "https://keys.test:8443",
            "null",
            "http://keys.test:8443.evil.test",
            "http://evil.test",
            "",
        ] {
            check(None, false, &[host, ("origin", bad)], false);
            check(None, false, &[host, ("origin", bad), ("sec-fetch-site", "same-origin")], false);
        }
        for bad in ["cross-site", "same-site", "none", "", "same-origin, same-origin"] {
            check(None, false, &[host, ours, ("sec-fetch-site", bad)], false);
            check(None, false, &[host, ("sec-fetch-site", bad)], false);
        }
        check(None, false, &[host], false);
        check(None, false, &[ours], false);
        check(None, false, &[host, ours, ours], false);
        check(None, true, &[host, ("origin", "https://keys.test:8443")], true);
        check(None, true, &[host, ours], false);
        check(Some("https://keys.example.com/"), false, &[host, ("origin", "https://keys.example.com")], true);
        check(Some("https://keys.example.com"), false, &[host, ("origin", "https://example.com")], false);
    }
}
