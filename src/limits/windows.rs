//! The windows of one subject, keyed by their length, so that a changed plan takes effect on the next request without
//! giving anybody a fresh allowance.

use super::{
    rules::Rule,
    window::{Tick, Window},
};

/// Windows of this length and more are saved. Shorter ones start anew with the process.
pub(super) const SAVED_FROM: u64 = 600 * 1_000_000_000;

/// The windows of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    /// One for each rule, in the order of the rules.
    asked: Vec<Window>,
    /// Lengths that no rule asks for any more. They go on counting for one length and are dropped then: should the
    /// rule come back before, nothing is missing.
    unasked: Vec<(Window, Tick)>,
}

impl Windows {
    /// The moment of the newest admission. Inside the lock, now is never before it.
    pub(super) fn newest(&self) -> Tick {
        self.all().map(Window::newest).max().unwrap_or(0)
    }

    /// Makes the windows fit the rules and forgets what has left them. The other functions that take rules expect
    /// this to have been called with the same ones.
    pub(super) fn prepare(&mut self, rules: &[Rule], now: Tick) {
        let fits = self.asked.len() == rules.len()
            && self.asked.iter().zip(rules).all(|(window, rule)| window.length() == rule.length);
        if !fits {
            self.rearrange(rules, now);
        }
        self.expire(now);
    }

    /// Forgets what has left the windows.
    pub(super) fn expire(&mut self, now: Tick) {
        for window in &mut self.asked {
            window.expire(now);
        }
        if !self.unasked.is_empty() {
            self.unasked.retain_mut(|(window, until)| {
                window.expire(now);
                *until > now
            });
        }
    }

    /// Whether every window has room for one more beside `reserved` others.
    pub(super) fn have_room(&self, rules: &[Rule], reserved: u32) -> bool {
        self.asked.iter().zip(rules).all(|(window, rule)| window.total() + u64::from(reserved) < u64::from(rule.limit))
    }

    /// Records one admission in every window.
    pub(super) fn record(&mut self, rules: &[Rule], now: Tick) {
        for (window, rule) in self.asked.iter_mut().zip(rules) {
            window.record(now, rule.limit, rule.grain);
        }
        for (window, _) in &mut self.unasked {
            window.record_unasked(now);
        }
    }

    /// The windows beside their rules.
    pub(super) fn by_rule<'a>(&'a self, rules: &'a [Rule]) -> impl Iterator<Item = (&'a Window, &'a Rule)> {
        self.asked.iter().zip(rules)
    }

    /// Whether nothing is remembered.
    pub(super) fn are_empty(&self) -> bool {
        self.all().all(Window::is_empty)
    }

    /// The length of the longest window; 0 if there is none.
    pub(super) fn longest(&self) -> u64 {
        self.all().map(Window::length).max().unwrap_or(0)
    }

    /// Whether some window is long enough to be saved.
    pub(super) fn hold_long(&self) -> bool {
        self.longest() >= SAVED_FROM
    }

    /// All windows, asked for or not.
    pub(super) fn all(&self) -> impl Iterator<Item = &Window> {
        self.asked.iter().chain(self.unasked.iter().map(|(window, _)| window))
    }

    /// Becomes the least set of windows that refuses whatever this one or `other` would refuse; see
    /// [`Window::dominate`].
    pub(super) fn dominate(&mut self, other: &Self, now: Tick) {
        self.expire(now);
        // An empty window knows nothing that a longer one does not know better.
        self.asked.retain(|window| !window.is_empty());
        for length in other.all().map(Window::length) {
            self.with_length(length, now);
        }
        let mut mine: Vec<&mut Window> = self.asked.iter_mut().chain(self.unasked.iter_mut().map(|(w, _)| w)).collect();
        for window in &mut mine {
            if let Some(theirs) = other.view(window.length(), now) {
                window.dominate(&theirs.history().collect::<Vec<_>>());
            }
        }
    }

    /// Adds admissions of an earlier process.
    pub(super) fn add(&mut self, length: u64, history: &[(Tick, u32)], now: Tick) {
        self.with_length(length, now).add(history);
    }

    /// Becomes at least what an earlier process remembered.
    pub(super) fn dominate_history(&mut self, length: u64, history: &[(Tick, u32)], now: Tick) {
        self.with_length(length, now).dominate(history);
    }

    /// The window of this length, made if there is none.
    fn with_length(&mut self, length: u64, now: Tick) -> &mut Window {
        if let Some(at) = self.asked.iter().position(|window| window.length() == length) {
            return &mut self.asked[at];
        }
        if let Some(at) = self.unasked.iter().position(|(window, _)| window.length() == length) {
            return &mut self.unasked[at].0;
        }
        let seeded = self.view(length, now).unwrap_or_else(|| Window::new(length));
        self.asked.push(seeded);
        let at = self.asked.len() - 1;
        &mut self.asked[at]
    }

    fn rearrange(&mut self, rules: &[Rule], now: Tick) {
        let asked: Vec<Window> =
            rules.iter().map(|rule| self.view(rule.length, now).unwrap_or_else(|| Window::new(rule.length))).collect();
        let is_asked = |window: &Window| rules.iter().any(|rule| rule.length == window.length());
        self.unasked.retain(|(window, _)| !is_asked(window));
        for window in std::mem::replace(&mut self.asked, asked) {
            if !is_asked(&window) {
                let until = now.saturating_add(window.length());
                self.unasked.push((window, until));
            }
        }
    }

    /// What is known for a length: that very window; else what the shortest longer one knows, which is all; else what
    /// the longest one knows, so that a new length begins with what was used, not with a fresh allowance.
    fn view(&self, length: u64, now: Tick) -> Option<Window> {
        let longer = self.all().filter(|window| window.length() >= length).min_by_key(|window| window.length());
        let source = longer.or_else(|| self.all().max_by_key(|window| window.length()))?;
        Some(if source.length() == length { source.clone() } else { source.resized(length, now) })
    }
}
