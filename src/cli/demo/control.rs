//! `keyside demo --control`: a control plane, two sidecars that sync from it, and the sample API behind them.

use std::{
    error::Error,
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use super::{
    Event, Upstream, check_free,
    folder::Folder,
    print,
    script::{bearer_of, quoted},
};
use crate::{
    clock, config,
    control::{
        answer::Problem,
        caller::{Caller, Power},
        desk::Desk,
        keys::{self, Made, NewKey},
        ledger::Actor,
        owners::{self, NewOwner},
        plane::Plane,
        store::Role,
    },
    keys::{Kind, Kyc, Mode, mint},
    sidecar::Sidecar,
};

/// How long the sidecars may take to have the first keys.
const PATIENCE: Duration = Duration::from_secs(20);

/// The ports on 127.0.0.1; 0 means any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) admin: u16,
    pub(super) control: u16,
}

/// Runs until the first signal.
pub(super) fn run(
    folder: &Folder,
    upstream: &Upstream,
    ports: Ports,
    events: mpsc::Sender<Event>,
    next: &mpsc::Receiver<Event>,
) -> Result<(), Box<dyn Error>> {
    check_free(ports.control, "--control-port")?;
    let password = mint::random_token("")?;
    let token = mint::random_token("kop_")?;
    let sync = mint::random_token("")?;
    folder.certificates(clock::now().wall)?;
    for (name, text) in [("admin-password", &password), ("admin-token", &token), ("sync-token", &sync)] {
        folder.write(name, text)?;
    }
    folder.write("control.toml", &include_str!("control.toml").replace("{port}", &ports.control.to_string()))?;
    // The control plane's port is known once it listens; what it offers is read from the first sidecar's before.
    let first = |control| sidecar(upstream, "first", ports.first, ports.admin, control);
    folder.write("first.toml", &first(ports.control.max(1)))?;
    let loaded = config::control::load(&folder.path().join("control.toml"), config::environment())?;
    let plane = Plane::start(loaded.settings, false)?;
    let control = *plane.addresses().first().ok_or("the control plane listens nowhere")?;
    folder.replace("first.toml", &first(control.port()))?;
    folder.write("second.toml", &sidecar(upstream, "second", 0, 0, control.port()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let made = runtime.block_on(first_keys(plane.desk())).map_err(|problem| problem.message)?;
    let sidecars = ["first.toml", "second.toml"].map(|name| Sidecar::start(folder.path().join(name)));
    let [first, second] = sidecars;
    let (first, second) = (first?, second?);
    let synced = runtime.block_on(async { tokio::time::timeout(PATIENCE, until_synced(plane.desk())).await });
    synced.map_err(|_| "the sidecars did not sync in time")?;
    let addresses = [&first, &second].map(|sidecar| sidecar.addresses().first().copied());
    let [Some(one), Some(other)] = addresses else { return Err("a sidecar listens nowhere".into()) };
    print(&welcome(folder, control, [one, other], &made, (&password, &token)))?;

    // Ends with the first signal; the second one does not wait for what is still running.
    let _ = next.recv();
    thread::spawn(move || {
        runtime.block_on(async {
            first.stop().await;
            second.stop().await;
            plane.stop().await;
        });
        events.send(Event::Stopped)
    });
    match next.recv() {
        Ok(Event::Stopped) | Err(_) => Ok(()),
        Ok(Event::Signal) => Err("ended at once by a second signal".into()),
    }
}

/// The configuration of a sidecar that syncs.
fn sidecar(upstream: &Upstream, name: &str, port: u16, admin: u16, control: u16) -> String {
    let keys = format!(
        "control = {{ url = \"https://127.0.0.1:{control}\", token = {{ file = \"sync-token\" }}, ca = \"ca.crt\", \
         instance = \"{name}\" }}\nstate = \"state-{name}/\""
    );
    super::folder::configuration(upstream, super::folder::Ports { listen: port, admin })
        .replace("file = \"keys.toml\"\nstate = \"state/\"", &keys)
}

/// An owner with two keys.
async fn first_keys(desk: &Arc<Desk>) -> Result<[Made; 2], Problem> {
    let actor = Actor { name: "system".to_owned(), from: None };
    let caller = Caller { actor, power: Power::Operator(Role::Admin) };
    let owner = NewOwner {
        id: "demo".to_owned(),
        name: Some("Demo service account".to_owned()),
        capabilities: Vec::new(),
        kyc: Kyc::Approved,
        plan: None,
    };
    owners::create(desk, &caller, owner).await?;
    let key = |name: &str, kind, mode, scopes: &[&str]| NewKey {
        name: name.to_owned(),
        kind: Some(kind),
        mode,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        owner: Some("demo".to_owned()),
        ..NewKey::default()
    };
    let token = key("Token of the demo", Kind::Token, Some(Mode::Live), &["wallets:read", "transactions:read"]);
    let pair = key("Pair of the demo", Kind::Pair, None, &["read"]);
    Ok([keys::create(desk, &caller, token, None).await?, keys::create(desk, &caller, pair, None).await?])
}

/// Until both sidecars have acknowledged what there is.
async fn until_synced(desk: &Desk) {
    let revision = desk.ledger.read(|image| image.head().revision);
    let mut news = desk.fleet.news();
    let synced = || desk.fleet.sidecars().iter().filter(|view| view.sidecar.revision >= revision).count() == 2;
    // It fails only when the fleet is gone, and we hold it.
    while !synced() && news.changed().await.is_ok() {}
}

/// Everything that the demo says.
fn welcome(
    folder: &Folder,
    control: SocketAddr,
    [one, other]: [SocketAddr; 2],
    [token, pair]: &[Made; 2],
    (password, admin): (&str, &str),
) -> String {
    let ca = quoted(&folder.ca().to_string_lossy());
    let curl = format!("curl -sS --noproxy '*' --cacert {ca} -w '\\n%{{http_code}}\\n'");
    let secret = |made: &Made| {
        made.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()).into_owned()).unwrap_or_default()
    };
    let prefix = |made: &Made| match &made.row.public {
        crate::keys::record::PublicPart::Clear(text) => text.to_string(),
        crate::keys::record::PublicPart::Digest { .. } => String::new(),
    };
    let bearer = bearer_of(&secret(token));
    let operator = format!(" -H 'Authorization: Bearer {admin}'");
    let json = " -H 'Content-Type: application/json'";
    let body = r#" -d '{"name":"My first key","kind":"token","environment":"live","permissions":["wallets:read"],"owner":"demo"}'"#;
    let id = &token.row.id;
    let end = if folder.is_kept() { "stays" } else { "is removed when the demo ends" };
    format!(
        "The control plane listens on https://{control}: open it in a browser (the certificate is self-signed) and sign in\n\
         as admin, with the password {password}\n\n\
         Two sidecars sync from it: https://{one} and https://{other}.\n\
         Paste these lines into another shell, in this order. Each gives the status it names.\n\n\
         # 200: a token that the control plane minted passes the first sidecar\n{curl}{bearer} 'https://{one}/v1/wallets'\n\n\
         # 200: and the second one\n{curl}{bearer} 'https://{other}/v1/wallets'\n\n\
         # 200: a pair reads\n{curl} -u {public}:{pair_secret} 'https://{other}/v1/transactions'\n\n\
         # 200: who the sidecars are, and what they have\n{curl}{operator} 'https://{control}/v1/sidecars'\n\n\
         # 201: mint a key of your own; its secret is shown once\n{curl}{operator}{json}{body} 'https://{control}/v1/keys'\n\n\
         # 200: revoke the first token; the answer names the sidecars that have it in force\n\
         {curl}{operator} -X DELETE 'https://{control}/v1/keys/{id}'\n\n\
         # 401: dead on the first sidecar\n{curl}{bearer} 'https://{one}/v1/wallets'\n\n\
         # 401: and on the second one\n{curl}{bearer} 'https://{other}/v1/wallets'\n\n\
         Configuration: {folder} (the folder {end})\nCtrl-C ends the demo. Requests are logged below.\n\n",
        public = prefix(pair),
        pair_secret = secret(pair),
        folder = show(folder.path()),
    )
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
