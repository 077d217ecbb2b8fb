//! Several control planes on one database.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::{SOON, answers, check, names, sidecars};
use crate::harness::{Plane, Postgres, Received, Upstream, api, eventually};

/// The sessions that wait for the word that somebody has written.
macro_rules! of_listeners {
    ($what:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND datname = current_database() AND query ILIKE 'listen%'"
        )
    };
}
const LISTENING: &str = of_listeners!("count(*)");
const DEAFEN: &str = of_listeners!("pg_terminate_backend(pid)");

/// A change made at one control plane is in force at the sidecars of the other; so says the receipt.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_one_is_in_force_at_the_sidecars_of_the_other() {
    let server = Postgres::shared();
    let database = server.database();
    let store = format!("[store]\nurl = {:?}", server.url(&database));
    let upstream = Upstream::start().await;
    let one = Plane::prepare().config(&store).start().await;
    let two = Plane::prepare().config(&store).start().await;
    let mut fleet = sidecars(&one, &upstream, &["a"]).await;
    fleet.insert("b".into(), two.sidecar(&upstream).config("[keys.control]\ninstance = \"b\"").start().await);
    one.followed_by(2).await;
    for round in 0..8 {
        let (here, there) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let key = here.mint(&format!("key {round}")).await;
        let minted = Instant::now();
        for sidecar in fleet.values() {
            answers(sidecar, &key, 200).await;
        }
        assert!(minted.elapsed() < 3 * SOON, "{:?}", minted.elapsed());
        if round >= 4 {
            // Nobody is told: it is looked up. They listen again a second after they were last cut off.
            let both = async || {
                let listening = server.sql(&database, LISTENING);
                if listening == "2" { Ok(()) } else { Err(listening) }
            };
            eventually("both that listen", both).await;
            assert!(!server.sql(&database, DEAFEN).is_empty());
        }
        let receipt = there.revoke(&key.id).await;
        assert_eq!(
            (names(&receipt["acknowledged"]), names(&receipt["pending"])),
            (vec!["a".into(), "b".into()], vec![])
        );
        for sidecar in fleet.values() {
            check(sidecar, &key, 401).await;
        }
    }
    // One goes away: its sidecar is named by the other, with how long it may serve.
    drop(two);
    let key = one.mint("last").await;
    let receipt = one.revoke(&key.id).await;
    assert_eq!((names(&receipt["acknowledged"]), names(&receipt["pending"])), (vec!["a".into()], vec!["b".into()]));
    super::audit_log(&one).await;
}

/// Takes the newest change away, as a failover to a replica that lagged would.
const LOSE: &str = "SET search_path = keyside; \
                    DELETE FROM keys WHERE id = (SELECT subject FROM audit ORDER BY seq DESC LIMIT 1); \
                    DELETE FROM changes WHERE revision = (SELECT revision FROM head); \
                    DELETE FROM audit WHERE seq = (SELECT entries FROM head); \
                    UPDATE head SET entries = entries - 1, hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), \
                    revision = revision - 1, digest = (SELECT digest FROM changes ORDER BY revision DESC LIMIT 1)";

/// What is in memory is shown for a while without the database, and never when the database has lost it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_cannot_vouch_for_is_not_shown() {
    let (server, upstream) = (Postgres::new(&[]), Upstream::start().await);
    let database = server.database();
    let plane = Plane::prepare().config(&format!("[store]\nurl = {:?}", server.url(&database))).start().await;
    let fleet = sidecars(&plane, &upstream, &["a"]).await;
    let (kept, lost) = (plane.mint("kept").await, plane.mint("lost").await);
    for key in [&kept, &lost] {
        answers(&fleet["a"], key, 200).await;
    }
    let list = || api("GET", "/v1/keys", &Value::Null);
    let code = |answer: &Received| answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();

    server.stop();
    let stopped = Instant::now();
    assert_eq!(plane.ask(list()).await.status, 200);
    eventually("nothing to be shown", async || {
        let answer = plane.ask(list()).await;
        if answer.status == 503 { Ok(()) } else { Err(answer.status) }
    })
    .await;
    let shown = stopped.elapsed();
    assert!(shown > 10 * SOON && shown < 20 * SOON, "{shown:?}");
    let refused = plane.ask(api("DELETE", &format!("/v1/keys/{}", kept.id), &Value::Null)).await;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "store_unavailable"));
    server.start();
    eventually("the keys to be shown again", async || {
        let answer = plane.ask(list()).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;

    server.sql(&database, LOSE);
    eventually("the loss to be noticed", async || {
        let answer = plane.ask(list()).await;
        if (answer.status, code(&answer).as_str()) == (503, "store_went_back") { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let refused = plane.ask(api("DELETE", &format!("/v1/keys/{}", kept.id), &Value::Null)).await;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "store_went_back"));
    let said = |line: &Value| line["message"].as_str().is_some_and(|said| said.contains("the store went back in time"));
    plane.log.object("the loss", said).await;
    check(&fleet["a"], &kept, 200).await;

    // What is left begins a new history, which sidecars take.
    let plane =
        plane.stop(Signal::TERM).await.try_start_with(&["--restored"]).await.map_err(|(ended, _)| ended).unwrap();
    answers(&fleet["a"], &lost, 401).await;
    check(&fleet["a"], &kept, 200).await;
    let receipt = plane.revoke(&kept.id).await;
    assert_eq!((names(&receipt["acknowledged"]), names(&receipt["pending"])), (vec!["a".into()], vec![]));
    check(&fleet["a"], &kept, 401).await;
}
