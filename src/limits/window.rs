//! One strict sliding window: a deque of marks.
//!
//! A token bucket admits up to twice its limit in some span, and a two-bucket estimate errs as well. So a window
//! remembers its admissions themselves. An admission within the *grain* of a mark's first one joins that mark, and a
//! mark expires one window after its *last* one: what is merged is forgotten too late, never too early. With a grain
//! of 0, used up to a limit of 128, only admissions of one and the same instant are merged, and the window is exact;
//! above that, the grain is 1/64 of the window, which bounds both the earliness of a refusal and the memory.

use std::collections::VecDeque;

use crate::clock::Mono;

/// A moment in nanoseconds. Zero lies 146 years before the process started, so that admissions of an earlier process
/// have a moment, too.
pub(super) type Tick = u64;

/// The moment of a reading of the monotonic clock.
pub(super) fn tick(now: Mono) -> Tick {
    (1 << 62_u64) + now.as_nanos().min(1 << 62)
}

/// More marks than this are merged, whatever the grain; only a lowered limit or a merge of two windows gets there.
const MOST_MARKS: usize = 192;

/// Admissions that expire together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    first: Tick,
    /// How long after the first the last one was, in units of the window, rounded up.
    span: u32,
    count: u32,
}

/// The admissions of the last `length` nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Window {
    length: u64,
    total: u64,
    marks: VecDeque<Mark>,
}

impl Window {
    pub(super) fn new(length: u64) -> Self {
        Self { length, total: 0, marks: VecDeque::new() }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many admissions count. Call [`expire`](Self::expire) first.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The moment of the newest admission; 0 if there is none.
    pub(super) fn newest(&self) -> Tick {
        self.marks.back().map_or(0, |mark| self.last(mark))
    }

    /// Forgets what has left the window. An admission leaves exactly one length after it was made, so that a caller
    /// paced at the limit is never refused.
    pub(super) fn expire(&mut self, now: Tick) {
        while let Some(mark) = self.marks.front()
            && self.last(mark) + self.length <= now
        {
            self.total -= u64::from(mark.count);
            self.marks.pop_front();
        }
    }

    /// Records one admission. `now` is not before the newest one.
    ///
    /// Beyond the limit only unasked failures are recorded, and they are merged whatever the grain: nothing is forgotten,
    /// in case the limit is raised, and the memory stays bounded.
    pub(super) fn record(&mut self, now: Tick, limit: u32, grain: u64) {
        let grain = if self.total < u64::from(limit) { grain } else { self.length / 64 };
        self.put(now, grain);
    }

    /// Records one admission that was admitted by other rules.
    pub(super) fn record_unasked(&mut self, now: Tick) {
        self.put(now, self.length / 64);
    }

    fn put(&mut self, now: Tick, grain: u64) {
        self.total += 1;
        let span = |first: Tick| u32::try_from((now - first).div_ceil(self.unit())).unwrap_or(u32::MAX);
        match self.marks.back().copied() {
            Some(Mark { first, count, .. }) if now - first <= grain && count < u32::MAX => {
                let span = span(first);
                if let Some(mark) = self.marks.back_mut() {
                    *mark = Mark { first, span, count: count + 1 };
                }
            }
            _ => self.marks.push_back(Mark { first: now, span: 0, count: 1 }),
        }
    }

    /// The moment from which fewer than `limit` admissions count, if none is added; never for a limit of 0.
    pub(super) fn ready_at(&self, limit: u32) -> Tick {
        let mut left = self.total;
        let mut ready = 0;
        for mark in &self.marks {
            if left < u64::from(limit) {
                return ready;
            }
            left -= u64::from(mark.count);
            ready = self.last(mark) + self.length;
        }
        if limit == 0 { Tick::MAX } else { ready }
    }

    /// The moment from which more will be available than now; 0 if all is available.
    pub(super) fn more_at(&self, limit: u32) -> Tick {
        if self.total >= u64::from(limit) {
            return self.ready_at(limit);
        }
        self.marks.front().map_or(0, |mark| self.last(mark) + self.length)
    }

    /// The admissions as moments and counts, oldest first. The moment of a merged mark is that of its last admission.
    pub(super) fn history(&self) -> impl DoubleEndedIterator<Item = (Tick, u32)> + '_ {
        self.marks.iter().map(|mark| (self.last(mark), mark.count))
    }

    /// A window of another length that knows what this one knows.
    pub(super) fn resized(&self, length: u64, now: Tick) -> Self {
        let mut other = Self::new(length);
        other.replace(self.history().collect());
        other.expire(now);
        other
    }

