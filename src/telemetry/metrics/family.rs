//! The list of metrics: name, kind, labels and help of each, in the order of the manual.

use prometheus::proto::MetricType;

/// A row of the list of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The metric that this row describes.
    pub family: Family,
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// The names of the labels. Their values come from closed lists or from the key set, never from a request.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! families {
    ($($family:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal,)*) => {
        /// A metric that Keyside exports itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Family {
            $(#[doc = $help] $family,)*
        }

        /// All metrics that Keyside exports itself; those of the process come from the `prometheus` crate.
        pub const TABLE: &[Row] = &[
            $(Row {
                family: Family::$family,
                name: $name,
                kind: MetricType::$kind,
                labels: &[$($label),*],
                help: $help,
            },)*
        ];
    };
}

families! {
    Requests: COUNTER "keyside_requests_total" ["outcome"] "Requests by outcome.",
    Rejections: COUNTER "keyside_rejections_total" ["reason"] "Refused requests by reason.",
    ObservedRejections: COUNTER "keyside_observed_rejections_total" ["reason"] "Requests that were forwarded by a route in observe mode and would have been refused, by reason.",
    UpstreamFailures: COUNTER "keyside_upstream_failures_total" ["reason"] "Requests that failed because of the upstream, by reason.",
    RequestDuration: HISTOGRAM "keyside_request_duration_seconds" [] "Time from the head of a request to the end of its answer.",
    UpstreamDuration: HISTOGRAM "keyside_upstream_duration_seconds" [] "The part of it that was spent waiting for the upstream.",
    Connections: GAUGE "keyside_connections" [] "Open client connections.",
    ConnectionsRefused: COUNTER "keyside_connections_refused_total" [] "Client connections closed at accept because a cap was reached.",
    TlsHandshakes: COUNTER "keyside_tls_handshakes_total" ["result"] "TLS handshakes with clients by result.",
    Verifications: COUNTER "keyside_verifications_total" ["path"] "Verifications of secrets by the path they took.",
    VerificationQueue: GAUGE "keyside_verification_queue" [] "Slow verifications that are waiting.",
    Keys: GAUGE "keyside_keys" ["status"] "Keys in the current set by status.",
    SyncLastSuccess: GAUGE "keyside_sync_last_success_timestamp_seconds" [] "When the key source last confirmed the set, in seconds since 1970.",
    SyncRevision: GAUGE "keyside_sync_revision" [] "The revision of the current key set.",
    RevocationLatency: HISTOGRAM "keyside_revocation_latency_seconds" [] "Time from the change that revoked a key to its taking effect here.",
    Reloads: COUNTER "keyside_reloads_total" ["what", "result"] "Reloads by what was reloaded and how it ended.",
    QuarantinedEntries: GAUGE "keyside_quarantined_entries" [] "Entries of the key document that are set aside because they are faulty.",
    StateUsable: GAUGE "keyside_state_usable" [] "1 while the state folder can be written, 0 while it cannot: a restart would forget.",
    LimiterEntries: GAUGE "keyside_limiter_entries" [] "Addresses in the table of limits.",
    LimitNear: COUNTER "keyside_limit_near_total" ["limit"] "Requests that passed with less than a tenth of a limit remaining, by limit.",
    ClientIpSource: COUNTER "keyside_client_ip_source_total" ["source"] "Requests by where the client address was read from.",
    UntrustedForwarded: COUNTER "keyside_untrusted_forwarded_total" [] "Requests that carried forwarding fields from a peer that is not trusted; the fields were ignored.",
    TlsCertificateExpiry: GAUGE "keyside_tls_certificate_expiry_timestamp_seconds" [] "When the served certificate expires, in seconds since 1970.",
    KeyRequests: COUNTER "keyside_key_requests_total" ["key", "outcome"] "Requests of the busiest keys by outcome; all others are in \"other\".",
    LogLinesDropped: COUNTER "keyside_log_lines_dropped_total" [] "Log lines dropped because the reader of the log did not keep up or is gone.",
    BuildInfo: GAUGE "keyside_build_info" ["version", "revision"] "Always 1; the labels say which build runs.",
}

impl Family {
    /// This metric's row of the list.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}
