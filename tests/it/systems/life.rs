//! What the keys of several systems have in common: how they are minted, kept, listed, revoked and rotated.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::{
    first_steps::follow,
    hygiene::old_and_unused_keys_are_found,
    service::{Minted, Present, Service, told},
};
use crate::harness::{
    H1, H2, Key, Load, Request, Upstream, eventually, get, key_file, keyside_with_input, python, run,
};

/// A system whose keys are tokens.
pub(super) struct Case {
    pub(super) preset: &'static str,
    /// The preset's text.
    pub(super) text: &'static str,
    pub(super) present: Present,
    /// What a key may read that has this scope.
    pub(super) path: &'static str,
    pub(super) scope: &'static str,
    /// How live and test tokens begin, and how many characters more are shown.
    pub(super) prefixes: [&'static str; 2],
    pub(super) shown: usize,
    /// The hosts of live and test keys.
    pub(super) hosts: [&'static str; 2],
    /// Puts the system's limits out of the way.
    pub(super) unlimited: &'static str,
}

const ALPHABET: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Case {
    pub(super) async fn service(&self, upstream: &Upstream) -> Service {
        Service::with(self.preset, upstream, self.unlimited).await
    }

    /// A request that a key with the scope may send.
    pub(super) fn read(&self, key: &Minted) -> Request {
        let host = self.hosts[usize::from(key.printed["mode"] == "test")];
        (self.present)(get(self.path).host(host), &key.secret)
    }

    /// Tokens say system and mode, the rest is random, and a mistyped one is told from a good one; what is shown of it
    /// is as long as the document shows it; a scanner finds them anywhere.
    pub(super) async fn shapes(&self) {
        let upstream = Upstream::start().await;
        let service = self.service(&upstream).await;
        let mut keys = Vec::new();
        for (mode, prefix) in ["live", "test"].into_iter().zip(self.prefixes) {
            for name in ["one", "other"] {
                let name = format!("{mode} {name}");
                let key = service.create_as(&name, &["--owner", "acme", "--mode", mode, "--scope", self.scope]).await;
                let body = key.secret.strip_prefix(prefix).unwrap_or_else(|| panic!("{mode}: {}", key.secret));
                assert_eq!(key.prefix, key.secret[..prefix.len() + self.shown]);
                assert!(key.id.starts_with("key_") && key.printed["mode"] == mode, "{}", key.printed);
                assert!(body.chars().all(|character| ALPHABET.contains(character)), "{body}");
                // The last six are a checksum, so that they are no secret.
                let (random, sum) = body.split_at(body.len() - 6);
                let secret_bits = (random.len() - self.shown) as f64 * 62_f64.log2();
                assert!(secret_bits >= 160.0, "{body}: {secret_bits} bits");
                assert_eq!(sum, checksum(&key.secret[..key.secret.len() - 6]), "{}", key.secret);
                assert!(random.bytes().collect::<BTreeSet<_>>().len() > 10, "{random}");
                keys.push(key);
            }
        }
        let different: BTreeSet<_> = keys.iter().map(|key| &key.prefix).collect();
        assert_eq!(different.len(), keys.len());
        for key in &keys {
            assert_eq!(service.ask(self.read(key)).await.status, 200, "{}", key.printed["name"]);
            self.identified(&service, key).await;
        }
        let log = format!("one\n  X-API-Key: {}\nGET /?token={}&x=1\n", keys[0].secret, keys[3].secret);
        let found = keyside_with_input(["keys", "identify", "--config", &service.config()], &log).await.done();
        for (key, is_there) in keys.iter().zip([true, false, false, true]) {
            assert_eq!(found.stdout.contains(&key.id), is_there, "{found:?}");
            assert!(!(found.stdout.clone() + &found.stderr).contains(&key.secret));
        }
        self.found_by_pattern(&service, &keys).await;
    }

    async fn identified(&self, service: &Service, key: &Minted) {
        let identify = async |text: &str| {
            keyside_with_input(["keys", "identify", "--output", "json", "--config", &service.config()], text).await
        };
        for text in [&key.secret, &key.prefix] {
            let ended = identify(text).await.done();
            assert!(ended.stdout.contains(&key.id), "{ended:?}");
            assert!(!(ended.stdout + &ended.stderr).contains(&key.secret));
        }
        let said = "token minted by Keyside";
        assert!(identify(&key.secret).await.stdout.contains(said));
        let last = if key.secret.ends_with('0') { '1' } else { '0' };
        let mistyped = format!("{}{last}", &key.secret[..key.secret.len() - 1]);
        assert!(!identify(&mistyped).await.stdout.contains(said));
    }

    async fn found_by_pattern(&self, service: &Service, keys: &[Minted]) {
        let pattern = service.run(&["keys", "identify", "--pattern"]).await.done().stdout;
        let shown: Vec<_> = keys.iter().map(|key| key.prefix.as_str()).collect();
        let text: String = keys
            .iter()
            .map(|key| format!("GET /x?key={0}&y=1 \"{0}\",\nX-API-Key: {0}\n{0}x {0}_\n", key.secret))
            .chain([shown.join("\n")])
            .collect();
        let expected: String = keys.iter().flat_map(|key| vec![format!("{}\n", key.secret); 3]).collect();
        let mut grep = Command::new("grep");
        grep.args(["-oP", pattern.trim()]);
        assert_eq!(run(grep, &text).await.done().stdout, expected, "{pattern}\n{text}");
        let script = "import re, sys\nfor found in re.findall(sys.argv[1], sys.stdin.read()): print(found)";
        let mut scan = Command::new(python().await);
        scan.args(["-c", script, pattern.trim()]);
        assert_eq!(run(scan, &text).await.done().stdout, expected, "{pattern}\n{text}");
    }

    /// The token is printed by `create`, this once, and stands nowhere else: the key file holds a slow hash of it.
    pub(super) async fn kept_as_a_hash(&self) {
        let upstream = Upstream::start().await;
        let service = Service::shipped(self.preset, &upstream).await;
        let create = ["keys", "create", "--name", "one", "--owner", "acme", "--mode", "live", "--scope", self.scope];
        // For people, and for programs.
        let printed = service.change(&[&create[..]].concat()).await;
        let token = printed.stdout.split_whitespace().find(|word| word.starts_with(self.prefixes[0])).unwrap();
        assert_eq!(printed.stdout.matches(token).count(), 1, "{}", printed.stdout);
        assert!(!printed.stderr.contains(token) && printed.stderr.contains("not shown again"), "{}", printed.stderr);
        let key = service.create_as("two", &create[4..]).await;
        assert_eq!(key.printed.to_string().matches(&key.secret).count(), 1, "{}", key.printed);
        for token in [token, &key.secret] {
            let request = (self.present)(get(self.path).host(self.hosts[0]), token);
            let answer = service.ask(request).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let unknown =
                (self.present)(get(self.path).host(self.hosts[0]), &token.replace(self.prefixes[0], "other_"));
            assert_eq!(service.ask(unknown).await.status, 401);
        }
        let file = service.key_file();
        assert_eq!(file.matches("hash = \"$argon2id$").count(), 2, "{file}");
        let mut told = vec![file, service.sidecar.printed(), service.sidecar.metrics().await.text().to_owned()];
        for arguments in [&["keys", "list"][..], &["keys", "show", "two"], &["keys", "list", "--output", "json"]] {
            told.push(service.run(arguments).await.done().stdout);
        }
        for entry in std::fs::read_dir(service.sidecar.path("state")).unwrap() {
            told.push(String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).into_owned());
        }
        for token in [token, &key.secret] {
            let secret = &token[self.prefixes[0].len() + self.shown..];
            assert!(told.iter().all(|text| !text.contains(secret)), "{secret}");
        }
        // Nothing is kept by which a lost one could be had again: who asks for more is told to make another.
        let again = service.json(&["keys", "show", "two"]).await;
        assert!(again.get("token").is_none() && again["hash"] == "argon2id", "{again}");
    }

    /// A key that was made before Keyside stood there goes on working, whatever its shape.
    pub(super) async fn takes_over(&self, token: &str) {
        let mut key = Key::token("moved").scopes([self.scope]).with("mode = \"live\"");
        key.public = token[..self.prefixes[0].len() + self.shown].to_owned();
        key.secret = token.to_owned();
        let upstream = Upstream::start().await;
        let service = self.service(&upstream).await;
        service.replace(key_file([&key])).await;
        let request = || get(self.path).host(self.hosts[0]);
        assert_eq!(service.ask((self.present)(request(), token)).await.status, 200);
        let wrong = format!("{}x", &token[..token.len() - 1]);
        assert_eq!(service.ask((self.present)(request(), &wrong)).await.status, 401);
    }

    /// Old keys and unused ones are found, rotated and revoked.
    pub(super) async fn grows_old(&self) {
        let key = |name: &str| {
            let mut key = Key::token(name).scopes([self.scope]).with("mode = \"live\"");
            key.secret = format!("{}{}", self.prefixes[0], &key.secret["ck_live_".len()..]);
            key.public = key.secret[..self.prefixes[0].len() + self.shown].to_owned();
            key
        };
        let read = |key: &Key| (self.present)(get(self.path).host(self.hosts[0]), &key.secret);
        old_and_unused_keys_are_found(self.preset, key, read).await;
    }

    /// The list as it is printed, for a key that was used, one that was not, and one whose secret was only guessed at.
    pub(super) async fn listed(&self) -> (Service, Value) {
        let upstream = Upstream::start().await;
        let service = self.service(&upstream).await;
        let before = jiff::Timestamp::now();
        let used = service.create("live", self.scope).await;
        let unused = service.create("test", self.scope).await;
        let asked = jiff::Timestamp::now();
        assert_eq!(service.ask(self.read(&used)).await.status, 200);
        let answered = jiff::Timestamp::now();
        let list = async |id: &str| {
            let list = service.json(&["keys", "list"]).await;
            list.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap().clone()
        };
        let first = eventually("the last use", async || {
            let key = list(&used.id).await;
            if key["last_used_at"].is_string() { Ok(key) } else { Err(key) }
        })
        .await;
        for (name, value) in used.printed.as_object().unwrap().iter().filter(|(name, _)| *name != "token") {
            assert_eq!(&first[name], value, "{first}");
        }
        assert_eq!((&first["prefix"], &first["status"]), (&Value::from(used.prefix.as_str()), &Value::from("active")));
        let moment = |name: &str| first[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        // Uses are told to the millisecond, creation to the second; the rest is cut off.
        let (created, last_used) = (moment("created_at"), moment("last_used_at"));
        assert!((before.as_second()..=asked.as_second()).contains(&created.as_second()), "{before} {asked} {first}");
        let use_ms = asked.as_millisecond()..=answered.as_millisecond();
        assert!(use_ms.contains(&last_used.as_millisecond()), "{asked} {answered} {first}");

        // Only a successful authentication is a use.
        for key in [&used, &unused] {
            let wrong = Minted { secret: format!("{}x", key.secret), ..key.clone() };
            assert_eq!(service.ask(self.read(&wrong)).await.status, 401);
        }
        // The order of uses is kept, so that this one is saved after those.
        let other = service.create("live", self.scope).await;
        assert_eq!(service.ask(self.read(&other)).await.status, 200);
        eventually("another's use", async || match list(&other.id).await {
            key if key["last_used_at"].is_string() => Ok(()),
            key => Err(key),
        })
        .await;
        assert_eq!(list(&used.id).await["last_used_at"], first["last_used_at"]);
        assert_eq!(list(&unused.id).await["last_used_at"], Value::Null);

        let table = service.run(&["keys", "list"]).await.done().stdout;
        for heading in ["ID", "NAME", "PREFIX", "SCOPES", "MODE", "STATUS", "LAST USED", "CREATED"] {
            assert!(table.lines().next().unwrap().contains(heading), "{heading}: {table}");
        }
        let line = table.lines().find(|line| line.contains(&used.id)).unwrap();
        for word in [&used.prefix, self.scope, "live", "active", "127.0.0.1"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        for key in [&used, &unused, &other] {
            assert!(!table.contains(&key.secret) && !first.to_string().contains(&key.secret));
        }
        (service, first)
    }

    /// A revoked key answers 401 from the moment on at which the command returns, as an unknown one does; it stays
    /// listed with the moment, and nothing brings it back.
    pub(super) async fn dies_and_stays_dead(&self) {
        let upstream = Upstream::start().await;
        let service = self.service(&upstream).await;
        let dead = service.create_as("dead", &["--owner", "acme", "--mode", "live", "--scope", self.scope]).await;
        let other = service.create_as("other", &["--owner", "acme", "--mode", "live", "--scope", self.scope]).await;
        for key in [&dead, &other] {
            assert_eq!(service.ask(self.read(key)).await.status, 200);
        }
        let older = service.key_file();
        let mut kept = service.sidecar.connect(H2).await;
        assert_eq!(kept.send(&self.read(&dead)).await.status, 200);
        service.run(&["keys", "revoke", "dead", "--wait"]).await.done();
        let id = "X-Request-Id";
        let refused = kept.send(&self.read(&dead).field(id, "same")).await;
        assert_eq!(told(&refused), "401 invalid_credentials");
        let never =
            Minted { secret: dead.secret.replace(&dead.prefix, &"x".repeat(dead.prefix.len())), ..dead.clone() };
        let unknown = kept.send(&self.read(&never).field(id, "same")).await;
        assert_eq!((refused.status, &refused.body), (unknown.status, &unknown.body));
        assert_eq!(service.ask(self.read(&other)).await.status, 200);

        let shown = service.json(&["keys", "show", "dead"]).await;
        assert_eq!(shown["status"], "revoked");
        let at: jiff::Timestamp = shown["revoked_at"].as_str().unwrap().parse().unwrap();
        assert!(at >= shown["created_at"].as_str().unwrap().parse().unwrap(), "{shown}");
        // In the list for people, too, with the moment.
        let table = service.run(&["keys", "list", "--status", "revoked"]).await.done().stdout;
        let moment = at.strftime("revoked %Y-%m-%d %H:%MZ").to_string();
        assert!(table.contains(&dead.id) && table.contains(&moment) && !table.contains(&other.id), "{table}");

        // No command reinstates it, and no older file.
        assert_eq!(service.run(&["keys", "rotate", "dead"]).await.status, 1);
        service.replace(older).await;
        assert_eq!(service.ask(self.read(&dead)).await.status, 401);
        let service = Service { sidecar: service.sidecar.restart().await };
        assert_eq!(service.ask(self.read(&dead)).await.status, 401);
        assert_eq!(service.ask(self.read(&other)).await.status, 200);
    }

    /// Create, update, verify, revoke: both keys work meanwhile, and no request fails.
    pub(super) async fn rotates_without_downtime(&self) {
        let upstream = Upstream::start().await;
        let service = self.service(&upstream).await;
        let more = ["--owner", "acme", "--mode", "test", "--scope", self.scope, "--expires", "90d"];
        let old = service.create_as("nightly", &more).await;
        let load = Load::on(&service.sidecar, &[H1, H2], &self.read(&old));
        upstream.request(10).await;
        let rotate = ["keys", "rotate", "nightly", "--overlap", "24h", "--output", "json"];
        let new = Minted::of(service.change(&rotate).await);
        for field in ["name", "owner", "scopes", "mode", "kind"] {
            assert_eq!(new.printed[field], old.printed[field], "{field}");
        }
        assert_eq!(new.printed["rotated_from"], old.id);
        assert!(new.id != old.id && new.secret != old.secret);
        // Every 90 days: the new key has as long a life as the old one.
        for key in [&old, &new] {
            let moment = |name: &str| key.printed[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            assert_eq!(moment("expires_at").duration_since(moment("created_at")).as_hours(), 90 * 24);
        }
        for _ in 0..3 {
            for key in [&new, &old] {
                assert_eq!(service.ask(self.read(key)).await.status, 200);
            }
        }
        // The callers move, and are heard of no more.
        let sent = load.stop().await;
        assert!(sent.len() > 10 && sent.iter().all(|sent| sent.result == Ok(200)), "{sent:?}");
        let end: jiff::Timestamp =
            service.json(&["keys", "show", &old.id]).await["expires_at"].as_str().unwrap().parse().unwrap();
        assert!((23..=24).contains(&end.duration_since(jiff::Timestamp::now()).as_hours()), "{end}");
        service.run(&["keys", "revoke", &old.id, "--wait"]).await.done();
        assert_eq!(service.ask(self.read(&old)).await.status, 401);
        assert_eq!(service.ask(self.read(&new)).await.status, 200);
    }

    /// What `init` prints, step by step, ends in a 200; and every setting of the preset says that it is the preset's.
    pub(super) async fn starts_from_init(&self, call: &str) {
        let upstream = Upstream::start().await;
        let ended = follow(self.preset, call, &upstream).await;
        assert!(ended.stdout.contains("ok\n\n200"), "{ended:?}");
        assert_eq!(upstream.only().field("x-key-owner"), "me");

        let service = Service::shipped(self.preset, &upstream).await;
        let effective = service.run(&["config", "print", "--effective"]).await.done().stdout;
        let mut expected = Vec::new();
        leaves("", &toml::Value::Table(self.text.parse().unwrap()), &mut expected);
        assert!(expected.len() > 5);
        for (name, value) in expected {
            let said = |line: &str| line.starts_with(&format!("{name} = {value} ")) && line.ends_with(&self.origin());
            assert!(effective.lines().any(said), "{name} = {value}:\n{effective}");
        }
        let said = effective.lines().filter(|line| line.ends_with(&self.origin()));
        assert_eq!(said.count(), self.text.lines().filter(|line| is_setting(line)).count() + self.inline());
    }

    fn origin(&self) -> String {
        format!("# preset {}", self.preset)
    }

    /// How many more settings there are than lines: `token = { … }` is three.
    fn inline(&self) -> usize {
        2 * self.text.matches("\ntoken = {").count()
    }
}

fn is_setting(line: &str) -> bool {
    !line.starts_with('#') && line.contains(" = ")
}

/// Every setting of a table by its path; those of routes by their name.
fn leaves(path: &str, value: &toml::Value, found: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let bare = name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
                let name = if bare { name.clone() } else { format!("{name:?}") };
                leaves(&if path.is_empty() { name } else { format!("{path}.{name}") }, value, found);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            items.iter().for_each(|item| leaves("", item, found));
        }
        value => found.push((path.to_owned(), value.to_string())),
    }
}

/// The CRC-32 (ISO-HDLC) of a text as six characters, written anew here.
fn checksum(text: &str) -> String {
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.insert(0, ALPHABET.as_bytes()[(rest % 62) as usize] as char);
        rest /= 62;
    }
    digits.into_iter().collect()
}
