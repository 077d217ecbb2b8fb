//! `keyside demo`: everything on an embedded default, to be tried with the lines that it prints.

#[cfg(feature = "control")]
mod control;
mod folder;
mod sample;
mod script;

use std::{
    error::Error,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use self::{
    folder::{Folder, Keys, Ports},
    sample::Sample,
};
use super::Exit;
use crate::{clock, proxy::settings::UpstreamUrl, sidecar::Sidecar};

/// Run everything on an embedded default: a sample API, a certificate, five keys, and the sidecar in front.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the files in this folder, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The port of the proxy on 127.0.0.1; 0 takes any that is free.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The port of metrics and probes on 127.0.0.1; 0 takes any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin_port: u16,
    /// Put the demo's keys in front of your own API instead of the sample.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Start a control plane and two sidecars that sync from it, instead of one sidecar with a key file.
    #[cfg(feature = "control")]
    #[arg(long)]
    control: bool,
    /// The port of the control plane on 127.0.0.1; 0 takes any that is free.
    #[cfg(feature = "control")]
    #[arg(long, value_name = "PORT", default_value_t = 8444, requires = "control")]
    control_port: u16,
}

/// What stands behind the sidecar.
enum Upstream {
    /// The sample API, for as long as this value lives.
    Sample(Sample),
    /// The user's own.
    Own(String),
}

/// The sidecar of the demo.
struct Running {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    stop: Box<dyn FnOnce() + Send>,
}

/// What the demo waits for.
enum Event {
    Signal,
    Stopped,
}

pub(super) fn run(args: &Args) -> Exit {
    match demo(args) {
        Ok(()) => Exit::Done,
        Err(error) => {
            anstream::eprintln!("keyside demo: {error}");
            Exit::Failed
        }
    }
}

fn demo(args: &Args) -> Result<(), Box<dyn Error>> {
    // Before anything is made that a signal would leave behind.
    let (events, next) = mpsc::channel();
    signals(events.clone())?;
    let upstream = match &args.upstream {
        None => Upstream::Sample(Sample::start()?),
        Some(url) => {
            url.parse::<UpstreamUrl>().map_err(|fault| format!("--upstream: {fault}"))?;
            Upstream::Own(url.clone())
        }
    };
    check_free(args.port, "--port")?;
    check_free(args.admin_port, "--admin-port")?;
    let folder = Folder::create(args.dir.as_deref())?;
    #[cfg(feature = "control")]
    if args.control {
        let ports = control::Ports { first: args.port, admin: args.admin_port, control: args.control_port };
        return control::run(&folder, &upstream, ports, events, &next);
    }
    let now = clock::now().wall;
    let keys = Keys::mint(now)?;
    folder.fill(&keys, &upstream, Ports { listen: args.port, admin: args.admin_port }, now)?;
    let running = serve(&folder.configuration())?;
    print(&welcome(&running, &folder, &keys, &upstream))?;

    // Ends with the first signal; the second one does not wait for what is still running.
    let _ = next.recv();
    thread::spawn(move || {
        (running.stop)();
        events.send(Event::Stopped)
    });
    match next.recv() {
        Ok(Event::Stopped) | Err(_) => Ok(()),
        Ok(Event::Signal) => Err("ended at once by a second signal".into()),
    }
}

/// Whether the port can be bound: said before a folder is filled, with the option that chooses another one.
fn check_free(port: u16, option: &str) -> Result<(), String> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("cannot listen on 127.0.0.1:{port}: {error}; {option} 0 takes any port that is free"))
        }
    }
}

/// Starts the sidecar as `keyside proxy` would.
fn serve(configuration: &Path) -> Result<Running, Box<dyn Error>> {
    let sidecar = Sidecar::start(configuration.to_owned())?;
    let address = *sidecar.addresses().first().ok_or("the sidecar listens nowhere")?;
    let admin = sidecar.admin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let stop = Box::new(move || {
        let _ = runtime.block_on(sidecar.stop());
    });
    Ok(Running { address, admin, stop })
}

/// Tells of every signal that asks the demo to end. A terminal that is closed is one, too.
fn signals(events: mpsc::Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [mut interrupt, mut terminate, mut hangup] = match kinds.map(signal) {
        [Ok(interrupt), Ok(terminate), Ok(hangup)] => [interrupt, terminate, hangup],
        [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => return Err(error),
    };
    drop(entered);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if events.send(Event::Signal).is_err() {
                    return;
                }
            }
        });
    })?;
    Ok(())
}

/// Everything that the demo says.
fn welcome(running: &Running, folder: &Folder, keys: &Keys, upstream: &Upstream) -> String {
    let (behind, sample) = match upstream {
        Upstream::Sample(_) => ("a sample API that answers with what it saw".to_owned(), true),
        Upstream::Own(url) => (url.clone(), false),
    };
    let mut text = format!(
        "Keyside listens on https://{}, in front of {behind}.\n\
         Paste these lines into another shell. Each gives the status it names, in any order and again.\n\n",
        running.address
    );
    text.push_str(&script::script(keys, &folder.ca(), running.address, sample));
    if !sample {
        text.push_str("Where a line says 200, your own API decides what it is.\n");
    }
    if let Some(admin) = running.admin {
        text.push_str(&format!("Metrics:       http://{admin}/metrics\n"));
    }
    let end = if folder.is_kept() { "stays" } else { "is removed when the demo ends" };
    text.push_str(&format!(
        "Configuration: {} (the folder {end})\nCtrl-C ends the demo. Requests are logged below.\n\n",
        folder.configuration().display()
    ));
    text
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_with_the_option_that_chooses_another() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = check_free(port, "--port").unwrap_err();
        assert!(said.contains(&port.to_string()) && said.ends_with("--port 0 takes any port that is free"), "{said}");
        assert_eq!(check_free(0, "--port"), Ok(()));
    }
}
