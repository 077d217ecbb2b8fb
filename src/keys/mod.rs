//! Keys: what a key is, how its secret is checked, how keys are minted, and how the key document is read and edited.
//!
//! Nothing here does I/O; the time is handed in. The slow verification has threads of its own ([`verify`]).
//!
//! A request finds its key in the current [`KeySet`], asks the record's [standing](KeyRecord::standing), compares the
//! secret with the one that was verified before, and else has it verified; after that wait it asks whether the record is
//! still the [current](KeyStore::is_current) one, and starts over if not. A key that cannot be used, or that is unknown,
//! is refused after as much time as its [decoy](verify::Decoy) says.

pub mod document;
pub mod format;
pub mod freshness;
pub mod id;
mod last_use;
pub mod leak;
pub mod mint;
pub mod moments;
mod phc;
pub mod record;
pub mod refusals;
#[cfg(test)]
pub(crate) mod sample;
pub mod scope;
pub mod secret;
pub mod set;
mod shards;
pub mod store;
pub mod verify;
pub mod words;

pub use freshness::Purpose;
pub use id::{KeyId, Kind, Mode, OwnerId};
pub use last_use::{LastUse, LastUsed};
pub use record::{KeyRecord, KeyState, Kyc, OwnerRecord, OwnerState, Since, Standing};
/// Ids that were seen revoked, each with the moment as far as it is known.
pub type Revocations = std::collections::BTreeMap<KeyId, Option<crate::clock::Wall>>;
pub use scope::{Permission, Scopes};
pub use set::KeySet;
pub use store::KeyStore;
