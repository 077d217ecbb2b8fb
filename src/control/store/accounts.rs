//! Who may use the control plane, as the store keeps them.

use crate::clock::Wall;

/// Somebody who may use the control plane.
#[derive(Clone, PartialEq, Eq)]
pub struct Operator {
    /// The name to sign in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The password's hash (argon2id, PHC string); none for one that has tokens alone.
    pub password: Option<String>,
    /// When they were added.
    pub created_at: Wall,
    /// Their tokens.
    pub tokens: Vec<Token>,
}

/// Shows no hash.
impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A token of an operator, for programs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id, which is not secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the token, in hexadecimal: it holds 256 random bits.
    pub digest: String,
    /// When it was made.
    pub created_at: Wall,
    /// From then on it is refused.
    pub expires_at: Option<Wall>,
}

/// Shows no digest.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an operator may do. Each may all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks, at the audit log too.
    Viewer,
    /// Mints, rotates and revokes keys, and keeps owners.
    Operator,
    /// Deletes keys, forgets sidecars, and says who the operators are.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// What one of this role may do, for people: THE TABLE of roles. Who may ask for what is in the API's list.
    pub const fn may(self) -> &'static str {
        match self {
            Self::Viewer => {
                "a viewer sees keys, owners, sidecars and the audit log, without secrets, and may check the log"
            }
            Self::Operator => {
                "an operator may also mint, change, rotate and revoke keys, and keep owners: add, change, suspend, remove"
            }
            Self::Admin => {
                "an admin may also delete the rows of keys, forget sidecars, and say who the operators are: add, change, \
                 remove them, and make their tokens"
            }
        }
    }

    /// What each may do, in one sentence.
    pub fn table() -> String {
        format!("{}.", Self::ALL.map(Self::may).join("; "))
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or("expected \"viewer\", \"operator\" or \"admin\"")
    }
}
