//! HTTP/1.1 in raw bytes, over plain TCP and over TLS.
