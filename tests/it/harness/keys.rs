//! Keys for tests: a row of the key file, and the credential that goes with it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyside::keys::secret::{Algorithm, Secret, SecretHash};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A key that the test knows the secret of.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    /// A pair's consumer key, a token's shown prefix.
    pub(crate) public: String,
    /// A pair's consumer secret, or the whole token.
    pub(crate) secret: String,
    hash: Option<String>,
    owner: String,
    scopes: Vec<String>,
    more: String,
}

impl Key {
    /// A pair by the name `key_{name}`, with the scope `read`, of the owner `acme`.
    pub(crate) fn pair(name: &str) -> Self {
        let digits = |part: &str| hex(&Sha256::digest(format!("{name} {part}")))[..40].to_owned();
        Self::of("pair", name, format!("ck_{}", digits("key")), format!("cs_{}", digits("secret")))
    }

    /// A token by the name `key_{name}`, with the scope `read`, of the owner `acme`.
    pub(crate) fn token(name: &str) -> Self {
        let body = hex(&Sha256::digest(format!("{name} token")));
        Self::of("token", name, format!("ck_live_{}", &body[..6]), format!("ck_live_{}", &body[..36]))
    }

    fn of(kind: &'static str, name: &str, public: String, secret: String) -> Self {
        Self {
            id: format!("key_{name}"),
            kind,
            public,
            secret,
            hash: None,
            owner: "acme".into(),
            scopes: vec!["read".into()],
            more: String::new(),
        }
    }

    pub(crate) fn scopes<const N: usize>(mut self, scopes: [&str; N]) -> Self {
        self.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self
    }

    pub(crate) fn owner(mut self, owner: &str) -> Self {
        self.owner = owner.into();
        self
    }

    /// More lines of its row.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// The same key with another secret, or as somebody would present it who does not know the secret.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    /// Kept as argon2id with Keyside's own parameters: slow to verify.
    pub(crate) fn argon2id(mut self) -> Self {
        let secret = Secret::new(self.secret.as_bytes());
        self.hash = Some(SecretHash::make(Algorithm::Argon2id, &secret, None).unwrap().as_phc().to_owned());
        self
    }

    /// Kept as this hash.
    pub(crate) fn hash(mut self, hash: &str) -> Self {
        self.hash = Some(hash.into());
        self
    }

    /// The row of the key file.
    pub(crate) fn row(&self) -> String {
        let Self { id, kind, public, owner, scopes, more, .. } = self;
        let fast = || format!("$sha256${}", hex(&Sha256::digest(&self.secret)));
        let hash = self.hash.clone().unwrap_or_else(fast);
        format!(
            "[[key]]\nid = \"{id}\"\nname = \"{id}\"\nkind = \"{kind}\"\nprefix = \"{public}\"\nhash = \"{hash}\"\n\
             owner = \"{owner}\"\nscopes = {scopes:?}\ncreated_at = 2026-01-01T00:00:00Z\n{more}\n"
        )
    }

    /// The row as a control endpoint sends it.
    pub(crate) fn json(&self) -> Value {
        let table: toml::Table = self.row().parse().unwrap();
        json(&table["key"][0])
    }

    /// As the `Authorization` of a pair (Basic) or of a token (Bearer).
    pub(crate) fn authorization(&self) -> String {
        match self.kind {
            "pair" => basic(&self.public, &self.secret),
            _ => format!("Bearer {}", self.secret),
        }
    }
}

/// The same in JSON, where a moment is a text.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Table(table) => table.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        other => serde_json::to_value(other).unwrap(),
    }
}

/// `Basic` with this user name and password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A whole key file of these keys.
pub(crate) fn key_file<'k>(keys: impl IntoIterator<Item = &'k Key>) -> String {
    key_file_of("", keys)
}

/// A whole key file of these `[[owner]]` rows and keys.
pub(crate) fn key_file_of<'k>(owners: &str, keys: impl IntoIterator<Item = &'k Key>) -> String {
    let rows: Vec<String> = keys.into_iter().map(Key::row).collect();
    let count = owners.matches("[[owner]]").count();
    format!("{owners}\n{}[end]\nowners = {count}\nkeys = {}\n", rows.concat(), rows.len())
}
