//! What `init` and `config print` make of the preset, and what `explain` says of it.

use super::{API, of_each_permission};
use crate::{
    harness::{Answer, Upstream},
    systems::{
        agreement::{explain_agrees, the_table_is_true},
        first_steps,
        service::System,
    },
};

/// [management API] "the first key: the steps that init prints, done"
#[tokio::test]
async fn the_steps_of_init_end_in_a_200() {
    let upstream = Upstream::start().await;
    upstream.on(&format!("{API}/orders"), Answer::ok("orders"));
    let ended = first_steps::follow("woocommerce", &format!("{API}/orders"), &upstream).await.done();
    assert_eq!(ended.stdout, "orders\n200");
    assert_eq!(upstream.only().field("x-key-owner"), "me");
}

/// [permission model] "the preset says where each rule comes from"
#[tokio::test]
async fn what_the_preset_sets_is_shown_as_the_presets() {
    let system = System::start("woocommerce", "[credentials]\nbearer = true").await;
    let printed = system.run(&["config", "print", "--effective"]).await.done().stdout;
    for setting in [
        "credentials.basic = true",
        "credentials.query",
        "keys.mint.pair.shape = \"hex40\"",
        "policy.effective_path_parameter = \"rest_route\"",
        "policy.effective_path_prefix = \"/wp-json\"",
        "policy.front_controllers = [\"/\", \"/index.php\"]",
        "errors.format = \"woocommerce\"",
        "path = \"/wp-json/wc/{version}/settings/**\"",
        "path = \"/wp-json/wc/**\"",
    ] {
        let line =
            printed.lines().find(|line| line.starts_with(setting)).unwrap_or_else(|| panic!("{setting}: {printed}"));
        assert!(line.ends_with("# preset woocommerce"), "{line}");
    }
    let own = printed.lines().find(|line| line.starts_with("credentials.bearer")).unwrap();
    assert!(own.contains("= true") && own.contains("keyside.toml"), "{own}");
}

/// Every method at every kind of route, with every kind of key.
///
/// [permission model] "explain says of each permission what the sidecar does"
/// [owner] "explain says of each owner what the sidecar does"
#[tokio::test]
async fn explain_says_what_happens() {
    let system = System::unlimited("woocommerce", "").await;
    let mut keys = Vec::from(of_each_permission(&system).await);
    system.owner("author", &["--capability", "edit_products"]).await;
    keys.push(system.mint("author's", "author", "read_write", &[]).await);
    keys.push(system.mint("nobody's", "nobody", "read", &[]).await);
    let targets = [
        "/wp-json/wc/v3/orders",
        "/wp-json/wc/v3/settings/general",
        "/wp-json/wc-analytics/reports",
        "/wp-json",
        "/wp-json/batch/v1",
        "/?rest_route=/wc/v3/webhooks",
        "/index.php/wp-json/wc/v3/orders?_method=DELETE",
    ];
    explain_agrees(&system, &keys, &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], &targets).await;
    for pair in &keys {
        the_table_is_true(&system, pair).await;
    }
}
