//! HTTP/1.1 in raw bytes, over plain TCP and over TLS.
//!
//! A case is a [`Row`]: the rule that it keeps, where the rule is from, the bytes, and the verdict. Behind every row the
//! next request is sent on the same connection, so that whatever a row leaves behind would be read as part of that one,
//! or in place of it. What the upstream got and what the caller was answered is read anew by [`strict`].

mod addresses;
mod answers;
mod bodies;
mod chunks;
mod credentials;
mod fields;
mod framing;
mod hosts;
mod logs;
mod losses;
mod overrides;
mod strict;
mod targets;
mod upgrades;

use std::collections::HashSet;

use self::strict::Message;
use crate::harness::{Answer, End, Key, Seen, Sidecar, Upstream, within};

/// One case.
struct Row {
    /// What is kept.
    rule: String,
    /// Where that is from: a section of an RFC, a CVE, or who found the trick.
    source: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

/// What is to be true of a message; an error says why it is not.
type Judgement = dyn Fn(&Message) -> Result<(), String>;

/// What must become of the bytes.
enum Verdict {
    /// Nothing whole reaches the upstream, and an answer has one of these statuses (none: any of a refusal).
    Refused(&'static [u16]),
    /// Exactly this message reaches the upstream.
    Clean(Clean),
    /// One of the two.
    Safe(Clean),
    /// First this one, then that.
    Two(Clean, Clean),
    /// Exactly this message, refused or not expected (417): never more than one interim answer.
    Unexpected(Clean),
    /// One message at most, and of that this is true.
    Sound(Box<Judgement>),
}

/// What the upstream gets of a message, beside what Keyside writes.
#[derive(Clone, Debug)]
struct Clean {
    method: String,
    target: String,
    host: String,
    /// The client's fields, names in lower case.
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    /// Whose it is.
    key: Option<&'static str>,
    /// What the upstream answers.
    status: u16,
    /// Whether the connection ends behind it; absent: it may.
    closes: Option<bool>,
}

impl Row {
    fn new(rule: impl Into<String>, source: &'static str, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Self {
        Self { rule: rule.into(), source, bytes: bytes.into(), verdict }
    }

    /// One that is refused.
    fn refused(rule: impl Into<String>, source: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(rule, source, bytes, Verdict::Refused(&[]))
    }

    /// One of which a clean message is made.
    fn clean(rule: impl Into<String>, source: &'static str, bytes: impl Into<Vec<u8>>, clean: Clean) -> Self {
        Self::new(rule, source, bytes, Verdict::Clean(clean))
    }

    /// One that is refused, or of which a clean message is made.
    fn safe(rule: impl Into<String>, source: &'static str, bytes: impl Into<Vec<u8>>, clean: Clean) -> Self {
        Self::new(rule, source, bytes, Verdict::Safe(clean))
    }
}

impl Clean {
    fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            host: "a.example".into(),
            fields: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
            key: Some("writer"),
            status: 200,
            closes: Some(false),
        }
    }

    fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.into(), value.as_ref().to_vec()));
        self
    }

    fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// Of another key.
    fn key(mut self, name: &'static str) -> Self {
        self.key = Some(name);
        self
    }

    /// Of nobody.
    fn open(mut self) -> Self {
        self.key = None;
        self
    }

    /// The connection ends behind it.
    fn closes(mut self) -> Self {
        self.closes = Some(true);
        self
    }

    /// The connection may end behind it.
    fn may_close(mut self) -> Self {
        self.closes = None;
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// The keys of all rows. Their owners and scopes are told by their names.
fn keys() -> Vec<Key> {
    let limited = "limits = [\"1/1h\"]";
    let inner = "allow_ips = [\"203.0.113.42\", \"2001:db8::/32\"]";
    [
        ("writer", "read_write", ""),
        ("reader", "read", ""),
        ("poster", "write", ""),
        ("limited", "read_write", limited),
        ("inner", "read_write", inner),
    ]
    .map(|(name, scope, more)| Key::pair(name).owner(&format!("of-{name}")).scopes([scope]).with(more))
    .into()
}

/// One of them.
fn key(name: &str) -> Key {
    keys().into_iter().find(|key| key.id == format!("key_{name}")).expect("a key of this name")
}

/// A request line, a host, a credential, and these fields.
fn head(line: &str, fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
    format!("{line} HTTP/1.1\r\nHost: a.example\r\nAuthorization: {}\r\n{fields}\r\n", key("writer").authorization())
}

/// A request of which nothing may ever be seen upstream: it stands where only a wrong reader finds it.
fn hidden() -> String {
    head("GET /hidden", "")
}

/// Waits for the rest of a message and for the next one are short, and nobody runs out of failures.
const QUICK: &str = r#"
    [listen.timeouts]
    body = "1s"
    idle = "1s"
    [limits]
    failures_per_ip = ["1000000/1m"]
"#;

/// A sidecar and its upstream.
struct Door {
    name: &'static str,
    upstream: Upstream,
    sidecar: Sidecar,
}

impl Door {
    async fn open(name: &'static str, config: &str) -> Self {
        let upstream = Upstream::start().await;
        upstream.on("/next", Answer::ok("next"));
        let keys = keys();
        let mut sidecar = Sidecar::in_front_of(&upstream).config(QUICK);
        if name == "plain" {
            sidecar = sidecar.plaintext();
        }
        let sidecar = sidecar.config(config).keys(&keys).start().await;
        Self { name, upstream, sidecar }
    }

    /// All rows, one after the other. Gives what was wrong.
    async fn judge(&self, rows: &[Row]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut whole = 0;
        for row in rows {
            assert!(!row.source.is_empty(), "{}: where is it from?", row.rule);
            let place = format!("{} ({}), {}", row.rule, row.source, self.name);
            match within(&place, self.row(row)).await {
                Ok(count) => whole += count,
                Err(fault) => {
                    faults.push(format!("{place}: {fault}"));
                    whole = self.whole(0);
                }
            }
        }
        // Nothing came late.
        if self.whole(0) != whole {
            faults.push(format!("{} messages upstream, of which {whole} were asked for", self.whole(0)));
        }
        for stray in self.upstream.stray() {
            faults.push(format!("stray bytes upstream: {:?}", stray.escape_ascii().to_string()));
        }
        faults
    }

    fn whole(&self, from: usize) -> usize {
        self.upstream.seen()[from..].iter().filter(|seen| seen.end == End::Complete).count()
    }

    /// Sends a row with the next request behind it. Gives how many whole messages the upstream got of both.
    async fn row(&self, row: &Row) -> Result<usize, String> {
        let from = self.upstream.count();
        let next = head("GET /next", "Connection: close");
        let mut wire = self.sidecar.wire().await;
        // The other side may have closed by now.
        let _ = wire.write([&row.bytes[..], next.as_bytes()].concat()).await;
        let said = wire.rest().await;
        drop(wire);
        let answers = strict::answers(&said, row.bytes.starts_with(b"HEAD "))
            .map_err(|fault| format!("the caller got {fault}: {:?}", said.escape_ascii().to_string()))?;
        let interim = answers.iter().filter(|answer| answer.status() == 100).count();
        if interim > 1 {
            return Err(format!("{interim} interim answers"));
        }
        let (next_answers, answers): (Vec<_>, Vec<_>) =
            answers.into_iter().filter(|answer| answer.status() != 100).partition(|answer| answer.body == b"next");
        let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
        // What is no request, behind one message that some may take for longer, ends the connection.
        let ended_by_garbage =
            matches!((&row.verdict, &statuses[..]), (Verdict::Sound(_), [_, 400]) if next_answers.is_empty());
        let most = if let Verdict::Two(..) = row.verdict { 2 } else { 1 };
        if next_answers.len() > 1 || answers.len() > most && !ended_by_garbage {
            return Err(format!("answered with {statuses:?} and {} times the next answer", next_answers.len()));
        }
        if next_answers.is_empty() {
            let mut wire = self.sidecar.wire().await;
            wire.write(&next).await.map_err(|error| error.to_string())?;
            let answer = wire.answer("GET").await?;
            if answer.body != b"next" {
                return Err(format!("another connection's request was answered with {answer:?}"));
            }
        }
        let ended = |seen: &[Seen]| seen[from..].iter().all(|seen| seen.end != End::Arriving);
        let seen = self.upstream.until("the ends", ended).await;
        let mut messages = Vec::new();
        let mut nexts = 0;
        for seen in seen[from..].iter().filter(|seen| seen.end == End::Complete) {
            let message = strict::request(seen)
                .map_err(|fault| format!("upstream got {fault}: {:?}", seen.head.raw.escape_ascii().to_string()))?;
            if seen.target() == "/next" {
                nexts += 1;
                self.exact(&message, &Clean::new("GET", "/next"))
                    .map_err(|fault| format!("the next request: {fault}"))?;
            } else {
                messages.push(message);
            }
        }
        if nexts != 1 {
            return Err(format!("the next request arrived {nexts} times"));
        }
        let count = messages.len() + nexts;
        let refused = |statuses: &[u16]| match answers.first() {
            _ if !messages.is_empty() => Err(format!("upstream got {messages:?}")),
            None => Ok(()),
            Some(answer) if statuses.contains(&answer.status()) => Ok(()),
            Some(answer) if statuses.is_empty() && matches!(answer.status(), 400..=499 | 501) => Ok(()),
            Some(answer) => Err(format!("answered with {answer:?}")),
        };
        let clean = |clean: &Clean| {
            let [message] = &messages[..] else {
                return Err(format!("upstream got {messages:?}, answered {answers:?}"));
            };
            self.exact(message, clean)?;
            if statuses != [clean.status] {
                return Err(format!("answered with {answers:?}"));
            }
            if clean.closes.is_some_and(|closes| closes != next_answers.is_empty()) {
                return Err(format!("{} answers to the next request", next_answers.len()));
            }
            Ok(())
        };
        match &row.verdict {
            Verdict::Refused(statuses) => refused(statuses)?,
            Verdict::Clean(message) => clean(message)?,
            Verdict::Safe(message) => refused(&[]).or_else(|_| clean(message))?,
            Verdict::Two(first, second) => {
                let [one, other] = &messages[..] else { return Err(format!("upstream got {messages:?}")) };
                self.exact(one, first)?;
                self.exact(other, second)?;
            }
            Verdict::Unexpected(message) => refused(&[400, 417]).or_else(|_| clean(message))?,
            Verdict::Sound(is) => match &messages[..] {
                [] => refused(&[])?,
                [message] => is(message)?,
                _ => return Err(format!("upstream got {messages:?}")),
            },
        }
        Ok(count)
    }

    /// Whether a message is exactly this one, and what Keyside writes is exactly that.
    fn exact(&self, message: &Message, clean: &Clean) -> Result<(), String> {
        let line = format!("{} {} HTTP/1.1", clean.method, clean.target);
        if message.line != line {
            return Err(format!("{:?} instead of {line:?}", message.line));
        }
        let proto = if self.name == "plain" { "http" } else { "https" };
        let forwarded = format!("for=127.0.0.1;host=\"{}\";proto={proto}", clean.host);
        let mut ours = vec![
            ("host", clean.host.clone()),
            ("x-forwarded-for", "127.0.0.1".into()),
            ("x-forwarded-proto", proto.into()),
            ("x-forwarded-host", clean.host.clone()),
            ("forwarded", forwarded),
            ("via", "1.1 keyside".into()),
        ];
        if let Some(name) = clean.key {
            let scopes = match name {
                "reader" => "read",
                "poster" => "write",
                _ => "read_write",
            };
            let id = format!("key_{name}");
            ours.extend([("x-key-id", id), ("x-key-owner", format!("of-{name}")), ("x-key-scopes", scopes.into())]);
        }
        for (name, value) in &ours {
            let got = message.field(name)?;
            if got != *value {
                return Err(format!("{name} is {got:?} instead of {value:?}"));
            }
        }
        let made = ["x-request-id", "traceparent", "content-length", "transfer-encoding"];
        let is_ours = |name: &str| ours.iter().any(|(ours, _)| *ours == name) || made.contains(&name);
        for name in made {
            message.field(name)?;
        }
        // The order counts among fields of one name alone (RFC 9110 §5.3).
        let sorted = |fields: &[(String, Vec<u8>)]| {
            let mut theirs: Vec<(String, String)> = fields
                .iter()
                .filter(|(name, _)| !is_ours(name))
                .map(|(name, value)| (name.clone(), value.escape_ascii().to_string()))
                .collect();
            theirs.sort_by(|(one, _), (other, _)| one.cmp(other));
            theirs
        };
        let (got, expected) = (sorted(&message.fields), sorted(&clean.fields));
        if got != expected {
            return Err(format!("the client's fields are {got:?} instead of {expected:?}"));
        }
        if message.body != clean.body {
            return Err(format!("the body is {:?}", message.body.escape_ascii().to_string()));
        }
        if message.trailers != clean.trailers {
            return Err(format!("the trailers are {:?}", message.trailers));
        }
        Ok(())
    }
}

#[track_caller]
fn conclude(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} wrong:\n{}", faults.len(), faults.join("\n"));
}

