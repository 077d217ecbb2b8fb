//! Commands on a control plane.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{answers, check};

use crate::harness::{ADMIN_TOKEN, Ended, Plane, Upstream, eventually, keyside, keyside_with_input};

impl Plane {
    /// Runs a command on it, by the first operator's token.
    pub(super) async fn run(&self, line: &str) -> Ended {
        let url = self.url();
        let token = self.path("admin-token");
        let words = line.split(' ').map(str::to_owned);
        keyside(words.chain(["--control".to_owned(), url, "--token-file".to_owned(), token.display().to_string()]))
            .await
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}"))
}

#[tokio::test]
async fn keys_live_as_in_a_file() {
    let plane = Plane::start().await;
    let upstream = Upstream::start().await;
    let sidecar = plane.sidecar(&upstream).start().await;
    plane.followed_by(1).await;

    let table = plane.run("keys create --name Export --owner svc --scope read --expires 90d").await.done();
    assert!(
        table.stderr.contains("owner svc has no entry") || table.stderr.contains("Owner svc has no entry"),
        "{}",
        table.stderr
    );
    assert!(table.stdout.contains("consumer_secret") || table.stdout.contains("token"), "{}", table.stdout);
    let shown = plane.run("keys show Export --output json").await.done().json();
    let fields = [
        "id",
        "name",
        "kind",
        "prefix",
        "owner",
        "scopes",
        "mode",
        "allow_ips",
        "limits",
        "created_at",
        "expires_at",
        "rotated_from",
        "minted_by",
        "hash",
        "revoked_at",
        "status",
        "last_used_at",
        "last_used_ip",
    ];
    assert_eq!(shown.as_object().unwrap().keys().collect::<Vec<_>>(), fields, "those of a key file, and who minted it");
    assert_eq!((text(&shown, "status"), text(&shown, "hash")), ("active", "hmac-sha256"));

    let set = plane
        .run("keys set Export --name Import --allow-ip 203.0.113.7 --expires never --output json")
        .await
        .done()
        .json();
    assert_eq!(
        (text(&set, "name"), &set["expires_at"], &set["allow_ips"][0]),
        ("Import", &Value::Null, &"203.0.113.7".into())
    );
    let rotated = plane.run("keys rotate Import --overlap 1h --wait --output json").await.done();
    assert!(rotated.stderr.contains("Owner svc has no entry"), "{}", rotated.stderr);
    let new = rotated.json();
    assert_eq!(new["rotated_from"], shown["id"]);
    let both = plane.run("keys revoke Import").await;
    assert!(both.status == 1 && both.stderr.contains("2 keys are called so"), "{both:?}");

    let old = text(&shown, "id");
    let receipt = plane.run(&format!("keys revoke {old} --wait --output json")).await.done().json();
    assert_eq!((&receipt["in_force"], receipt["acknowledged"].as_array().unwrap().len()), (&true.into(), 1));
    let again = plane.run(&format!("keys revoke {old}")).await.done();
    assert!(again.stderr.contains("was revoked before"), "{}", again.stderr);
    let listed = plane.run("keys list --status revoked --output json").await.done().json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &shown["id"]));
    plane.run(&format!("keys delete {old} --yes")).await.done();
    let gone = plane.run(&format!("keys show {old}")).await;
    assert!(gone.status == 1 && gone.stderr.contains("no key has the id"), "{gone:?}");

    // Who has no entry can be suspended all the same, as in a file.
    plane.run("owners suspend svc").await.done();
    plane.run("owners suspend svc --lift").await.done();
    plane.run("owners set svc --capability manage --kyc approved").await.done();
    plane.run("owners set svc --name Service").await.done();
    plane.run("owners suspend svc").await.done();
    let list = plane.run("keys list").await.done().stdout;
    assert!(list.contains("suspended"), "{list}");
    plane.run("owners suspend svc --lift").await.done();
    let owners = plane.run("owners list --output json").await.done().json();
    assert_eq!((text(&owners[0], "name"), &owners[0]["keys"]), ("Service", &1.into()));
    let kept = plane.run("owners delete svc --yes").await;
    assert!(kept.status == 1 && kept.stderr.contains("revoke"), "{kept:?}");

    // Nobody who may not gets anywhere, and a secret is not sent anywhere.
    let nobody = keyside(["keys", "list", "--control", &plane.url()]).await;
    assert!(nobody.status == 2 && nobody.stderr.contains("--token-file"), "{nobody:?}");
    let secret = text(&new, if new["token"].is_string() { "token" } else { "consumer_secret" });
    let told = plane.run(&format!("keys show {secret}")).await;
    assert!(told.status == 1 && told.stderr.contains("that is a secret") && !told.stderr.contains(secret), "{told:?}");
    drop(sidecar);
}

