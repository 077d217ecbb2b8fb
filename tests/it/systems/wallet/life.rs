//! The life of a key, by commands: minted, shown once, listed, rotated, revoked, deleted.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::{API, of_each_scope};
use crate::{
    harness::{Ended, H1, H2, Key, Received, Sidecar, Upstream, eventually, get, key_file, keyside, run},
    systems::{
        hygiene,
        service::{Minted, Service, System},
    },
};

fn is_hex40(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a refusal is, but for the moment it was written.
fn bytes(answer: &Received) -> String {
    let mut answer = answer.clone();
    answer.fields.retain(|(name, _)| name != "date");
    format!("{answer:?}")
}

/// With the hash that the preset has by itself.
///
/// [key shape] "a consumer key that begins with ck_ and a consumer secret that begins with cs_"
/// [secret at rest] "both are shown once, when the key is made; copy them at once"
/// [secret at rest] "the secret is hashed at rest and never shown again"
/// [management API] "add a key: description, scope, owner, addresses"
#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    let upstream = Upstream::start().await;
    let system = System { service: Service::shipped("wallet", &upstream).await, upstream };
    let name = "Accounting export script";
    let more = ["--allow-ip", "127.0.0.1"];
    let pair = system.mint(name, "svc-accounting", "read", &more).await;
    let row = &pair.printed;
    assert!(pair.prefix.strip_prefix("ck_").is_some_and(is_hex40), "{row}");
    assert!(pair.secret.strip_prefix("cs_").is_some_and(is_hex40), "{row}");
    assert!(pair.said.contains("it is not shown again"), "{}", pair.said);
    assert!(!pair.said.contains(&pair.secret), "{}", pair.said);
    // For people it is printed as the document shows it.
    let create = ["keys", "create", "--name", "Slack alert bot", "--owner", "svc-slack", "--scope", "read"];
    let printed = system.change(&create).await.stdout;
    let field = |name: &str| {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{printed}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert!(field("consumer_key").starts_with("ck_") && field("consumer_secret").starts_with("cs_"), "{printed}");

    let answer = system.sidecar.send_again(H1, pair.on(get(&format!("{API}/wallets")))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(system.key_file().matches("$argon2id$").count(), 2, "{}", system.key_file());
    let mut said = vec![system.key_file(), system.sidecar.printed()];
    for command in [&["keys", "list"][..], &["keys", "show", name], &["explain", "--key", name], &["owners", "list"]] {
        for form in ["table", "json"] {
            let ended = system.run(&[command, &["--output", form]].concat()).await.done();
            said.push(ended.stdout + &ended.stderr);
        }
    }
    said.push(system.sidecar.metrics().await.text().to_owned());
    for secret in [pair.secret, field("consumer_secret")] {
        // Not even a part of it, which would make the rest easier to guess.
        let shown = said.iter().find(|text| text.contains(&secret[3..20]));
        assert_eq!(shown, None);
    }
}

/// [list shows] "the description, as it was typed"
/// [list shows] "the scope: read, write or read_write"
/// [list shows] "the owner"
/// [list shows] "when the key was last used, and from which address"
/// [list shows] "when it was created"
/// [list shows] "what can be done with it: revoke, delete"
#[tokio::test]
async fn the_list_shows_what_the_document_lists() {
    let system = System::unlimited("wallet", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let [reader, ..] = of_each_scope(&system).await;
    let used = reader.on(get(&format!("{API}/wallets"))).field("X-Forwarded-For", "203.0.113.42");
    assert_eq!(system.sidecar.ask(used).await.status, 200);
    let list = eventually("the last use in the list", async || {
        let list = system.keys().await;
        if list[0]["last_used_ip"] == "203.0.113.42" { Ok(list) } else { Err(list) }
    })
    .await;
    let moment = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for (key, (name, scope)) in list.iter().zip([("reader", "read"), ("writer", "write"), ("both", "read_write")]) {
        assert_eq!((&key["name"], &key["owner"]), (&name.into(), &"svc-shop".into()), "{key}");
        assert_eq!((&key["scopes"], &key["status"]), (&serde_json::json!([scope]), &"active".into()), "{key}");
        assert!(moment(&key["created_at"]) <= jiff::Timestamp::now(), "{key}");
    }
    assert!(moment(&list[0]["last_used_at"]) >= moment(&list[0]["created_at"]), "{}", list[0]);
    assert_eq!(list[1]["last_used_at"], Value::Null);
    let table = system.run(&["keys", "list"]).await.done().stdout;
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    for column in ["NAME", "SCOPES", "OWNER", "LAST USED", "CREATED"] {
        assert!(head.contains(column), "{table}");
    }
    let row = lines.next().unwrap();
    let created = &moment(&list[0]["created_at"]).to_string()[..10];
    for cell in ["reader", "read", "svc-shop", "203.0.113.42", created] {
        assert!(row.contains(cell), "{cell}: {table}");
    }
    let help = keyside(["keys", "--help"]).await.done().stdout;
    for action in ["create", "list", "rotate", "revoke", "delete"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(action)), "{help}");
    }
}

/// [revoke] "the key stops working; its row stays, for the audit trail"
/// [errors] "401 invalid_credentials: the key is wrong or revoked"
/// [note] "a revoked key answers 401, not 403, and looks like no key at all, byte for byte"
#[tokio::test]
async fn a_revoked_key_looks_like_none_and_stays_listed() {
    let system = System::unlimited("wallet", "").await;
    let [reader, writer, both] = of_each_scope(&system).await;
    let revoked = system.run(&["keys", "revoke", "both", "--wait"]).await.done();
    assert!(revoked.stderr.contains("its entry stays"), "{revoked:?}");
    let stranger = ("ck_0123456789012345678901234567890123456789", "cs_0123456789012345678901234567890123456789");
    for path in [format!("{API}/wallets"), "/wp-json/wkwp-wallet/v1/withdrawals/7/approve".into()] {
        for version in [H1, H2] {
            let ask = async |key: &str, secret: &str| {
                let request = get(&path).basic(key, secret).field("X-Request-Id", "the-same");
                system.sidecar.send(version, request).await
            };
            let unknown = ask(stranger.0, stranger.1).await;
            assert_eq!(unknown.brief(), "401 invalid_credentials");
            for (what, key, secret) in [
                ("revoked", &both.prefix, &both.secret),
                ("revoked, with a wrong secret", &both.prefix, &reader.secret),
                ("another key's secret", &reader.prefix, &writer.secret),
                ("a secret in capitals", &reader.prefix, &reader.secret.to_uppercase()),
                ("half a secret", &reader.prefix, &reader.secret[..23].to_owned()),
                ("key and secret changed places", &reader.secret, &reader.prefix),
            ] {
                assert_eq!(bytes(&ask(key, secret).await), bytes(&unknown), "{what}");
            }
        }
    }
    assert_eq!(system.upstream.count(), 0);
    let row = system.keys().await.into_iter().find(|key| key["id"] == *both.id).unwrap();
    assert_eq!((&row["status"], row["revoked_at"].is_string()), (&"revoked".into(), true), "{row}");
    // The operator sees which it was.
    let request = both.on(get(&format!("{API}/wallets"))).field("X-Request-Id", "by-a-revoked-key");
    assert_eq!(system.sidecar.ask(request).await.status, 401);
    let line = system.sidecar.logged("by-a-revoked-key").await;
    assert_eq!((&line["reason"], &line["key_id"]), (&"revoked".into(), &both.id.as_str().into()), "{line}");
    // It does not come back.
    assert_eq!(system.run(&["keys", "rotate", &both.id]).await.status, 1);
}

/// Runs a command at a terminal, types this line when it is asked, and gives what stood on the screen.
async fn typed(config: &Path, arguments: &[&str], line: &str) -> Ended {
    const TERMINAL: &str = r#"
import os, pty, sys
line, command = sys.argv[1], sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(command[0], command)
screen, asked = b"", False
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    screen += more
    if not asked and b"to go on: " in screen:
        asked = True
        os.write(terminal, line.encode() + b"\n")
sys.stdout.write(screen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, line, env!("CARGO_BIN_EXE_keyside")]).args(arguments).arg("--config").arg(config);
    run(python, "").await
}

