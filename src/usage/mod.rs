//! Use: when and from where a key was last used, and what is saved of it and of long windows. No write on the request path.

use std::{collections::BTreeMap, io, net::IpAddr, path::Path, sync::Arc};

use crate::{
    clock::{Now, Wall},
    keys::{KeyId, KeySet},
    limits::{Limiter, Plan},
};

/// When and from where a key was last used with success. Updated by atomics alone.
#[derive(Debug, Default)]
pub struct LastUse {}

impl LastUse {
    /// Notes a use.
    pub fn note(&self, _at: Wall, _ip: IpAddr) {
        unimplemented!("usage room")
    }

    /// The last use; none if there was none.
    pub fn get(&self) -> Option<LastUsed> {
        unimplemented!("usage room")
    }
}

/// One use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUsed {
    /// When.
    pub at: Wall,
    /// From which address.
    pub ip: IpAddr,
}

/// What is saved in the state folder: the last use of keys, and the windows of ten minutes and more.
#[derive(Debug)]
pub struct State {}

impl State {
    /// Reads the folder, creating it if need be. Never fails: what is wrong is alarmed once, and serving goes on.
    pub fn open(_folder: &Path, _now: Now) -> Self {
        unimplemented!("usage room")
    }

    /// Hands what was read to keys and owners that have appeared, best before the set is published.
    pub fn restore(&mut self, _keys: &KeySet, _limiter: &Limiter, _plan: &Plan, _now: Now) {
        unimplemented!("usage room")
    }

    /// Saves what has changed since the last time. Blocks on the disk.
    pub fn save(&mut self, _keys: &KeySet, _limiter: &Arc<Limiter>, _plan: &Plan, _now: Now) {
        unimplemented!("usage room")
    }

    /// Whether the last save succeeded.
    pub fn is_healthy(&self) -> bool {
        unimplemented!("usage room")
    }
}

/// The last use of every key, as saved in a state folder. A folder without the file has none.
pub fn read_last_used(_folder: &Path) -> io::Result<BTreeMap<KeyId, LastUsed>> {
    unimplemented!("usage room")
}
