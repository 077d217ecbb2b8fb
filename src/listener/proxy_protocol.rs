//! The PROXY protocol, versions 1 and 2: who is behind the proxy that connected.
//!
//! The header is read to its last byte and not one further, since what follows belongs to TLS or HTTP. It is required
//! where it is switched on, and never looked for where it is not: a client that could choose would choose its address.
//! See <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>.

use std::{io, net::IpAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader, Tlv};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// What a PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client; absent where the proxy speaks for itself (a health check) or does not know.
    pub client: Option<IpAddr>,
    /// Whether the client speaks TLS with the proxy.
    pub secure: bool,
}

/// Why a connection did not begin with a good header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// It began with something else.
    #[error("the connection did not begin with a valid PROXY header")]
    Malformed,
    /// It broke, or ended before the header did.
    #[error("the PROXY header could not be read")]
    Read(#[from] io::Error),
}

/// The first bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const NAME: &[u8] = b"PROXY ";
/// The shortest header there is, `PROXY UNKNOWN\r\n`: so much may be read without reading too far.
const SHORTEST: usize = 15;
/// The longest line of version 1.
const LONGEST_LINE: usize = 107;
/// Signature, version, family and length of version 2.
const FIXED: usize = 16;
/// What version 2 may hold beside: addresses and TLVs. Proxies send a few hundred bytes; the format allows 64 KiB.
const LONGEST_REST: usize = 4096;

/// Reads the header from the beginning of a connection.
///
/// # Errors
/// When the connection begins with anything else, or ends.
pub async fn read(socket: &mut TcpStream) -> Result<Header, HeaderFault> {
    let mut bytes = vec![0; SHORTEST];
    socket.read_exact(&mut bytes).await?;
    if bytes.starts_with(SIGNATURE) {
        bytes.resize(FIXED, 0);
        socket.read_exact(&mut bytes[SHORTEST..]).await?;
        let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if rest > LONGEST_REST {
            return Err(HeaderFault::Malformed);
        }
        bytes.resize(FIXED + rest, 0);
        socket.read_exact(&mut bytes[FIXED..]).await?;
    } else if bytes.starts_with(NAME) {
        read_line(socket, &mut bytes).await?;
    } else {
        return Err(HeaderFault::Malformed);
    }
    parse(&bytes)
}

/// Reads on to the end of the line: looks first, so that nothing behind the line feed is taken.
async fn read_line(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), HeaderFault> {
    let mut ahead = [0; LONGEST_LINE];
    while bytes.last() != Some(&b'\n') {
        let room = LONGEST_LINE - bytes.len();
        if room == 0 {
            return Err(HeaderFault::Malformed);
        }
        let seen = socket.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(HeaderFault::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let take = ahead[..seen].iter().position(|&byte| byte == b'\n').map_or(seen, |end| end + 1);
        let start = bytes.len();
        bytes.resize(start + take, 0);
        socket.read_exact(&mut bytes[start..]).await?;
    }
    Ok(())
}

/// Reads a whole header, and nothing behind it.
///
/// # Errors
/// When the bytes are anything else than one header.
pub fn parse(bytes: &[u8]) -> Result<Header, HeaderFault> {
    let config = ParseConfig::default();
    let (header, length) = ProxyHeader::parse(bytes, config).map_err(|_| HeaderFault::Malformed)?;
    let version_2 = bytes.starts_with(SIGNATURE);
    if length != bytes.len() || !version_2 && !is_strict_line(bytes) {
        return Err(HeaderFault::Malformed);
    }
    let Some(addresses) = header.proxied_address() else {
        return Ok(Header { client: None, secure: false });
    };
    if addresses.protocol != Protocol::Stream {
        return Err(HeaderFault::Malformed);
    }
    let mut secure = false;
    for tlv in header.tlvs() {
        match tlv.map_err(|_| HeaderFault::Malformed)? {
            Tlv::Ssl(ssl) => secure = ssl.client_ssl(),
            Tlv::Crc32c(sum) if sum != crc32c_of(bytes) => return Err(HeaderFault::Malformed),
            _ => {}
        }
    }
    Ok(Header { client: Some(addresses.source.ip().to_canonical()), secure })
}

/// Whether a line of version 1 is spelt as the specification wants it; the parser takes a sign before a port, and lines of
/// any length.
fn is_strict_line(line: &[u8]) -> bool {
    let is_known = line.starts_with(b"PROXY TCP4 ") || line.starts_with(b"PROXY TCP6 ");
    let is_unknown = line.starts_with(b"PROXY UNKNOWN\r") || line.starts_with(b"PROXY UNKNOWN ");
    line.len() <= LONGEST_LINE && (is_unknown || is_known && !line.contains(&b'+'))
}

/// The checksum of a version 2 header, its own field taken as zero (§2.2.3).
fn crc32c_of(header: &[u8]) -> u32 {
    const CHECKSUM: u8 = 3;
    let addresses = match header[13] >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let mut header = header.to_vec();
    let mut at = FIXED + addresses;
    while let Some(&[kind, high, low]) = header.get(at..at + 3) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind == CHECKSUM
            && let Some(field) = header.get_mut(at + 3..at + 3 + length)
        {
            field.fill(0);
            break;
        }
        at += 3 + length;
    }
    crc32c(&header)
}

