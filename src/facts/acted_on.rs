//! Which path the upstream acts on: the one that was sent, or one that the request names elsewhere.

use super::{Settings, path, target::ambiguous};
use crate::{policy::effective, rejection::Rejection};

/// How many parameters may stand before the one that names a path. PHP reads 1000 (`max_input_vars`, the query and the
/// form each by itself) and drops the rest without a word: it would act on the path that was sent.
const MOST_BEFORE: usize = 100;

/// The paths that the upstream may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActedOn<'f> {
    /// The one that was sent; behind a front controller, what follows it.
    Sent(&'f str),
    /// The one that a parameter names: the one that was sent is that of a front controller.
    Named(&'f str),
    /// Which of them is the upstream's to say.
    Either {
        /// The one that was sent.
        sent: &'f str,
        /// The one that a parameter names.
        named: &'f str,
    },
}

/// The path that a parameter names, in canonical form behind the configured prefix; judged like one that was sent.
pub(super) fn named(encoded: &[u8], parameter: &str, settings: &Settings) -> Result<Option<Box<str>>, Rejection> {
    let differ = |effective::Conflict| ambiguous(&format!("\"{parameter}\" can be read in two ways. Send it once."));
    let Some(value) = effective::parameter(encoded, parameter).map_err(differ)? else { return Ok(None) };
    let is_it = |(name, _): (&[u8], &[u8])| effective::named(name, parameter) != effective::Named::No;
    if !effective::parameters(encoded).take(MOST_BEFORE + 1).any(is_it) {
        return Err(ambiguous(&format!("Send \"{parameter}\" before the other parameters.")));
    }
    // An upstream may take anything else for no path at all, and act on the one that was sent.
    if value.first() != Some(&b'/') {
        return Err(ambiguous(&format!("\"{parameter}\" must name a path that begins with \"/\".")));
    }
    let sent = effective::path(&value);
    let canonical = path::canonical(&sent).map_err(|fault| ambiguous(fault.sentence()))?;
    let path = canonical.rewritten.unwrap_or(sent);
    Ok(Some(match &*settings.effective_path_prefix {
        "" => path.into(),
        prefix => [prefix, &path].concat().into(),
    }))
}

/// What front controllers make of a sent path: one program that serves all paths, and finds out itself which one is
/// meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Front {
    /// The path that is acted on where a front controller stands within the sent one: what follows it (CGI's PATH_INFO,
    /// RFC 3875 §4.1.5), in the folder that it serves. Of `/shop/index.php/a` that is `/shop/a`.
    pub(super) behind: Option<Box<str>>,
    /// Whether what is left is a front controller itself, so that a path named elsewhere is the only one acted on.
    pub(super) yields: bool,
}

impl Front {
    /// # Errors
    ///
    /// [`Reason::AmbiguousPath`](crate::rejection::Reason::AmbiguousPath) where a front controller may act on another
    /// path than the one behind it. WordPress cuts that at an escaped question mark, and drops one that ends like the
    /// file of its front controller, to serve the front page. Some servers show it any path as one behind it, so that
    /// this holds below the prefix as well.
    pub(super) fn of(path: &str, settings: &Settings) -> Result<Self, Rejection> {
        let controllers = &settings.front_controllers;
        if controllers.is_empty() {
            return Ok(Self::default());
        }
        let behind = controllers.iter().find_map(|controller| {
            let rest = path.strip_prefix(&**controller).filter(|rest| rest.starts_with('/') && **controller != *"/")?;
            let (folder, _) = controller.rsplit_once('/')?;
            Some(Box::from([folder, rest].concat()))
        });
        let acted_on = behind.as_deref().unwrap_or(path);
        let is_below = behind.is_some()
            || (!settings.effective_path_prefix.is_empty() && path.starts_with(&*settings.effective_path_prefix));
        let is_dropped = |controller: &str| {
            let file = controller.rsplit_once('/').map_or("", |(_, file)| file);
            !file.is_empty() && ends_like(acted_on.trim_end_matches('/'), file)
        };
        if path.contains("%3F") || (is_below && controllers.iter().any(|controller| is_dropped(controller))) {
            return Err(ambiguous("A front controller may act on another path than this one."));
        }
        let yields = controllers.iter().any(|controller| **controller == *acted_on);
        Ok(Self { behind, yields })
    }
}

/// Whether a path ends like this file, as WordPress compares them: a dot stands for any byte. Reads the canonical path
/// from its end, since every request below the prefix is asked.
fn ends_like(path: &str, file: &str) -> bool {
    let mut rest = path.as_bytes();
    file.bytes().rev().all(|wanted| {
        let (before, found) = match *rest {
            // A percent sign begins an escape and nothing else.
            [ref before @ .., b'%', high, low] => (before, effective::escaped(&[high, low])),
            [ref before @ .., byte] => (before, Some(byte)),
            [] => return false,
        };
        rest = before;
        wanted == b'.' || found == Some(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<const N: usize>(controllers: [&str; N]) -> Settings {
        Settings {
            effective_path_prefix: "/wp-json".into(),
            front_controllers: controllers.map(Box::from).into(),
            ..Settings::default()
        }
    }

    #[track_caller]
    fn check(settings: &Settings, path: &str, expected: Option<(&str, bool)>) {
        let front = Front::of(path, settings).ok();
        let found = front.as_ref().map(|front| (front.behind.as_deref().unwrap_or(path), front.yields));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_front_controller_takes_the_path_behind_it() {
        let root = settings(["/", "/index.php"]);
        for (path, acted_on, yields) in [
            ("/", "/", true),
            ("/index.php", "/index.php", true),
            ("/index.php/", "/", true),
            ("/index.php/wp-json/a", "/wp-json/a", false),
            ("/index.php/index.php/a", "/index.php/a", false),
            ("/index.phps/a", "/index.phps/a", false),
            ("/index.php/php", "/php", false),
            ("/INDEX.PHP/a", "/INDEX.PHP/a", false),
            ("/a/index.php/b", "/a/index.php/b", false),
            ("/wp-admin/index.php", "/wp-admin/index.php", false),
            ("/wp-json/a", "/wp-json/a", false),
            ("/wp-json/a%3B", "/wp-json/a%3B", false),
        ] {
            check(&root, path, Some((acted_on, yields)));
            check(&settings([]), path, Some((path, false)));
        }
        let shop = settings(["/shop/", "/shop/index.php"]);
        for (path, acted_on, yields) in [
            ("/shop/", "/shop/", true),
            ("/shop", "/shop", false),
            ("/shop/index.php", "/shop/index.php", true),
            ("/shop/index.php/", "/shop/", true),
            ("/shop/index.php/wp-json/a", "/shop/wp-json/a", false),
            ("/index.php/wp-json/a", "/index.php/wp-json/a", false),
            ("/", "/", false),
        ] {
            check(&shop, path, Some((acted_on, yields)));
        }
    }

    #[test]
    fn a_path_that_wordpress_cuts_or_drops_is_refused() {
        let root = settings(["/", "/index.php"]);
        for path in [
            "/wp-json/a%3Fx",
            "/index.php/wp-json/a%3F",
            "/%3F",
            "/index.php/wp-json/index.php",
            "/index.php/wp-json/index.php/",
            "/index.php/index.php",
            "/index.php/wp-json/xindex-php",
            "/index.php/wp-json/index%20php//",
            "/wp-json/wc/v3/xindex-php",
            "/wp-json/index.php/",
        ] {
            check(&root, path, None);
            check(&settings([]), path, Some((path, false)));
        }
        check(&settings(["/shop/index.php"]), "/shop/index.php/wp-json/index.php", None);
    }
}
