//! The key systems that presets are for, sentence by sentence of what their documents say.

mod minted;
mod wallet;
