//! What strings of a text are, and which keys they belong to.

use std::{collections::HashSet, hash::BuildHasher as _, sync::Arc};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    super::{console::Console, describe::status, place::Named},
    known::{Known, is_public_part},
};
use crate::keys::{
    KeyRecord,
    format::{Checksum, Recognised, recognise},
    leak::{Candidate, candidates, passwords},
    mint,
};

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    ConsumerKey,
    ConsumerSecret,
    Token(Checksum),
    ShownPrefix,
    /// In the key file, though not of a shape that is minted here.
    ForeignConsumerKey,
    ForeignConsumerSecret,
    ForeignToken,
}

/// A string that was found.
pub(super) struct Finding {
    pub(super) at: usize,
    pub(super) text: Zeroizing<String>,
    pub(super) what: What,
    /// The key it belongs to, or begins like.
    pub(super) key: Option<Arc<KeyRecord>>,
    /// Whether the hash of the key proves it.
    pub(super) verified: bool,
}

/// Every key of a text, once.
pub(super) fn find(shapes: &mint::Settings, known: Option<&Known>, text: &str) -> Vec<Finding> {
    // By their hashes, so that no second copy of a secret is made.
    let (by, mut seen, mut found) = (std::hash::RandomState::new(), HashSet::new(), HashSet::new());
    let mut findings: Vec<Finding> = Vec::new();
    candidates(shapes, text, &mut |candidate| {
        if seen.insert(by.hash_one((candidate.text, candidate.password))) {
            let judged = judge(shapes, known, &candidate).into_iter().flatten();
            findings.extend(judged.filter(|finding| found.insert(by.hash_one(&*finding.text))));
        }
    });
    findings
}

/// What a candidate is, and what its password is.
fn judge(shapes: &mint::Settings, known: Option<&Known>, candidate: &Candidate<'_>) -> [Option<Finding>; 2] {
    let finding = |text: &str, what, key, verified| {
        Some(Finding { at: candidate.at, text: Zeroizing::new(text.to_owned()), what, key, verified })
    };
    let recognised = recognise(shapes, candidate.text);
    if recognised == Recognised::ConsumerSecret {
        return [finding(candidate.text, What::ConsumerSecret, None, false), None];
    }
    let pair = known.and_then(|known| known.pair(candidate));
    let what = match recognised {
        Recognised::ConsumerKey => What::ConsumerKey,
        Recognised::Other if pair.is_some() => What::ForeignConsumerKey,
        _ => return [token(recognised, known, candidate), None],
    };
    let password = candidate.password.zip(pair.as_ref()).zip(known).and_then(|((password, key), known)| {
        let secret = passwords(password).find(|password| known.proves(key, password))?;
        let what = match recognise(shapes, &secret) {
            Recognised::ConsumerSecret => What::ConsumerSecret,
            _ => What::ForeignConsumerSecret,
        };
        finding(&secret, what, Some(Arc::clone(key)), true)
    });
    [password, finding(candidate.text, what, pair, false)]
}

fn token(recognised: Recognised<'_>, known: Option<&Known>, candidate: &Candidate<'_>) -> Option<Finding> {
    let (key, verified) = match known.and_then(|known| known.token(candidate.text)) {
        Some((key, verified)) => (Some(key), verified),
        None => (None, false),
    };
    let what = match recognised {
        Recognised::Token { checksum, .. } => What::Token(checksum),
        _ if key.as_ref().is_some_and(|key| is_public_part(key, candidate.text)) => What::ShownPrefix,
        Recognised::ShownPrefix { .. } if candidate.whole => What::ShownPrefix,
        // What only begins like a key from elsewhere may be anything.
        _ if verified || (candidate.whole && key.is_some()) => What::ForeignToken,
        _ => return None,
    };
    Some(Finding { at: candidate.at, text: Zeroizing::new(candidate.text.to_owned()), what, key, verified })
}

impl Finding {
    pub(super) fn is_secret(&self) -> bool {
        !matches!(self.what, What::ConsumerKey | What::ForeignConsumerKey | What::ShownPrefix)
    }

    /// Whether it is of no shape that is minted here.
    pub(super) fn is_foreign(&self) -> bool {
        use What::{ForeignConsumerKey, ForeignConsumerSecret, ForeignToken, Token};
        matches!(
            self.what,
            ForeignConsumerKey | ForeignConsumerSecret | ForeignToken | Token(Checksum::Bad | Checksum::Foreign)
        )
    }

    fn is(&self) -> &'static str {
        match self.what {
            What::ConsumerKey => "consumer key of a pair",
            What::ConsumerSecret => "consumer secret of a pair",
            What::Token(Checksum::Good) => "token minted by Keyside",
            What::Token(Checksum::Bad | Checksum::Foreign) => "token, mistyped or from elsewhere",
            What::ShownPrefix => "shown prefix of a token",
            What::ForeignConsumerKey => "consumer key from elsewhere",
            What::ForeignConsumerSecret => "consumer secret from elsewhere",
            What::ForeignToken => "token from elsewhere",
        }
    }

    /// Whether it is or was a key of ours; `None` where nobody can tell.
    fn is_ours(&self) -> Option<bool> {
        match self.what {
            _ if self.verified => Some(true),
            // Minted by some Keyside: a key that was deleted here, or one of another file.
            What::Token(Checksum::Good) => None,
            // Mistyped, or with something glued to it: near enough to look.
            What::Token(Checksum::Bad | Checksum::Foreign) if self.key.is_some() => None,
            What::Token(Checksum::Bad | Checksum::Foreign) => Some(false),
            _ if self.key.is_some() => Some(true),
            // Of these shapes, and in no file that was looked into: deleted, of another file, or made up.
            What::ConsumerKey | What::ConsumerSecret | What::ShownPrefix => None,
            What::ForeignConsumerKey | What::ForeignConsumerSecret | What::ForeignToken => None,
        }
    }

    /// What is told of it, without the secret.
    pub(super) fn value(&self, known: Option<&Known>, lines: &Lines<'_>, console: &Console<'_>) -> Value {
        let mut value = json!({ "is": self.is(), "secret": self.is_secret(), "ours": self.is_ours() });
        if let (Some(key), Some(known)) = (&self.key, known) {
            value["key"] = key.id.as_str().into();
            value["name"] = (*key.name).into();
            let row = known.document.keys.iter().find(|row| row.id == key.id);
            value["status"] = row.map(|row| status(&Named::Row(row.clone()), &known.document, console.now.wall)).into();
            // Nothing proves a public part: it is the key's, or it is not.
            if self.is_secret() {
                value["verified"] = self.verified.into();
            }
        }
        if self.text.len() < lines.text.trim().len() {
            let (line, column) = lines.place(self.at);
            value["line"] = line.into();
            value["column"] = column.into();
        }
        value
    }
}

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    begins: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let begins = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, begins }
    }

    /// Line and column of a byte, both from 1; columns are characters.
    fn place(&self, at: usize) -> (usize, usize) {
        let line = self.begins.partition_point(|begin| *begin <= at);
        let begin = self.begins[line - 1];
        (line, self.text[begin..at].chars().count() + 1)
    }
}
