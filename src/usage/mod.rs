//! Use: when and from where a key was last used, and what is saved of it and of long windows. No write on the request path.

/// When and from where a key was last used with success. Updated by atomics alone.
#[derive(Debug, Default)]
pub struct LastUse {}
