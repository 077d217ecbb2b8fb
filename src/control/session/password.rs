//! Passwords of operators: which are taken, and how they are hashed.

use std::{
    collections::BTreeSet,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::super::{answer::Problem, places::Places};
use crate::keys::secret::{Algorithm, MAX_SECRET_BYTES, Memory, Secret, SecretHash};

/// The fewest characters of a password.
const MIN: usize = 12;
/// Passwords of strangers that are hashed at a time: each takes 19 MiB and a core.
const AT_A_TIME: usize = 2;
/// Those that are being hashed, or wait for it.
const WAITING: usize = 32;
/// The same of people who are known.
const KNOWN_AT_A_TIME: usize = 1;
const KNOWN_WAITING: usize = 8;
/// The longest name of an operator.
const MAX_NAME: usize = 64;

/// What is checked where there is no such operator, so that it takes as long. Made from random bytes that nobody kept.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$MFDBMA+VSWlaBj7JCqN/lg$IPpI7bYCpMBWRccskO11XCMMKU4ZYounyPAc62x3OdA";

/// Passwords of twelve characters and more that are tried first, in lower case.
const COMMON: &str = include_str!("common.txt");

static COMMONEST: LazyLock<BTreeSet<&str>> = LazyLock::new(|| COMMON.lines().collect());

/// Hashes and checks passwords: on threads that may block, a few at a time. However many strangers try, they take no place
/// of those who are known.
#[derive(Debug)]
pub struct Passwords {
    strangers: Queue,
    known: Queue,
    /// How many were checked: as many for a name that there is as for one that there is not.
    #[cfg(test)]
    pub(super) checked: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            strangers: Queue::new(AT_A_TIME, WAITING),
            known: Queue::new(KNOWN_AT_A_TIME, KNOWN_WAITING),
            #[cfg(test)]
            checked: AtomicUsize::new(0),
        }
    }
}

/// Whose password it is, as far as that is known before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Strangers,
    /// Somebody's who is signed in, or asks from a browser that they have signed in with.
    Known,
}

/// What came of checking a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many are being checked.
    Busy,
}

impl Passwords {
    /// Whether this is the password; without a stored hash it is not, and that takes as long.
    pub(super) async fn check(&self, whose: Whose, stored: Option<String>, password: Secret) -> Verdict {
        #[cfg(test)]
        self.checked.fetch_add(1, Ordering::Relaxed);
        let there = stored.is_some();
        let queue = match whose {
            Whose::Strangers => &self.strangers,
            Whose::Known => &self.known,
        };
        let checked = queue.slowly(move || {
            let hash = stored.as_deref().map_or_else(|| SecretHash::parse(DECOY), SecretHash::parse);
            hash.is_ok_and(|hash| hash.check(&password, None, &mut Memory::default()))
        });
        match checked.await {
            None => Verdict::Busy,
            Some(true) if there => Verdict::Right,
            Some(_) => Verdict::Wrong,
        }
    }

    /// The hash of a password that somebody sets who may; none when too many are being hashed.
    pub(super) async fn hash(&self, password: Secret) -> Option<String> {
        let hash = self.known.slowly(move || SecretHash::make(Algorithm::Argon2id, &password, None)).await?;
        hash.ok().map(|hash| hash.as_phc().to_owned())
    }
}

/// What is hashed a few at a time, and who waits for it.
#[derive(Debug)]
struct Queue {
    places: Places,
    waiting: AtomicUsize,
    most: usize,
}

impl Queue {
    fn new(at_a_time: usize, most: usize) -> Self {
        Self { places: Places::new(at_a_time), waiting: AtomicUsize::new(0), most }
    }

    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _waits = Waits::begin(&self.waiting, self.most)?;
        self.places.work(work).await.ok()
    }
}

/// One of those that wait.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let one = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < most).then_some(one)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a name that is refused is answered with.
pub const NAME_RULE: &str = "A name has 1 to 64 letters, digits, and any of . _ - @ +";

/// Whether an operator may be called so: what is written into logs and audit entries has one reading.
pub fn name_is_good(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(good)
}

