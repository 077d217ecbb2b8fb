//! How arriving requests are read.

use http::HeaderName;

use crate::policy::network::Networks;

/// How arriving requests are read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The proxies whose word about the client's address is taken.
    pub trusted_proxies: Networks,
    /// The one field that is read for it: `X-Forwarded-For` or one of its shape, `Forwarded`, or one with a single address.
    pub client_ip_header: HeaderName,
    /// How many bytes the fields may have.
    pub max_header_bytes: usize,
    /// How many bytes the request target may have.
    pub max_uri_bytes: usize,
    /// What becomes of fields whose names hold anything but letters, digits and hyphens.
    pub odd_field_names: OddFieldNames,
    /// Odd names that are let through. Names that fold onto ours must not be here: see [`super::folds_onto`].
    pub pass_field_names: Vec<HeaderName>,
    /// What becomes of requests that override their method.
    pub method_override: MethodOverride,
    /// The parameter that gives an effective path, such as `rest_route`.
    pub effective_path_parameter: Option<Box<str>>,
    /// What stands before the path that it names, such as `/wp-json`: empty, or a path without a final slash.
    pub effective_path_prefix: Box<str>,
    /// The paths of programs that serve all paths, such as `/` and `/index.php`: there, the path that the parameter
    /// names or that follows is the only one that is acted on.
    pub front_controllers: Vec<Box<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_proxies: Networks::default(),
            client_ip_header: HeaderName::from_static("x-forwarded-for"),
            max_header_bytes: 16 * 1024,
            max_uri_bytes: 8 * 1024,
            odd_field_names: OddFieldNames::Refuse,
            pass_field_names: Vec::new(),
            method_override: MethodOverride::Judge,
            effective_path_parameter: None,
            effective_path_prefix: Box::default(),
            front_controllers: Vec::new(),
        }
    }
}

/// What becomes of fields whose names hold anything but letters, digits and hyphens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OddFieldNames {
    /// The request is refused with 400, which names the field.
    #[default]
    Refuse,
    /// The field is dropped.
    Drop,
}

/// What becomes of requests that override their method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MethodOverride {
    /// The sent and the effective method must both be allowed.
    #[default]
    Judge,
    /// The request is refused with 400.
    Refuse,
}
