//! The cookies: one names the session, one ties a form to the browser of somebody who is not signed in yet, and one tells
//! a browser that somebody has signed in with.
//!
//! Over TLS they bear the `__Host-` prefix, which browsers take from this very host and over TLS alone. Where the control
//! plane listens on loopback without TLS, not all browsers keep such cookies, and so the prefix and `Secure` are left out.

use http::{HeaderMap, HeaderValue, header};

use super::{
    super::{answer::Problem, audit, front::Peer, settings::Settings},
    device::KNOWN,
};

const SESSION: &str = "keyside";
const FORM: &str = "keyside-form";
const DEVICE: &str = "keyside-device";
const PREFIX: &str = "__Host-";

/// Whether browsers reach us over TLS alone.
fn strict(settings: &Settings) -> bool {
    settings.listener.tls.is_some()
        || settings.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
        || settings.listener.addresses.iter().any(|address| !address.ip().is_loopback())
}

/// The value of the session's cookie.
pub(super) fn session(settings: &Settings, headers: &HeaderMap) -> Option<String> {
    ours(settings, headers, SESSION)
}

/// The value of the form's cookie.
pub(super) fn form(settings: &Settings, headers: &HeaderMap) -> Option<String> {
    ours(settings, headers, FORM)
}

/// The value of the browser's cookie.
pub(super) fn device(settings: &Settings, headers: &HeaderMap) -> Option<String> {
    ours(settings, headers, DEVICE)
}

fn ours(settings: &Settings, headers: &HeaderMap, name: &str) -> Option<String> {
    let prefixed = read(headers, &format!("{PREFIX}{name}"));
    if prefixed.is_some() || strict(settings) { prefixed } else { read(headers, name) }
}

/// A cookie that is there once; of two with one name, another host may have set one. Ours are 64 hexadecimal digits.
fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let mut values = all
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(key, value)| (key == name).then_some(value));
    let value = values.next().filter(|_| values.next().is_none())?;
    let good = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| value.to_owned())
}

fn write(settings: &Settings, peer: Peer, name: &str, value: &str, more: &str) -> Option<HeaderValue> {
    let text = if strict(settings) || peer.secure {
        format!("{PREFIX}{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{more}")
    } else {
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{more}")
    };
    HeaderValue::from_str(&text).ok()
}

/// A session has begun, and the form's cookie has done its work. Both end with the browser; the session in the store too.
/// The browser itself is known for longer.
pub(super) fn begin(settings: &Settings, peer: Peer, session: &str, device: &str) -> Vec<HeaderValue> {
    let known = format!("; Max-Age={}", KNOWN.as_secs());
    let all = [
        write(settings, peer, SESSION, session, ""),
        write(settings, peer, FORM, "", "; Max-Age=0"),
        write(settings, peer, DEVICE, device, &known),
    ];
    all.into_iter().flatten().collect()
}

/// The session has ended.
pub(super) fn end(settings: &Settings, peer: Peer) -> Vec<HeaderValue> {
    write(settings, peer, SESSION, "", "; Max-Age=0").into_iter().collect()
}

/// What a page with a form for strangers needs: the token for the form, and the cookie to set if there is none.
///
/// # Errors
///
/// There are no random bytes.
pub fn form_cookie(
    settings: &Settings,
    peer: Peer,
    headers: &HeaderMap,
) -> Result<(String, Option<HeaderValue>), Problem> {
    if let Some(value) = form(settings, headers) {
        return Ok((form_token(&value), None));
    }
    let value = super::random()?;
    Ok((form_token(&value), write(settings, peer, FORM, &value, "")))
}

/// The token that belongs to a cookie. Whoever has the one cannot tell the other.
pub fn form_token(cookie: &str) -> String {
    audit::hex(&format!("form\n{cookie}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, field.parse().expect("a field"));
        }
        assert_eq!(read(&headers, "keyside").as_deref(), expected, "{fields:?}");
    }

    #[test]
    fn a_cookie_is_taken_where_it_is_there_once_and_is_one_of_ours() {
        let (good, other) = ("ab".repeat(32), "cd".repeat(32));
        check(&[&format!("keyside={good}")], Some(&good));
        check(&[&format!("a=b; keyside={good};c=d")], Some(&good));
        check(&["a=b", &format!("keyside={good}")], Some(&good));
        check(&[&format!("keyside={good}; keyside={other}")], None);
        check(&[&format!("keyside={good}"), &format!("keyside={other}")], None);
        check(&[&format!("Keyside={good}")], None);
        check(&[&format!("xkeyside={good}")], None);
        check(&[&format!("keyside=\"{good}\"")], None);
        check(&["keyside=abc"], None);
        check(&["keyside="], None);
        check(&[], None);
    }
}
