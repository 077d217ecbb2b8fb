//! A PROXY header is read to its last byte and not one further, and says what the specification lets it say.
//!
//! An input: the first bytes of a connection.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keyside::listener::proxy_protocol::{self, Header};
use keyside_fuzz::run;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if input.len() > 8192 || !(input.starts_with(b"PROXY ") || input.starts_with(SIGNATURE)) {
        assert!(proxy_protocol::parse(input).is_err(), "no header begins so");
        return;
    }
    let length = length(input);
    let alone = length.and_then(|length| proxy_protocol::parse(&input[..length]).ok());
    if let (Some(header), Some(length)) = (alone, length) {
        judge(header, &input[..length]);
        if length < input.len() {
            assert!(proxy_protocol::parse(input).is_err(), "it was read with something behind it");
        }
    }
    let (read, rest) = run(over_a_socket(input));
    // The bound on what may follow the addresses is the reader's own.
    let too_long = input.starts_with(SIGNATURE) && length.is_some_and(|length| length > 16 + 4096);
    assert_eq!(read, alone.filter(|_| !too_long), "{}", input.escape_ascii());
    if let (Some(_), Some(length)) = (read, length) {
        assert_eq!(rest, &input[length..], "what follows the header");
    }
});

/// How long the header is that these bytes begin with, read naively; none where they are not all of it.
fn length(input: &[u8]) -> Option<usize> {
    let length = match input.strip_prefix(SIGNATURE) {
        Some(rest) => 16 + usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?])),
        None => input.iter().position(|&byte| byte == b'\n')? + 1,
    };
    (length <= input.len()).then_some(length)
}

/// Reads the header again, naively.
fn judge(header: Header, bytes: &[u8]) {
    let Some(client) = header.client else { return };
    let said: IpAddr = if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        assert_eq!(rest[0], 0x21, "version 2, and on behalf of somebody");
        match rest[1] {
            0x11 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&rest[4..8]).expect("four bytes"))),
            0x21 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&rest[4..20]).expect("sixteen bytes"))),
            other => panic!("a client of family and protocol {other:#x}"),
        }
    } else {
        assert!(bytes.len() <= 107 && bytes.ends_with(b"\r\n"));
        assert!(!header.secure);
        let line = std::str::from_utf8(&bytes[..bytes.len() - 2]).expect("ASCII");
        let words: Vec<_> = line.split(' ').collect();
        let [_, family, source, _, from, to] = words[..] else { panic!("{line}") };
        assert!(from.parse::<u16>().is_ok() && to.parse::<u16>().is_ok());
        let source: IpAddr = source.parse().expect("an address");
        assert_eq!(source.is_ipv4(), family == "TCP4");
        source
    };
    assert_eq!(client, said.to_canonical());
}

/// What the reader makes of a connection that begins so, and what it has left in the socket.
async fn over_a_socket(input: &[u8]) -> (Option<Header>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (mut server, _) = listener.accept().await.expect("a connection");
    // So that nothing is left to linger when thousands of them have been closed.
    SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    client.write_all(input).await.expect("room for all of it");
    client.shutdown().await.expect("an open connection");
    let header = proxy_protocol::read(&mut server).await.ok();
    let mut rest = Vec::new();
    if header.is_some() {
        server.read_to_end(&mut rest).await.expect("the rest");
    }
    (header, rest)
}
