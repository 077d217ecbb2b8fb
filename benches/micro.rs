//! The hot parts of a request, one by one and without a network: `cargo bench --bench micro`.
//!
//! Each case is a row of [`CASES`], named `part/case`; `cargo bench --bench micro -- policy` runs the rows of one part.
//! The parts stand in the order in which a request meets them. Rows measure a steady state: the limits are never used
//! up, the secret was verified before, and the request is one that is allowed.

use std::{cell::Cell, hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use http::{HeaderName, request::Parts};
use keyside::{
    clock::{self, Mono},
    credential,
    facts::{self, Arrival, Facts},
    keys::{
        KeyRecord, KeyStore,
        document::{Document, KeyRow, Parser},
        secret::{Algorithm, Secret, SecretHash},
        store::{Changes, CutOff, Terms},
        verify::{self, Verifier},
    },
    limits::{self, AddressHandle, Failures, Limiter, Plan, Readings},
    listener::Fields,
    policy::{self, Identity, Policy, RouteSettings},
    proxy::{
        OwnerHeaderSettings,
        headers::HeaderRules,
        outgoing::{self, Outgoing, Way},
        upstream::{Received, RequestFraming},
    },
};

/// How many keys a lookup goes through.
const KEYS: usize = 10_000;

/// What every take finds.
const ROOM: &str = "no limit is used up";

type Case = fn(&World, &mut Bencher<'_>);

const CASES: &[(&str, Case)] = &[
    ("facts/browser_head", |world, bencher| {
        bencher.iter(|| world.facts(black_box(&world.basic)));
    }),
    ("credential/basic", |world, bencher| world.extract(&world.basic, bencher)),
    ("credential/bearer", |world, bencher| world.extract(&world.bearer, bencher)),
    ("credential/named_header", |world, bencher| world.extract(&world.header, bencher)),
    ("credential/strip", |world, bencher| {
        let target = world.facts(&world.basic).target;
        bencher.iter_batched_ref(
            || (world.basic.headers.clone(), target.clone()),
            |(headers, target)| credential::strip(headers, target, &world.credential),
            criterion::BatchSize::SmallInput,
        );
    }),
    ("lookup/pair_of_10000", |world, bencher| {
        let names: Vec<String> = (0..KEYS).map(consumer_key).collect();
        let mut index = 0;
        bencher.iter(|| {
            index = (index + 7919) % KEYS;
            world.with_set(|set| set.find_pair(black_box(names[index].as_bytes())).is_some())
        });
    }),
    ("lookup/token_of_10000", |world, bencher| {
        let tokens: Vec<String> = (0..KEYS).map(token).collect();
        let mut index = 0;
        bencher.iter(|| {
            index = (index + 7919) % KEYS;
            world.with_set(|set| set.find_token(black_box(tokens[index].as_bytes())).next().is_some())
        });
    }),
    ("lookup/unknown_pair", |world, bencher| {
        bencher.iter(|| world.with_set(|set| set.find_pair(black_box(b"ck_unknown")).is_some()));
    }),
    ("set/one_key_changes", |_, bencher| {
        let (store, document) = (KeyStore::default(), key_document());
        store.apply(&document, &Terms::default(), clock::now());
        let mut row = KeyRow::clone(&document.keys[0]);
        bencher.iter(|| {
            row.name = if row.name.is_empty() { "another".into() } else { "".into() };
            let keys = vec![(row.id.clone(), Some(Arc::new(row.clone())))];
            let changes = Changes { keys, ..Changes::default() };
            store.apply_changes(&changes, &Terms::default(), clock::now(), |_| {}).expect("it is judged by itself")
        });
    }),
    ("set/one_key_is_cut_off", |_, bencher| {
        let (store, document) = (KeyStore::default(), key_document());
        store.apply(&document, &Terms::default(), clock::now());
        let cut = CutOff { keys: vec![document.keys[0].id.clone()], ..CutOff::default() };
        bencher.iter(|| store.cut_off(black_box(&cut)));
    }),
    ("secret/verified_before", |world, bencher| {
        let (key, secret) = (world.key(), Secret::new(consumer_secret(0).as_bytes()));
        assert!(world.verifier.is_known(&key, &secret), "the secret was verified before");
        bencher.iter(|| world.verifier.is_known(black_box(&key), black_box(&secret)));
    }),
    ("policy/by_method", |world, bencher| world.decide(&world.by_method, &world.basic, bencher)),
    ("policy/first_of_5_routes", |world, bencher| world.decide(&world.few_routes, &world.basic, bencher)),
    ("policy/last_of_100_routes", |world, bencher| world.decide(&world.many_routes, &world.basic, bencher)),
    ("policy/folded_path", |world, bencher| world.decide(&world.few_routes, &world.upper_case, bencher)),
    ("policy/overridden_method", |world, bencher| world.decide(&world.few_routes, &world.overridden, bencher)),
    ("limits/address_kept_by_connection", |world, bencher| {
        let mut handle = AddressHandle::default();
        let client = address(1);
        bencher.iter(|| {
            let mut readings = Readings::default();
            world
                .limiter
                .take_address_by(&mut handle, &world.plan, client, world.later(1200), &mut readings)
                .expect(ROOM)
        });
    }),
    ("limits/address_of_10000", |world, bencher| {
        let mut index = 0;
        bencher.iter(|| {
            index = (index + 7919) % 10_000;
            let mut readings = Readings::default();
            world.limiter.take_address(&world.plan, address(index), world.later(1), &mut readings).expect(ROOM)
        });
    }),
    ("limits/key_and_owner", |world, bencher| {
        let key = world.key();
        bencher.iter(|| {
            let mut readings = Readings::default();
            world.limiter.take_key(&world.plan, &key, world.later(150), &mut readings).expect(ROOM)
        });
    }),
    ("headers/request", |world, bencher| {
        let (key, facts) = (world.key(), world.facts(&world.basic));
        let way = Way::default();
        let outgoing = Outgoing {
            method: &facts.method,
            base_path: "",
            facts: &facts,
            identity: outgoing::Identity::Key(&key),
            peer: facts.client,
            way: Some(&way),
            host: facts.host.authority().as_bytes(),
            authorization: None,
            upgrade: None,
            framing: RequestFraming::None,
        };
        bencher.iter(|| world.rules.write_request(black_box(&world.basic.headers), &outgoing));
    }),
    ("headers/answer", |world, bencher| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 612\r\n\
                    Date: Sat, 21 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
                    X-Key-Owner: forged\r\n\r\n";
        let received = Received::of(Bytes::from_static(head.as_bytes())).unwrap_or_else(|error| panic!("{error}"));
        let mut fields = Fields::default();
        bencher.iter(|| {
            fields.clear();
            world.rules.copy_answer(black_box(&received), |_| false, &mut fields);
        });
    }),
];

/// What the rows share.
struct World {
    arrival: Arrival,
    facts: facts::Settings,
    credential: credential::Settings,
    keys: KeyStore,
    verifier: Verifier,
    by_method: Policy,
    few_routes: Policy,
    many_routes: Policy,
    limiter: Arc<Limiter>,
    plan: Arc<Plan>,
    rules: HeaderRules,
    basic: Parts,
    bearer: Parts,
    header: Parts,
    upper_case: Parts,
    overridden: Parts,
    now: Cell<u64>,
}

impl World {
    fn new() -> Self {
        let keys = KeyStore::default();
        let document = key_document();
        let applied = keys.apply(&document, &Terms::default(), clock::now());
        assert_eq!(applied.keys, 2 * KEYS, "{:?}", applied.faults.first());

        let (limiter, plan) = (Arc::new(Limiter::new(100_000)), Arc::new(Plan::new(&limits())));
        let verifier =
            Verifier::start(verify::Settings { threads: 1, ..verify::Settings::default() }).expect("a verifier");
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", consumer_key(0), consumer_secret(0))));
        let world = Self {
            arrival: Arrival { peer: address(1), secure: true, http2: false },
            facts: facts::Settings {
                effective_path_parameter: Some("rest_route".into()),
                ..facts::Settings::default()
            },
            credential: credential::Settings {
                header: Some(HeaderName::from_static("x-api-key")),
                ..credential::Settings::default()
            },
            keys,
            by_method: Policy::new(&policy::Settings::default()),
            few_routes: routes(4),
            many_routes: routes(99),
            rules: HeaderRules::new(
                OwnerHeaderSettings {
                    reserved_prefix: "x-key-".into(),
                    key_id: HeaderName::from_static("x-key-id"),
                    owner: HeaderName::from_static("x-key-owner"),
                    scopes: HeaderName::from_static("x-key-scopes"),
                    mode: HeaderName::from_static("x-key-mode"),
                },
                HeaderName::from_static("x-forwarded-for"),
            ),
            bearer: request("/v1/transactions/7", "authorization", &format!("Bearer {}", token(0))),
            header: request("/v1/transactions/7", "x-api-key", &token(0)),
            upper_case: request("/v1/transactions/AB7/", "authorization", &basic),
            overridden: request("/v1/transactions/7?_method=HEAD", "authorization", &basic),
            basic: request("/v1/transactions/7?page=2&per_page=50", "authorization", &basic),
            limiter,
            plan,
            verifier,
            now: Cell::new(clock::mono().as_nanos()),
        };
        let secret = Secret::new(consumer_secret(0).as_bytes());
        let charge = Failures::new(Arc::clone(&world.limiter), Arc::clone(&world.plan), address(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let verdict = runtime.block_on(world.verifier.verify(&world.key(), &secret, charge));
        assert_eq!(verdict, verify::Verdict::Right);
        world
    }

    fn facts(&self, head: &Parts) -> Facts {
        Facts::from_head(head, &self.arrival, &self.facts).unwrap_or_else(|(rejection, _)| panic!("{rejection:?}"))
    }

    fn with_set<T>(&self, look: impl FnOnce(&keyside::keys::KeySet) -> T) -> T {
        look(self.keys.load().as_deref().expect("a set"))
    }

    fn key(&self) -> Arc<KeyRecord> {
        self.with_set(|set| Arc::clone(set.find_pair(consumer_key(0).as_bytes()).expect("a key")))
    }

    /// A moment so many milliseconds after the last one: slow enough that no limit is used up.
    fn later(&self, millis: u64) -> Mono {
        self.now.set(self.now.get() + millis * 1_000_000);
        Mono::from_nanos(self.now.get())
    }

    fn extract(&self, head: &Parts, bencher: &mut Bencher<'_>) {
        let query = head.uri.query();
        assert!(matches!(credential::extract(&head.headers, query, &self.credential), Ok(Some(_))));
        bencher.iter(|| credential::extract(black_box(&head.headers), query, &self.credential));
    }

    /// Routes and decides, as for every request with a verified credential.
    fn decide(&self, policy: &Policy, head: &Parts, bencher: &mut Bencher<'_>) {
        let (facts, identity) = (self.facts(head), Identity::verified(self.key()));
        let decide = |facts: &Facts| policy.decide(&policy.route(facts)?, &identity, facts);
        assert!(decide(&facts).is_ok(), "the request is allowed");
        bencher.iter(|| decide(black_box(&facts)));
    }
}

fn address(index: usize) -> IpAddr {
    let [.., b, c] = (index as u32).to_be_bytes();
    IpAddr::from([198, 18, b, c])
}

fn consumer_key(index: usize) -> String {
    format!("ck_{:040x}", (index as u128 + 1) * 0x9e37_79b9_7f4a_7c15)
}

fn consumer_secret(index: usize) -> String {
    format!("cs_{:040x}", (index as u128 + 1) * 0xc2b2_ae3d_27d4_eb4f)
}

fn token(index: usize) -> String {
    format!("ck_live_{index:06}{}", "x".repeat(32))
}

fn key_document() -> Document {
    Parser::default().parse(document().as_bytes()).expect("a key document")
}

/// As many pairs and as many tokens as [`KEYS`] says, of 100 owners.
fn document() -> String {
    let hash = |secret: &str| {
        let hash = SecretHash::make(Algorithm::Sha256, &Secret::new(secret.as_bytes()), None).expect("a hash");
        hash.as_phc().to_owned()
    };
    let mut text = String::new();
    for index in 0..KEYS {
        let owner = index % 100;
        let common = format!("owner = \"owner-{owner}\"\nscopes = [\"read_write\", \"transactions:read\"]\n");
        let (pair, token) = (consumer_key(index), token(index));
        text += &format!(
            "[[key]]\nid = \"key_p{index}\"\nname = \"pair {index}\"\nkind = \"pair\"\nprefix = \"{pair}\"\nhash = \"{}\"\n{common}\n",
            hash(&consumer_secret(index)),
        );
        text += &format!(
            "[[key]]\nid = \"key_t{index}\"\nname = \"token {index}\"\nkind = \"token\"\nprefix = \"{}\"\nhash = \"{}\"\n{common}\n",
            &token[..14],
            hash(&token),
        );
    }
    text
}

/// So many routes that do not match, then one that does.
fn routes(before: usize) -> Policy {
    let route = |path: &str| RouteSettings {
        scope: vec!["transactions:read".parse().expect("a scope")],
        ..RouteSettings::new(path.parse().expect("a pattern"))
    };
    let mut routes: Vec<RouteSettings> =
        (0..before).map(|index| route(&format!("/v1/resource-{index}/{{id}}"))).collect();
    routes.push(route("/v1/transactions/**"));
    Policy::new(&policy::Settings { routes, ..policy::Settings::default() })
}

fn limits() -> limits::Settings {
    let quotas = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a quota")).collect();
    limits::Settings {
        per_ip: quotas(&["60/1m", "30/5s"]),
        per_key: quotas(&["600/1m"]),
        per_owner: quotas(&["1000000/1d"]),
        ..limits::Settings::default()
    }
}

/// A GET with the fields that a common client sends.
fn request(target: &str, name: &str, value: &str) -> Parts {
    let request = http::Request::get(target)
        .header("host", "api.example.com")
        .header("user-agent", "WooCommerce-Python-REST-API/3.0.0")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, deflate")
        .header("connection", "keep-alive")
        .header(name, value)
        .body(())
        .expect("a request");
    request.into_parts().0
}

fn micro(criterion: &mut Criterion) {
    let world = World::new();
    for (name, case) in CASES {
        criterion.bench_function(name, |bencher| case(&world, bencher));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = micro
}
criterion_main!(benches);
