//! Several control planes on one database.

use std::time::Instant;

use super::{SOON, answers, check, names, sidecars};
use crate::harness::{Plane, Postgres, Upstream};

/// Ends the sessions that wait for the word that somebody has written.
const DEAFEN: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE pid <> pg_backend_pid() AND datname = current_database() AND query ILIKE 'listen%'";

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
            // Nobody is told: it is looked up.
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
