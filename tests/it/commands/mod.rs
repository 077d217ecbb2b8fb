//! The commands, run as people and scripts run them: what they print, what they change, and how they exit.

mod configuration;
mod durability;
mod explain;
mod identify;
mod keys;
mod owners;
mod shell;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::{Ended, keyside};

/// A folder with a key file, for commands that need no sidecar.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: TempDir::with_prefix("keyside-it-").unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn keys(&self) -> String {
        std::fs::read_to_string(self.path("keys.toml")).unwrap()
    }

    /// Runs a command on the key file.
    async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_on(&self.path("keys.toml"), arguments).await
    }

    async fn run_on(&self, file: &Path, arguments: &[&str]) -> Ended {
        keyside(arguments.iter().copied().chain(["--file", file.to_str().unwrap()])).await
    }

    /// Runs a command on the key file that prints one JSON value.
    async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        self.run(&[arguments, &["--output", "json"]].concat()).await.done().json()
    }
}
