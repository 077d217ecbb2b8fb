//! Slow clients, floods of connections, and the end of those that are open when the sidecar ends.
