//! What operators do about sidecars: forget those that are gone for good.

use serde_json::json;

use super::{
    answer::Problem,
    caller::Caller,
    desk::Desk,
    ledger::{Draft, Image},
    store::Role,
};
use crate::clock::Wall;

/// Forgets a sidecar, so that receipts do not name it any more. The audit log says who did.
///
/// # Errors
///
/// There is none, it is there, the caller may not, or the store failed.
pub async fn forget(desk: &Desk, caller: &Caller, instance: &str) -> Result<(), Problem> {
    caller.needs(Role::Admin)?;
    // It may have come to another control plane a moment ago: without it, the next receipt would say that all have it.
    desk.fleet.look().await?;
    let views = desk.fleet.sidecars();
    let view = views.iter().find(|view| view.sidecar.claim.instance == instance);
    let view = view.ok_or_else(|| Problem::not_found("sidecar"))?;
    if view.lives {
        // It would serve on, and receipts would say that all have what it has not.
        let message = format!(
            "{instance} is connected: stop it first; forget those that will not come back. One that hangs can be \
             forgotten a minute after a change that it has not taken."
        );
        return Err(Problem::conflict("connected", message));
    }
    // Written down first: that it was forgotten may be all that is left of it.
    let (then, subject) = (caller.clone(), instance.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Admin)?;
        let draft = Draft { action: "sidecar.forget", subject: subject.clone(), detail: json!({}), ..Draft::default() };
        Ok::<_, Problem>((Some(draft), ()))
    };
    desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    match desk.fleet.forget(instance).await? {
        true => Ok(()),
        false => Err(Problem::not_found("sidecar")),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use crate::control::{
        fleet::{Asker, Fleet},
        sample::{ADMIN, Bench, OPERATOR},
        store::Claim,
    };
    use serde_json::Value;

    fn asker(instance: &str) -> Asker {
        let claim = Claim { instance: instance.into(), bound: "secret:0".into(), credential: "token:0".into() };
        Asker { claim, replaces: vec![], address: [203, 0, 113, 7].into(), max_stale: 60, max_stale_write: 60 }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_come_to_another_control_plane_is_not_forgotten() {
        let bench = Bench::new("[]").await;
        let other = Fleet::new(Arc::clone(&bench.desk.ledger), Duration::from_secs(60));
        let forget =
            async |instance| bench.ask(ADMIN, "DELETE", &format!("/v1/sidecars/{instance}"), Value::Null).await;
        drop(bench.desk.fleet.register(&asker("a.1")).await.unwrap());
        bench.desk.fleet.heard("a.1", None, false, true);
        bench.desk.fleet.save().await.unwrap();
        // Back, and new.
        other.load().await.unwrap();
        let _streams = (other.register(&asker("a.1")).await.unwrap(), other.register(&asker("b.1")).await.unwrap());
        forget("a.1").await.error(409, "a.1 is connected");
        forget("b.1").await.error(409, "b.1 is connected");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_forgets_a_sidecar_is_written_down() {
        let bench = Bench::new("[]").await;
        let asker = asker("a.1");
        let attached = bench.desk.fleet.register(&asker).await.unwrap();
        let forget = async |who| bench.ask(who, "DELETE", "/v1/sidecars/a.1", Value::Null).await;
        let (before, _) = bench.audit().await;
        forget(OPERATOR).await.error(403, "admin");
        let goodbye = || bench.desk.fleet.heard("a.1", None, false, true);
        for attached in [Some(attached), None] {
            let refused = forget(ADMIN).await.error(409, "a.1 is connected: stop it first");
            assert_eq!(refused["code"], "connected", "{attached:?}");
            if attached.is_some() {
                // Whatever is said in its name: it follows.
                goodbye();
                forget(ADMIN).await.error(409, "connected");
                drop(bench.desk.fleet.register(&asker).await.unwrap());
            }
        }
        goodbye();
        assert_eq!(bench.audit().await.0, before);
        forget(ADMIN).await.data(200);
        let (after, entries) = bench.audit().await;
        assert_eq!(after, before + 1);
        assert!(entries.contains("sidecar.forget") && entries.contains("a.1"), "{entries}");
        forget(ADMIN).await.error(404, "sidecar");
        assert_eq!(bench.audit().await.0, after, "there is nothing to write down");
    }
}
