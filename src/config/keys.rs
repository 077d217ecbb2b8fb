//! `[keys]`, and references to secrets.

use std::{fs::File, io::Read as _, path::PathBuf, time::Duration};

use super::{
    layer::{Node, Value, find},
    listen::pair_of,
    reader::Section,
    value::{self, Read, Wrong, choice, duration, integer},
};
use crate::{
    client,
    keys::{
        mint::{self, PairBody, PairShape, TokenShape},
        secret::{Algorithm, Secret},
        verify,
    },
};

/// Where keys come from, and what becomes of them.
#[derive(Clone, Debug)]
pub struct KeysSettings {
    /// Where keys come from.
    pub source: KeySource,
    /// The folder of what outlives a restart.
    pub state: PathBuf,
    /// The pepper of `hmac-sha256`.
    pub pepper: Option<Secret>,
    /// How long the last good set is served when its source is unreachable.
    pub max_stale: Duration,
    /// The same for methods that do not only read.
    pub max_stale_write: Duration,
    /// What a revocation does to requests in flight.
    pub on_revoke: OnRevoke,
    /// The shapes of minted keys.
    pub mint: mint::Settings,
    /// How secrets are verified.
    pub verification: verify::Settings,
}

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The key file; watched.
    File(PathBuf),
    /// A control endpoint.
    Control(Control),
}

/// A control endpoint, and what we are called there.
#[derive(Clone, Debug)]
pub struct Control {
    /// How it is reached.
    pub client: client::Settings,
    /// What this sidecar is called there; absent: as the machine.
    pub instance: Option<Box<str>>,
}

impl KeysSettings {
    /// The control endpoint, if keys come from one.
    pub fn control(&self) -> Option<&Control> {
        match &self.source {
            KeySource::File(_) => None,
            KeySource::Control(control) => Some(control),
        }
    }
}

/// What a revocation does to requests in flight. Upgraded connections are always cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRevoke {
    /// They may finish.
    #[default]
    Finish,
    /// They are cut within a second.
    Cut,
}

const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn keys(section: &Section<'_>) -> KeysSettings {
    let reader = section.reader();
    if let Some(control) = section.entry("control")
        && reader_typed(section, "file")
    {
        section.accept::<()>(
            &section.path_of("control"),
            Err(vec![
                Wrong::at(&control.place, "keys come from a file or from a control endpoint, not from both")
                    .suggest("take out `file` or `control`"),
            ]),
        );
    }
    let control = section.section("control", control);
    if section.entry("control").is_some_and(|entry| lacks_url(&entry.node)) {
        section.error("control", "its `url` is missing: where the control endpoint is");
    }
    let file = reader.resolve(&section.required("file", value::path));
    let state = reader.resolve(&section.required("state", value::path));
    let pepper = secret(section, "pepper", |value| match value.len() {
        ..16 => Err("what it refers to is too short; a pepper has at least 16 bytes, best 32 random ones"),
        _ => Ok(()),
    });
    let stale = |name| section.required(name, duration(Duration::from_secs(1)..=YEAR));
    KeysSettings {
        source: control.map_or(KeySource::File(file), KeySource::Control),
        state,
        max_stale: stale("max_stale"),
        max_stale_write: stale("max_stale_write"),
        on_revoke: section.required("on_revoke", choice(&[("finish", OnRevoke::Finish), ("cut", OnRevoke::Cut)])),
        mint: section.section("mint", mint),
        verification: section.section("verification", |section| verify::Settings {
            threads: section.required("threads", integer(0..=1024)),
            queue: section.required("queue", integer(1..=1_000_000)),
            ..verify::Settings::default()
        }),
        pepper,
    }
}

fn lacks_url(node: &Node) -> bool {
    matches!(&node.value, Value::Table(table) if find(table, "url").is_none())
}

fn control(section: &Section<'_>) -> Option<Control> {
    let file = |name| section.optional(name, value::path).map(|path| section.reader().resolve(&path));
    let url = section.optional("url", url);
    let token = secret(section, "token", |value| match value.iter().all(u8::is_ascii_graphic) {
        true => Ok(()),
        false => Err("what it refers to holds something that a token cannot: only printable ASCII without spaces"),
    });
    let (ca, certificate, private_key) = (file("ca"), file("certificate"), file("private_key"));
    let identity = pair_of(section, certificate, private_key, false);
    let instance = section.optional("instance", instance);
    if url.as_ref().is_some_and(|url| !url.is_secure()) {
        for (name, typed) in [("ca", ca.is_some()), ("certificate", identity.is_some())] {
            if typed {
                section.error(name, "has no meaning without TLS: the url is http");
            }
        }
    }
    let instance = instance.or_else(|| section.reader().variable("KEYSIDE_INSTANCE").map(Into::into));
    Some(Control { client: client::Settings { url: url?, token, ca, identity }, instance })
}

