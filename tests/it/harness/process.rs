//! The sidecar's process, and what the system says of it.

use std::{
    process::{Child, ExitStatus},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Sidecar;

/// A process that does not outlive its test.
pub(super) struct Process(pub(super) Mutex<Child>);

impl Process {
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.0.lock().unwrap().try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Sidecar {
    /// How much memory it has in use.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// How many descriptors it has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// How much processor time it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // What follows the name, which may hold anything: proc(5) counts utime as the 14th field.
        let after = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux tells it in hundredths of a second, whatever its own clock does.
        Duration::from_millis(ticks * 10)
    }
}
