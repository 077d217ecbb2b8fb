//! Secrets, hashes and revocations under attack.