    /// Adds admissions that this window does not know.
    pub(super) fn add(&mut self, history: &[(Tick, u32)]) {
        let mut all: Vec<_> = self.history().chain(history.iter().copied()).collect();
        all.sort_by_key(|&(last, _)| last);
        self.replace(all);
    }

    /// Becomes the least window that refuses whatever this one or `history` (oldest first) would refuse.
    ///
    /// Both may be of different subjects: for each of them, the result holds at least as many admissions in every
    /// span that reaches to now, and so a subject that is judged by it instead of by its own admits nothing too much.
    pub(super) fn dominate(&mut self, history: &[(Tick, u32)]) {
        let own: Vec<_> = self.history().collect();
        let (mut own, mut other) = (own.as_slice(), history);
        let (mut own_sum, mut other_sum, mut sum) = (0_u64, 0_u64, 0_u64);
        let mut merged = Vec::with_capacity(own.len().max(other.len()));
        // From the newest to the oldest: the number since a moment is the larger of the two numbers.
        while let Some(moment) = own.last().max(other.last()).map(|&(last, _)| last) {
            let taken = |list: &mut &[(Tick, u32)]| {
                let mut taken = 0;
                while let Some((&(last, count), rest)) = list.split_last()
                    && last == moment
                {
                    taken += u64::from(count);
                    *list = rest;
                }
                taken
            };
            own_sum += taken(&mut own);
            other_sum += taken(&mut other);
            let larger = own_sum.max(other_sum);
            if larger > sum {
                merged.push((moment, u32::try_from(larger - sum).unwrap_or(u32::MAX)));
                sum = larger;
            }
        }
        merged.reverse();
        self.replace(merged);
    }

    fn replace(&mut self, history: Vec<(Tick, u32)>) {
        self.marks.clear();
        self.total = 0;
        let grain = if history.len() > MOST_MARKS { self.length / 64 } else { 0 };
        let unit = self.unit();
        for (last, count) in history {
            self.total += u64::from(count);
            if let Some(mark) = self.marks.back_mut()
                && last - mark.first <= grain
                && let Some(both) = mark.count.checked_add(count)
            {
                mark.span = u32::try_from((last - mark.first).div_ceil(unit)).unwrap_or(u32::MAX);
                mark.count = both;
            } else {
                self.marks.push_back(Mark { first: last, span: 0, count });
            }
        }
    }

    fn last(&self, mark: &Mark) -> Tick {
        mark.first + u64::from(mark.span) * self.unit()
    }

