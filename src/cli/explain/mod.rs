//! `keyside explain`: every step of the decision about a request, or what a key could do.

mod show;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use super::{
    Exit,
    keys::{
        console::{Console, Failure, Output},
        moments::typed,
        place::{self, Named, Place},
    },
};
use crate::{
    clock::Wall,
    config::Control,
    keys::{KeyRecord, KeyStore, document::Document, store::Terms},
    sync::endpoint,
};
use trace::{Question, Rules, Upstreams, Verdict};

/// Explain every step of the decision about a request, or, without one, what a key could do.
///
/// The secret is not asked for: it is taken to be right. Exit status 0 where the request is allowed, 1 where it is
/// refused.
///
/// Where keys come from a control endpoint, they are those that the sidecar last kept in its state folder; the endpoint is
/// not asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration of the sidecar.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration())]
    config: PathBuf,
    /// The key: its id, or a name or prefix that only one key has. Never its secret.
    #[arg(long, value_name = "ID")]
    key: String,
    #[command(flatten)]
    request: RequestArgs,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// The request, as a client would send it.
#[derive(Debug, Default, clap::Args)]
struct RequestArgs {
    /// The method of the request.
    #[arg(long, value_name = "METHOD", requires = "path")]
    method: Option<Method>,
    /// The path of the request, with its query.
    #[arg(long, value_name = "PATH", requires_all = ["method", "ip"])]
    path: Option<String>,
    /// The address that the connection comes from.
    #[arg(long, value_name = "ADDRESS", requires = "path")]
    ip: Option<IpAddr>,
    /// The host that the request is for; without it, one that accepts the key's mode.
    #[arg(long, value_name = "NAME", requires = "path")]
    host: Option<String>,
    /// A field of the request; may be given more than once.
    #[arg(long, value_name = "NAME: VALUE", value_parser = field, requires = "path")]
    header: Vec<(HeaderName, HeaderValue)>,
}

/// Reads `Name: value`.
fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected \"Name: value\"")?;
    let name = name.parse().map_err(|_| format!("\"{name}\" is not the name of a field"))?;
    let value = value.trim().parse().map_err(|_| "the value of a field holds no control characters".to_owned())?;
    Ok((name, value))
}

/// Does what the command line says.
pub(super) fn run(args: &Args) -> Exit {
    Console::run(args.output, |console| {
        let (rules, place) = load(&args.config)?;
        args.explain(&rules, &place, console)
    })
}

/// Where the keys are.
struct Source {
    place: Place,
    /// The endpoint that they come from, and how long they are served without it.
    endpoint: Option<(Control, endpoint::Limits)>,
}

/// What the configuration decides by, and where its keys are.
fn load(path: &Path) -> Result<(Rules, Source), Failure> {
    let config = place::load(path)?;
    let upstreams = Upstreams { url: config.upstream.url.clone(), modes: config.upstream.modes.clone() };
    let secure = config.listener.tls.is_some();
    let rules = Rules::new(config.facts.clone(), &config.policy, config.limits.clone(), upstreams, secure);
    let limits = endpoint::Limits { reads: config.keys.max_stale, writes: config.keys.max_stale_write };
    let endpoint = config.keys.control().cloned().map(|control| (control, limits));
    let place = match &endpoint {
        None => Place::try_from(config)?,
        Some((control, _)) => {
            let journal = config.keys.state.join(endpoint::JOURNAL);
            Place { typed: format!("--control {}", control.client.url), ..Place::of(config, journal) }
        }
    };
    Ok((rules, Source { place, endpoint }))
}

impl Source {
    /// The keys as they are in force: with the revocations that the state folder remembers.
    fn document(&self, console: &mut Console<'_>) -> Result<Document, Failure> {
        let place = &self.place;
        let document = match &self.endpoint {
            None => place.read()?,
            Some((control, limits)) => kept(place, control, *limits, console)?,
        };
        Ok(place.recall(document, console))
    }
}

