//! What a control plane says of its sidecars. What it leaves out is never taken for good news.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    console::{Console, Failure},
    moments::typed,
};
use crate::{cli::Exit, keys::document::moment};

/// Which sidecars have a revision in force, and which may be serving without it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Receipt {
    /// The revision.
    pub(super) revision: u64,
    acknowledged: Vec<String>,
    pending: Vec<Late>,
    stopped: Vec<Late>,
    /// Whether these are all.
    complete: bool,
    /// Why not, in the words of the control plane.
    #[serde(default)]
    incomplete_because: Option<String>,
}

/// A sidecar that may be serving without it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Late {
    instance: String,
    last_seen: String,
    may_serve_reads_until: String,
    may_serve_writes_until: String,
}

impl Receipt {
    /// The receipt in an answer, where `done` is what was done.
    pub(super) fn read(answer: &Value, done: &str) -> Result<Self, Failure> {
        Self::deserialize(answer).map_err(|error| {
            Failure::new(format!(
                "{done}, but it is not known which sidecars have it: the receipt of the control plane cannot be read: \
                 {error}"
            ))
        })
    }

    /// Whether no sidecar may be serving without it.
    pub(super) fn is_in_force(&self) -> bool {
        self.pending.is_empty() && self.complete
    }

    /// Adds it to what is printed for programs, after whether it is in force.
    pub(super) fn show(&self, shown: &mut Value) {
        shown["in_force"] = self.is_in_force().into();
        if let (Value::Object(shown), Ok(Value::Object(fields))) = (shown, serde_json::to_value(self)) {
            shown.extend(fields);
        }
    }

    /// Says who has it; where that was waited for, and how long that took, who has it not is a failure.
    pub(super) fn conclude(
        &self,
        console: &mut Console<'_>,
        waited: Option<Duration>,
        done: &str,
    ) -> Result<Exit, Failure> {
        if !self.stopped.is_empty() {
            let stopped: Vec<_> = self.stopped.iter().map(described).collect();
            console.warn(format_args!(
                "these were stopped without it, and would serve what is on their disk if they were started without \
                 reaching a control plane:\n  {}",
                stopped.join("\n  ")
            ));
        }
        let said = self.incomplete_because.as_deref().unwrap_or("not all sidecars are known");
        let doubt: String = said.chars().filter(|char| !char.is_control()).collect();
        if self.pending.is_empty() {
            match waited {
                Some(_) if !self.complete => {
                    return Err(Failure::new(format!("{done}, but it is not known which sidecars have it: {doubt}")));
                }
                None if !self.complete => {
                    console.warn(format_args!("{doubt}: one that is not known may be serving without it"));
                }
                _ if !self.acknowledged.is_empty() => console.say("Every known sidecar has it."),
                Some(_) if self.stopped.is_empty() => {
                    console.say("No sidecar is known: nobody has confirmed it.");
                }
                _ => {}
            }
            return Ok(Exit::Done);
        }
        let pending: BTreeSet<_> = self.pending.iter().map(described).collect();
        let mut pending = pending.into_iter().collect::<Vec<_>>().join("\n  ");
        if !self.complete {
            pending.push_str(&format!("\nand there may be others: {doubt}"));
        }
        match waited {
            Some(waited) => Err(Failure::new(format!(
                "{done}, but not every sidecar has confirmed it; given up after {}:\n  {pending}",
                typed(waited.saturating_add(Duration::from_millis(500)))
            ))),
            None => {
                console.warn(format_args!(
                    "these sidecars may be serving without it (--wait waits for them):\n  {pending}"
                ));
                Ok(Exit::Done)
            }
        }
    }
}

