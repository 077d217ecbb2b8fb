//! A real WordPress behind the wallet preset: nothing that Keyside refuses changes anything in its database, however
//! WordPress can be told to change it, and what Keyside lets in acts as the owner of the key. The plugin and the lines
//! that make it so are those of `deploy/wordpress`.
//!
//! One WordPress serves all tests here, one test at a time, since they look at its whole database. It needs PHP, MariaDB
//! and WordPress, which `tests/run` gets; without them these tests fail.

mod answers;
mod deploy;
mod overrides;
mod owners;
mod site;

use site::{Site, wordpress};

use crate::harness::{H1, H2, Key, Received, Request, Sidecar, Version, key_file_of};

const BOTH: [Version; 2] = [H1, H2];

/// An owner that manages the shop, there and here.
const MANAGER: &str = "svc-accounting";
/// A user who may edit posts, but does not manage the shop. Keyside knows the owner, without capabilities.
const EDITOR: &str = "svc-editor";
/// A user who may do nothing but read. Keyside believes that the owner manages the shop.
const SUBSCRIBER: &str = "svc-reader";

/// The rows of those owners that Keyside knows more of than their names.
const OWNERS: &str = r#"
[[owner]]
id = "svc-accounting"
capabilities = ["manage_woocommerce"]
kyc = "approved"

[[owner]]
id = "svc-editor"
kyc = "approved"

[[owner]]
id = "svc-reader"
capabilities = ["manage_woocommerce"]
"#;

/// A sidecar in front of the site, as the deployment's README has it, with this laid over it and these keys.
async fn in_front<'k>(site: &Site, more: &str, keys: impl IntoIterator<Item = &'k Key>) -> Sidecar {
    // All of these tests come from one address.
    let limits = "[limits]\nper_ip = []\nper_key = []\nfailures_per_ip = []";
    Sidecar::in_front_of_url(&site.url())
        .config(&site.settings())
        .config(limits)
        .config(more)
        .key_file(key_file_of(OWNERS, keys))
        .start()
        .await
}

/// A key of this owner.
fn key(name: &str, scope: &str, owner: &str) -> Key {
    Key::pair(name).scopes([scope]).owner(owner)
}
