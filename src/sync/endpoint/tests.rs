//! The source as a whole, without a network.
