//! The presets: configurations for key systems that exist, as data.

/// The names of the presets and their texts. Adding a preset is adding a row.
pub(super) const PRESETS: &[(&str, &str)] = &[
    ("wallet", include_str!("../../config/presets/wallet.toml")),
    ("woocommerce", include_str!("../../config/presets/woocommerce.toml")),
    ("web3pay", include_str!("../../config/presets/web3pay.toml")),
    ("payment-links", include_str!("../../config/presets/payment-links.toml")),
    ("wontopos", include_str!("../../config/presets/wontopos.toml")),
];

/// The names of all presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The preset of that name.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static str)> {
    PRESETS.iter().find(|(known, _)| *known == name).copied()
}
