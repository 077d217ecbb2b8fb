//! What the demo prints: lines to paste, each with the status it gives.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use super::folder::Keys;
use crate::keys::mint::Minted;

/// One line to paste.
struct Line {
    status: u16,
    /// Why it gives that status.
    why: &'static str,
    credential: String,
    /// More options of curl.
    options: &'static str,
    path: &'static str,
}

/// Prints one JSON object of the answer, then the status on a line of its own.
const SHOW: &str = r"-w '\n%{http_code}\n'";
/// Prints statuses alone.
const COUNT: &str = r"-o /dev/null -w '%{http_code}\n'";
const POST: &str = r#" -H 'Content-Type: application/json' -d '{"amount":"5.00"}'"#;

/// All lines, for the sample API or for one of the user's own.
fn lines(keys: &Keys, sample: bool) -> Vec<Line> {
    let path = |of_sample: &'static str, of_own: &'static str| if sample { of_sample } else { of_own };
    let mut lines = vec![
        Line {
            status: 200,
            why: "a pair with the scope read reads",
            credential: pair(&keys.reader),
            options: "",
            path: path("/v1/wallets", "/"),
        },
        Line {
            status: 200,
            why: "a Bearer token reads what its scopes name",
            credential: bearer(&keys.token),
            options: "",
            path: path("/v1/transactions", "/"),
        },
    ];
    if sample {
        lines.push(Line {
            status: 201,
            why: "a pair with read_write writes",
            credential: pair(&keys.writer),
            options: POST,
            path: "/v1/transactions",
        });
    }
    lines.extend([
        Line {
            status: 401,
            why: "no credential",
            credential: String::new(),
            options: "",
            path: path("/v1/wallets", "/"),
        },
        Line {
            status: 401,
            why: "a wrong secret",
            credential: format!(" -u {}:cs_wrong", keys.reader.public),
            options: "",
            path: path("/v1/wallets", "/"),
        },
        Line {
            status: 403,
            why: "the scope read does not write",
            credential: pair(&keys.reader),
            options: POST,
            path: path("/v1/transactions", "/"),
        },
        Line {
            status: 403,
            why: "this key may be used from 203.0.113.42 alone",
            credential: pair(&keys.elsewhere),
            options: "",
            path: path("/v1/wallets", "/"),
        },
    ]);
    if sample {
        lines.push(Line {
            status: 403,
            why: "withdrawals need an owner with approved KYC",
            credential: bearer(&keys.token),
            options: POST,
            path: "/v1/withdrawals",
        });
    }
    lines.push(Line {
        status: 429,
        why: "six requests with a key that has 5 a minute; the last status counts",
        credential: format!(" -H 'X-API-Key: {}'", secret(&keys.tiny)),
        options: "",
        path: path("/v1/wallets?n=[1-6]", "/?n=[1-6]"),
    });
    lines
}

/// The whole text.
pub(super) fn script(keys: &Keys, ca: &Path, address: SocketAddr, sample: bool) -> String {
    let mut text = String::new();
    for line in lines(keys, sample) {
        let show = if line.status == 429 { COUNT } else { SHOW };
        // A proxy that the environment names does not know this machine's loopback.
        let _ = write!(
            text,
            "# {}: {}\ncurl -sS --noproxy '*' --cacert {} {show}{}{} 'https://{address}{}'\n\n",
            line.status,
            line.why,
            quoted(&ca.to_string_lossy()),
            line.credential,
            line.options,
            line.path,
        );
    }
    text
}

fn pair(key: &Minted) -> String {
    format!(" -u {}:{}", key.public, secret(key))
}

fn bearer(key: &Minted) -> String {
    bearer_of(&secret(key))
}

/// The credential that is this token.
pub(super) fn bearer_of(token: &str) -> String {
    format!(" -H 'Authorization: Bearer {token}'")
}

/// Minted secrets are ASCII; showing them is what the demo is for.
fn secret(key: &Minted) -> String {
    String::from_utf8_lossy(key.secret.expose()).into_owned()
}

/// As a shell reads it back.
pub(super) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(quoted(text), expected);
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_split_it() {
        check("/tmp/keyside-demo-x1/ca.crt", "/tmp/keyside-demo-x1/ca.crt");
        check("/tmp/my demo/ca.crt", "'/tmp/my demo/ca.crt'");
        check("/tmp/it's/ca.crt", r"'/tmp/it'\''s/ca.crt'");
    }

    #[test]
    fn every_line_can_be_pasted_alone_and_says_its_status() {
        let keys = Keys::mint(crate::clock::now().wall).unwrap();
        for sample in [true, false] {
            let text = script(&keys, Path::new("/tmp/ca.crt"), ([127, 0, 0, 1], 8443).into(), sample);
            let mut lines = text.lines().filter(|line| !line.is_empty());
            let mut statuses = Vec::new();
            while let (Some(comment), Some(command)) = (lines.next(), lines.next()) {
                statuses.push(comment[2..5].parse::<u16>().unwrap());
                assert!(comment.starts_with("# ") && command.starts_with("curl "), "{comment}\n{command}");
                assert_eq!(command.matches('\'').count() % 2, 0, "{command}");
            }
            for status in [200, 401, 403, 429] {
                assert!(statuses.contains(&status), "{status} in {statuses:?}");
            }
        }
    }
}