    /// The unit of spans: the least power of two by which the largest grain fits in 31 bits. 1 ns for a minute, 1 µs
    /// for a day.
    fn unit(&self) -> u64 {
        1 << (33 - (self.length / 64).leading_zeros().min(33))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn start() -> Tick {
        tick(Mono::from_nanos(0))
    }

    /// Takes one as the limiter does.
    fn take(window: &mut Window, now: Tick, limit: u32, grain: u64) -> bool {
        let now = now.max(window.newest());
        window.expire(now);
        let room = window.total() < u64::from(limit);
        if room {
            window.record(now, limit, grain);
        }
        room
    }

    #[test]
    fn units_hold_the_largest_grain_of_any_length() {
        for seconds in [1, 5, 60, 137, 138, 600, 3600, 86_400, 366 * 86_400] {
            let window = Window::new(seconds * SECOND);
            assert!((window.length / 64).div_ceil(window.unit()) <= u64::from(u32::MAX), "{seconds} s");
        }
        assert_eq!(Window::new(60 * SECOND).unit(), 1);
        assert_eq!(Window::new(86_400 * SECOND).unit(), 1024);
    }

    #[test]
    fn marks_stay_few_and_small() {
        assert_eq!(size_of::<Mark>(), 16);
        let mut window = Window::new(60 * SECOND);
        for step in 0..100_000 {
            take(&mut window, start() + step * 1_000_000, u32::MAX, 60 * SECOND / 64);
        }
        assert!(window.marks.len() <= 66, "{} marks", window.marks.len());
    }

    #[test]
    fn a_limit_of_nobody_and_of_everybody() {
        let mut window = Window::new(SECOND);
        assert!(!take(&mut window, start(), 0, 0));
        assert_eq!(window.ready_at(0), Tick::MAX);
        for _ in 0..1000 {
            assert!(take(&mut window, start(), u32::MAX, SECOND / 64));
        }
        assert_eq!((window.marks.len(), window.total()), (1, 1000));
        window.marks[0].count = u32::MAX - 1;
        window.total = u64::from(u32::MAX) - 1;
        assert!(take(&mut window, start(), u32::MAX, SECOND / 64));
        assert!(!take(&mut window, start(), u32::MAX, SECOND / 64));
    }

    #[test]
    fn unasked_failures_are_all_remembered_in_bounded_memory() {
        let mut window = Window::new(SECOND);
        for step in 0..100_000 {
            window.record(start() + step * 5000, 128, 0);
        }
        assert_eq!(window.total(), 100_000);
        assert!(window.marks.len() <= MOST_MARKS, "{} marks", window.marks.len());
    }

    #[test]
    fn history_of_a_longer_window_seeds_a_shorter_one() {
        let mut long = Window::new(60 * SECOND);
        for step in 0..60 {
            take(&mut long, start() + step * SECOND, 100, 0);
        }
        let short = long.resized(5 * SECOND, start() + 59 * SECOND);
        assert_eq!(short.total(), 5, "the admissions at 55 s to 59 s; the one at 54 s has just left");
    }

    fn gaps(most: u64) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![Just(0), 0..most / 50, 0..most], 1..400)
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_the_limit(limit in 1_u32..300, gaps in gaps(2 * SECOND)) {
            let length = 5 * SECOND;
            let grain = if limit <= 128 { 0 } else { length / 64 };
            let (mut window, mut log, mut now) = (Window::new(length), Vec::new(), start());
            for gap in gaps {
                now += gap;
                let within = log.iter().filter(|&&at| at + length > now).count();
                let admitted = take(&mut window, now, limit, grain);
                if admitted {
                    prop_assert!(within < limit as usize);
                    log.push(now);
                } else {
                    // Never refused without need: exactly up to 128, within a grain above.
                    let early = log.iter().filter(|&&at| at + length + grain > now).count();
                    prop_assert!(early >= limit as usize);
                }
            }
        }

        #[test]
        fn a_caller_paced_at_the_limit_is_never_refused(limit in 1_u64..=128, seconds in 1_u64..1000, offset in 0_u64..SECOND) {
            let length = seconds * SECOND;
            let mut window = Window::new(length);
            for step in 0..limit * 3 {
                let now = start() + offset + step * length / limit;
                prop_assert!(take(&mut window, now, u32::try_from(limit).unwrap(), 0), "step {step}");
            }
        }

        #[test]
        fn room_comes_back_exactly_when_it_says(limit in 1_u32..200, gaps in gaps(SECOND / 10), less in 0_u32..50) {
            let length = SECOND;
            let grain = if limit <= 128 { 0 } else { length / 64 };
            let (mut window, mut now) = (Window::new(length), start());
            for gap in gaps {
                now += gap;
                take(&mut window, now, limit, grain);
            }
            // Also for a limit that was lowered since.
            let limit = limit.saturating_sub(less).max(1);
            let ready = window.ready_at(limit);
            if window.total() >= u64::from(limit) {
                let mut before = window.clone();
                before.expire(ready - 1);
                prop_assert!(before.total() >= u64::from(limit));
            }
            window.expire(ready);
            prop_assert!(window.total() < u64::from(limit));
        }

        #[test]
        fn a_merged_window_dominates_both(ours in gaps(SECOND / 4), theirs in gaps(SECOND / 4), cut in 0..SECOND) {
            let build = |gaps: &[u64]| {
                let (mut window, mut now) = (Window::new(SECOND), start());
                for gap in gaps {
                    now += gap;
                    take(&mut window, now, 500, 0);
                }
                window
            };
            let (ours, theirs) = (build(&ours), build(&theirs));
            let mut merged = ours.clone();
            merged.dominate(&theirs.history().collect::<Vec<_>>());
            let since = |window: &Window, moment: Tick| -> u64 {
                window.history().filter(|&(last, _)| last > moment).map(|(_, count)| u64::from(count)).sum()
            };
            for moment in (0..200).map(|step| start() + cut + step * SECOND / 10) {
                let larger = since(&ours, moment).max(since(&theirs, moment));
                prop_assert!(since(&merged, moment) >= larger);
                if merged.marks.len() < 60 {
                    prop_assert_eq!(since(&merged, moment), larger, "no more than needed");
                }
            }
            prop_assert!(merged.marks.len() <= MOST_MARKS);
        }
    }
}
