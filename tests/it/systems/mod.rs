//! The key systems that presets are for, sentence by sentence of what their documents say.

mod agreement;
mod first_steps;
mod minted;
mod wallet;
mod woocommerce;
