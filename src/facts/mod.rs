//! What is known of a request on arrival, before any key is looked at.
//!
//! What two parsers could read differently is refused here, so that all that follows, and the upstream, act on one
//! reading.

mod acted_on;
mod address;
mod fields;
mod host;
mod path;
mod request_id;
mod settings;
mod target;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{HeaderValue, Method, Uri, request::Parts, uri::Scheme};

pub use acted_on::ActedOn;
pub use address::{ClientIpSource, client_address};
pub use fields::{drop_odd_fields, folds_onto};
pub use host::Host;
pub use request_id::RequestId;
pub use settings::{MethodOverride, OddFieldNames, Settings};
pub use target::{Oddities, Oddity, Target};

use acted_on::Front;
use fields::{Fields, Form};
use target::ambiguous;

use crate::{
    policy::effective,
    rejection::{Reason, Rejection},
};

/// Form bodies larger than this are not judged but refused with 413.
pub const MAX_FORM_BYTES: usize = 64 * 1024;

/// What the listener knows of the connection a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The peer's address: from the PROXY header where one is used.
    pub peer: IpAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
}

/// What is known of a request on arrival.
#[derive(Debug)]
pub struct Facts {
    /// The client's address, canonical: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// Where the client's address comes from.
    pub client_source: ClientIpSource,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// Whether an untrusted peer sent the field that names the client.
    pub untrusted_forwarded: bool,
    /// The method as sent.
    pub method: Method,
    /// The method the upstream will act on, where that is another one.
    pub effective_method: Option<Method>,
    /// The target as it is judged and forwarded.
    pub target: Target,
    /// The path the upstream will act on, where a parameter names one; canonical.
    pub effective_path: Option<Box<str>>,
    /// Whether a form body must be read (up to [`MAX_FORM_BYTES`]) and given to [`Facts::judge_form`] before routing.
    pub form_body_pending: bool,
    /// Whether fields with odd names are present and must be dropped by [`drop_odd_fields`].
    pub odd_fields: bool,
    /// The host the request is for.
    pub host: Host,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// The caller's request id if it is sane, else a new one.
    pub request_id: RequestId,
    /// Whether this is a CORS preflight: OPTIONS with Origin and Access-Control-Request-Method.
    pub preflight: bool,
    /// What kinds of form the pending body may be.
    form: Form,
    front: Front,
}

impl Facts {
    /// Reads the head of a request.
    ///
    /// One pass over the fields; a request that says everything plainly costs no allocation, but for HTTP/2 that of
    /// the Host field which it did not send.
    ///
    /// # Errors
    ///
    /// With the request id that the answer carries, since there are no facts to take it from:
    /// [`Reason::AmbiguousFraming`], [`Reason::AmbiguousFieldName`], [`Reason::AmbiguousHost`],
    /// [`Reason::AmbiguousPath`], [`Reason::AmbiguousMethod`], [`Reason::MethodNotAllowed`] for CONNECT and TRACE,
    /// [`Reason::UriTooLong`], [`Reason::HeadersTooLarge`].
    pub fn from_head(head: &Parts, arrival: &Arrival, settings: &Settings) -> Result<Self, (Rejection, RequestId)> {
        let fields = Fields::read(&head.headers, settings);
        let request_id = fields.request_id();
        match Self::judged(head, arrival, settings, &fields, &request_id) {
            Ok(facts) => Ok(facts),
            Err(rejection) => Err((rejection, request_id)),
        }
    }

    fn judged(
        head: &Parts,
        arrival: &Arrival,
        settings: &Settings,
        fields: &Fields<'_>,
        request_id: &RequestId,
    ) -> Result<Self, Rejection> {
        fields.judge_framing()?;
        fields.judge_names(settings)?;
        // Before host and target: a CONNECT names a host to go to in place of a path.
        forwardable(&head.method)?;
        let host = Host::agreed(&fields.hosts, &head.uri, arrival.secure, arrival.http2)?;
        let target = target(&head.uri)?;
        judge_length(&head.uri, settings)?;
        fields.judge_size(settings)?;
        let effective_method = effective_method(&head.method, target.query(), &fields.overrides, settings)?;
        let query = target.query().unwrap_or_default().as_bytes();
        let effective_path = match &settings.effective_path_parameter {
            Some(parameter) => acted_on::named(query, parameter, settings)?,
            None => None,
        };
        // PHP reads a form for POST alone.
        let form = if settings.effective_path_parameter.is_some() && head.method == Method::POST {
            fields.form
        } else {
            Form::default()
        };
        let front = Front::of(target.path(), settings)?;
        let client = address::client(&head.headers, fields.names_client, arrival.peer, settings);
        Ok(Self {
            client: client.address,
            client_source: client.source,
            peer_trusted: client.peer_trusted,
            untrusted_forwarded: client.untrusted_forwarded,
            method: head.method.clone(),
            effective_method,
            target,
            effective_path,
            form_body_pending: form.is_any(),
            form,
            front,
            odd_fields: fields.odd.is_some(),
            host,
            secure: arrival.secure,
            http2: arrival.http2,
            request_id: request_id.clone(),
            preflight: head.method == Method::OPTIONS && fields.has_origin && fields.has_requested_method,
        })
    }

