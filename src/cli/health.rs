//! `keyside health`: asks the admin port of a running sidecar, for probes in images that hold no curl.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use super::Exit;
use crate::config;

/// Ask the admin port of a running sidecar whether it is ready, or alive.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the admin port is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address from this configuration.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration())]
    config: Option<PathBuf>,
    /// Ask whether it should get traffic (the default).
    #[arg(long, conflicts_with = "live")]
    ready: bool,
    /// Ask whether it is alive.
    #[arg(long)]
    live: bool,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

pub(super) fn run(args: &Args) -> Exit {
    let admin = match &args.config {
        None => args.admin,
        Some(file) => match config::load(file, config::environment()) {
            Ok(loaded) => match loaded.config.admin.address {
                Some(address) => address,
                None => {
                    anstream::eprintln!("keyside health: {} switches the admin port off", file.display());
                    return Exit::Failed;
                }
            },
            Err(faults) => {
                anstream::eprintln!("{faults}");
                return Exit::Misconfigured;
            }
        },
    };
    let path = if args.live { "/livez?verbose" } else { "/readyz?verbose" };
    let timeout = Duration::from_secs(args.timeout);
    match ask(reachable(admin), path, timeout) {
        Ok((200, _)) => Exit::Done,
        Ok((_, text)) => {
            anstream::eprint!("{text}");
            Exit::Failed
        }
        Err(error) => {
            anstream::eprintln!("keyside health: {admin} does not answer: {error}");
            Exit::Failed
        }
    }
}

/// Where a listener on `address` is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// One GET: the status and the body.
fn ask(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    let unclear = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unclear)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(unclear)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        telemetry::{Health, Registry, admin},
    };

    /// What the command says to an admin port with this health.
    #[track_caller]
    fn check(health: Health, option: &str, expected: Exit) {
        let any = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
        let bound = admin::bind(&admin::Settings { address: any, probes: None }).unwrap();
        let address = bound.address().unwrap().to_string();
        let (reload, _asked) = tokio::sync::mpsc::channel(1);
        let state = admin::State { registry: Arc::new(Registry::new()), health: Arc::new(health), reload };
        let cli = Cli::try_parse_from(["keyside", "health", "--admin", &address, option]).unwrap();
        let Command::Health(args) = cli.command else { unreachable!() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = runtime.block_on(async {
            tokio::select! {
                asked = tokio::task::spawn_blocking(move || run(&args)) => asked.unwrap(),
                () = bound.serve(state) => unreachable!(),
            }
        });
        assert_eq!(asked, expected, "{option}");
    }

    #[test]
    fn the_status_says_what_the_admin_port_said() {
        check(Health::new(), "--ready", Exit::Failed);
        check(Health::new(), "--live", Exit::Done);
        let ready = Health::new();
        ready.set_keys(Ok::<_, &str>(()));
        ready.set_listening(true);
        check(ready, "--ready", Exit::Done);
    }

    #[test]
    fn a_configuration_that_is_wrong_is_told_from_a_sidecar_that_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keyside.toml");
        std::fs::write(&file, "[admin]\nadress = \"127.0.0.1:1\"\n").unwrap();
        let cli = Cli::try_parse_from(["keyside", "health", "--config", file.to_str().unwrap()]).unwrap();
        assert_eq!(cli.run(), Exit::Misconfigured);
    }

    #[test]
    fn nobody_there_is_not_ready() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let cli = Cli::try_parse_from(["keyside", "health", "--admin", &address.to_string()]).unwrap();
        assert_eq!(cli.run(), Exit::Failed);
    }
}
