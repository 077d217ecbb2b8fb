//! WooCommerce's keys, with `preset = "woocommerce"`: what its documents say of them, and what its clients rely on.

mod access;
mod answers;
mod clients;
mod commands;
mod credentials;
mod life;
mod readings;

use super::service::{Minted, System};

/// What the routes of the API begin with.
const API: &str = "/wp-json/wc/v3";

/// The code of every credential that is not accepted, and of a permission that is lacking.
const REFUSED: &str = "401 woocommerce_rest_authentication_error";

/// One key of each permission, for an owner who manages the shop.
async fn of_each_permission(system: &System) -> [Minted; 3] {
    system.owner("shop-manager", &["--capability", "manage_woocommerce"]).await;
    [
        system.mint("reader", "shop-manager", "read", &[]).await,
        system.mint("writer", "shop-manager", "write", &[]).await,
        system.mint("both", "shop-manager", "read_write", &[]).await,
    ]
}
