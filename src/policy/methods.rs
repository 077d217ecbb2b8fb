//! Sets of methods, asked without a comparison of strings for the methods of RFC 9110 §9 and RFC 5789.

use http::{HeaderValue, Method};
use smallvec::SmallVec;

use super::Methods;

const COMMON: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::CONNECT,
    Method::TRACE,
];

/// The place of a common method in a set.
fn place(method: &Method) -> Option<usize> {
    Some(match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::OPTIONS => 2,
        Method::POST => 3,
        Method::PUT => 4,
        Method::PATCH => 5,
        Method::DELETE => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ => return None,
    })
}

/// A set of methods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MethodSet {
    common: u16,
    others: SmallVec<[Method; 1]>,
}

impl MethodSet {
    /// The methods of a route: GET includes HEAD, for an answer to HEAD tells no more (RFC 9110 §9.3.2).
    pub(super) fn of_route(methods: &[Method]) -> Self {
        let mut set = methods.iter().cloned().collect::<Self>();
        if set.contains(&Method::GET) {
            set.insert(Method::HEAD);
        }
        set
    }

    pub(super) fn insert(&mut self, method: Method) {
        match place(&method) {
            Some(place) => self.common |= 1 << place,
            None if !self.others.contains(&method) => self.others.push(method),
            None => {}
        }
    }

    pub(super) fn contains(&self, method: &Method) -> bool {
        match place(method) {
            Some(place) => self.common & 1 << place != 0,
            None => self.others.contains(method),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Method> {
        COMMON
            .iter()
            .enumerate()
            .filter(|(place, _)| self.common & 1 << place != 0)
            .map(|(_, method)| method)
            .chain(&self.others)
    }

    /// As the value of `Allow` (RFC 9110 §10.2.1).
    pub(super) fn allow(&self) -> HeaderValue {
        let names: Vec<&str> = self.iter().map(Method::as_str).collect();
        // Methods are tokens, so that the text is always a valid value.
        HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        let mut set = Self::default();
        for method in methods {
            set.insert(method);
        }
        set
    }
}

/// What a method needs where no route says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
    Pass,
}

/// The lists of `[policy.methods]`, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    read: MethodSet,
    write: MethodSet,
    pass: MethodSet,
}

impl Classes {
    pub(super) fn new(methods: &Methods) -> Self {
        let set = |list: &[Method]| list.iter().cloned().collect::<MethodSet>();
        let (read, write, pass) = (&methods.read, &methods.write, &methods.pass);
        let mut classes = Self { read: set(read), write: set(write), pass: set(pass) };
        if classes.of(&Method::HEAD).is_none() && classes.of(&Method::GET) == Some(Class::Read) {
            classes.read.insert(Method::HEAD);
        }
        classes
    }

    /// The class of a method. Where several lists have it, the one that asks for most decides.
    pub(super) fn of(&self, method: &Method) -> Option<Class> {
        if self.write.contains(method) {
            Some(Class::Write)
        } else if self.read.contains(method) {
            Some(Class::Read)
        } else if self.pass.contains(method) {
            Some(Class::Pass)
        } else {
            None
        }
    }

    /// All methods of all classes.
    pub(super) fn all(&self) -> MethodSet {
        self.read.iter().chain(self.write.iter()).chain(self.pass.iter()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_method_has_its_own_place() {
        for (index, method) in COMMON.iter().enumerate() {
            assert_eq!(place(method), Some(index), "{method}");
        }
        assert_eq!(place(&Method::from_bytes(b"get").expect("a token")), None, "methods are case-sensitive");
    }

    #[test]
    fn a_routes_get_includes_head() {
        let set = MethodSet::of_route(&[Method::GET]);
        assert!(set.contains(&Method::HEAD));
        assert!(!set.contains(&Method::POST));
        assert!(!MethodSet::of_route(&[Method::HEAD]).contains(&Method::GET));
    }

    #[test]
    fn methods_beyond_the_common_ones_are_held_by_name() {
        let purge = Method::from_bytes(b"PURGE").expect("a token");
        let set: MethodSet = [purge.clone(), purge.clone(), Method::PUT].into_iter().collect();
        assert!(set.contains(&purge) && set.contains(&Method::PUT));
        assert!(!set.contains(&Method::from_bytes(b"purge").expect("a token")));
        assert_eq!(set.allow(), "PUT, PURGE");
    }

    #[test]
    fn the_strictest_list_decides_and_get_brings_head() {
        let classes = Classes::new(&Methods {
            read: vec![Method::GET, Method::POST],
            write: vec![Method::POST],
            pass: vec![Method::OPTIONS, Method::GET],
        });
        assert_eq!(classes.of(&Method::POST), Some(Class::Write));
        assert_eq!(classes.of(&Method::GET), Some(Class::Read));
        assert_eq!(classes.of(&Method::HEAD), Some(Class::Read));
        assert_eq!(classes.of(&Method::OPTIONS), Some(Class::Pass));
        assert_eq!(classes.of(&Method::DELETE), None);
    }
}