/// CRC-32C (RFC 9260, appendix A), bit by bit: a header has a hundred bytes, and few carry a checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 })
    });
    !sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, SslInfo};

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<(Option<&str>, bool)>) {
        let got = parse(bytes).ok().map(|header| (header.client.map(|client| client.to_string()), header.secure));
        let expected = expected.map(|(client, secure)| (client.map(str::to_owned), secure));
        assert_eq!(got, expected, "{}", bytes.escape_ascii());
    }

    fn version_2(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = [0; 1024];
        let length = header.encode_to_slice_v2(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn stream(source: &str) -> ProxyHeader<'static> {
        let source: std::net::SocketAddr = source.parse().unwrap();
        let destination = if source.is_ipv4() { "10.0.0.1:443" } else { "[2001:db8::1]:443" };
        ProxyHeader::with_address(ProxiedAddress::stream(source, destination.parse().unwrap()))
    }

    #[test]
    fn lines() {
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\r\n", Some((Some("203.0.113.7"), false)));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n", Some((Some("2001:db8::7"), false)));
        check(b"PROXY TCP6 ::ffff:203.0.113.7 ::1 5000 443\r\n", Some((Some("203.0.113.7"), false)));
        check(b"PROXY UNKNOWN\r\n", Some((None, false)));
        check(b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 1 2\r\n", Some((None, false)));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)).as_bytes(), Some((None, false)));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).as_bytes(), None);
        for bad in [
            &b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 443\n"[..],
            b"PROXY TCP4 203.0.113.007 10.0.0.1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 +5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
            b"PROXY TCP4 2001:db8::7 10.0.0.1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7  10.0.0.1 5000 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5000\r\n",
            b"PROXY_TCP4 203.0.113.7 10.0.0.1 5000 443\r\n",
            b"PROXY UDP4 203.0.113.7 10.0.0.1 5000 443\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"proxy tcp4 203.0.113.7 10.0.0.1 5000 443\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn version_2_addresses_and_local() {
        check(&version_2(&stream("203.0.113.7:5000")), Some((Some("203.0.113.7"), false)));
        check(&version_2(&stream("[2001:db8::7]:5000")), Some((Some("2001:db8::7"), false)));
        check(&version_2(&ProxyHeader::with_local()), Some((None, false)));
        // PROXY, but of an unspecified family: the proxy does not know.
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00", Some((None, false)));
    }

    #[test]
    fn version_2_refuses_what_is_not_a_stream_or_of_wrong_length() {
        let good = version_2(&stream("203.0.113.7:5000"));
        let mut datagram = good.clone();
        datagram[13] = 0x12;
        check(&datagram, None);
        let mut version_3 = good.clone();
        version_3[12] = 0x31;
        check(&version_3, None);
        let mut too_short_for_addresses = good.clone();
        too_short_for_addresses[15] = 11;
        check(&too_short_for_addresses[..27], None);
        let mut longer = good.clone();
        longer.push(0);
        check(&longer, None);
    }

    #[test]
    fn a_tlv_that_overruns_the_header_is_refused() {
        let mut bytes = version_2(&stream("203.0.113.7:5000"));
        bytes[15] += 4;
        bytes.extend([0x05, 0x00, 0x09, b'x']);
        check(&bytes, None);
    }

    #[test]
    fn tls_at_the_proxy_counts_as_secure() {
        let mut header = stream("203.0.113.7:5000");
        header.append_tlv(Tlv::Ssl(SslInfo::new(true, false, false, 0)));
        check(&version_2(&header), Some((Some("203.0.113.7"), true)));
        let mut header = stream("203.0.113.7:5000");
        header.append_tlv(Tlv::Ssl(SslInfo::new(false, false, false, 0)));
        check(&version_2(&header), Some((Some("203.0.113.7"), false)));
    }

    #[test]
    fn a_checksum_is_verified() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        let mut header = stream("203.0.113.7:5000");
        header.append_tlv(Tlv::Noop(3));
        header.append_tlv(Tlv::Crc32c(0));
        let bytes = version_2(&header);
        let sum = crc32c_of(&bytes);
        let mut good = bytes.clone();
        let end = good.len();
        good[end - 4..].copy_from_slice(&sum.to_be_bytes());
        check(&good, Some((Some("203.0.113.7"), false)));
        good[20] ^= 1;
        check(&good, None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), shape in 0..3) {
            match shape {
                0 => { bytes.splice(..0, SIGNATURE.iter().copied()); }
                1 => { bytes.splice(..0, NAME.iter().copied()); }
                _ => {}
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn any_address_survives(v4 in any::<[u8; 4]>(), port in any::<u16>()) {
            let ip = IpAddr::from(v4);
            let header = stream(&format!("{ip}:{port}"));
            prop_assert_eq!(parse(&version_2(&header)).unwrap().client, Some(ip));
            let mut line = Vec::new();
            line.extend(format!("PROXY TCP4 {ip} 10.0.0.1 {port} 443\r\n").bytes());
            prop_assert_eq!(parse(&line).unwrap().client, Some(ip));
        }
    }
}
