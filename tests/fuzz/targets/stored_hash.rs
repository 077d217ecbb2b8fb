//! A stored hash is kept as it is written, costs no more than the ceilings allow, and is shown to nobody.
//!
//! An input: a text that may be a stored hash.

#![no_main]

use keyside::keys::secret::{Algorithm, Memory, Secret, SecretHash};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(hash) = SecretHash::parse(text) else { return };
    assert_eq!(hash.as_phc(), text);
    assert!(SecretHash::parse(hash.as_phc()).is_ok_and(|again| again == hash));
    assert_eq!(format!("{hash:?}"), format!("SecretHash({:?})", hash.algorithm()));
    assert!(text.is_ascii() || hash.algorithm() == Algorithm::HmacSha256, "only a pepper has a free name");
    let parts: Vec<_> = text.split('$').collect();
    let secret = Secret::new(b"no secret of anything here");
    match hash.algorithm() {
        Algorithm::Argon2id => {
            let parameters = parts.iter().find(|part| part.starts_with("m=")).expect("parameters");
            let numbers: Vec<u64> = parameters.split(',').map(|part| part[2..].parse().expect("a number")).collect();
            let [memory, passes, lanes] = numbers[..] else { panic!("{parameters}") };
            assert!(
                (8 * lanes..=256 * 1024).contains(&memory) && (1..=16).contains(&passes) && (1..=8).contains(&lanes)
            );
            if memory * passes <= 256 {
                assert!(!hash.check(&secret, None, &mut Memory::default()));
            }
        }
        Algorithm::Bcrypt => {
            let cost: u32 = parts[2].parse().expect("a number");
            assert!((4..=15).contains(&cost));
            // At once: the hash is of something else than these.
            assert!(!hash.check(&Secret::new(&[b'x'; 73]), None, &mut Memory::default()));
            assert!(!hash.check(&Secret::new(b"a\0b"), None, &mut Memory::default()));
        }
        Algorithm::HmacSha256 => {
            assert_eq!(hash.check_fast(&secret, None), Some(false));
            assert!(hash.fits_pepper(None).is_err());
            assert_eq!(hash.check_fast(&secret, Some(&Secret::new(b"pepper"))), Some(false));
        }
        Algorithm::Sha256 => assert_eq!(hash.check_fast(&secret, None), Some(false)),
    }
});