/// [delete] "removes the row for good"
/// [delete] "confirmed by typing"
/// [advice the product should turn into help] "do not just delete: that loses the trail"
#[tokio::test]
async fn a_deleted_key_leaves_nothing_once_its_name_was_typed() {
    let system = System::unlimited("wallet", "").await;
    let [reader, writer, _] = of_each_scope(&system).await;
    let config = system.sidecar.path("keyside.toml");
    let delete = ["keys", "delete", reader.id.as_str()];
    for line in ["", "y", "yes", "writer", reader.prefix.as_str()] {
        let ended = typed(&config, &delete, line).await;
        assert_eq!(ended.status, 1, "{line:?}: {ended:?}");
        assert!(ended.stdout.contains("Type reader to go on") && ended.stdout.contains("revoke would"), "{ended:?}");
        assert!(system.key_file().contains(&reader.id), "{line:?}");
    }
    // Nobody can type into a pipe.
    let piped = system.run(&delete).await;
    assert!(piped.status == 1 && piped.stderr.contains("--yes"), "{piped:?}");
    let ended = typed(&config, &delete, "reader").await.done();
    assert!(ended.stdout.contains("is deleted"), "{ended:?}");
    assert!(!system.key_file().contains(&reader.id) && !system.key_file().contains(&reader.prefix));
    system.becomes("401 invalid_credentials", || reader.on(get(&format!("{API}/wallets")))).await;
    system.run(&["keys", "delete", &writer.id, "--yes"]).await.done();
    assert_eq!(system.keys().await.len(), 1);
}

