//! HTTP/2 in frames made by hand.
