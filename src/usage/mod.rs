//! Use: when and from where a key was last used, and what is kept on disk of it, of long windows and of revocations.
//!
//! Nothing here is written to a disk on the request path: requests leave marks in memory, and a thread of its own
//! ([`Saver`]) saves what has changed once a second. A state folder that is lost, full or unwritable costs one alarm
//! and a metric; serving goes on.

mod folder;
mod journal;
mod place;
mod revoked;
mod saver;
mod state;

pub use folder::Folder;
pub use place::NotTaken;
pub use revoked::{Revoked, read_revoked};
pub use saver::Saver;
pub use state::{Restorer, State, read_last_used};