/// What was found in a log is asked of the control plane, which alone has the hashes; nothing of it is kept or shown.
#[tokio::test]
async fn a_string_that_was_found_is_named() {
    let plane = Plane::start().await;
    let args = [
        "--control".to_owned(),
        plane.url(),
        "--token-file".to_owned(),
        plane.path("admin-token").display().to_string(),
    ];
    let identify = async |input: &str| {
        let words = ["keys", "identify", "--output", "json"].map(str::to_owned).into_iter().chain(args.clone());
        keyside_with_input(words, input).await
    };
    let pair =
        plane.run("keys create --name Pair --owner svc --scope read --kind pair --output json").await.done().json();
    let token = plane
        .run("keys create --name Token --owner svc --scope read --kind token --mode live --output json")
        .await
        .done();
    let token = token.json();
    let (secret, whole) = (text(&pair, "consumer_secret"), text(&token, "token"));
    let mistyped = format!("{}{}", &whole[..whole.len() - 1], if whole.ends_with('x') { "y" } else { "x" });
    for (input, is, key, verified) in [
        (text(&pair, "consumer_key"), "consumer key of a pair", &pair["id"], Value::Null),
        (secret, "consumer secret of a pair", &pair["id"], json!(true)),
        (whole, "token minted by Keyside", &token["id"], json!(true)),
        (text(&token, "prefix"), "shown prefix of a token", &token["id"], Value::Null),
        (&mistyped, "token, mistyped or from elsewhere", &token["id"], json!(false)),
        (&format!("cs_{}", "1".repeat(40)), "consumer secret of a pair", &Value::Null, Value::Null),
    ] {
        let ended = identify(input).await.done();
        let said = ended.json();
        let field = |name: &str| said.get(name).cloned().unwrap_or_default();
        assert_eq!((text(&said, "is"), &field("key"), field("verified")), (is, key, verified), "{input}: {said}");
        assert!(said["secret"] == false || !(ended.stdout + &ended.stderr).contains(input), "{input} is shown");
    }
    let line =
        format!("GET /?consumer_key={}&consumer_secret={secret} and Bearer {whole}\n", text(&pair, "consumer_key"));
    let said = identify(&line).await.done().json();
    let verified = said["found"].as_array().unwrap().iter().filter(|found| found["verified"] == true).count();
    assert_eq!(verified, 2, "{said}");
    let stranger = identify("nothing-of-ours").await;
    assert_eq!((stranger.status, &stranger.json()["ours"]), (1, &json!(false)), "{stranger:?}");

    let pattern = plane.run("keys identify --pattern").await.done().stdout;
    assert!(pattern.contains("ck_live_"), "{pattern}");
    let log = super::audit_log(&plane).await;
    let asked = log.iter().filter(|entry| entry["action"] == "key.identify").count();
    assert!(asked >= 3, "{log:?}");
    let everywhere = [format!("{log:?}"), plane.log.all().join("\n")].concat();
    assert!([secret, whole, &mistyped].into_iter().all(|secret| !everywhere.contains(secret)), "a secret is in a log");
}

/// What goes wrong is said so that somebody who types can mend it.
#[tokio::test]
async fn a_command_says_what_to_type() {
    let plane = Plane::prepare().config("[presets]\nnames = [\"web3pay\"]").start().await;
    let create = "keys create --preset web3pay --name n --owner svc --scope onramp:read --output json";
    let usual = plane.run(create).await.done().json();
    assert_eq!(usual["mode"], "live", "as its prefix says");
    let test = plane.run(&format!("{create} --mode test")).await.done().json();
    assert_eq!(test["mode"], "test");
    let wrong = plane.run(&create.replace("onramp:read", "onramp:raed")).await;
    assert!(wrong.stderr.contains("onramp:read") && wrong.stderr.contains("--scope"), "{wrong:?}");
    let address = plane.run(&format!("{create} --allow-ip 203.0.113.7,203.0.113.0/33")).await;
    assert!(address.stderr.contains("203.0.113.0/33") && address.stderr.contains("0 to 32"), "{address:?}");

    let other = plane.path("other-token");
    std::fs::write(&other, format!("{}x", &ADMIN_TOKEN[..ADMIN_TOKEN.len() - 1])).unwrap();
    let refused = keyside(["keys", "list", "--control", &plane.url(), "--token-file", other.to_str().unwrap()]).await;
    assert!(refused.status == 1 && refused.stderr.contains("other-token was not accepted"), "{refused:?}");
}

