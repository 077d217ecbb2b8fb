//! A WordPress wallet plugin's keys, with `preset = "wallet"`: what its document says of them, sentence by sentence.

mod access;
mod commands;
mod life;
mod limits;
mod readings;

use super::service::{Minted, System};

/// What the routes of the API begin with.
const API: &str = "/wp-json/wkwp-wallet/v1";

/// One key of each scope, for an owner who manages the shop and whose identity is proven.
async fn of_each_scope(system: &System) -> [Minted; 3] {
    system.owner("svc-shop", &["--capability", "manage_woocommerce", "--kyc", "approved"]).await;
    [
        system.mint("reader", "svc-shop", "read", &[]).await,
        system.mint("writer", "svc-shop", "write", &[]).await,
        system.mint("both", "svc-shop", "read_write", &[]).await,
    ]
}
