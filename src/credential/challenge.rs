//! What a caller without an accepted credential is asked for.

use http::{HeaderName, HeaderValue};

use super::Settings;

/// What went before a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The caller presented nothing.
    First,
    /// What the caller presented is not accepted.
    AfterFailure,
}

/// One challenge per accepted scheme, for `WWW-Authenticate` (RFC 9110 §11.6.1), each on a field line of its own.
///
/// After a failure a Bearer challenge says so (RFC 6750 §3.1), whichever scheme was used: all failures get one answer.
///
/// The query is no scheme; where nothing else is accepted it gets one of our own, since a 401 must have a challenge.
pub fn challenges(settings: &Settings, realm: &str, asked: Asked) -> Vec<HeaderValue> {
    let realm = quoted(realm);
    let mut challenges = Vec::new();
    if settings.basic {
        challenges.push(format!("Basic realm={realm}, charset=\"UTF-8\""));
    }
    if settings.bearer {
        challenges.push(match asked {
            Asked::First => format!("Bearer realm={realm}"),
            Asked::AfterFailure => format!("Bearer realm={realm}, error=\"invalid_token\""),
        });
    }
    if let Some(name) = &settings.header {
        challenges.push(format!("ApiKey realm={realm}, header=\"{}\"", shown(name)));
    }
    if let (true, Some(names)) = (challenges.is_empty(), &settings.query) {
        let names = quoted(&format!("{} {}", names.key, names.secret));
        challenges.push(format!("ApiKey realm={realm}, query={names}"));
    }
    challenges.iter().filter_map(|challenge| HeaderValue::from_str(challenge).ok()).collect()
}

/// A quoted-string (RFC 9110 §5.6.4); what it cannot hold is left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars().filter(|character| matches!(character, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// A field name as people write it. The name itself has no case (RFC 9110 §5.1), but documents that say "X-API-Key"
/// are easier to match with it.
fn shown(name: &HeaderName) -> String {
    let word = |word: &str| match word {
        "api" => "API".to_owned(),
        _ => {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        }
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}
