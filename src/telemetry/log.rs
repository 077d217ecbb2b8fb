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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// What the log says of these events under these directives.
    #[track_caller]
    fn check(format: Format, directives: Option<&str>, expected: &[&str]) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let output = Output::new("test", writer).unwrap();
        let subscriber = subscriber(&output, format, directives);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "keyside::sync", revision = 3, "keys \u{1b}[31mloaded");
            tracing::trace!(target: "keyside", "our detail");
            tracing::trace!(target: "h2::hpack", "authorization: Bearer secret");
            tracing::debug!(target: "keysideways", "authorization: Bearer secret");
            tracing::warn!(target: "hyper", "theirs");
        });
        assert!(output.flush(std::time::Duration::from_secs(10)));
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let messages: Vec<&str> = expected.iter().copied().filter(|message| text.contains(message)).collect();
        assert_eq!(messages, expected, "{text}");
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        assert!(!text.contains("secret") && !text.contains('\u{1b}'), "{text:?}");
        if format == Format::Json {
            for line in text.lines() {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
            }
        }
    }

    #[test]
    fn information_and_worse_is_logged_by_default() {
        check(Format::Json, None, &["\"revision\":3", "theirs"]);
        check(Format::Text, None, &["revision=3", "theirs"]);
        check(Format::Text, Some("this=is-no-level"), &["revision=3", "theirs"]);
    }

    #[test]
    fn no_directive_makes_other_crates_print_fields_of_messages() {
        check(Format::Text, Some("trace"), &["revision=3", "our detail", "theirs"]);
        check(Format::Json, Some("h2=trace,keysideways=trace,keyside=trace"), &["revision", "our detail"]);
    }

    #[test]
    fn the_operator_can_ask_for_less() {
        check(Format::Text, Some("error"), &[]);
    }
}