/// A control endpoint's url. A password in it is not shown again.
fn url(node: &Node) -> Read<client::Url> {
    let text = value::text(node)?;
    text.trim().parse().map_err(|why: &str| {
        let wrong = Wrong::new(node, why);
        vec![if text.contains('@') { wrong.hide() } else { wrong }]
    })
}

fn instance(node: &Node) -> Read<Box<str>> {
    let text = value::text(node)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err(vec![Wrong::new(node, "expected 1 to 64 letters, digits, \"_\", \"-\" and \".\"")])
    }
}

fn reader_typed(section: &Section<'_>, name: &str) -> bool {
    section.entry(name).is_some_and(|entry| entry.place.is_users())
}

fn mint(section: &Section<'_>) -> mint::Settings {
    let hashes = [("argon2id", Algorithm::Argon2id), ("hmac-sha256", Algorithm::HmacSha256)];
    let settings = mint::Settings {
        hash: section.required("hash", choice(&hashes)),
        pair: section.section("pair", |section| PairShape {
            key_prefix: section.required("key_prefix", prefix),
            secret_prefix: section.required("secret_prefix", prefix),
            shape: section.required("shape", choice(&[("hex40", PairBody::Hex40)])),
        }),
        token: section.section("token", |section| TokenShape {
            live: section.required("live", prefix),
            test: section.required("test", prefix),
            shown: section.required("shown", integer(4..=16)),
        }),
    };
    if settings.token.live == settings.token.test {
        section.error("token", "live and test tokens begin alike; nobody could tell them apart");
    }
    settings
}

/// The beginning of a minted key: what survives in Basic, in a header and in a query.
fn prefix(node: &Node) -> Read<Box<str>> {
    let text = value::text(node)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !text.is_empty() && text.len() <= 32 && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err(vec![Wrong::new(node, "expected 1 to 32 letters, digits, \"_\", \"-\" and \".\"")])
    }
}

/// A file with a secret is not larger.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Reads a reference to a secret, `{ file = "…" }` or `{ env = "…" }`, and what it refers to, less a final newline.
pub(super) fn secret(
    section: &Section<'_>,
    name: &'static str,
    good: impl Fn(&[u8]) -> Result<(), &'static str>,
) -> Option<Secret> {
    section.optional(name, |node| {
        let bytes = match reference(node)? {
            Reference::File(at, path) => {
                let path = section.reader().resolve(&path);
                read_file(&path)
                    .map_err(|why| vec![Wrong::new(at, format!("cannot read {}: {why}", path.display()))])?
            }
            Reference::Variable(at, variable) => match section.reader().variable(&variable) {
                Some(value) => value.as_bytes().to_vec(),
                None => return Err(vec![Wrong::new(at, format!("the environment variable {variable} is not set"))]),
            },
        };
        let bytes = zeroize::Zeroizing::new(bytes);
        let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.is_empty() {
            return Err(vec![Wrong::new(node, "what it refers to is empty")]);
        }
        good(value).map_err(|why| vec![Wrong::new(node, why)])?;
        Ok(Secret::new(value))
    })
}

fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_FILE {
        return Err(std::io::Error::other("it is larger than 64 KiB"));
    }
    Ok(bytes)
}

enum Reference<'n> {
    File(&'n Node, PathBuf),
    Variable(&'n Node, String),
}

/// The faults of a reference never show the line: what stands there by mistake is a secret.
fn reference(node: &Node) -> Read<Reference<'_>> {
    const SHAPE: &str = "expected { file = \"…\" } or { env = \"…\" }";
    let hidden = |message: &str| Err(vec![Wrong::new(node, message).hide()]);
    let table = match &node.value {
        Value::Table(table) => table,
        _ => return hidden("a secret is never written here; refer to it by { file = \"…\" } or { env = \"…\" }"),
    };
    match table.as_slice() {
        [entry] if entry.name == "file" => Ok(Reference::File(&entry.node, value::path(&entry.node)?)),
        [entry] if entry.name == "env" => Ok(Reference::Variable(&entry.node, value::word(&entry.node)?.into())),
        [] => hidden(SHAPE),
        [one, other]
            if [&*one.name, &*other.name] == ["file", "env"] || [&*one.name, &*other.name] == ["env", "file"] =>
        {
            hidden("file and env are both given; choose one")
        }
        _ => hidden(SHAPE),
    }
}