/// By three steps, as the document has them, and by one command.
///
/// [rotate] "make a new key with the same scope, move the integration to it, revoke the old one"
/// [rotate] "every 90 days"
/// [advice the product should turn into help] "rotate every 90 days"
#[tokio::test]
async fn a_key_is_rotated_while_its_integration_works() {
    let system = System::unlimited("wallet", "").await;
    let [reader, ..] = of_each_scope(&system).await;
    let call = |pair: &Minted| pair.on(get(&format!("{API}/wallets")));
    let ask = async |pair: &Minted| system.sidecar.ask(call(pair)).await.brief();
    let new = system.mint("reader, new", "svc-shop", "read", &[]).await;
    assert_eq!((ask(&reader).await, ask(&new).await), ("200".into(), "200".into()));
    system.run(&["keys", "revoke", &reader.id, "--wait"]).await.done();
    assert_eq!((ask(&reader).await, ask(&new).await), ("401 invalid_credentials".into(), "200".into()));

    // One that ends by itself after 90 days, and so does the one that follows it.
    let first = system.mint("quarterly", "svc-shop", "read", &["--expires", "90d", "--allow-ip", "127.0.0.1"]).await;
    let second = Minted::of(system.change(&["keys", "rotate", &first.id, "--output", "json"]).await);
    assert_eq!((ask(&first).await, ask(&second).await), ("200".into(), "200".into()));
    let (old, new) = (&first.printed, &second.printed);
    assert_eq!(new["rotated_from"], old["id"]);
    for same in ["name", "scopes", "owner", "allow_ips", "kind"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    for row in [old, new] {
        let moment = |field: &str| row[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!(moment("expires_at").duration_since(moment("created_at")).as_hours(), 90 * 24, "{row}");
    }
    system.run(&["keys", "revoke", &first.id, "--wait"]).await.done();
    assert_eq!((ask(&first).await, ask(&second).await), ("401 invalid_credentials".into(), "200".into()));
}

/// [errors] "a key that is always 401: look whether white space came with the secret"
/// [advice the product should turn into help] "trailing white space in a pasted secret"
#[tokio::test]
async fn white_space_after_a_pasted_secret_is_told_to_the_operator() {
    let system = System::unlimited("wallet", "").await;
    let [reader, ..] = of_each_scope(&system).await;
    for (index, pasted) in ["S ", "S\n", "S\r\n", "S\t", " S"].iter().enumerate() {
        let id = format!("pasted-{index}");
        let secret = pasted.replace('S', &reader.secret);
        let request = get(&format!("{API}/wallets")).basic(&reader.prefix, &secret).field("X-Request-Id", &id);
        assert_eq!(system.sidecar.ask(request).await.brief(), "401 invalid_credentials", "{pasted:?}");
        let line = system.sidecar.logged(&id).await;
        let note = "white space around the secret; without it the secret would be right";
        assert_eq!((&line["note"], &line["reason"]), (&note.into(), &"wrong_secret".into()), "{pasted:?}: {line}");
    }
    assert_eq!(system.upstream.count(), 0);
}

/// [advice the product should turn into help] "a unique key for each integration: none shared across teams"
/// [advice the product should turn into help] "the narrowest scope that works, and not read_write by default"
/// [owner] "an owner who is an administrator may do everything: rather a service account"
#[tokio::test]
async fn commands_give_the_documents_advice() {
    let system = System::unlimited("wallet", "").await;
    system.owner("boss", &["--capability", "administrator,manage_woocommerce"]).await;
    let create = async |name: &str, owner: &str| {
        let create = ["keys", "create", "--name", name, "--owner", owner, "--scope", "read"];
        system.run(&create).await.done().stderr
    };
    let said = create("Export", "boss").await;
    assert!(said.contains("boss is an administrator"), "{said}");
    assert!(said.contains("This key may read for boss, from any address, until it is revoked."), "{said}");
    let said = create("Export", "nobody").await;
    assert!(said.contains("another key has the name \"Export\""), "{said}");
    assert!(said.contains("owner nobody has no entry"), "{said}");
    // No scope is given by default: each is asked for.
    let none = system.run(&["keys", "create", "--name", "x", "--owner", "boss"]).await;
    assert!(none.status == 2 && none.stderr.contains("--scope"), "{none:?}");
    let help = keyside(["keys", "create", "--help"]).await.done().stdout;
    assert!(help.contains("the one integration that uses it"), "{help}");
}

/// [advice the product should turn into help] "rotate every 90 days: the list says how many keys are older, and which"
/// [advice the product should turn into help] "revoke unused keys: the list says how many there are, and which"
#[tokio::test]
async fn old_and_unused_keys_are_found() {
    let read = |key: &Key| get(&format!("{API}/wallets")).key(key);
    hygiene::old_and_unused_keys_are_found("wallet", Key::pair, read).await;
}
