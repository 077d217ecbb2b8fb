//! How the process's limit on open descriptors is shared out.
//!
//! Whoever connects must not be able to take what the upstream, the admin port and the key file need: without a
//! descriptor no revocation would be read, and no verified caller forwarded.

/// What everything else needs at most at the same time: files of the state folder and of reloads, the watch of the key
/// file, the outputs, sockets that listen, lookups of names.
const OTHERS: usize = 64;
/// What the runtime of a thread holds: its epoll, what wakes it, and its end of the signals.
const PER_THREAD: usize = 4;

/// Who may have how many descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of clients.
    pub(super) connections: usize,
    /// Connections to all upstreams together.
    pub(super) upstream: usize,
}

/// What is asked for, before it is known whether there is so much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Threads with a runtime.
    pub(super) threads: usize,
    /// Connections to the admin port and to that of the probes.
    pub(super) admin: usize,
    /// Connections of clients.
    pub(super) connections: usize,
    /// Connections to all upstreams together.
    pub(super) upstream: usize,
}

impl Shares {
    /// Shares out `limit` descriptors; `None`: there is no limit.
    ///
    /// What we need ourselves comes first, then half of the rest for the upstream, as far as it is asked for: a
    /// connection is of use only as long as its requests can go on. A limit that is too small for all is shared all the
    /// same, since a sidecar that does not start helps nobody.
    pub(super) fn of(limit: Option<u64>, wanted: Wanted) -> Self {
        let Some(limit) = limit else { return Self { connections: wanted.connections, upstream: usize::MAX } };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let own = OTHERS.saturating_add(PER_THREAD * wanted.threads).saturating_add(wanted.admin).min(limit / 4 * 3);
        let rest = limit - own;
        let connections = wanted.connections.min(rest - wanted.upstream.min(rest / 2)).max(1);
        Self { connections, upstream: rest.saturating_sub(connections).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: Option<u64>, connections: usize, upstream: usize, expected: (usize, usize)) {
        let shares = Shares::of(limit, Wanted { threads: 5, admin: 64, connections, upstream });
        assert_eq!((shares.connections, shares.upstream), expected);
        if let Some(limit @ 200..) = limit {
            let all = shares.connections.saturating_add(shares.upstream).saturating_add(OTHERS + 5 * PER_THREAD + 64);
            assert!(all as u64 <= limit, "{shares:?}");
        }
    }

    #[test]
    fn what_we_need_ourselves_comes_first() {
        check(None, 10_000, 256, (10_000, usize::MAX));
        check(Some(1 << 20), 10_000, 256, (10_000, (1 << 20) - 148 - 10_000));
        // Nobody asked for more.
        check(Some(1024), 100, 256, (100, 1024 - 148 - 100));
        check(Some(1024), 10_000, 256, (1024 - 148 - 256, 256));
        // Half each, where both ask for more than there is.
        check(Some(256), 10_000, 256, (54, 54));
        check(Some(256), 10_000, 10, (98, 10));
        // Too small for anything: shared all the same.
        check(Some(64), 10_000, 256, (8, 8));
        check(Some(0), 10_000, 256, (1, 1));
    }
}
