//! A sidecar, as this control plane knows it.

use std::{sync::Arc, time::Duration};

use super::SidecarView;
use crate::{
    clock::{Mono, Now, Wall},
    control::store::{Head, Sidecar},
};

/// For how long after it was handed to the socket something may still tell a sidecar that its set is the newest: a
/// connection that is silent for 15 seconds is given up. One more is for clocks of control planes that differ.
pub(super) const BELIEVED: Duration = Duration::from_secs(16);
/// What is noted of it: more, so that one note will do for what is handed over in the seconds that follow.
pub(super) const LINGER: Duration = Duration::from_secs(20);
/// Who was heard so recently is waited for.
pub(super) const HEARD: Duration = Duration::from_secs(15);
/// A stream that is open is noted as such every two seconds; one at another control plane was, if it was so recently.
const NOTED: Duration = Duration::from_secs(7);

/// Who is sent a change and neither acknowledges it nor says anything else for so long does not follow, whatever the state
/// of its stream: its host is gone, or it is stopped.
const DEAF: Duration = Duration::from_secs(60);

/// A sidecar, as this control plane knows it.
#[derive(Debug)]
pub(super) struct Member {
    /// What the store keeps.
    pub(super) sidecar: Sidecar,
    /// Every stream that is open to it here holds a clone.
    pub(super) streams: Arc<()>,
    /// When it registered here, or was first read from the store.
    pub(super) registered: Mono,
    /// When its acknowledged revision last went up, or it said by what it asked that it keeps up.
    pub(super) moved: Mono,
    /// The `confirmed_at` that the store is known to hold.
    pub(super) leased: Wall,
    /// Whether another process has taken its place.
    pub(super) replaced: bool,
    /// Whether the store does not know all of this.
    pub(super) unsaved: bool,
}

impl Member {
    pub(super) fn new(sidecar: Sidecar, now: Mono) -> Self {
        let leased = Wall::from_unix_millis(i64::MIN);
        Self { sidecar, streams: Arc::default(), registered: now, moved: now, leased, replaced: false, unsaved: false }
    }

    pub(super) fn has_stream(&self) -> bool {
        Arc::strong_count(&self.streams) > 1
    }

    /// The last moment at which something may have told it that its set is the newest.
    pub(super) fn confirmed_at(&self, now: Wall) -> Wall {
        let noted = self.sidecar.confirmed_at;
        if self.has_stream() { noted.max(now) } else { noted }
    }

    /// Until when it may serve methods that only read, by the set it has; and until when the others.
    pub(super) fn may_serve_until(&self, now: Wall) -> (Wall, Wall) {
        let confirmed = self.confirmed_at(now);
        let after = |seconds| confirmed.plus(Duration::from_secs(seconds));
        (after(self.sidecar.max_stale), after(self.sidecar.max_stale_write))
    }

    /// Whether it may be serving: it took a set, has not said goodbye, and its staleness limit has not run out. Whoever
    /// follows has not gone, whatever somebody said in its name.
    pub(super) fn is_known(&self, now: Wall) -> bool {
        let (reads, writes) = self.may_serve_until(now);
        (!self.sidecar.goodbye || self.has_stream()) && now < reads.max(writes)
    }

    /// Whether a stream to it is open, here or elsewhere.
    pub(super) fn is_connected(&self, now: Wall) -> bool {
        self.has_stream() || (!self.sidecar.goodbye && now.plus(LINGER) < self.sidecar.confirmed_at.plus(NOTED))
    }

    /// Whether it is there: it has a stream, or was heard a moment ago, here or elsewhere.
    pub(super) fn lives(&self, now: Wall) -> bool {
        self.is_connected(now) || (!self.sidecar.goodbye && now <= self.sidecar.last_seen.plus(HEARD))
    }

    /// Whether it has let revisions go by for too long, and said nothing. `since` is when the first one that it lacks was
    /// written, if it lacks any.
    pub(super) fn is_deaf(&self, now: Now, since: Option<Mono>) -> bool {
        let silent = now.wall > self.sidecar.last_seen.plus(DEAF);
        silent && since.is_some_and(|since| now.mono.since(since.max(self.moved)) > DEAF)
    }

