//! Health: whether this process is alive, and whether it should get traffic.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::Reloaded;
use crate::clock::Mono;

/// A serving thread that did not tick for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// What the probes ask. Shared by whoever knows and the admin port.
#[derive(Debug, Default)]
pub struct Health {
    listening: AtomicBool,
    draining: AtomicBool,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    /// Why keys cannot be checked; none once a set is in force. Before the first word, they are not loaded.
    keys: Option<Result<(), Box<str>>>,
    /// Why the last reload of these was refused; the version before it stays in force.
    faults: BTreeMap<&'static str, Box<str>>,
    /// What else somebody should look at.
    notices: BTreeMap<&'static str, Box<str>>,
    pulses: Vec<(Box<str>, Arc<AtomicU64>)>,
}

/// The sign of life of one thread.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Says that the thread still turns. One store.
    pub fn beat(&self, now: Mono) {
        self.0.store(now.as_nanos(), Relaxed);
    }
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether all checks passed.
    pub ok: bool,
    /// One line per check, as Kubernetes components write them: `[+]keys ok`, `[-]keys failed: …`.
    pub lines: String,
}

impl Health {
    /// Nothing is loaded, nothing listens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether keys can be checked, and if not, why.
    pub fn set_keys(&self, state: Result<(), impl Into<Box<str>>>) {
        self.lock().keys = Some(state.map_err(Into::into));
    }