fn once(rows: &[Row]) {
    once_of(rows.iter().map(|row| &row.rule));
}

/// A row is found by its name.
fn once_of<'r>(names: impl Iterator<Item = &'r String>) {
    let mut known = HashSet::new();
    for name in names {
        assert!(known.insert(name), "two rows are called {name:?}");
    }
}

async fn doors(config: &str) -> (Door, Door) {
    tokio::join!(Door::open("plain", config), Door::open("TLS", config))
}

/// Sends every row over plain TCP and over TLS.
async fn check(config: &str, rows: Vec<Row>) {
    check_behind(config, rows, |_| {}).await;
}

/// The same before an upstream that is told how to answer.
async fn check_behind(config: &str, rows: Vec<Row>, told: impl Fn(&Upstream)) {
    once(&rows);
    let (plain, tls) = doors(config).await;
    told(&plain.upstream);
    told(&tls.upstream);
    let (mut faults, more) = tokio::join!(plain.judge(&rows), tls.judge(&rows));
    faults.extend(more);
    conclude(faults);
}

/// Sends every row over plain TCP: for the long lists of bytes, since what reads them is the same behind TLS.
async fn check_plain(config: &str, rows: Vec<Row>) {
    once(&rows);
    conclude(Door::open("plain", config).await.judge(&rows).await);
}
