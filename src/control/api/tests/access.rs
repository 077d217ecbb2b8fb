//! Who may do what: every endpoint by every caller, and keys of others.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{PRESETS, document, list, path, wanted, wanted_for};
use crate::{
    clock::Wall,
    control::{
        api::list::Who,
        caller::Caller,
        ledger::{Draft, Image},
        sample::{ADMIN, As, Bench, OPERATOR, VIEWER},
        store::{Change, Role},
    },
    keys::{KeyId, document::KeyRow},
};

/// Every endpoint refuses strangers and whoever may too little, and lets through whoever may.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_guarded() {
    let bench = Bench::new(PRESETS).await;
    let manager = bench.manager("acct", json!({})).await;
    let plain = bench.mint(wanted_for("acct", json!({}))).await;
    let document = document::document();
    let callers = [
        (As::Nobody, 401),
        (As::Token("kop_0000000000000000000000000000000000000000000"), 401),
        (As::Token(""), 401),
        (As::Key(&plain), 403),
    ];
    for endpoint in list::all() {
        let path = endpoint.path.replace("{id}", "none").replace("{name}", "none");
        let operation = &document["paths"][endpoint.path][endpoint.method.to_ascii_lowercase()];
        let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let example = schema.map(|path| document.pointer(&path[1..]).unwrap()["examples"][0].clone());
        let body = example.filter(|_| endpoint.id != "revokeKey").unwrap_or_default();
        for (who, status) in callers {
            let answer = bench.ask(who, endpoint.method, &path, body.clone()).await;
            // After some guesses they are not even told that.
            let slowed = status == 401 && answer.status == 429;
            assert!(answer.status == status || slowed, "{}: {} {}", endpoint.id, answer.status, answer.body);
        }
        let (least, keys) = match endpoint.who {
            Who::Operator(role) => (role, false),
            Who::OrKey(role) => (role, true),
        };
        for role in Role::ALL {
            let answer = bench.ask(As::Operator(role), endpoint.method, &path, body.clone()).await;
            assert_eq!(answer.status == 403, role < least, "{} as {role:?}: {}", endpoint.id, answer.body);
        }
        let answer = bench.ask(As::Key(&manager), endpoint.method, &path, body).await;
        // What the example asks for may be more than this key may have; that it may ask is what is meant.
        let refused = answer.status == 403 && endpoint.id != "createKey";
        assert_eq!(refused, !keys, "{} as a key: {}", endpoint.id, answer.body);
    }
    let viewer = bench.ask(As::Operator(Role::Viewer), "GET", "/v1/operators/viewer", Value::Null).await;
    assert_eq!(viewer.data(200)["role"], "viewer", "everybody may see themselves");
}

/// What a sidecar says is believed of the sidecar alone, and as far as the ledger agrees.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_held_against_the_ledger() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.manager("acct", json!({})).await;
    let lies = async |change: &[(&str, &str)]| {
        let mut told = key.clone();
        for (name, value) in change {
            told[*name] = (*value).into();
        }
        bench.ask(As::Key(&told), "GET", "/v1/keys", Value::Null).await.status.as_u16()
    };
    assert_eq!(lies(&[]).await, 200);
    assert_eq!(lies(&[("owner", "other")]).await, 403);
    assert_eq!(lies(&[("environment", "test")]).await, 403);
    assert_eq!(lies(&[("id", "key_other")]).await, 403);
    let mut request = bench.request(As::Key(&key), "GET", "/v1/keys");
    request.headers_mut().unwrap().append("x-key-id", "key_other".parse().unwrap());
    bench.send(request.body(Default::default()).unwrap()).await.error(400, "x-key-id");
    // The same fields from anybody else say nothing.
    let mut request = bench.request(As::Key(&key), "GET", "/v1/keys");
    request.headers_mut().unwrap().insert("authorization", "Bearer another".parse().unwrap());
    bench.send(request.body(Default::default()).unwrap()).await.error(401, "token");
    // A sidecar may lag: a key that is revoked here may nothing here.
    bench.ask(OPERATOR, "DELETE", &path(&key), Value::Null).await.data(200);
    assert_eq!(lies(&[]).await, 403);
}

