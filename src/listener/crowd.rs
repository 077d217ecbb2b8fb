//! Who goes when there are too many: of those that are at their handshakes, and of those whom nobody has vouched for.

use std::rc::Rc;

use super::{
    Settings,
    conn::{Connection, Ending, Stage},
    timers::Thread,
};

/// TLS handshakes at a time on one thread, at most. Each costs memory for as long as its client likes, up to the timeout.
pub(super) const HANDSHAKES: usize = 512;

/// How many there may be on one thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    handshakes: usize,
    strangers: usize,
}

impl Caps {
    /// The share of each of `threads` threads.
    ///
    /// Of handshakes one at least, and on all together half of the connections at most, so that those who never finish one
    /// do not keep everybody else out.
    pub(super) fn new(settings: &Settings, threads: usize) -> Self {
        let share = |all: usize| (all / threads.max(1)).max(1);
        Self {
            handshakes: share(settings.max_connections / 2).min(HANDSHAKES),
            strangers: settings.max_strangers.map_or(usize::MAX, share),
        }
    }
}

/// A place among the handshakes, given back when dropped.
pub(super) struct HandshakePlace(Rc<Thread>);

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}

impl Thread {
    /// A handshake begins. If there are too many, another one is ended, the oldest of those who have said nothing, else
    /// the oldest: a flood of clients that begin and never finish loses its own, while one that goes on is done in a few
    /// round trips. Who has just come is not called silent, or newcomers would make room for a flood that said a byte.
    pub(super) fn handshake(self: &Rc<Self>, newcomer: &Connection) -> HandshakePlace {
        self.handshakes.set(self.handshakes.get() + 1);
        if self.handshakes.get() > self.caps.handshakes {
            let connections = self.connections.borrow();
            let others = connections.iter().filter(|connection| connection.index.get() != newcomer.index.get());
            let waiting = others
                .filter(|connection| connection.stage.get() == Stage::Handshake && connection.ending.get().is_none());
            let worth = |connection: &&Rc<Connection>| {
                let since = connection.since.get();
                (connection.bytes_read.get() > 0 || self.now().since(since) < 2 * self.tuning.tick, since)
            };
            if let Some(oldest) = waiting.min_by_key(worth) {
                oldest.end(Ending::Handshake);
            }
        }
        HandshakePlace(Rc::clone(self))
    }

    /// A connection has come. If there are too many whom nobody has vouched for, the oldest of them is ended, whatever it is
    /// at: clients that are slow on purpose hold no place for longer than it takes others to come.
    pub(super) fn make_room(&self, newcomer: &Connection) {
        let connections = self.connections.borrow();
        if connections.len() <= self.caps.strangers {
            return;
        }
        let strangers = || {
            let here = connections.iter().filter(|connection| !connection.is_vouched_for());
            here.filter(|connection| connection.ending.get().is_none())
        };
        if strangers().count() > self.caps.strangers
            && let Some(oldest) =
                strangers().filter(|one| one.index.get() != newcomer.index.get()).min_by_key(|one| one.accepted())
        {
            self.counters.refused.add();
            oldest.end(Ending::Crowded);
        }
    }
}

#[cfg(test)]
impl Caps {
    /// Enough for any test.
    pub(super) const MANY: Self = Self { handshakes: HANDSHAKES, strangers: usize::MAX };
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::{super::tests::settings, *};

    const TICK: Duration = Duration::from_millis(250);

    fn thread(caps: Caps) -> Rc<Thread> {
        let mut thread = Thread::fake();
        thread.caps = caps;
        Rc::new(thread)
    }

    fn connection(thread: &Rc<Thread>, stage: Stage) -> Rc<Connection> {
        Connection::new(thread, [127, 0, 0, 1].into(), SocketAddr::from(([127, 0, 0, 1], 443)), stage)
    }

    #[test]
    fn handshakes_take_half_of_few_connections() {
        let rows = [((10_000, 1), 512), ((10_000, 2), 512), ((10_000, 16), 312), ((600, 2), 150), ((600, 64), 4)];
        let few = [((511, 1), 255), ((50, 2), 12), ((2, 1), 1), ((2, 2), 1), ((1, 1), 1), ((1, 64), 1)];
        for ((connections, threads), expected) in rows.into_iter().chain(few) {
            let caps = Caps::new(&Settings { max_connections: connections, ..settings() }, threads);
            assert_eq!(caps.handshakes, expected, "{connections} connections, {threads} threads");
        }
    }

    #[test]
    fn nobody_who_has_just_come_makes_room() {
        let thread = thread(Caps { handshakes: 1, ..Caps::MANY });
        let spoke = connection(&thread, Stage::Handshake);
        spoke.on_read(1);
        thread.set_now(thread.now().plus(2 * TICK));
        let [first, second] = [(); 2].map(|()| connection(&thread, Stage::Handshake));
        // Once more, when nobody else is left.
        let _places = [&spoke, &first, &second, &second].map(|connection| thread.handshake(connection));
        assert_eq!([&spoke, &first, &second].map(|connection| connection.ending.get().is_some()), [true, true, false]);
        [spoke, first, second].iter().for_each(|connection| thread.unregister(connection));
    }

    #[test]
    fn the_oldest_whom_nobody_vouched_for_makes_room() {
        let thread = thread(Caps { strangers: 2, ..Caps::MANY });
        let come = |stage| {
            thread.set_now(thread.now().plus(TICK));
            let newcomer = connection(&thread, stage);
            thread.make_room(&newcomer);
            newcomer
        };
        let known = come(Stage::Http);
        known.vouch();
        let stages = [Stage::Http, Stage::Handshake, Stage::Http, Stage::Lingering];
        let mut all: Vec<_> = stages.map(come).into();
        // Whatever it does meanwhile, a connection is as old as it is.
        drop(all[2].begin(thread.now()));
        all.push(come(Stage::Http));
        let ended: Vec<_> = all.iter().map(|one| one.ending.get().is_some()).collect();
        assert_eq!((ended, known.ending.get()), (vec![true, true, true, false, false], None));
        assert_eq!(thread.counters.refused.get(), 3);
        all.iter().chain([&known]).for_each(|one| thread.unregister(one));
    }
}