    /// Says whether the listeners accept.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Relaxed);
    }

    /// From now on: no new traffic, please. `/readyz` answers 503 at once.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Notes how the last reload ended. A fault is shown but does not make the process unready: the version before
    /// it is still in force.
    pub fn reloaded(&self, what: Reloaded, result: Result<(), impl Into<Box<str>>>) {
        let mut rest = self.lock();
        match result {
            Ok(()) => rest.faults.remove(what.label()),
            Err(fault) => rest.faults.insert(what.label(), fault.into()),
        };
    }

    /// Says what somebody should look at although traffic may come, or that it is over. True: that is new.
    pub fn notice(&self, what: &'static str, trouble: Option<String>) -> bool {
        let mut rest = self.lock();
        match trouble {
            None => rest.notices.remove(what).is_some(),
            Some(trouble) => rest.notices.insert(what, trouble.into()).is_none(),
        }
    }

    /// The sign of life of one more thread, which must beat at least every few seconds from now on.
    pub fn pulse(&self, thread: &str, now: Mono) -> Pulse {
        let beat = Arc::new(AtomicU64::new(now.as_nanos()));
        self.lock().pulses.push((thread.into(), Arc::clone(&beat)));
        Pulse(beat)
    }

    /// Whether the process should get traffic.
    pub fn is_ready(&self) -> bool {
        let keys = matches!(self.lock().keys, Some(Ok(())));
        keys && self.listening.load(Relaxed) && !self.is_draining()
    }

    /// The checks behind [`is_ready`](Self::is_ready), and the faults of the last reloads.
    pub fn readiness(&self) -> Report {
        let mut report = Checks::default();
        let rest = self.lock();
        match &rest.keys {
            Some(Ok(())) => report.ok("keys"),
            Some(Err(why)) => report.failed("keys", why),
            None => report.failed("keys", "not loaded yet"),
        }
        report.check("listening", self.listening.load(Relaxed), "not bound yet");
        report.check("serving", !self.is_draining(), "draining");
        for what in Reloaded::ALL {
            if let Some(fault) = rest.faults.get(what.label()) {
                report.warning(what.label(), &format!("not reloaded, the version before stays in force: {fault}"));
            }
        }
        for (what, trouble) in &rest.notices {
            report.warning(what, trouble);
        }
        report.0
    }

    /// Whether all threads still turn.
    pub fn liveness(&self, now: Mono) -> Report {
        let mut report = Checks::default();
        report.ok("ping");
        for (thread, beat) in &self.lock().pulses {
            let silent = now.since(Mono::from_nanos(beat.load(Relaxed)));
            if silent > STUCK {
                report.failed(thread, &format!("no sign of life for {} s", silent.as_secs()));
            } else {
                report.ok(thread);
            }
        }
        report.0
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects the lines of a report.
struct Checks(Report);

impl Default for Checks {
    fn default() -> Self {
        Self(Report { ok: true, lines: String::new() })
    }
}

impl Checks {
    fn check(&mut self, name: &str, ok: bool, why: &str) {
        if ok { self.ok(name) } else { self.failed(name, why) }
    }

    fn ok(&mut self, name: &str) {
        let _ = writeln!(self.0.lines, "[+]{name} ok");
    }

    fn failed(&mut self, name: &str, why: &str) {
        self.0.ok = false;
        let _ = writeln!(self.0.lines, "[-]{name} failed: {}", one_line(why));
    }

    fn warning(&mut self, name: &str, why: &str) {
        let _ = writeln!(self.0.lines, "[!]{name} {}", one_line(why));
    }
}

/// A fault may be a screenful; a line of a report is a line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Result<(), &str> = Ok(());

    #[track_caller]
    fn check(health: &Health, ready: bool, lines: &[&str]) {
        let report = health.readiness();
        assert_eq!(report.lines.lines().collect::<Vec<_>>(), lines);
        assert_eq!((health.is_ready(), report.ok), (ready, ready));
    }

    #[test]
    fn ready_means_keys_listening_and_not_draining() {
        let health = Health::new();
        check(
            &health,
            false,
            &["[-]keys failed: not loaded yet", "[-]listening failed: not bound yet", "[+]serving ok"],
        );
        health.set_keys(OK);
        health.set_listening(true);
        check(&health, true, &["[+]keys ok", "[+]listening ok", "[+]serving ok"]);
        health.set_keys(Err("older than\n24h"));
        check(&health, false, &["[-]keys failed: older than 24h", "[+]listening ok", "[+]serving ok"]);
        health.set_keys(OK);
        health.drain();
        check(&health, false, &["[+]keys ok", "[+]listening ok", "[-]serving failed: draining"]);
    }

    #[test]
    fn a_refused_reload_is_shown_and_keeps_the_process_ready() {
        let health = Health::new();
        health.set_keys(OK);
        health.set_listening(true);
        health.reloaded(Reloaded::Keys, Err("line 3: torn"));
        let warning = "[!]keys not reloaded, the version before stays in force: line 3: torn";
        check(&health, true, &["[+]keys ok", "[+]listening ok", "[+]serving ok", warning]);
        health.reloaded(Reloaded::Keys, OK);
        check(&health, true, &["[+]keys ok", "[+]listening ok", "[+]serving ok"]);
    }

    #[test]
    fn a_notice_is_shown_until_it_is_over() {
        let health = Health::new();
        health.set_keys(OK);
        health.set_listening(true);
        assert!(health.notice("state", Some("cannot be written".into())));
        assert!(!health.notice("state", Some("cannot be written".into())));
        check(&health, true, &["[+]keys ok", "[+]listening ok", "[+]serving ok", "[!]state cannot be written"]);
        assert!(health.notice("state", None));
        assert!(!health.notice("state", None));
        check(&health, true, &["[+]keys ok", "[+]listening ok", "[+]serving ok"]);
    }

    #[test]
    fn a_stuck_thread_is_not_alive() {
        let health = Health::new();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let pulse = health.pulse("serve-0", at(0));
        assert_eq!(health.liveness(at(30)), Report { ok: true, lines: "[+]ping ok\n[+]serve-0 ok\n".into() });
        let report = health.liveness(at(31));
        assert_eq!(
            (report.ok, report.lines.as_str()),
            (false, "[+]ping ok\n[-]serve-0 failed: no sign of life for 31 s\n")
        );
        pulse.beat(at(31));
        assert!(health.liveness(at(60)).ok);
    }
}