    /// What people are shown of it. `since` is when the first revision that it lacks was written, if it lacks any.
    pub(super) fn view(&self, head: &Head, now: Now, since: Option<Mono>) -> SidecarView {
        let (reads, writes) = self.may_serve_until(now.wall);
        let revision = self.revision(&head.epoch);
        let confirmed_at = self.confirmed_at(now.wall);
        SidecarView {
            sidecar: Sidecar { confirmed_at, revision, ..self.sidecar.clone() },
            known: self.is_known(now.wall),
            connected: self.is_connected(now.wall),
            lives: self.lives(now.wall) && !self.is_deaf(now, since),
            lag: head.revision.saturating_sub(revision),
            may_serve_reads_until: reads,
            may_serve_writes_until: writes,
        }
    }

    /// Whether an answer that waits for acknowledgements waits for this one: it was heard a moment ago, or it has a stream
    /// and has not let revisions go by. `since` is when the first one that it lacks was written, if it lacks any.
    pub(super) fn is_awaited(&self, now: Now, since: Option<Mono>) -> bool {
        if !self.is_known(now.wall) {
            return false;
        }
        let heard = now.wall <= self.sidecar.last_seen.plus(HEARD);
        let idle = |since: Mono| now.mono.since(since.max(self.moved)) <= HEARD;
        heard || (self.is_connected(now.wall) && since.is_none_or(idle))
    }

    /// Takes what the store says of it, whose history is now that of this name. True: something is new.
    pub(super) fn merge(&mut self, other: &Sidecar, epoch: &str, now: Mono) -> bool {
        let before = self.sidecar.clone();
        let own = &mut self.sidecar;
        if other.last_seen > own.last_seen {
            own.last_seen = other.last_seen;
            own.address = other.address;
            (own.max_stale, own.max_stale_write) = (other.max_stale, other.max_stale_write);
            own.goodbye = other.goodbye;
        } else if other.last_seen == own.last_seen {
            own.goodbye |= other.goodbye;
        }
        own.first_seen = own.first_seen.min(other.first_seen);
        own.confirmed_at = own.confirmed_at.max(other.confirmed_at);
        own.seq = own.seq.max(other.seq);
        if other.epoch == own.epoch || other.epoch == epoch {
            self.acknowledge(&other.epoch, other.revision, other.durable, now);
        }
        self.sidecar != before
    }

    /// It was heard. Whoever was replaced has ended: one that speaks all the same has not, and may be serving.
    pub(super) fn speaks(&mut self, goodbye: bool, now: Wall) {
        let own = &mut self.sidecar;
        let noted = own.last_seen;
        own.last_seen = noted.max(now);
        own.goodbye |= goodbye;
        if self.replaced && !goodbye {
            tracing::warn!(
                instance = own.claim.instance,
                "two processes have one identity: a sidecar lives whose place another one has taken. Each needs a state \
                 folder of its own (keys.state), and no copy of another's"
            );
            // Later than what was noted of its end, here and in the store.
            own.last_seen = own.last_seen.max(noted.plus(Duration::from_millis(1)));
            (own.goodbye, self.replaced) = (false, false);
        }
        self.unsaved = true;
    }

    /// The revision of this history that it has acknowledged.
    pub(super) fn revision(&self, epoch: &str) -> u64 {
        if self.sidecar.epoch == epoch { self.sidecar.revision } else { 0 }
    }

