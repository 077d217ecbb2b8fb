//! Answers that are wrong, hostile or cut: a 502, one clean answer, or one that is seen to be cut; and never a word of
//! one in another.

mod framing;
mod heads;

use super::{Door, conclude, doors, head, once_of, strict};
use crate::harness::{Answer, Gate, within};

/// One case.
struct Row {
    rule: String,
    source: &'static str,
    method: &'static str,
    /// What the upstream sends.
    bytes: Vec<u8>,
    /// What it sends a moment later.
    later: Vec<u8>,
    /// Whether it then closes the connection.
    closes: bool,
    verdict: Verdict,
}

enum Verdict {
    /// 502.
    Bad,
    /// This status, body and trailers, and of these fields exactly those that have a value.
    Clean(u16, &'static str, Vec<(&'static str, &'static str)>),
    /// The head is there, or a 502, and what follows is not whole.
    Cut,
    /// One of the first two.
    BadOrClean(u16, &'static str),
}

use Verdict::{Bad, BadOrClean, Cut};

fn row(rule: impl Into<String>, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Row {
    let source = "RFC 9112 §§4 to 7";
    Row { rule: rule.into(), source, method: "GET", bytes: bytes.into(), later: Vec::new(), closes: false, verdict }
}

impl Row {
    fn of(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    fn from(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }

    fn later(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.later = bytes.into();
        self
    }

    fn closing(mut self) -> Self {
        self.closes = true;
        self
    }
}

fn clean(status: u16, body: &'static str) -> Verdict {
    Verdict::Clean(status, body, Vec::new())
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")
}

impl Door {
    /// Lets the upstream answer so, three times on one connection, with the next request behind each.
    async fn answered(&self, row: &Row) -> Result<(), String> {
        let gate = Gate::new();
        gate.open();
        let mut answer = Answer::raw(&row.bytes);
        if !row.later.is_empty() {
            answer = answer.then(&gate, &row.later);
        }
        self.upstream.on("/x", if row.closes { answer.then_close() } else { answer });
        for _ in 0..3 {
            let mut wire = self.sidecar.wire().await;
            let asked = head(&format!("{} /x", row.method), "TE: trailers");
            let next = head("GET /next", "Connection: close");
            wire.write(format!("{asked}{next}")).await.map_err(|error| error.to_string())?;
            let said = wire.rest().await;
            let shown = said[..said.len().min(1500)].escape_ascii().to_string();
            let answers = match (strict::answers(&said, row.method == "HEAD"), &row.verdict) {
                (Ok(answers), _) if !answers.is_empty() => answers,
                // What had begun by then may not have left: nothing at all is not whole, either.
                (_, Cut) => {
                    self.next_is_well().await?;
                    continue;
                }
                (Ok(_), _) => return Err("no answer".into()),
                (Err(fault), _) => return Err(format!("the caller got {fault}: {shown}")),
            };
            let first = &answers[0];
            match answers.get(1) {
                Some(next) if next.body != b"next" || answers.len() > 2 => {
                    return Err(format!("the next got {answers:?}"));
                }
                Some(_) => {}
                None => self.next_is_well().await?,
            }
            for name in ["x-key-owner", "x-key-id", "x-key-admin", "keep-alive", "proxy-authenticate", "te", "upgrade"]
            {
                if !first.all(name).is_empty() {
                    return Err(format!("{name} in {first:?}"));
                }
            }
            for (name, _) in &first.trailers {
                if name.starts_with("x-key-")
                    || matches!(name.as_str(), "set-cookie" | "content-length" | "transfer-encoding")
                {
                    return Err(format!("the trailer {name} in {first:?}"));
                }
            }
            let bad = first.status() == 502 && first.body.starts_with(b"{") && !first.all("proxy-status").is_empty();
            let is = |status: u16, body: &str| first.status() == status && first.body == body.as_bytes();
            let right = match &row.verdict {
                Bad | Cut => bad,
                BadOrClean(status, body) => bad || is(*status, body),
                Verdict::Clean(status, body, fields) => {
                    let field = |(name, value): &(&str, &str)| {
                        let got: Vec<_> = first.all(name).into_iter().map(String::from_utf8_lossy).collect();
                        got == if value.is_empty() { vec![] } else { vec![*value] }
                    };
                    is(*status, body) && fields.iter().all(field)
                }
            };
            if !right {
                return Err(format!("the caller got {shown}"));
            }
        }
        Ok(())
    }

    /// The next request on another connection gets its own answer.
    async fn next_is_well(&self) -> Result<(), String> {
        let mut wire = self.sidecar.wire().await;
        wire.write(head("GET /next", "")).await.map_err(|error| error.to_string())?;
        let answer = wire.answer("GET").await?;
        if answer.body == b"next" { Ok(()) } else { Err(format!("the next request got {answer:?}")) }
    }

    async fn judge_answers(&self, rows: &[Row]) -> Vec<String> {
        let mut faults = Vec::new();
        for row in rows {
            let place = format!("{} ({}), {}", row.rule, row.source, self.name);
            if let Err(fault) = within(&place, self.answered(row)).await {
                faults.push(format!("{place}: {fault}"));
            }
        }
        faults
    }
}

async fn check(rows: Vec<Row>) {
    once_of(rows.iter().map(|row| &row.rule));
    let (plain, tls) = doors("").await;
    let (mut faults, more) = tokio::join!(plain.judge_answers(&rows), tls.judge_answers(&rows));
    faults.extend(more);
    conclude(faults);
}
