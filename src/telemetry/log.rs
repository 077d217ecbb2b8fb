//! The operator's log: what the program says about itself, on standard error.

use std::str::FromStr;

use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt as _,
    registry,
};

use super::{Output, access_log::Access};
use crate::clock;

/// How logs are set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The shape of lines of both logs.
    pub format: Format,
    /// Which requests get an access line.
    pub access: Access,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For reading: `name=value`.
    Text,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected \"json\" or \"text\""),
        }
    }
}

/// Sends the operator's log of the whole process to `output`. `directives` is what `RUST_LOG` says, if it is set.
///
/// Does nothing where a log was set up before, as in tests that run in one process.
pub fn install(output: &Output, format: Format, directives: Option<&str>) {
    let _ = tracing::subscriber::set_global_default(subscriber(output, format, directives));
}

fn subscriber(output: &Output, format: Format, directives: Option<&str>) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter.parse_lossy(directives.unwrap_or_default());
    // Below INFO, crates that handle messages may print header fields, and with them secrets. Our own code never
    // does at any level, so that RUST_LOG=trace is safe to ask for.
    let ours = filter_fn(|event| {
        *event.level() <= tracing::Level::INFO || event.target() == "keyside" || event.target().starts_with("keyside::")
    });
    let output = output.clone();
    let layer =
        tracing_subscriber::fmt::layer().with_ansi(false).with_timer(WallTime).with_writer(move || output.clone());
    let layer = match format {
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        Format::Text => layer.boxed(),
    };
    Box::new(registry().with(layer.with_filter(ours)).with(filter))
}

struct WallTime;

impl FormatTime for WallTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", clock::now().wall)
    }
}
