//! `keyside health`: asks the admin port of a running sidecar, for probes in images that hold no curl.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use super::Exit;

/// Ask the admin port of a running sidecar whether it is ready, or alive.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the admin port is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address from this configuration.
    #[arg(long, value_name = "FILE")]
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
    let path = if args.live { "/livez?verbose" } else { "/readyz?verbose" };
    match ask(reachable(args.admin), path, Duration::from_secs(args.timeout)) {
        Ok((200, _)) => Exit::Done,
        Ok((_, text)) => {
            anstream::eprint!("{text}");
            Exit::Failed
        }
        Err(error) => {
            anstream::eprintln!("keyside health: {} does not answer: {error}", args.admin);
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