/// Refuses passwords that are tried first. No rules of letters and digits: length is what counts (NIST SP 800-63B, 3.1.1).
pub(super) fn judge(name: &str, password: &Secret) -> Result<(), Problem> {
    let refuse = |message: &str| Err(Problem::invalid("password", message));
    let Ok(text) = std::str::from_utf8(password.expose()) else { return refuse("The password is not readable text.") };
    let lower = zeroize::Zeroizing::new(text.to_lowercase());
    let mut different: Vec<char> = text.chars().collect();
    let count = different.len();
    different.sort_unstable();
    different.dedup();
    if count < MIN {
        refuse("A password has at least 12 characters. A few words that do not belong together are a good one.")
    } else if text.len() > MAX_SECRET_BYTES {
        refuse("A password has at most 512 bytes.")
    } else if **lower == name.to_lowercase() {
        refuse("A password must not be the name.")
    } else if different.len() < 5 || COMMONEST.contains(lower.as_str()) {
        refuse("This password is one of the first that anybody would try. Choose another.")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, password: &str, expected: bool) {
        assert_eq!(judge(name, &Secret::new(password.as_bytes())).is_ok(), expected, "{password}");
    }

    #[test]
    fn a_password_is_long_and_none_that_is_tried_first() {
        check("ada", "correct horse battery", true);
        check("ada", "twelve chars", true);
        check("ada", "eleven char", false);
        // Twelve characters, of two bytes each.
        check("ada", "äöüßéèàçñøåœ", true);
        check("ada", "äöüßéè", false);
        check("ada.lovelace@example", "Ada.Lovelace@example", false);
        check("ada", "Password1234", false);
        check("ada", "aaaaaaaaaaaaaaaa", false);
        check("ada", "123123123123", false);
        check("ada", "administrator", false);
        check("ada", &"long and longer ".repeat(40), false);
    }

    #[test]
    fn names_have_one_reading() {
        for good in ["ada", "ada.lovelace@example.com", "ops-1", "A_b+c"] {
            assert!(name_is_good(good), "{good}");
        }
        for bad in ["", "a b", "ada\n", "äda", "<b>", "a:b", &"x".repeat(65)] {
            assert!(!name_is_good(bad), "{bad}");
        }
    }

    #[test]
    fn the_decoy_takes_as_long_as_a_real_hash() {
        let real =
            SecretHash::make(Algorithm::Argon2id, &Secret::new(b"a password of somebody"), None).expect("a hash");
        let parameters = |text: &str| text.rsplitn(3, '$').last().map(str::to_owned);
        assert!(SecretHash::parse(DECOY).is_ok());
        assert_eq!(parameters(DECOY), parameters(real.as_phc()));
    }

    #[test]
    fn the_list_is_of_passwords_that_would_be_taken_otherwise() {
        for common in COMMON.lines() {
            assert!(common.chars().count() >= MIN && common.to_lowercase() == common, "{common}");
        }
    }

    #[tokio::test]
    async fn only_the_password_is_right() {
        let passwords = Passwords::default();
        let hash = passwords.hash(Secret::new(b"correct horse battery")).await.expect("a place");
        let check = |stored: Option<&str>, text: &str| {
            passwords.check(Whose::Strangers, stored.map(str::to_owned), Secret::new(text.as_bytes()))
        };
        assert_eq!(check(Some(&hash), "correct horse battery").await, Verdict::Right);
        assert_eq!(check(Some(&hash), "correct horse batterx").await, Verdict::Wrong);
        assert_eq!(check(None, "correct horse battery").await, Verdict::Wrong);
        assert_eq!(check(Some("no hash"), "correct horse battery").await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn strangers_take_no_place_of_those_who_are_known() {
        let passwords = Passwords::default();
        let _waits: Vec<_> = std::iter::repeat_with(|| Waits::begin(&passwords.strangers.waiting, WAITING))
            .map_while(|one| one)
            .collect();
        let check = |whose| passwords.check(whose, None, Secret::new(b"correct horse battery"));
        assert_eq!(check(Whose::Strangers).await, Verdict::Busy);
        assert_eq!(check(Whose::Known).await, Verdict::Wrong);
        assert!(passwords.hash(Secret::new(b"correct horse battery")).await.is_some());
        let _known: Vec<_> = std::iter::repeat_with(|| Waits::begin(&passwords.known.waiting, KNOWN_WAITING))
            .map_while(|one| one)
            .collect();
        assert_eq!(check(Whose::Known).await, Verdict::Busy, "these are not without end either");
    }
}