fn described(late: &Late) -> String {
    let at = |text: &str| moment(text).map_or_else(|| "?".to_owned(), |at| at.to_string());
    let plain: String = late.instance.chars().filter(|char| !char.is_control()).collect();
    format!(
        "{plain}, last heard {}; serves what reads until {}, all else until {}",
        at(&late.last_seen),
        at(&late.may_serve_reads_until),
        at(&late.may_serve_writes_until)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{cli::keys::console::Output, clock};

    fn late(instance: &str) -> Value {
        let at = "2026-01-02T03:04:05Z";
        json!({
            "instance": instance, "last_seen": at, "may_serve_reads_until": at, "may_serve_writes_until": at
        })
    }

    fn whole() -> Value {
        json!({ "revision": 7, "acknowledged": ["a.1"], "pending": [], "stopped": [], "complete": true, "message": "Done" })
    }

    /// What is said of it, and how it ends.
    fn concluded(receipt: &Value, wait: Option<Duration>) -> (String, Result<Exit, String>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console {
            output: Output::Table,
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            is_attended: false,
            now: clock::now(),
        };
        let ended = Receipt::read(receipt, "it is done").unwrap().conclude(&mut console, wait, "it is done");
        (String::from_utf8(err).unwrap(), ended.map_err(|failure| failure.message))
    }

    #[test]
    fn what_is_left_out_or_of_another_type_is_a_failure() {
        assert!(Receipt::read(&whole(), "it is done").unwrap().is_in_force());
        for name in ["revision", "acknowledged", "pending", "stopped", "complete"] {
            let mut stripped = whole();
            stripped.as_object_mut().unwrap().shift_remove(name);
            let failure = Receipt::read(&stripped, "it is done").unwrap_err();
            assert_eq!(failure.exit, Exit::Failed);
            assert!(failure.message.starts_with("it is done, but") && failure.message.contains(name), "{failure:?}");
            for other in [Value::Null, json!("none"), json!({}), json!(-1), json!([{}])] {
                let mut changed = whole();
                changed[name] = other;
                Receipt::read(&changed, "it is done").unwrap_err();
            }
        }
        for nothing in [Value::Null, json!("done"), json!(true)] {
            Receipt::read(&nothing, "it is done").unwrap_err();
        }
        let mut nameless = whole();
        nameless["pending"] = json!([{ "instance": "b.1" }]);
        Receipt::read(&nameless, "it is done").unwrap_err();
    }

    #[test]
    fn who_may_be_serving_without_it_is_named() {
        let wait = Some(Duration::from_secs(2));
        assert_eq!(concluded(&whole(), wait), ("Every known sidecar has it.\n".to_owned(), Ok(Exit::Done)));
        let mut nobody = whole();
        nobody["acknowledged"] = json!([]);
        assert!(concluded(&nobody, wait).0.starts_with("No sidecar is known"));
        let mut pending = whole();
        pending["pending"] = json!([late("b\u{1b}.1")]);
        let (said, ended) = concluded(&pending, wait);
        let told = ended.unwrap_err();
        assert!(said.is_empty() && told.contains("b.1, last heard 2026-01-02T03:04:05Z"), "{said}");
        assert!(told.contains("given up after 2s:"), "{told}");
        let (_, ended) = concluded(&pending, Some(Duration::from_millis(15_200)));
        assert!(ended.unwrap_err().contains("given up after 15s:"));
        let (said, ended) = concluded(&pending, None);
        assert!(said.contains("b.1, last heard") && ended == Ok(Exit::Done), "{said}");
        let mut partial = whole();
        partial["complete"] = false.into();
        assert!(concluded(&partial, wait).1.unwrap_err().contains("not all sidecars are known"));
        partial["incomplete_because"] = "the store\n could not be asked".into();
        partial["stopped"] = json!([late("c.1")]);
        let (said, ended) = concluded(&partial, wait);
        assert!(said.contains("c.1") && ended.unwrap_err().contains("the store could not be asked"), "{said}");
        let (said, ended) = concluded(&partial, None);
        assert!(said.contains("the store could not be asked") && ended == Ok(Exit::Done), "{said}");
        assert!(!said.contains("Every known"), "{said}");
        // Who is known to lack it is named all the same.
        let mut both = partial.clone();
        both["pending"] = json!([late("b.1")]);
        let told = concluded(&both, wait).1.unwrap_err();
        assert!(told.contains("b.1, last heard") && told.contains("the store could not be asked"), "{told}");
        let told = concluded(&both, None).0;
        assert!(told.contains("b.1, last heard") && told.contains("the store could not be asked"), "{told}");
        let mut shown = json!({ "id": "key_1" });
        Receipt::read(&partial, "it is done").unwrap().show(&mut shown);
        assert_eq!(
            (&shown["in_force"], &shown["complete"], &shown["id"]),
            (&false.into(), &false.into(), &"key_1".into())
        );
    }
}
