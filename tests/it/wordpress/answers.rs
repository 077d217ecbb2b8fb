//! What WordPress says arrives as it said it, and it knows that its caller speaks HTTPS.

use super::{BOTH, MANAGER, in_front, key, wordpress};
use crate::harness::{get, request};

/// Fields by which clients turn pages and find out what they may do.
const KEPT: [&str; 4] = ["X-WP-Total", "X-WP-TotalPages", "Link", "Allow"];

#[tokio::test]
async fn what_clients_turn_pages_by_arrives_unchanged() {
    let site = wordpress().await;
    let reader = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, "", [&reader]).await;
    for title in ["One", "Two", "Three"] {
        site.post(title).await;
    }
    let rows = [
        ("the wallet's list", get("/wp-json/wkwp-wallet/v1/wallets?per_page=2"), [true, true, true, true]),
        ("its last page", get("/wp-json/wkwp-wallet/v1/wallets?per_page=2&page=2"), [true, true, false, true]),
        ("WordPress's own list", get("/wp-json/wp/v2/posts?per_page=1&page=2"), [true, true, true, true]),
        ("its head alone", request("HEAD", "/wp-json/wp/v2/posts?per_page=1"), [true, true, true, true]),
        ("what may be done", request("OPTIONS", "/wp-json/wp/v2/posts"), [false, false, false, true]),
    ];
    for (rule, request, there) in rows {
        let straight = site.straight(site.as_owner(request.clone(), MANAGER)).await;
        assert_eq!(straight.status, 200, "{rule}: {straight:?}");
        for version in BOTH {
            let answer = sidecar.send(version, request.clone().key(&reader)).await;
            assert_eq!(answer.status, 200, "{rule}: {answer:?}");
            assert_eq!(answer.body, straight.body, "{rule}");
            for (name, there) in KEPT.iter().zip(there) {
                assert_eq!(answer.all(name), straight.all(name), "{rule}: {name}");
                let of_the_rest_api = |value: &&str| *name != "Link" || !value.contains("api.w.org");
                let said = answer.all(name).iter().filter(|value| of_the_rest_api(value)).count();
                assert_eq!(said > 0, there, "{rule}: {name}: {answer:?}");
            }
        }
    }
    let first = sidecar.ask(get("/wp-json/wkwp-wallet/v1/wallets?per_page=2").key(&reader)).await;
    assert_eq!((first.field("X-WP-Total"), first.field("X-WP-TotalPages")), ("3", "2"), "{first:?}");
}

/// TLS ends at Keyside. WordPress knows all the same, so that its links lead back to where the caller is.
#[tokio::test]
async fn wordpress_sees_https() {
    let site = wordpress().await;
    let reader = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, "", [&reader]).await;
    let post = site.post("Linked").await;
    let path = format!("/wp-json/wp/v2/posts/{post}");
    let own = |body: &serde_json::Value| body["_links"]["self"][0]["href"].as_str().unwrap().to_owned();
    let straight = site.straight(get(&path)).await;
    assert_eq!(own(&straight.json()), format!("http://shop.example.com{path}"), "without Keyside: {straight:?}");
    let pages = "/wp-json/wkwp-wallet/v1/wallets?per_page=2";
    for version in BOTH {
        let answer = sidecar.send(version, get(&path).key(&reader)).await;
        assert_eq!(own(&answer.json()), format!("https://shop.example.com{path}"), "{answer:?}");
        let page = sidecar.send(version, get(pages).key(&reader)).await;
        let next = "<https://shop.example.com/wp-json/wkwp-wallet/v1/wallets?per_page=2&page=2>; rel=\"next\"";
        assert!(page.all("Link").contains(&next), "{page:?}");
    }
    // Who says so in Keyside's place changes nothing.
    let forged = get(&path).key(&reader).field("X-Forwarded-Proto", "http");
    assert_eq!(own(&sidecar.ask(forged).await.json()), format!("https://shop.example.com{path}"));
}
