//! The client's address: the peer's, or what trusted proxies say, read from the right.

/// Where the client's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIpSource {
    /// The peer is the client: it is no trusted proxy.
    Peer,
    /// A trusted proxy named the client.
    Header,
    /// A trusted proxy sent no such field; the peer's address is used.
    HeaderMissing,
    /// A trusted proxy sent something that is no address; the nearest trusted hop's address is used.
    HeaderMalformed,
}

impl ClientIpSource {
    /// All of them, for metrics that are exported from 0.
    pub const ALL: [Self; 4] = [Self::Peer, Self::Header, Self::HeaderMissing, Self::HeaderMalformed];

    /// The label the operator sees.
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Header => "header",
            Self::HeaderMissing => "header_missing",
            Self::HeaderMalformed => "header_malformed",
        }
    }
}
