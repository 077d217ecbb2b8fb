//! What a process prints, line by line, as it comes.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    sync::Arc,
    thread,
};

use serde_json::Value;
use tokio::sync::watch;

use super::within;

/// The lines of a pipe.
#[derive(Clone)]
pub(crate) struct Lines(Arc<watch::Sender<Printed>>);

#[derive(Default)]
struct Printed {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads the pipe to its end on a thread of its own, so that the process never waits for a reader.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::new(watch::Sender::new(Printed::default())));
        let kept = Arc::clone(&lines.0);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                kept.send_modify(|printed| printed.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            kept.send_modify(|printed| printed.ended = true);
        });
        lines
    }

    /// Every line so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.borrow().lines.clone()
    }

    /// Waits for the first line of which the function makes something.
    pub(crate) async fn find<T>(&self, what: &str, mut of: impl FnMut(&str) -> Option<T>) -> T {
        let mut lines = self.0.subscribe();
        let mut looked_at = 0;
        let mut found = None;
        let search = lines.wait_for(|printed| {
            let lines = &printed.lines;
            found = lines[looked_at..].iter().find_map(|line| of(line));
            looked_at = lines.len();
            found.is_some()
        });
        if tokio::time::timeout(super::PATIENCE, search).await.is_err() {
            panic!("no line says {what}:\n{}", self.all().join("\n"));
        }
        found.unwrap()
    }

    /// Waits for the first line that is a JSON object of which the function says yes.
    pub(crate) async fn object(&self, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        self.find(what, |line| serde_json::from_str(line).ok().filter(|object: &Value| is(object))).await
    }

    /// Waits until there are so many lines.
    pub(crate) async fn until(&self, count: usize) {
        let mut lines = self.0.subscribe();
        within("lines", lines.wait_for(|printed| printed.lines.len() >= count)).await.unwrap();
    }

    /// Waits until the pipe was closed by all who could write to it.
    pub(crate) async fn ended(&self) {
        let mut lines = self.0.subscribe();
        within("the end of the output", lines.wait_for(|printed| printed.ended)).await.unwrap();
    }
}

/// Every socket address in a value of a log line, however it is put.
pub(super) fn sockets(value: &Value) -> Vec<SocketAddr> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '(' | ')'));
    parts.filter_map(|part| part.parse().or_else(|_| part.trim_matches(['[', ']']).parse()).ok()).collect()
}