    /// It has acknowledged this revision of this history. What it has of another one counts no more.
    pub(super) fn acknowledge(&mut self, epoch: &str, revision: u64, durable: bool, now: Mono) {
        let own = &mut self.sidecar;
        if own.epoch != epoch {
            own.epoch = epoch.to_owned();
            (own.revision, own.durable) = (0, false);
        }
        if revision > own.revision {
            (own.revision, own.durable) = (revision, durable);
            self.moved = now;
        } else if revision == own.revision {
            own.durable |= durable;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Claim;

    const T: Wall = Wall::from_unix_millis(1_800_000_000_000);

    fn at(seconds: u64) -> Now {
        Now { mono: Mono::from_nanos((100 + seconds) * 1_000_000_000), wall: T.plus(Duration::from_secs(seconds)) }
    }

    /// Seen and confirmed at the beginning, with limits of a minute and half of one.
    fn member() -> Member {
        let sidecar = Sidecar {
            claim: Claim { instance: "a.1".to_owned(), ..Claim::default() },
            address: None,
            first_seen: T,
            last_seen: T,
            confirmed_at: T,
            max_stale: 60,
            max_stale_write: 30,
            epoch: "e".to_owned(),
            revision: 5,
            durable: false,
            seq: 0,
            goodbye: false,
        };
        Member::new(sidecar, at(0).mono)
    }

    #[test]
    fn one_is_known_until_the_longer_of_its_limits_has_run_out_since_it_was_last_confirmed() {
        let mut member = member();
        assert!(member.is_known(at(59).wall));
        assert!(!member.is_known(at(60).wall));
        member.sidecar.max_stale_write = 90;
        assert!(member.is_known(at(89).wall));
        let stream = Arc::clone(&member.streams);
        assert!(member.is_known(at(1000).wall), "a stream confirms it all the time");
        assert_eq!(member.may_serve_until(at(1000).wall), (at(1060).wall, at(1090).wall));
        member.sidecar.goodbye = true;
        assert!(member.is_known(at(1).wall), "whoever follows has not gone");
        drop(stream);
        assert!(!member.is_known(at(1).wall));
    }

    #[test]
    fn who_was_heard_or_listens_and_keeps_up_is_waited_for() {
        let mut member = member();
        assert!(member.is_awaited(at(15), None));
        assert!(!member.is_awaited(at(16), None), "silent, and without a stream");
        let _stream = Arc::clone(&member.streams);
        assert!(member.is_awaited(at(500), None), "it lacks nothing");
        assert!(member.is_awaited(at(500), Some(at(499).mono)), "it lacks something since a second ago");
        assert!(!member.is_awaited(at(500), Some(at(480).mono)), "it lets revisions go by");
        member.acknowledge("e", 6, true, at(495).mono);
        assert!(member.is_awaited(at(500), Some(at(480).mono)), "late, but it moves");
    }

    #[test]
    fn one_lives_that_has_a_stream_or_was_heard_a_moment_ago() {
        let mut member = member();
        assert!(member.lives(at(15).wall) && !member.lives(at(16).wall));
        member.sidecar.goodbye = true;
        assert!(!member.lives(at(1).wall), "it has stopped");
        let _stream = Arc::clone(&member.streams);
        assert!(member.lives(at(500).wall), "it follows, whatever was said");
    }

    #[test]
    fn one_is_deaf_that_lets_revisions_go_by_and_says_nothing() {
        let mut member = member();
        let _stream = Arc::clone(&member.streams);
        let deaf = |member: &Member, seconds, since: u64| member.is_deaf(at(seconds), Some(at(since).mono));
        assert!(!member.is_deaf(at(500), None), "it lacks nothing, and has nothing to say");
        assert!(!deaf(&member, 500, 440) && deaf(&member, 501, 440));
        let head = Head { epoch: "e".to_owned(), revision: 6, ..Head::default() };
        let view = member.view(&head, at(501), Some(at(440).mono));
        assert!(view.connected && !view.lives, "{view:?}");
        assert!(member.view(&head, at(500), Some(at(440).mono)).lives);
        member.speaks(false, at(470).wall);
        assert!(!deaf(&member, 501, 440), "late, but it speaks");
        member.acknowledge("e", 6, true, at(480).mono);
        assert!(!deaf(&member, 540, 440) && deaf(&member, 541, 440), "late, but it moves");
    }

    #[test]
    fn what_the_store_says_takes_nothing_back() {
        let mut member = member();
        let mut other = member.sidecar.clone();
        assert!(!member.merge(&other, "e", at(1).mono), "nothing new");
        (other.revision, other.durable, other.last_seen) = (4, true, Wall::from_unix_millis(0));
        other.goodbye = true;
        assert!(!member.merge(&other, "e", at(1).mono), "all of it is old");
        (other.revision, other.durable, other.last_seen) = (7, false, at(3).wall);
        assert!(member.merge(&other, "e", at(3).mono));
        assert_eq!((member.sidecar.revision, member.sidecar.durable, member.sidecar.goodbye), (7, false, true));
        // What was acknowledged of a history says nothing of another one.
        (other.epoch, other.revision) = ("f".to_owned(), 3);
        assert!(!member.merge(&other, "e", at(4).mono), "a history that is over");
        assert!(member.merge(&other, "f", at(4).mono));
        assert_eq!((member.revision("e"), member.revision("f")), (0, 3));
    }
}
