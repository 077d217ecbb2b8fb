//! What strings of a text are, and which keys they belong to.

use std::{collections::HashSet, hash::BuildHasher as _, sync::Arc};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    super::{console::Console, describe::status, place::Named},
    known::Known,
};
use crate::keys::{
    KeyRecord,
    format::{Checksum, Recognised, recognise},
    leak::{Candidate, candidates},
    mint,
    record::PublicPart,
    secret::{Memory, Secret},
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
    let (seen_by, mut seen) = (std::hash::RandomState::new(), HashSet::new());
    let mut findings: Vec<Finding> = Vec::new();
    candidates(shapes, text, &mut |candidate| {
        if !seen.insert(seen_by.hash_one((candidate.text, candidate.password.is_some()))) {
            return;
        }
        for (text, what, key, verified) in judge(shapes, known, &candidate).into_iter().flatten() {
            if !findings.iter().any(|finding| *finding.text == *text) {
                findings.push(Finding { at: candidate.at, text: Zeroizing::new(text.to_owned()), what, key, verified });
            }
        }
    });
    findings
}

type Judged<'c> = (&'c str, What, Option<Arc<KeyRecord>>, bool);

/// What a candidate is, and what its password is.
fn judge<'c>(shapes: &mint::Settings, known: Option<&Known>, candidate: &Candidate<'c>) -> [Option<Judged<'c>>; 2] {
    let text = candidate.text;
    let recognised = recognise(shapes, text);
    if recognised == Recognised::ConsumerSecret {
        return [Some((text, What::ConsumerSecret, None, false)), None];
    }
    let pair = known.and_then(|known| known.pair(candidate));
    let what = match recognised {
        Recognised::ConsumerKey => What::ConsumerKey,
        Recognised::Other if pair.is_some() => What::ForeignConsumerKey,
        _ => return [token(recognised, known, candidate), None],
    };
    let password = candidate.password.zip(pair.clone()).zip(known).and_then(|((password, key), known)| {
        let secret = match recognise(shapes, password) {
            Recognised::ConsumerSecret => What::ConsumerSecret,
            _ => What::ForeignConsumerSecret,
        };
        let proven = key.hash.check(&Secret::new(password.as_bytes()), known.pepper.as_ref(), &mut Memory::default());
        proven.then_some((password, secret, Some(key), true))
    });
    [password, Some((text, what, pair, false))]
}

fn token<'c>(recognised: Recognised<'_>, known: Option<&Known>, candidate: &Candidate<'c>) -> Option<Judged<'c>> {
    let (key, verified) = match known.and_then(|known| known.token(candidate.text)) {
        Some((key, verified)) => (Some(key), verified),
        None => (None, false),
    };
    let is_shown =
        matches!(key.as_ref().map(|key| &key.public), Some(PublicPart::Clear(text)) if **text == *candidate.text);
    let what = match recognised {
        Recognised::Token { checksum, .. } => What::Token(checksum),
        _ if is_shown => What::ShownPrefix,
        Recognised::ShownPrefix { .. } if candidate.whole => What::ShownPrefix,
        // What only begins like a key from elsewhere may be anything.
        _ if verified || (candidate.whole && key.is_some()) => What::ForeignToken,
        _ => return None,
    };
    Some((candidate.text, what, key, verified))
}

impl Finding {
    pub(super) fn is_secret(&self) -> bool {
        !matches!(self.what, What::ConsumerKey | What::ForeignConsumerKey | What::ShownPrefix)
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
            What::Token(Checksum::Good) => Some(true),
            What::Token(Checksum::Bad | Checksum::Foreign) => Some(false),
            _ if self.key.is_some() => Some(true),
            // Of these shapes, and in no file that was looked into: deleted, of another file, or made up.
            What::ConsumerKey | What::ConsumerSecret | What::ShownPrefix => None,
            What::ForeignConsumerKey | What::ForeignConsumerSecret | What::ForeignToken => None,
        }
    }

    pub(super) fn value(&self, known: Option<&Known>, text: &str, console: &Console<'_>) -> Value {
        let mut value = json!({ "is": self.is(), "secret": self.is_secret(), "ours": self.is_ours() });
        if let (Some(key), Some(known)) = (&self.key, known) {
            value["key"] = key.id.as_str().into();
            value["name"] = (*key.name).into();
            let row = known.document.keys.iter().find(|row| row.id == key.id);
            value["status"] = row.map(|row| status(&Named::Row(row.clone()), &known.document, console.now.wall)).into();
            value["verified"] = self.verified.into();
        }
        if self.text.len() < text.trim().len() {
            let before = &text[..self.at];
            value["line"] = (before.matches('\n').count() + 1).into();
            value["column"] = (before.rsplit('\n').next().unwrap_or_default().chars().count() + 1).into();
        }
        value
    }
}
