//! Bad days of the file and of the server: what is answered meanwhile, and that all is well again afterwards.

mod file;
mod server;

use std::{path::PathBuf, process::Command};

/// A small disk. Not everybody may mount one.
struct Disk(PathBuf);

impl Disk {
    fn mounted(folder: &std::path::Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=777"), "tmpfs"]).arg(folder);
        let is_mounted = mount.output().is_ok_and(|mount| mount.status.success());
        is_mounted.then(|| Self(folder.to_owned()))
    }

    /// Gives it another size.
    fn grow(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Servers may have files open there still.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}