/// The keys that the sidecar has kept; says of which revision they are, and how old.
fn kept(
    place: &Place,
    control: &Control,
    limits: endpoint::Limits,
    console: &mut Console<'_>,
) -> Result<Document, Failure> {
    let (url, file) = (&control.client.url, place.file.display());
    let state = place.file.parent().unwrap_or(Path::new(""));
    let kept = endpoint::kept(state, url).map_err(|why| Failure::new(format!("cannot use {file}: {why}")))?;
    let kept = kept.ok_or_else(|| {
        Failure::new(format!(
            "{} holds no keys of {url}: no sidecar with this configuration has taken any yet, or it runs elsewhere",
            state.display()
        ))
    })?;
    let now = console.now.wall;
    let age = |at: Wall| Duration::from_millis(u64::try_from(now.unix_millis() - at.unix_millis()).unwrap_or(0));
    let whole = |age: Duration| typed(Duration::from_secs(age.as_secs()));
    let since = kept.confirmed.map_or_else(
        || "it is not known when that was its newest".to_owned(),
        |at| format!("its newest at {at}, {} ago", whole(age(at))),
    );
    console.say(format_args!("The keys are of revision {} of {url}, as {file} has them: {since}.", kept.revision));
    let longest = limits.reads.min(limits.writes);
    if let Some(age) = kept.confirmed.map(age).filter(|age| *age > longest) {
        console.warn(format_args!(
            "a sidecar that has heard nothing newer refuses {} with keys_unavailable: they are served for {}",
            if age > limits.reads { "every request with a key" } else { "what does not only read" },
            typed(if age > limits.reads { limits.reads } else { limits.writes }),
        ));
    }
    Ok(kept.document)
}

impl Args {
    fn explain(&self, rules: &Rules, source: &Source, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let key = find(source, &self.key, console)?;
        let now = console.now.wall;
        let Some(question) = self.request.question(rules, &key) else {
            let abilities = rules.policy.abilities(&key, &trace::standing(&key, now));
            let about = trace::about(rules, &key, now);
            match console.output {
                Output::Table => console.print(show::abilities_text(&about, &abilities))?,
                Output::Json => console.print_json(&show::abilities_json(key.id.as_str(), &about, &abilities))?,
            }
            return Ok(Exit::Done);
        };
        let trace = trace::trace(rules, &question, &key, now);
        match console.output {
            Output::Table => console.print(show::trace_text(&trace))?,
            Output::Json => console.print_json(&show::trace_json(key.id.as_str(), &trace))?,
        }
        Ok(match trace.verdict {
            Verdict::Open(_) | Verdict::Allowed | Verdict::Observed(_) => Exit::Done,
            Verdict::Refused(_) => Exit::Failed,
        })
    }
}

impl RequestArgs {
    /// The request, if one was given: the parser sees to it that its parts come together.
    fn question(&self, rules: &Rules, key: &KeyRecord) -> Option<Question> {
        let accepting = || key.mode.and_then(|mode| rules.policy.hosts_of(mode).next());
        Some(Question {
            method: self.method.clone()?,
            target: self.path.clone()?,
            peer: self.ip?,
            host: self.host.clone().unwrap_or_else(|| accepting().unwrap_or("localhost").to_owned()),
            headers: self.header.clone(),
        })
    }
}

/// The key as the sidecar would have it in force.
fn find(source: &Source, reference: &str, console: &mut Console<'_>) -> Result<Arc<KeyRecord>, Failure> {
    let place = &source.place;
    let document = source.document(console)?;
    let named = place.find(&document, reference)?;
    let was_revoked = document.revoked.contains_key(named.id());
    let store = KeyStore::default();
    let terms = Terms { mint: place.mint.clone(), pepper: place.pepper.clone() };
    let applied = store.apply(&document, &terms, console.now);
    if let Some(key) = store.load().as_ref().and_then(|set| set.by_id(named.id().as_str())) {
        return Ok(Arc::clone(key));
    }
    console.tell(&place.file, &document.faults);
    console.tell(&place.file, &applied.faults);
    Err(Failure::new(match named {
        _ if was_revoked => format!("{} was revoked and stays so: every request with it answers 401", named.label()),
        Named::Row(_) | Named::SetAside(_) => {
            format!("{} is set aside for what is wrong with it: every request with it answers 401", named.label())
        }
    }))
}
