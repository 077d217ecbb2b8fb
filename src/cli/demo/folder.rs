//! The demo's folder: configuration, keys and certificates, as a user would have them.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Upstream;
use crate::{
    cli::certificate,
    clock::Wall,
    keys::{
        Kind, Mode,
        mint::{self, MintError, Minted},
    },
};

/// The names that the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The keys of the demo, with their secrets.
pub(super) struct Keys {
    /// A pair with `read`.
    pub(super) reader: Minted,
    /// A pair with `read_write`.
    pub(super) writer: Minted,
    /// A token with resource scopes.
    pub(super) token: Minted,
    /// A pair that is bound to another address.
    pub(super) elsewhere: Minted,
    /// A token with a tiny limit.
    pub(super) tiny: Minted,
}

impl Keys {
    /// Mints all five. Takes as long as five slow hashes.
    pub(super) fn mint(now: Wall) -> Result<Self, MintError> {
        let settings = mint::Settings::default();
        // Five random public parts out of 2^50 and more do not meet.
        let mint = |kind, mode| mint::mint(&settings, kind, mode, None, now, |_| false);
        Ok(Self {
            reader: mint(Kind::Pair, None)?,
            writer: mint(Kind::Pair, None)?,
            token: mint(Kind::Token, Some(Mode::Live))?,
            elsewhere: mint(Kind::Pair, None)?,
            tiny: mint(Kind::Token, None)?,
        })
    }

    /// The text of `keys.toml`.
    fn document(&self, upstream: &Upstream, now: Wall) -> String {
        let mut text = include_str!("keys.toml").to_owned();
        let keys = [
            ("reader", &self.reader),
            ("writer", &self.writer),
            ("token", &self.token),
            ("elsewhere", &self.elsewhere),
            ("tiny", &self.tiny),
        ];
        for (name, key) in keys {
            text = text
                .replace(&format!("{{{name}.id}}"), key.id.as_str())
                .replace(&format!("{{{name}.public}}"), &key.public)
                .replace(&format!("{{{name}.hash}}"), key.hash.as_phc());
        }
        let scopes = match upstream {
            Upstream::Sample(_) => r#"["wallets:read", "transactions:read", "withdrawals:write"]"#,
            // Without routes, the method decides.
            Upstream::Own(_) => r#"["read"]"#,
        };
        let now = Wall::from_unix_millis(now.unix_seconds() * 1000);
        text.replace("{token_scopes}", scopes).replace("{now}", &now.to_string())
    }
}

/// The ports that were asked for; 0 means any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) listen: u16,
    pub(super) admin: u16,
}

/// The text of `keyside.toml`.
pub(super) fn configuration(upstream: &Upstream, ports: Ports) -> String {
    let url = match upstream {
        Upstream::Sample(sample) => format!("http://{}", sample.address()),
        Upstream::Own(url) => url.clone(),
    };
    let text = include_str!("keyside.toml")
        .replace("{port}", &ports.listen.to_string())
        .replace("{admin_port}", &ports.admin.to_string())
        .replace("{upstream}", &toml::Value::String(url).to_string());
    match upstream {
        Upstream::Sample(_) => text + include_str!("routes.toml"),
        Upstream::Own(_) => text,
    }
}

/// Where everything is.
pub(super) struct Folder {
    path: PathBuf,
    /// Removes the folder when it is dropped; none when the user keeps it.
    temporary: Option<tempfile::TempDir>,
}

impl Folder {
    /// The folder that the user named, or one that goes away with the demo.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or holds anything already: nothing is ever written over.
    pub(super) fn create(kept: Option<&Path>) -> io::Result<Self> {
        let Some(path) = kept else {
            let temporary = tempfile::Builder::new().prefix("keyside-demo-").tempdir()?;
            return Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if fs::read_dir(path)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the folder is not empty; choose a new one"));
        }
        Ok(Self { path: path.canonicalize()?, temporary: None })
    }

    /// Writes everything that the sidecar reads.
    pub(super) fn fill(&self, keys: &Keys, upstream: &Upstream, ports: Ports, now: Wall) -> io::Result<()> {
        self.certificates(now)?;
        self.write("keys.toml", &keys.document(upstream, now))?;
        self.write("keyside.toml", &configuration(upstream, ports))
    }

    /// Writes what TLS needs.
    pub(super) fn certificates(&self, now: Wall) -> io::Result<()> {
        let issued = certificate::issue(&NAMES, now).map_err(io::Error::other)?;
        fs::DirBuilder::new().mode(0o700).create(self.path.join("tls"))?;
        self.write("tls/server.crt", &issued.certificate)?;
        self.write("tls/server.key", &issued.private_key)?;
        self.write("ca.crt", &issued.ca)
    }

    /// The configuration.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("keyside.toml")
    }

    /// What clients trust.
    pub(super) fn ca(&self) -> PathBuf {
        self.path.join("ca.crt")
    }

    /// Whether it stays when the demo ends.
    pub(super) fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }

    /// Writes a file that is not there yet.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        use io::Write as _;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(self.path.join(name))?.write_all(text.as_bytes())
    }
}

#[cfg(feature = "control")]
impl Folder {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file anew that was written before.
    pub(super) fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.write(name, text)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample::Sample, *};
    use crate::{config, keys::document::Parser};

    #[test]
    fn a_folder_with_anything_in_it_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        let kept = outer.path().join("demo");
        let folder = Folder::create(Some(&kept)).unwrap();
        assert!(folder.is_kept());
        folder.write("keys.toml", "mine").unwrap();
        assert!(Folder::create(Some(&kept)).is_err());
        assert!(folder.write("keys.toml", "yours").is_err());
        drop(folder);
        assert_eq!(fs::read_to_string(kept.join("keys.toml")).unwrap(), "mine");
    }

    #[test]
    fn a_temporary_folder_goes_away() {
        let folder = Folder::create(None).unwrap();
        folder.write("keys.toml", "").unwrap();
        let path = folder.path.clone();
        assert!(path.exists());
        drop(folder);
        assert!(!path.exists());
    }

    /// The files of a demo are read without a fault or a warning.
    #[track_caller]
    fn check(upstream: &Upstream) {
        let now = crate::clock::now().wall;
        let keys = Keys::mint(now).unwrap();
        let folder = Folder::create(None).unwrap();
        folder.fill(&keys, upstream, Ports { listen: 0, admin: 0 }, now).unwrap();
        let loaded = config::load(&folder.configuration(), []).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.warnings, []);
        let text = keys.document(upstream, now);
        let document = Parser::default().parse(text.as_bytes()).unwrap();
        assert_eq!((document.faults, document.keys.len(), document.owners.len()), (vec![], 5, 2));
    }

    #[test]
    fn the_files_are_without_fault() {
        check(&Upstream::Sample(Sample::start().unwrap()));
        check(&Upstream::Own("unix:/run/api.sock".into()));
    }
}