/// Of the keys of others a key learns nothing, and does nothing to them.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_others_are_not_there() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.manager("acct", json!({})).await;
    let own = bench.mint(wanted_for("acct", json!({}))).await;
    for (owner, environment) in [("other", "live"), ("acct", "test")] {
        let foreign = bench.mint(wanted_for(owner, json!({ "environment": environment }))).await;
        for (method, path, body) in [
            ("GET", path(&foreign), Value::Null),
            ("DELETE", path(&foreign), Value::Null),
            ("POST", format!("{}/rotate", path(&foreign)), Value::Null),
        ] {
            let refused = bench.ask(As::Key(&key), method, &path, body.clone()).await.error(404, "no such key");
            let none = path.replace(foreign["id"].as_str().unwrap(), "key_none");
            let nothing = bench.ask(As::Key(&key), method, &none, body).await.error(404, "no such key");
            assert_eq!(refused, nothing, "one cannot be told from the other");
        }
        assert_eq!(bench.show(&foreign).await["status"], "active");
        let found = format!("/v1/keys?owner={owner}&environment={environment}");
        let found = bench.ask(As::Key(&key), "GET", &found, Value::Null).await.data(200);
        assert_eq!((&found["total"], &found["keys"]), (&json!(0), &json!([])));
    }
    let seen = bench.ask(As::Key(&key), "GET", "/v1/keys", Value::Null).await.data(200);
    assert_eq!(seen["total"], 2);
    bench.ask(As::Key(&key), "POST", &format!("{}/rotate", path(&own)), Value::Null).await.data(201);
    bench.ask(As::Key(&key), "DELETE", &path(&own), Value::Null).await.data(200);
}

/// A key mints nothing that is more than itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_mints_within_its_own_bounds() {
    let bench = Bench::new(PRESETS).await;
    let more = json!({ "expires_at": "10d", "allow_ips": ["203.0.113.0/24", "2001:db8::1"], "limits": ["7/1m"] });
    let key = bench.manager("acct", more).await;
    let ask = async |more: Value| {
        let mut body = wanted();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        bench.ask(As::Key(&key), "POST", "/v1/keys", body).await
    };
    let made = ask(json!({})).await.data(201);
    for same in ["owner", "environment", "expires_at", "allow_ips", "limits"] {
        assert_eq!(made[same], key[same], "{same}");
    }
    ask(json!({ "expires_at": "1d", "allow_ips": ["203.0.113.7"] })).await.data(201);
    ask(json!({ "owner": "acct" })).await.data(201);
    ask(json!({ "owner": "other" })).await.error(403, "own owner");
    ask(json!({ "environment": "test" })).await.error(403, "own environment");
    ask(json!({ "expires_at": "11d" })).await.error(422, "outlives");
    ask(json!({ "limits": ["1000000/1s"] })).await.error(403, "limits");
    ask(json!({ "allow_ips": ["203.0.114.7"] })).await.error(403, "from where");
    ask(json!({ "allow_ips": ["0.0.0.0/0"] })).await.error(403, "from where");
    ask(json!({ "permissions": ["admin:all"] })).await.error(422, "no scope");
    let rotated = bench.ask(As::Key(&key), "POST", &format!("{}/rotate", path(&key)), Value::Null).await.data(201);
    assert_eq!(rotated["expires_at"], key["expires_at"], "no rotation makes it live longer");
    // Of a key that may more, it gets no successor that may as much.
    let mut wider = wanted();
    wider["owner"] = "acct".into();
    let wider = bench.ask(ADMIN, "POST", "/v1/keys", wider).await.data(201);
    let rotated = bench.ask(As::Key(&key), "POST", &format!("{}/rotate", path(&wider)), Value::Null).await.data(201);
    for same in ["allow_ips", "limits"] {
        assert_eq!(rotated[same], key[same], "{same}");
    }
    // Of a key that may less, it gets none that may more: the limits of both hold.
    let mut tighter = wanted();
    (tighter["owner"], tighter["limits"]) = ("acct".into(), json!(["1/1h", "100/1m"]));
    let tighter = bench.ask(ADMIN, "POST", "/v1/keys", tighter).await.data(201);
    let rotate = format!("{}/rotate", path(&tighter));
    let rotated = bench.ask(As::Key(&key), "POST", &rotate, Value::Null).await.data(201);
    assert_eq!(rotated["limits"], json!(["1/1h", "7/1m"]));
    bench.ask(ADMIN, "DELETE", &path(&rotated), Value::Null).await.data(200);
    let unlimited = bench.manager("acct", json!({ "name": "Unlimited" })).await;
    // Its own are those of its plan: whether that allows less is not known.
    bench.ask(As::Key(&unlimited), "POST", &rotate, Value::Null).await.error(403, "its plan may allow less");
    // Scopes that it could not mint with, it gets by no rotation either.
    let strange = bench.mint(wanted_for("acct", json!({ "name": "Strange" }))).await;
    let change = json!({ "preset": "wallet", "permissions": ["read"] });
    bench.ask(ADMIN, "PATCH", &path(&strange), change).await.data(200);
    ask(json!({ "permissions": ["read"] })).await.error(422, "no scope");
    let rotate = format!("{}/rotate", path(&strange));
    bench.ask(As::Key(&key), "POST", &rotate, Value::Null).await.error(422, "no scope");
    bench.ask(OPERATOR, "POST", &rotate, Value::Null).await.data(201);
    bench.ask(As::Key(&key), "PATCH", &path(&key), json!({ "expires_at": null })).await.error(403, "an operator may");
    // Rotation is no way out either, once it is over.
    bench.ask(ADMIN, "DELETE", &path(&key), Value::Null).await.data(200);
    ask(json!({})).await.error(403, "may not manage");
}

