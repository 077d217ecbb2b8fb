//! HTTP/2 in frames made by hand.

mod floods;
mod frames;
mod messages;
mod protocol;
mod slow;
mod streams;
mod translation;

use self::frames::{Block, Outcome, Peer};
use crate::harness::{Builder, End, Key, Seen, Sidecar, Upstream};

/// What must become of the frames of a row.
#[derive(Clone, Copy)]
enum Verdict {
    /// The stream is refused, by an answer or a reset, and the connection goes on: it may carry the requests of others.
    Stream,
    /// The connection is ended, since what follows cannot be read any more (RFC 9113 §5.4.1).
    Connection,
    /// Either: an endpoint may treat an error of a stream as one of the connection (RFC 9113 §5.4.1).
    Refused,
    /// One clean message goes upstream, for which this holds.
    Clean(fn(&Seen) -> bool),
}

/// A rule, where it stands, the frames that break it on stream 1, and what must become of them.
struct Row {
    rule: &'static str,
    source: &'static str,
    frames: Vec<u8>,
    verdict: Verdict,
}

fn row(rule: &'static str, source: &'static str, frames: impl Into<Vec<u8>>, verdict: Verdict) -> Row {
    Row { rule, source, frames: frames.into(), verdict }
}

/// An upstream, and a sidecar in front of it that lets this key in.
async fn in_front(key: &Key, config: impl FnOnce(Builder) -> Builder) -> (Upstream, Sidecar) {
    let upstream = Upstream::start().await;
    let sidecar = config(Sidecar::in_front_of(&upstream).keys([key])).start().await;
    (upstream, sidecar)
}

/// Sends the frames of each row on a connection of its own, and a good request behind them. Fails with all rows that
/// did not get their verdict.
async fn judge(rows: Vec<Row>, key: &Key) {
    let (upstream, sidecar) = in_front(key, |sidecar| sidecar).await;
    let good = |stream| Block::request("GET", "/good").key(key).whole(stream);
    let (mut faults, mut clean) = (Vec::new(), 0);
    for Row { rule, source, frames, verdict } in rows {
        let before = upstream.count();
        let mut peer = Peer::new(&sidecar).await;
        let outcome = peer.ask(1, frames).await;
        let (fits, next) = match outcome {
            Outcome::GoneAway(_) | Outcome::Closed => {
                let next = Peer::new(&sidecar).await.ask(1, good(1)).await;
                (matches!(verdict, Verdict::Connection | Verdict::Refused), next)
            }
            Outcome::Answer(400..=499) | Outcome::Reset(_) => {
                (matches!(verdict, Verdict::Stream | Verdict::Refused), peer.ask(1001, good(1001)).await)
            }
            Outcome::Answer(200) => (matches!(verdict, Verdict::Clean(_)), peer.ask(1001, good(1001)).await),
            Outcome::Answer(_) | Outcome::Broken(_) => (false, Outcome::Answer(200)),
        };
        if !fits || next != Outcome::Answer(200) {
            faults.push(format!("{rule} ({source}): {outcome:?}, then {next:?}"));
        }
        // The good request came last: whatever was to arrive before it has arrived.
        let mut seen = upstream.seen().split_off(before);
        seen.retain(|seen| seen.end == End::Complete && seen.target() != "/good");
        if let Verdict::Clean(is) = verdict {
            clean += 1;
            match seen.pop() {
                Some(seen) if is(&seen) => {}
                other => {
                    let head = other.map(|seen| String::from_utf8_lossy(&seen.head.raw).into_owned());
                    faults.push(format!("{rule} ({source}): arrived as {head:?}"));
                }
            }
        }
        if !seen.is_empty() {
            let lines: Vec<_> = seen.iter().map(|seen| seen.head.line()).collect();
            faults.push(format!("{rule} ({source}): arrived whole: {lines:?}"));
        }
    }
    // Nor did anything arrive late.
    let seen = upstream.until("their ends", |seen| seen.iter().all(|seen| seen.end != End::Arriving)).await;
    let whole = seen.iter().filter(|seen| seen.end == End::Complete && seen.target() != "/good").count();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(whole, clean, "messages that arrived whole");
}

fn writer() -> Key {
    Key::pair("writer").scopes(["read_write"])
}

/// A POST on stream 1 with these fields, and these frames behind it.
fn posted(key: &Key, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let block = Block::request("POST", "/").key(key);
    let block = fields.iter().fold(block, |block, (name, value)| block.field(name, value));
    [block.open(1), body.to_vec()].concat()
}