#[tokio::test]
async fn operators_are_kept_while_it_runs_and_while_it_does_not() {
    let plane = Plane::start().await;
    plane.run("operators create anna --role operator").await.done();
    let token = plane.run("operators token anna --name ci --expires 90d --output json").await.done().json();
    let listed = plane.run("operators list").await.done().stdout;
    assert!(listed.contains("anna") && listed.contains(text(&token, "id")) && !listed.contains(text(&token, "token")));
    let anna = plane.path("anna-token");
    std::fs::write(&anna, text(&token, "token")).unwrap();
    let refused =
        keyside(["operators", "list", "--control", &plane.url(), "--token-file", anna.to_str().unwrap()]).await;
    assert!(refused.status == 1 && refused.stderr.contains("admin"), "{refused:?}");

    let stopped = plane.stop(Signal::TERM).await;
    let config = stopped.path("control.toml").display().to_string();
    let here = async |line: &str, input: &str| {
        let words = line.split(' ').chain(["--config", &config]).map(str::to_owned).collect::<Vec<_>>();
        keyside_with_input(words, input).await
    };
    here("operators set anna --role admin --password-file -", "correct horse battery\n").await.done();
    let weak = here("operators set anna --password-file -", "short\n").await;
    assert!(weak.status == 1 && weak.stderr.contains("at least 12 characters"), "{weak:?}");
    here("operators delete root --yes", "").await.done();
    let last = here("operators delete anna --yes", "").await;
    assert!(last.status == 1 && last.stderr.contains("last admin"), "{last:?}");
    let whole = here("audit verify", "").await.done();
    assert!(whole.stderr.contains("is whole"), "{}", whole.stderr);
    let secrets = [ADMIN_TOKEN, "horse", text(&token, "token")];
    let store = std::fs::read(stopped.path("control.db")).unwrap();
    let held = |secret: &str| store.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!secrets.into_iter().any(held), "the store holds no secret");
}

#[tokio::test]
async fn a_log_that_was_cut_shows() {
    let plane = Plane::start().await;
    for number in 0..5 {
        plane.mint(&format!("key {number}")).await;
    }
    let whole = plane.run("audit verify --output json").await.done().json();
    assert_eq!((&whole["whole"], &whole["entries"]), (&true.into(), &6.into()));
    let anchor = plane.path("audit-anchor.ndjson").display().to_string();
    plane.run(&format!("audit verify --anchor {anchor}")).await.done();
    let stopped = plane.stop(Signal::TERM).await;
    let config = stopped.path("control.toml").display().to_string();
    let verify = async || keyside(["audit", "verify", "--config", &config]).await;
    verify().await.done();

    // An older copy of the store, put in its place.
    let older = std::fs::read(stopped.path("control.db")).unwrap();
    let plane = stopped.start().await;
    plane.mint("one more").await;
    let stopped = plane.stop(Signal::TERM).await;
    verify().await.done();
    let newer = std::fs::read(stopped.path("control.db")).unwrap();
    std::fs::write(stopped.path("control.db"), older).unwrap();
    let cut = verify().await;
    assert!(cut.status == 1 && cut.stderr.contains("the anchor file knows 7"), "{cut:?}");
    std::fs::write(stopped.path("control.db"), newer).unwrap();
    verify().await.done();
    // What was noted outside of the store is compared, entry by entry.
    let lines = std::fs::read_to_string(&anchor).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let mut more = last.clone();
    more["seq"] = (last["seq"].as_u64().unwrap() + 1).into();
    std::fs::write(&anchor, format!("{lines}{more}\n")).unwrap();
    let cut = verify().await;
    assert!(cut.status == 1 && cut.stderr.contains("the end was cut off after entry"), "{cut:?}");
    let mut other = last;
    other["hash"] = "0".repeat(64).into();
    std::fs::write(&anchor, format!("{other}\n")).unwrap();
    let forged = verify().await;
    assert!(forged.status == 1 && forged.stderr.contains("is another one than was noted"), "{forged:?}");
}

