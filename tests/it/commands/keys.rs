//! The life of a key on the key file.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::Desk;
use crate::harness::{H1, Key, Sidecar, Upstream, eventually, get, key_file, keyside, keyside_with_input};

const CREATE: [&str; 8] = ["keys", "create", "--name", "Export script", "--owner", "acme", "--scope", "read"];

/// The fields that the manual promises, in a pair and in a token.
#[tokio::test]
async fn create_prints_one_object() {
    let desk = Desk::new();
    let pair = desk.json(&CREATE).await;
    let fields = [
        "id",
        "name",
        "kind",
        "prefix",
        "owner",
        "scopes",
        "mode",
        "allow_ips",
        "created_at",
        "expires_at",
        "consumer_key",
        "consumer_secret",
    ];
    for field in fields {
        assert!(pair.get(field).is_some(), "{field}: {pair}");
    }
    let text = |field: &str| pair[field].as_str().unwrap_or_default().to_owned();
    let hex40 = |text: &str| text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    assert!(text("consumer_key").strip_prefix("ck_").is_some_and(hex40), "{pair}");
    assert!(text("consumer_secret").strip_prefix("cs_").is_some_and(hex40), "{pair}");
    assert_eq!(text("prefix"), text("consumer_key"));
    assert!(pair.get("token").is_none());

    let more = [
        "--kind",
        "token",
        "--mode",
        "test",
        "--allow-ip",
        "203.0.113.42,2001:db8::/32",
        "--expires",
        "90d",
        "--limit",
        "600/1m",
    ];
    let token = desk.json(&[&CREATE[..], &more].concat()).await;
    assert!(token["token"].as_str().unwrap().starts_with(token["prefix"].as_str().unwrap()), "{token}");
    assert!(token["prefix"].as_str().unwrap().starts_with("ck_test_"), "{token}");
    assert_eq!((token["mode"].as_str(), &token["limits"]), (Some("test"), &serde_json::json!(["600/1m"])));
    assert_eq!(token["allow_ips"], serde_json::json!(["203.0.113.42", "2001:db8::/32"]));
    let moment = |field: &str| token[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(moment("expires_at").duration_since(moment("created_at")).as_hours(), 90 * 24);
    assert!(token.get("consumer_secret").is_none());
    // Only hashes are kept.
    for secret in [&token["token"], &pair["consumer_secret"]] {
        assert!(!desk.keys().contains(secret.as_str().unwrap()));
    }
    assert_eq!(desk.keys().matches("$argon2id$").count(), 2);
    assert!(desk.keys().contains("keys = 2"));
}

#[tokio::test]
async fn create_says_what_the_key_will_be_able_to_do() {
    let desk = Desk::new();
    let said = desk.run(&CREATE).await.done().stderr;
    assert!(said.contains("may read") && said.contains("acme"), "{said}");
    desk.run(&["owners", "create", "boss", "--capability", "administrator"]).await.done();
    let mut create = CREATE;
    create[5] = "boss";
    let said = desk.run(&create).await.done().stderr;
    assert!(said.contains("administrator"), "{said}");
    // Nothing but the result goes to standard output, and no secret to standard error.
    let quiet = desk.run(&[&CREATE[..], &["--output", "json"]].concat()).await.done();
    assert!(serde_json::from_str::<serde_json::Value>(&quiet.stdout).is_ok(), "{}", quiet.stdout);
}

#[tokio::test]
async fn a_command_line_that_is_wrong_changes_nothing() {
    let desk = Desk::new();
    desk.run(&CREATE).await.done();
    let before = desk.keys();
    let rows: [&[&str]; 17] = [
        &["keys", "create"],
        &["keys", "create", "--name", "x", "--owner", "acme"],
        &["keys", "create", "--name", "x", "--owner", "acme", "--scope", "reed"],
        &["keys", "create", "--name", "x", "--owner", "acme", "--scope", "read", "--kind", "triple"],
        &["keys", "create", "--name", "x", "--owner", "acme", "--scope", "read", "--expires", "soon"],
        &["keys", "create", "--name", "x", "--owner", "acme", "--scope", "read", "--allow-ip", "10.0.0.1/99"],
        &["keys", "create", "--name", "x", "--owner", "acme", "--scope", "read", "--limit", "often"],
        &["keys", "create", "--name", "x", "--owner", "a b", "--scope", "read"],
        &["keys", "revoke"],
        &["keys", "set", "Export script"],
        &["keys", "set", "Export script", "--scope", "reed"],
        &["keys", "set", "Export script", "--allow-ip", ""],
        &["keys", "set", "Export script", "--allow-ip", "203.0.113.42,any"],
        &["keys", "set", "Export script", "--expires", "2020-01-01T00:00:00Z"],
        &["keys", "set", "Export script", "--limit", "often"],
        &["keys", "list", "--older-than", "90"],
        &["keys", "nothing"],
    ];
    for row in rows {
        let ended = desk.run(row).await;
        assert_eq!(ended.status, 2, "{row:?}: {ended:?}");
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{row:?}: {ended:?}");
    }
    let set = ["keys", "set", "nobody", "--expires", "never"];
    for row in [&["keys", "revoke", "nobody"][..], &["keys", "show", "nobody"], &["keys", "rotate", "nobody"], &set] {
        let ended = desk.run(row).await;
        assert_eq!(ended.status, 1, "{row:?}: {ended:?}");
    }
    assert_eq!(desk.keys(), before);
}

/// By id, or by a name or prefix that only one key has.
#[tokio::test]
async fn a_key_is_named_by_id_name_or_prefix() {
    let desk = Desk::new();
    let one = desk.json(&CREATE).await;
    let mut create = CREATE;
    create[3] = "Other";
    let other = desk.json(&create).await;
    for reference in [&other["id"], &other["name"], &other["prefix"]] {
        let shown = desk.json(&["keys", "show", reference.as_str().unwrap()]).await;
        assert_eq!(shown["id"], other["id"]);
        assert_eq!((shown["status"].as_str(), shown.get("consumer_secret")), (Some("active"), None));
    }
    // The prefix as the list shows it, with and without the mark of the cut; no shorter.
    let cut = &other["prefix"].as_str().unwrap()[..20];
    let marked = format!("{cut}…");
    assert!(desk.run(&["keys", "list"]).await.done().stdout.contains(&marked));
    for reference in [cut, &marked] {
        assert_eq!(desk.json(&["keys", "show", reference]).await["id"], other["id"], "{reference}");
    }
    // Nobody can have another key revoked in its place by calling one so.
    let mut shadow = CREATE;
    shadow[3] = &marked;
    let shadow = desk.json(&shadow).await;
    let ended = desk.run(&["keys", "revoke", &marked]).await;
    assert!(ended.status == 1 && ended.stderr.contains("2 keys are called so"), "{ended:?}");
    desk.run(&["keys", "delete", "--yes", shadow["id"].as_str().unwrap()]).await.done();
    let short = desk.run(&["keys", "show", &cut[..19]]).await;
    assert!(short.status == 1 && short.stderr.contains("no key has"), "{short:?}");
    let alike = ["1", "2"].map(|name| {
        let mut key = Key::pair(name);
        key.public = format!("{cut}{name}");
        key
    });
    let alike = key_file(&alike);
    let file = desk.write("alike.toml", &alike);
    for command in [&["keys", "show"][..], &["keys", "revoke"], &["keys", "rotate"], &["keys", "delete", "--yes"]] {
        let ended = desk.run_on(&file, &[command, &[&marked]].concat()).await;
        assert!(ended.status == 1 && ended.stderr.contains("2 keys are called so"), "{command:?}: {ended:?}");
    }
    desk.json(&create).await;
    let ended = desk.run(&["keys", "revoke", "Other"]).await;
    assert_eq!(ended.status, 1, "two keys have that name: {ended:?}");
    let list = desk.json(&["keys", "list"]).await;
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(list[0]["id"], one["id"]);
    let filtered = desk.json(&["keys", "list", "--owner", "nobody"]).await;
    assert_eq!(filtered, serde_json::json!([]));
}

/// The whole life against a running sidecar.
#[tokio::test]
async fn a_key_lives_and_dies_by_commands() {
    let upstream = Upstream::start().await;
    let config = "[limits]\nfailures_per_ip = []";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(key_file([])).ready_or_not().start().await;
    let path = sidecar.path("keyside.toml");
    let command = async |arguments: &[&str]| {
        keyside(arguments.iter().copied().chain(["--config", path.to_str().unwrap(), "--output", "json"])).await
    };
    let created = command(&CREATE).await.done().json();
    let key = |object: &serde_json::Value| {
        get("/").basic(object["consumer_key"].as_str().unwrap(), object["consumer_secret"].as_str().unwrap())
    };
    let becomes = async |object: &serde_json::Value, status: u16| {
        let mut connection = sidecar.connect(H1).await;
        eventually("the change", async || {
            let answer = connection.send(&key(object)).await;
            if answer.status == status { Ok(()) } else { Err(answer.status) }
        })
        .await;
    };
    becomes(&created, 200).await;

    // Rotated: both work until the overlap ends.
    let rotated = command(&["keys", "rotate", "Export script", "--wait"]).await.done();
    assert!(rotated.stderr.contains("The running sidecar has it."), "{}", rotated.stderr);
    let rotated = rotated.json();
    assert_eq!(rotated["rotated_from"], created["id"], "{rotated}");
    assert_eq!(rotated["scopes"], created["scopes"]);
    assert_eq!(sidecar.ask(key(&rotated)).await.status, 200, "it works as soon as the command returns");
    becomes(&created, 200).await;
    let old = command(&["keys", "show", created["id"].as_str().unwrap()]).await.done().json();
    let left =
        old["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!((23..=24).contains(&left.as_hours()), "{old}");

    // Without an overlap the old one is dead at once.
    let again = command(&["keys", "rotate", rotated["id"].as_str().unwrap(), "--overlap", "0"]).await.done().json();
    becomes(&again, 200).await;
    becomes(&rotated, 401).await;
    let shown = command(&["keys", "show", rotated["id"].as_str().unwrap()]).await.done().json();
    assert_eq!(shown["status"], "revoked", "{shown}");

    // Revoked: its row stays; once more is no fault.
    let revoked = command(&["keys", "revoke", again["id"].as_str().unwrap(), "--wait"]).await.done().json();
    assert_eq!(revoked["in_force"], true, "{revoked}");
    becomes(&again, 401).await;
    command(&["keys", "revoke", again["id"].as_str().unwrap()]).await.done();

    // Deleted: its row is gone, once its name was typed.
    let id = again["id"].as_str().unwrap();
    let delete = ["keys", "delete", id, "--config", path.to_str().unwrap()];
    assert_eq!(keyside_with_input(delete, "something else\n").await.status, 1);
    assert!(std::fs::read_to_string(sidecar.path("keys.toml")).unwrap().contains(id));
    let deleted = command(&["keys", "delete", id, "--yes", "--wait"]).await.done().json();
    assert_eq!(deleted["in_force"], true, "{deleted}");
    assert!(!std::fs::read_to_string(sidecar.path("keys.toml")).unwrap().contains(id));
    assert_eq!(command(&["keys", "show", id]).await.status, 1);
    becomes(&created, 200).await;
}

/// A key file that a person keeps stays that person's: comments, order, mode, the symlink.
#[tokio::test]
async fn a_file_keeps_its_face() {
    let desk = Desk::new();
    let key = Key::token("first");
    let text = format!(
        "# Keys of the shop.\n# Ask Ada before you change any.\n\n{}# The end is kept by keyside.\n",
        key.row()
    );
    std::fs::create_dir(desk.path("secret")).unwrap();
    desk.write("secret/real.toml", &text);
    std::fs::set_permissions(desk.path("secret/real.toml"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("secret/real.toml", desk.path("keys.toml")).unwrap();
    desk.run(&CREATE).await.done();
    desk.run(&["keys", "set", "key_first", "--name", "First", "--allow-ip", "203.0.113.42"]).await.done();
    desk.run(&["keys", "revoke", "key_first"]).await.done();
    let now = desk.keys();
    assert!(now.contains("\nname = \"First\"\n") && now.contains("\nallow_ips = [\"203.0.113.42\"]\n"), "{now}");
    for line in
        ["# Keys of the shop.", "# Ask Ada before you change any.", "# The end is kept by keyside.", &key.public]
    {
        assert!(now.contains(line), "{line}\n{now}");
    }
    assert!(now.find("key_first").unwrap() < now.find("Export script").unwrap());
    assert!(desk.path("keys.toml").symlink_metadata().unwrap().is_symlink());
    let mode = desk.path("secret/real.toml").metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    let left: Vec<String> = std::fs::read_dir(desk.path("secret"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "real.toml" && !name.ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Commands lock against each other: no update is lost.
#[tokio::test]
async fn commands_at_once_lose_nothing() {
    let desk = Desk::new();
    desk.run(&CREATE).await.done();
    let file = desk.path("keys.toml");
    let commands: Vec<_> = (0..12)
        .map(|number| {
            let (file, name) = (file.to_str().unwrap().to_owned(), format!("key {number}"));
            tokio::spawn(async move {
                keyside(["keys", "create", "--file", &file, "--name", &name, "--owner", "acme", "--scope", "read"])
                    .await
                    .done();
            })
        })
        .collect();
    for command in commands {
        command.await.unwrap();
    }
    assert_eq!(desk.json(&["keys", "list"]).await.as_array().unwrap().len(), 13);
    assert!(desk.keys().contains("keys = 13"));
}

/// What may be changed without another secret, and how each is taken back.
#[tokio::test]
async fn a_key_is_changed_without_another_secret() {
    let desk = Desk::new();
    let key = desk.json(&CREATE).await;
    let other = desk.json(&["keys", "create", "--name", "Other", "--owner", "acme", "--scope", "read"]).await;
    let of = async |id: &serde_json::Value| desk.json(&["keys", "show", id.as_str().unwrap()]).await;
    let hash =
        |text: &str| text.lines().filter(|line| line.starts_with("hash = ")).map(str::to_owned).collect::<Vec<_>>();
    let (untouched, hashes) = (of(&other["id"]).await, hash(&desk.keys()));
    let set = async |reference: &str, changes: &[&str]| {
        let ended = desk.run(&[&["keys", "set", reference], changes].concat()).await.done();
        assert!(ended.stdout.is_empty() && ended.stderr.contains("is changed."), "{ended:?}");
        (of(&key["id"]).await, ended.stderr)
    };
    let prefix = key["prefix"].as_str().unwrap();
    let all = ["--name", "Sync", "--owner", "umbrella", "--scope", "read,links:read", "--expires", "90d"];
    let more = ["--allow-ip", "203.0.113.42, 2001:db8::/32", "--limit", "600/1m,5/1s"];
    let (now, said) = set("Export script", &[&all[..], &more].concat()).await;
    assert_eq!((&now["name"], &now["owner"]), (&"Sync".into(), &"umbrella".into()));
    assert_eq!(now["scopes"], serde_json::json!(["read", "links:read"]));
    assert_eq!(now["allow_ips"], serde_json::json!(["203.0.113.42", "2001:db8::/32"]));
    assert_eq!(now["limits"], serde_json::json!(["600/1m", "5/1s"]));
    let moment = now["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let left = moment.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((90 * 24 - 1..=90 * 24).contains(&left), "{now}");
    let sentence = "This key may read, and use links:read for umbrella, from 203.0.113.42 and 2001:db8::/32 only, within 600/1m \
                    and 5/1s, until ";
    assert!(said.contains(sentence), "{said}");

    for (reference, change, field) in [
        ("Sync", ["--allow-ip", "any"], "allow_ips"),
        (prefix, ["--limit", "plan"], "limits"),
        (key["id"].as_str().unwrap(), ["--expires", "never"], "expires_at"),
    ] {
        let (now, _) = set(reference, &change).await;
        assert_eq!(now[field], key[field], "{field}");
    }
    let said = set("Sync", &["--scope", "read"]).await.1;
    assert!(said.contains("This key may read for umbrella, from any address, until it is revoked."), "{said}");
    let printed = desk.json(&["keys", "set", "Sync", "--owner", "acme"]).await;
    assert_eq!(printed, of(&key["id"]).await);
    // The other key, both secrets and the count of entries are what they were.
    assert_eq!((of(&other["id"]).await, hash(&desk.keys())), (untouched, hashes));
    assert!(desk.keys().ends_with("[end]\nowners = 0\nkeys = 2\n"), "{}", desk.keys());

    desk.run(&["keys", "revoke", "Sync"]).await.done();
    let before = desk.keys();
    let refused = desk.run(&["keys", "set", "Sync", "--expires", "never"]).await;
    assert!(refused.status == 1 && refused.stderr.contains("is revoked, for good"), "{refused:?}");
    assert_eq!(desk.keys(), before);
    let help = keyside(["keys", "set", "--help"]).await.done().stdout;
    for option in ["--name", "--owner", "--scope", "--allow-ip", "--expires", "--limit", "never", "any", "plan"] {
        assert!(help.contains(option), "{option}: {help}");
    }
}

/// Without a state folder nothing is said of last uses: every key would look unused.
#[tokio::test]
async fn the_list_tells_what_is_to_be_rotated_and_revoked() {
    let desk = Desk::new();
    let created = |days: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        move |text: String| text.replace("created_at = 2026-01-01T00:00:00Z", &format!("created_at = {at:.0}"))
    };
    let rows = [("year", 365), ("quarter", 90), ("week", 7)].map(|(name, days)| created(days)(Key::pair(name).row()));
    desk.write("keys.toml", &rows.concat());
    let list = async |more: &[&str]| desk.run(&[&["keys", "list"], more].concat()).await;
    let said = list(&[]).await.done();
    let file = format!("--file {}", desk.path("keys.toml").display());
    let older = format!("Older than 90d, to be rotated: 2 (keyside keys list --older-than 90d {file}).");
    assert_eq!(said.stderr, format!("{older}\n"));
    let unused = list(&["--unused-for", "90d"]).await;
    assert!(unused.status == 1 && unused.stderr.contains("no last uses are recorded here"), "{unused:?}");

    std::fs::create_dir(desk.path("state")).unwrap();
    let used = "{\"format\":\"keyside-last-used\",\"version\":1}\n\
                {\"key\":\"key_year\",\"at\":\"2026-01-01T00:00:00Z\",\"ip\":\"203.0.113.42\"}\n";
    let moment = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)).to_string();
    desk.write("state/last-used.ndjson", &used.replace("2026-01-01T00:00:00Z", &moment));
    let said = list(&[]).await.done();
    let unused = format!("Not used for 90d, to be revoked: 1 (keyside keys list --unused-for 90d {file}).");
    assert_eq!(said.stderr, format!("{older} {unused}\n"));
    for (more, expected) in [
        (&["--older-than", "90d"][..], &["key_year", "key_quarter"][..]),
        (&["--unused-for", "90d"], &["key_quarter"]),
        (&["--unused-for", "1d"], &["key_quarter", "key_week"]),
        (&["--unused-for", "1d", "--older-than", "26w"], &[]),
        (&["--older-than", "90d", "--status", "revoked"], &[]),
    ] {
        let ended = list(&[more, &["--output", "json"]].concat()).await.done();
        let ids: Vec<_> = ended.json().as_array().unwrap().iter().map(|key| key["id"].clone()).collect();
        assert_eq!((ids, &*ended.stderr), (expected.iter().map(|id| (*id).into()).collect(), ""), "{more:?}");
    }
}

/// What the configuration takes is what is minted, and a token has the mode that its prefix says.
#[tokio::test]
async fn create_mints_what_the_configuration_takes() {
    let desk = Desk::new();
    let create = async |preset: &str, more: &[&str]| {
        let plain = "[listen]\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\n";
        let config = desk.write("keyside.toml", &format!("preset = \"{preset}\"\n{plain}"));
        let arguments = [&CREATE[..], &["--output", "json", "--config", config.to_str().unwrap()], more].concat();
        let ended = keyside(arguments).await.done();
        (ended.json(), ended.stderr)
    };
    let rows = [
        ("wallet", &[][..], ["pair", "ck_", ""], ""),
        ("woocommerce", &[], ["pair", "ck_", ""], ""),
        ("web3pay", &["--scope", "onramp:create"], ["token", "wp3_live_sk_", "live"], ""),
        ("web3pay", &[], ["token", "wp3_live_sk_", "live"], "no route asks for the scope read; asked for are"),
        ("payment-links", &["--scope", "link:read"], ["token", "ck_live_", "live"], "did you mean links:read?"),
        ("wallet", &["--kind", "token"], ["token", "ck_live_", "live"], ""),
        ("wontopos", &["--mode", "none"], ["token", "sk_live_", ""], "has no mode"),
        ("payment-links", &["--mode", "test"], ["token", "ck_test_", "test"], ""),
        ("wontopos", &[], ["token", "sk_live_", "live"], ""),
        ("wontopos", &["--mode", "test"], ["token", "sk_test_", "test"], ""),
        ("wontopos", &["--kind", "pair"], ["pair", "ck_", ""], "takes no pairs"),
        ("wontopos", &["--kind", "pair"], ["pair", "ck_", ""], "has no mode"),
    ];
    for (preset, more, [kind, prefix, mode], warning) in rows {
        let (key, said) = create(preset, more).await;
        assert_eq!((&key["kind"], key["mode"].as_str().unwrap_or_default()), (&kind.into(), mode), "{preset} {more:?}");
        assert!(key["prefix"].as_str().unwrap().starts_with(prefix), "{preset} {more:?}: {key}");
        assert!(said.contains(warning), "{preset} {more:?}: {said}");
    }
}

/// A file that is wrong: all faults at once, and 78.
#[tokio::test]
async fn a_file_that_is_wrong_is_told_with_all_its_faults() {
    let desk = Desk::new();
    let bad = Key::token("bad").with("allow_ips = [\"10.0.0.300\"]\nmode = \"prod\"");
    desk.write("keys.toml", &key_file([&bad]));
    let ended = desk.run(&CREATE).await;
    assert_eq!(ended.status, 78, "{ended:?}");
    assert!(ended.stderr.contains("allow_ips") && ended.stderr.contains("mode"), "{}", ended.stderr);
    // What is urgent goes through all the same.
    desk.run(&["keys", "revoke", "key_bad"]).await.done();
    assert!(desk.keys().contains("revoked_at"));
    desk.write("keys.toml", "[[key");
    assert_eq!(desk.run(&["keys", "list"]).await.status, 78);
}

/// What other builds have, this one does not pretend to have.
#[tokio::test]
async fn what_is_not_in_this_build_says_so() {
    for row in [&["keys", "import"][..], &["keys", "export"], &["keys", "audit"]] {
        let ended = keyside(row.iter().copied()).await;
        assert_eq!(ended.status, 1, "{row:?}: {ended:?}");
        assert!(ended.stderr.contains("not in this build"), "{row:?}: {ended:?}");
    }
}
