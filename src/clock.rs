//! The only reader of time. Everything else is handed a [`Now`], so that a test can move the clock.
//!
//! Limits and timeouts use monotonic time, which no operator can set back; expiry uses wall time, UTC.

use std::{
    fmt,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Monotonic time: nanoseconds since the first reading in this process. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// A point `nanos` nanoseconds after the process's first reading.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the process's first reading.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `duration` later, saturating at the end of time.
    pub const fn plus(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Self(self.0.saturating_add(nanos))
    }
}

/// Wall time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment and `duration` later, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// As a timestamp of the calendar library; moments beyond its range become its ends.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl From<jiff::Timestamp> for Wall {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp.as_millisecond())
    }
}

/// RFC 3339, in UTC, with as many digits of a second as are needed.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For limits and timeouts.
    pub mono: Mono,
    /// For expiry and for people.
    pub wall: Wall,
}

impl Now {
    /// What both clocks show at `mono`, if nobody has set the wall clock meanwhile: one reading instead of two.
    pub fn at(self, mono: Mono) -> Self {
        Self { mono, wall: self.wall.plus(mono.since(self.mono)) }
    }
}

/// Time since the machine was started, in nanoseconds; it goes on while the machine sleeps, and nobody can set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(u64);

impl Boot {
    /// A point `nanos` nanoseconds after the machine was started.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the machine was started.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One reading of all three clocks, for what must not look younger than it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For requests and for people.
    pub now: Now,
    /// For how long ago something was, whoever set a clock or put the machine to sleep.
    pub boot: Boot,
}

/// Reads all three clocks.
pub fn moment() -> Moment {
    // What is told of the past must not be too young: the clock that is compared with later goes first.
    let boot = boot();
    Moment { now: now(), boot }
}

/// Reads the clock of the machine. Where it has none that goes on in its sleep, the monotonic one has to do.
pub fn boot() -> Boot {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Boot(part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec)))
    }
    #[cfg(not(target_os = "linux"))]
    Boot(mono().as_nanos())
}

/// Reads both clocks.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
pub fn now() -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Now { mono: mono(), wall: Wall(wall) }
}

/// Reads the monotonic clock alone.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
pub fn mono() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Mono(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
