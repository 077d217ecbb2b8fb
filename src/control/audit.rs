//! The audit log: a hash chain, so that an entry that was changed, moved or taken out shows.
//!
//! Each entry's hash is the SHA-256, in hexadecimal, of the hash of the one before (64 zeros before the first), a line
//! break, and the entry as one line of JSON with its fields in a fixed order. The store's head names the last hash; a tail
//! that was cut off shows by it, and by what was noted outside of the store: in the anchor file, in the log, and by
//! whoever keeps what `GET /v1/audit` says.

use aws_lc_rs::digest;
use serde_json::json;

use super::store::Entry;

/// What stands before the first entry.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of an entry that comes after the one with this hash.
pub fn hash(before: &str, entry: &Entry) -> String {
    let line = json!({
        "seq": entry.seq,
        "at": entry.at.unix_millis(),
        "actor": entry.actor,
        "from": entry.from,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "revision": entry.revision,
    });
    hex(&format!("{before}\n{line}"))
}

/// SHA-256 of a text, in hexadecimal.
pub fn hex(text: &str) -> String {
    hex_of(text.as_bytes())
}

/// SHA-256 of bytes, in hexadecimal.
pub fn hex_of(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
