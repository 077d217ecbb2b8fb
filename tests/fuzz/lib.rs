//! What the targets share: inputs that are texts, so that a corpus can be read and written by people.

use std::{cell::OnceCell, future::Future};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The next line of an input, without its end, and what follows. The last line may lack an end.
pub fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// Switches, the letters of an input's first line.
pub struct Switches<'i>(pub &'i [u8]);

impl Switches<'_> {
    /// Whether this letter stands there.
    pub fn has(&self, letter: u8) -> bool {
        self.0.contains(&letter)
    }
}

/// Fields, one a line, as `name: value`. None where a line is no field that HTTP could bring.
pub fn fields(mut input: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    while !input.is_empty() {
        let (field, rest) = line(input);
        let colon = field.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&field[..colon]).ok()?;
        fields.append(name, HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?);
        input = rest;
    }
    Some(fields)
}

/// The bytes of a text with each percent escape decoded once, as any server decodes a path.
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if text[at] == b'%' => {
                decoded.extend(u8::from_str_radix(digits, 16));
                at += 3;
            }
            _ => {
                decoded.push(text[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// Runs a future to its end, on a runtime that the thread keeps.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.get_or_init(make).block_on(future)
    })
}