/// Where the default configuration notes each head of the audit log.
const ANCHOR: &str = "audit-anchor.ndjson";

/// An older copy of the store is not served by accident: sidecars would not take it, and what was revoked since would be
/// forgotten here. If it is meant, they take it as a new history, and what they saw revoked stays so.
#[tokio::test]
async fn an_older_copy_of_the_store_is_served_if_that_is_meant() {
    let upstream = Upstream::start().await;
    let plane = Plane::start().await;
    let (stays, goes) = (plane.mint("stays").await, plane.mint("goes").await);
    let sidecar = plane.sidecar(&upstream).start().await;
    plane.followed_by(1).await;
    let stopped = plane.stop(Signal::TERM).await;
    let older = std::fs::read(stopped.path("control.db")).unwrap();
    let plane = stopped.start().await;
    eventually("the sidecar to be back, and to have it", async || {
        let receipt = plane.revoke(&goes.id).await;
        if receipt["pending"] == json!([]) { Ok(()) } else { Err(receipt) }
    })
    .await;
    let mut stopped = plane.stop(Signal::TERM).await;
    let before = std::fs::read(stopped.path("control.db")).unwrap();
    std::fs::write(stopped.path("control.db"), older).unwrap();

    // Whatever a crash made of the last line that was noted.
    let noted = std::fs::read_to_string(stopped.path(ANCHOR)).unwrap();
    for torn in ["", "{\"epoch\":\"", "\0\0\0\n"] {
        std::fs::write(stopped.path(ANCHOR), format!("{noted}{torn}")).unwrap();
        let Err((ended, same)) = stopped.try_start_with(&[]).await else { panic!("it started with an older copy") };
        assert!(ended.status == 1 && ended.stderr.contains("an older copy was put back"), "{ended:?}");
        stopped = same;
    }
    // Nor where nobody can say what was noted.
    std::fs::write(stopped.path(ANCHOR), "something else\n").unwrap();
    let Err((ended, stopped)) = stopped.try_start_with(&[]).await else { panic!("it started without its anchor") };
    assert!(ended.status == 1 && ended.stderr.contains("is there and cannot be read"), "{ended:?}");
    std::fs::write(stopped.path(ANCHOR), format!("{noted}{{")).unwrap();
    let plane = stopped.try_start_with(&["--restored"]).await.unwrap_or_else(|(ended, _)| panic!("{ended:?}"));
    plane.followed_by(1).await;
    let minted = plane.mint("new").await;
    answers(&sidecar, &minted, 200).await;
    check(&sidecar, &stays, 200).await;
    check(&sidecar, &goes, 401).await;
    // A sidecar that came after the copy was made is not known, and serves what it has. No receipt says that it does not.
    let receipt = plane.revoke(&minted.id).await;
    assert_eq!((&receipt["pending"], &receipt["complete"]), (&json!([]), &false.into()));
    let why = receipt["incomplete_because"].as_str().unwrap();
    assert!(why.contains("was put back at 2"), "{why}");
    let revoked = plane.run(&format!("keys revoke {} --wait", stays.id)).await;
    assert!(revoked.status == 1 && revoked.stderr.contains(why), "{revoked:?}");

    // The database from before that is another history: it is not gone back to by accident.
    let stopped = plane.stop(Signal::TERM).await;
    let since = std::fs::read(stopped.path("control.db")).unwrap();
    std::fs::write(stopped.path("control.db"), before).unwrap();
    let Err((ended, stopped)) = stopped.try_start_with(&[]).await else { panic!("it started with what is over") };
    assert!(ended.status == 1 && ended.stderr.contains("from which that one was not begun"), "{ended:?}");
    std::fs::write(stopped.path("control.db"), since).unwrap();
    // Where a crash kept the new history from being noted, the store says from which one it was begun.
    let noted = std::fs::read_to_string(stopped.path(ANCHOR)).unwrap();
    let old = noted.lines().next().unwrap().split_once("\"seq\"").unwrap().0.to_owned();
    let lines: String = noted.lines().filter(|line| line.starts_with(&old)).map(|line| format!("{line}\n")).collect();
    assert!(lines.lines().count() < noted.lines().count());
    std::fs::write(stopped.path(ANCHOR), lines).unwrap();
    let plane = stopped.start().await;
    check(&sidecar, &stays, 401).await;
    drop(plane);
}
