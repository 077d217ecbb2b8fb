//! A body of JSON in the making.

use http::{HeaderValue, StatusCode};

/// A body of JSON in the making.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static HeaderValue,
    pub(super) bytes: Vec<u8>,
    /// Where the request id stands, if the body has one.
    pub(super) request_id_at: Option<usize>,
}

impl Json {
    pub(super) fn new(content_type: &'static HeaderValue, status: StatusCode) -> Self {
        Self { status, content_type, bytes: Vec::with_capacity(384), request_id_at: None }
    }

    pub(super) fn raw(&mut self, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        self.raw("\"").escaped(text).raw("\"")
    }

    /// A sentence of the table, and what this request adds to it.
    pub(super) fn sentence(&mut self, sentence: &str, hint: Option<&str>) -> &mut Self {
        self.raw("\"").escaped(sentence);
        if let Some(hint) = hint {
            self.raw(" ").escaped(hint);
        }
        self.raw("\"")
    }

    /// The inside of the string that holds the request id.
    pub(super) fn request_id(&mut self, request_id: &[u8]) -> &mut Self {
        self.request_id_at = Some(self.bytes.len());
        escape(request_id, &mut self.bytes);
        self
    }

    fn escaped(&mut self, text: &str) -> &mut Self {
        escape(text.as_bytes(), &mut self.bytes);
        self
    }
}

/// Escapes what must be (RFC 8259 §7), and the angle brackets and ampersands of those who show it as a page.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // Nearly every text is plain, and is copied as a whole.
    if text.iter().fold(true, |plain, byte| plain & PLAIN[usize::from(*byte)]) {
        return out.extend_from_slice(text);
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            _ if PLAIN[usize::from(byte)] => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
}

/// Which bytes stand for themselves; those of a character beyond ASCII do.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x80 {
        plain[byte as usize] = !matches!(byte, 0..b' ' | b'"' | b'\\' | b'<' | b'>' | b'&' | 0x7f);
        byte += 1;
    }
    plain
};
