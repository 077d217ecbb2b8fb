//! The formats in which a refusal can be told.

use std::str::FromStr;

/// The shape of the bodies of refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// RFC 9457, with `code` and `request_id`.
    #[default]
    Problem,
    /// `{"code","message","data":{"status"}}` with our codes.
    WordPress,
    /// The same shape with WooCommerce's own codes and statuses.
    WooCommerce,
    /// `{"success":false,"error":{"code","message"}}`.
    Envelope,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "problem" => Ok(Self::Problem),
            "wordpress" => Ok(Self::WordPress),
            "woocommerce" => Ok(Self::WooCommerce),
            "envelope" => Ok(Self::Envelope),
            _ => Err("expected \"problem\", \"wordpress\", \"woocommerce\" or \"envelope\""),
        }
    }
}