    /// The paths that the upstream may act on, of which each must be allowed.
    pub fn acted_on(&self) -> ActedOn<'_> {
        let sent = self.front.behind.as_deref().unwrap_or(self.target.path());
        match self.effective_path.as_deref() {
            None => ActedOn::Sent(sent),
            Some(named) if self.front.yields => ActedOn::Named(named),
            Some(named) => ActedOn::Either { sent, named },
        }
    }

    /// Judges a form body, whole and at most [`MAX_FORM_BYTES`] long: it may name the effective path too.
    ///
    /// # Errors
    ///
    /// [`Reason::BodyTooLarge`]; [`Reason::AmbiguousPath`] where the form and the query name different paths, and
    /// where a multipart form could name one at all, since two parsers of those seldom agree.
    pub fn judge_form(&mut self, body: &[u8], settings: &Settings) -> Result<(), Rejection> {
        if body.len() > MAX_FORM_BYTES {
            return Err(Rejection::from(Reason::BodyTooLarge).hint("A form may have 64 KiB here."));
        }
        let Some(parameter) = &settings.effective_path_parameter else { return Ok(()) };
        if self.form.multipart && effective::mentions(body, parameter) {
            return Err(ambiguous(&format!("Send \"{parameter}\" in the query.")));
        }
        if self.form.url_encoded
            && let Some(path) = acted_on::named(body, parameter, settings)?
        {
            if self.effective_path.as_ref().is_some_and(|earlier| *earlier != path) {
                return Err(ambiguous(&format!("The query and the form differ in \"{parameter}\".")));
            }
            // What is taken for a form here may be none to the upstream, which then acts on the sent path, front
            // controller or not.
            self.front.yields &= self.effective_path.is_some();
            self.effective_path = Some(path);
        }
        self.form_body_pending = false;
        Ok(())
    }
}

/// Refuses the methods that turn a proxy into something else, or show what it added (RFC 9110 §9.3.6, §9.3.8).
fn forwardable(method: &Method) -> Result<(), Rejection> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotAllowed.into());
    }
    Ok(())
}

/// The target in origin form. An absolute one is reduced to it; the asterisk and all else has no path to judge.
fn target(uri: &Uri) -> Result<Target, Rejection> {
    let has_authority_alone = uri.authority().is_some() && uri.scheme().is_none();
    let is_web = uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    match uri.path_and_query() {
        Some(sent) if is_web && !has_authority_alone => Target::new(sent),
        _ => Err(ambiguous("The target has no path.")),
    }
}

fn judge_length(uri: &Uri, settings: &Settings) -> Result<(), Rejection> {
    let path_and_query = uri.path_and_query().map_or(0, |sent| sent.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    if path_and_query + authority > settings.max_uri_bytes {
        return Err(Reason::UriTooLong.into());
    }
    Ok(())
}

/// The method that the upstream will act on, where that is another one than was sent.
///
/// Which of several overrides counts differs between upstreams, so they must agree: some look at the query
/// first, others at a field first, or at another one.
fn effective_method(
    sent: &Method,
    query: Option<&str>,
    fields: &[&HeaderValue],
    settings: &Settings,
) -> Result<Option<Method>, Rejection> {
    let ambiguous = |hint: &str| Rejection::from(Reason::AmbiguousMethod).hint(hint);
    let query = query.unwrap_or_default().as_bytes();
    let parameter = effective::parameter(query, effective::METHOD_PARAMETER)
        .map_err(|effective::Conflict| ambiguous("The query overrides the method in a way that can be read in two."))?;
    if parameter.is_none() && fields.is_empty() {
        return Ok(None);
    }
    if settings.method_override == MethodOverride::Refuse {
        return Err(ambiguous("Overriding the method is not accepted here."));
    }
    let mut values = fields.iter().map(|field| field.as_bytes()).chain(parameter.as_deref()).map(effective::method);
    let Some(Some(method)) = values.next() else {
        return Err(ambiguous("What overrides the method is none."));
    };
    if values.any(|other| other.as_ref() != Some(&method)) {
        return Err(ambiguous("Several overrides of the method differ."));
    }
    forwardable(&method)?;
    Ok((method != *sent).then_some(method))
}