/// One that was stolen has one heir at most, which the key that it replaces leads to.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_rotates_itself_once() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.manager("acct", json!({})).await;
    let rotate = async |which: &Value| {
        bench.ask(As::Key(which), "POST", &format!("{}/rotate", path(which)), json!({ "overlap": "1h" })).await
    };
    let heir = rotate(&key).await.data(201);
    rotate(&key).await.error(409, "rotated already");
    bench.ask(ADMIN, "DELETE", &path(&heir), Value::Null).await.data(200);
    let heir = rotate(&key).await.data(201);
    rotate(&key).await.error(409, "rotated already");
    // One that has expired leads nowhere.
    let (id, actor) = (heir["id"].as_str().unwrap().parse::<KeyId>().unwrap(), Caller::system(None).actor);
    let expire = move |image: &Image, now: Wall| {
        let row = KeyRow { expires_at: Some(now), ..(*image.keys()[&id]).clone() };
        let changes = vec![Change::Key(Arc::new(row))];
        Ok::<_, ()>((Some(Draft { action: "test", changes, ..Draft::default() }), ()))
    };
    bench.desk.ledger.write(actor, expire).await.unwrap();
    assert_eq!(bench.show(&heir).await["status"], "expired");
    rotate(&key).await.data(201);
}

/// Who minted a key is kept, and found again; and a key mints none that may mint.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_leaves_nothing_behind_that_nobody_finds() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.manager("acct", json!({})).await;
    let id = key["id"].as_str().unwrap();
    let by = bench.show(&key).await["minted_by"].clone();
    assert!(by.as_str().unwrap().starts_with("token:tok_"), "{by}");
    let made = bench.ask(As::Key(&key), "POST", "/v1/keys", wanted()).await.data(201);
    assert_eq!(bench.show(&made).await["minted_by"], format!("key:{id}"));
    let rotated = bench.ask(As::Key(&key), "POST", &format!("{}/rotate", path(&made)), Value::Null).await.data(201);
    assert_eq!(bench.show(&rotated).await["minted_by"], format!("key:{id}"));
    for who in [id, &format!("key:{id}")] {
        let found = bench.ask(VIEWER, "GET", &format!("/v1/keys?minted_by={who}"), Value::Null).await.data(200);
        let mut ids: Vec<_> = found["keys"].as_array().unwrap().iter().map(|key| key["id"].clone()).collect();
        ids.reverse();
        assert_eq!(ids, [made["id"].clone(), rotated["id"].clone()], "{who}");
    }
    // None that could do the same, neither a new one nor the successor of another's; its own it may have.
    let mut manager = wanted();
    manager["permissions"] = json!(["keys:manage"]);
    bench.ask(As::Key(&key), "POST", "/v1/keys", manager.clone()).await.error(403, "keys.managers_mint_managers");
    let other = bench.manager("acct", json!({ "name": "Another" })).await;
    let rotate = |key: &Value| format!("{}/rotate", path(key));
    bench.ask(As::Key(&key), "POST", &rotate(&other), Value::Null).await.error(403, "keys:manage");
    bench.ask(As::Key(&key), "POST", &rotate(&key), Value::Null).await.data(201);
    // Where it is said that it may, it may.
    let bench = Bench::with("[keys]\nmanagers_mint_managers = true\n[presets]\nnames = [\"web3pay\"]\n").await;
    let key = bench.manager("acct", json!({})).await;
    bench.ask(As::Key(&key), "POST", "/v1/keys", manager).await.data(201);
    let other = bench.manager("acct", json!({ "name": "Another" })).await;
    bench.ask(As::Key(&key), "POST", &rotate(&other), Value::Null).await.data(201);
}

/// Whoever guesses is slowed; whoever knows is not, from the same address.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_counted_by_address() {
    let bench = Bench::new("[]").await;
    for attempt in 0..20 {
        bench.ask(As::Token(&format!("kop_{attempt}")), "GET", "/v1/me", Value::Null).await.error(401, "token");
    }
    let refused = bench.ask(As::Token("kop_21"), "GET", "/v1/me", Value::Null).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.error(429, "Too many attempts");
    bench.ask(ADMIN, "GET", "/v1/me", Value::Null).await.data(200);
    bench.ask(As::Nobody, "GET", "/v1/me", Value::Null).await.error(401, "token");
}
