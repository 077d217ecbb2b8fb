//! Whose request it is: the peer's, or whom trusted proxies name; never whom the client names.

use super::{Row, Verdict, check, check_plain, key};
use crate::harness::{Key, Sidecar, Upstream, Wire, get, within};

/// With the key that may be used from 203.0.113.42 and 2001:db8::/32 alone.
fn asked(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: {}\r\n{fields}\r\n", key("inner").authorization())
}

const FORGED: [&str; 24] = [
    "X-Forwarded-For",
    "X-Real-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Original-Forwarded-For",
    "Client-IP",
    "X-ProxyUser-Ip",
    "X-Azure-ClientIP",
    "X-Appengine-User-Ip",
    "Forwarded-For",
    "X-Forwarded",
    "X-Custom-IP-Authorization",
    "Via",
    "X-Envoy-External-Address",
    "X-Envoy-Original-Path",
    "WL-Proxy-Client-IP",
];

/// From anybody, every field in which some software believes an address.
#[tokio::test]
async fn a_stranger_names_nobody() {
    let mut rows = Vec::new();
    for name in FORGED {
        for value in [
            "203.0.113.42",
            "203.0.113.42:80",
            "203.0.113.42, 127.0.0.1",
            "127.0.0.1, 203.0.113.42",
            "::ffff:203.0.113.42",
            "2001:db8::1",
        ] {
            for (how, fields) in [
                ("once", format!("{name}: {value}\r\n")),
                ("twice", format!("{name}: {value}\r\n{}: {value}\r\n", name.to_lowercase())),
                ("nominated", format!("Connection: {name}\r\n{name}: {value}\r\n")),
            ] {
                rows.push(Row::new(
                    format!("{name}: {value} {how}"),
                    "Zulip and Traefik documents",
                    asked(&fields),
                    Verdict::Refused(&[403]),
                ));
            }
        }
    }
    for value in [
        "for=203.0.113.42",
        "For=\"203.0.113.42\"",
        "for=203.0.113.42;by=127.0.0.1",
        "for=\"[2001:db8::1]\"",
        "for=127.0.0.1, for=203.0.113.42",
    ] {
        rows.push(Row::new(
            format!("Forwarded: {value}"),
            "RFC 7239 §8.1",
            asked(&format!("Forwarded: {value}\r\n")),
            Verdict::Refused(&[403]),
        ));
    }
    check("", rows).await;
}

/// Through a trusted proxy, lists in one line, with the verdict.
const LISTS: [(&str, bool); 60] = [
    ("203.0.113.42", true),
    (" 203.0.113.42\t", true),
    ("203.0.113.42:1", true),
    ("203.0.113.42:65535", true),
    ("8.8.8.8, 203.0.113.42", true),
    ("8.8.8.8,203.0.113.42", true),
    ("junk, 203.0.113.42", true),
    (",203.0.113.42", true),
    ("203.0.113.42, 10.0.0.1", true),
    ("203.0.113.42, 10.0.0.1, 10.255.255.255", true),
    ("203.0.113.42, 10.0.0.1:443", true),
    ("203.0.113.42, ::ffff:10.0.0.1", true),
    ("::ffff:203.0.113.42", true),
    ("::FFFF:203.0.113.42", true),
    ("::ffff:cb00:712a", true),
    ("[::ffff:203.0.113.42]:80", true),
    ("2001:db8::1", true),
    ("2001:DB8:0:0:0:0:0:1", true),
    ("[2001:db8::1]", true),
    ("[2001:db8::1]:443", true),
    ("2001:db8::1, 10.0.0.1", true),
    ("203.0.113.42, 8.8.8.8", false),
    ("203.0.113.42, 8.8.8.8, 10.0.0.1", false),
    ("203.0.113.42,", false),
    ("203.0.113.42, ,", false),
    ("203.0.113.42,,10.0.0.1", false),
    ("203.0.113.42, unknown", false),
    ("203.0.113.42, _hidden", false),
    ("203.0.113.42, unknown, 10.0.0.1", false),
    ("203.0.113.42 8.8.8.8", false),
    ("203.0.113.42;8.8.8.8", false),
    ("203.0.113.42/32", false),
    ("203.0.113.42/8", false),
    ("203.0.113.42:", false),
    ("203.0.113.42:x", false),
    ("203.0.113.42:123456", false),
    ("203.0.113.42:80:80", false),
    ("203.0.113.042", false),
    ("0203.0.113.42", false),
    ("203.0.113.42.", false),
    ("203.0.113.42.1", false),
    ("203.0.113", false),
    ("203.0.28970", false),
    ("3405803818", false),
    ("0xcb00712a", false),
    ("0xcb.0.0x71.0x2a", false),
    ("0313.0.0161.052", false),
    ("\"203.0.113.42\"", false),
    ("'203.0.113.42'", false),
    ("for=203.0.113.42", false),
    ("203.0.113.42\u{a0}", false),
    ("\u{ff12}03.0.113.42", false),
    ("203\u{3002}0.113.42", false),
    ("[203.0.113.42]", false),
    ("[2001:db8::1", false),
    ("2001:db8::1]", false),
    ("2001:db8:::1", false),
    ("::203.0.113.42", false),
    ("64:ff9b::203.0.113.42", false),
    ("", false),
];

/// From the right, through trusted proxies, to the first that is none; what cannot be read ends the walk.
#[tokio::test]
async fn a_trusted_proxy_names_the_caller() {
    let trusted = "[listen]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let row = |rule: String, source, fields: String, may: bool, name: &'static str, sent: Vec<String>| {
        let verdict = if may {
            // What the proxy said goes on, and the proxy itself behind it.
            Verdict::Sound(Box::new(move |message| {
                let expected = format!("{}, 127.0.0.1", sent.join(", "));
                let got = message.field(name)?;
                if got != expected && name == "x-forwarded-for" {
                    return Err(format!("{name} is {got:?} instead of {expected:?}"));
                }
                if message.field("x-key-id")? != "key_inner" { Err(format!("{message:?}")) } else { Ok(()) }
            }))
        } else {
            Verdict::Refused(&[403])
        };
        Row::new(rule, source, asked(&fields), verdict)
    };
    let mut rows = Vec::new();
    for (list, may) in LISTS {
        let sent = vec![list.trim().to_owned()];
        rows.push(row(
            format!("{list:?}"),
            "X-Forwarded-For",
            format!("X-Forwarded-For: {list}\r\n"),
            may,
            "x-forwarded-for",
            sent,
        ));
        // The last line is the right end.
        let fields = format!("X-Forwarded-For: 203.0.113.42\r\nX-Forwarded-For: {list}\r\n");
        let sent = vec!["203.0.113.42".to_owned(), list.trim().to_owned()];
        // A list of trusted proxies alone would be walked through; none of these is one.
        rows.push(row(format!("{list:?} on the last line"), "RFC 9110 §5.3", fields, may, "x-forwarded-for", sent));
        let fields = format!("X-Forwarded-For: {list}\r\nX-Forwarded-For: 8.8.8.8\r\n");
        rows.push(row(
            format!("{list:?} on the first of two lines"),
            "RFC 9110 §5.3",
            fields,
            false,
            "x-forwarded-for",
            Vec::new(),
        ));
        for other in ["X-Real-IP", "Forwarded", "CF-Connecting-IP"] {
            let value = if other == "Forwarded" { "for=203.0.113.42".to_owned() } else { list.to_owned() };
            let rule = format!("{list:?} in {other}");
            rows.push(row(
                rule,
                "one field is read",
                format!("{other}: {value}\r\n"),
                false,
                "x-forwarded-for",
                Vec::new(),
            ));
        }
    }
    let long = format!("X-Forwarded-For: 203.0.113.42{}\r\n", ", 10.0.0.1".repeat(500));
    rows.push(row("five hundred hops".into(), "threat 41", long, true, "x-key-id", Vec::new()));
    check_plain(trusted, rows).await;
    // The same proxies, and the standard's field.
    let mut rows = Vec::new();
    for (value, may) in [
        ("for=203.0.113.42", true),
        ("For=203.0.113.42", true),
        ("FOR=\"203.0.113.42\"", true),
        ("for=\"203.0.113.42:80\"", true),
        ("for=203.0.113.42;proto=https;by=10.0.0.1", true),
        ("proto=https; for=203.0.113.42", true),
        ("for=\"[2001:db8::1]\"", true),
        ("for=\"[2001:db8::1]:80\"", true),
        ("for=8.8.8.8, for=203.0.113.42", true),
        ("for=203.0.113.42, for=10.0.0.1", true),
        ("for=203.0.113.42, for=8.8.8.8", false),
        ("for=\"203.0.113.42, for=8.8.8.8", false),
        ("for=203.0.113.42;for=8.8.8.8", false),
        ("for=8.8.8.8;for=203.0.113.42", false),
        ("for=\"8.8.8.8, for=203.0.113.42\"", false),
        ("for=203.0.113.42, by=10.0.0.1", false),
        ("for=203.0.113.42, for=unknown", false),
        ("for=203.0.113.42, for=_x", false),
        ("for=203.0.113.42,", false),
        ("203.0.113.42", false),
        ("for 203.0.113.42", false),
        ("xfor=203.0.113.42", false),
        ("for=\"\\203.0.113.42\"", false),
        ("for=\"203.0.113.42\\\"", false),
        ("for='203.0.113.42'", false),
    ] {
        let source = "RFC 7239 §§4, 6";
        rows.push(row(format!("{value:?}"), source, format!("Forwarded: {value}\r\n"), may, "forwarded", Vec::new()));
        let beside = format!("Forwarded: {value}\r\nX-Forwarded-For: 8.8.8.8\r\n");
        rows.push(row(format!("{value:?} beside the other field"), source, beside, may, "forwarded", Vec::new()));
    }
    check(&format!("{trusted}\nclient_ip_header = \"Forwarded\""), rows).await;
}

/// An entry of a list that is no network sets its key aside: it never means anybody.
#[tokio::test]
async fn an_odd_entry_lets_nobody_in() {
    let entries = [
        "",
        " ",
        "*",
        "any",
        "all",
        "0",
        "0.0.0.0/",
        "/0",
        "0.0.0.0/00",
        "0.0.0.0/33",
        "0.0.0.0/-1",
        "127.0.0.1/32 ",
        " 127.0.0.1",
        "127.0.0.1,",
        "127.0.0.1-127.0.0.9",
        "127.0.0.*",
        "127.0.0",
        "127.1",
        "127.0.0.01",
        "0127.0.0.1",
        "0x7f.0.0.1",
        "2130706433",
        "127.0.0.1:80",
        "[::1]",
        "::1%lo",
        "::ffff:127.0.0.1/33",
        "localhost",
        "a.example",
        "127.0.0.0/255.0.0.0",
        "127.0.0.1/032",
        "::/129",
        ":::/0",
        "127.0.0.1/8/8",
        "\u{661}27.0.0.1",
    ];
    let keys: Vec<Key> = entries
        .iter()
        .enumerate()
        .flat_map(|(index, entry)| {
            let alone = Key::pair(&format!("alone-{index}")).with(&format!("allow_ips = [{entry:?}]"));
            [alone, Key::pair(&format!("beside-{index}")).with(&format!("allow_ips = [\"127.0.0.1\", {entry:?}]"))]
        })
        .collect();
    let good = [
        ("127.0.0.1", true),
        ("127.0.0.0/8", true),
        ("::ffff:127.0.0.1", true),
        ("::ffff:127.0.0.0/104", true),
        ("127.9.9.9/8", true),
        ("0.0.0.0/0", true),
        ("::/0", false),
        ("128.0.0.0/1", false),
        ("::1", false),
        ("::127.0.0.1", false),
        ("127.0.0.2", false),
    ];
    let good: Vec<(Key, bool)> = good
        .iter()
        .enumerate()
        .map(|(index, (entry, may))| {
            (Key::pair(&format!("good-{index}")).with(&format!("allow_ips = [{entry:?}]")), *may)
        })
        .collect();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[limits]\nfailures_per_ip = [\"10000/1m\"]")
        .keys(keys.iter().chain(good.iter().map(|(key, _)| key)))
        .start()
        .await;
    for (key, entry) in keys.iter().zip(entries.iter().flat_map(|entry| [entry, entry])) {
        let answer = sidecar.ask(get("/").key(key)).await;
        assert_eq!(answer.brief(), "401 invalid_credentials", "{entry:?} in {}", key.id);
    }
    assert_eq!(upstream.count(), 0);
    for (key, may) in &good {
        let status = if *may { 200 } else { 403 };
        assert_eq!(sidecar.ask(get("/").key(key)).await.status, status, "{}", key.row());
    }
    sidecar.counts("keyside_quarantined_entries", &[], keys.len() as u64).await;
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version: u8, family: u8, length: usize, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[version, family], &u16::try_from(length).unwrap().to_be_bytes(), rest].concat()
}

/// A PROXY header is right to the last byte, or the connection ends without a word.
#[tokio::test]
async fn a_proxy_header_is_right_to_the_last_byte() {
    let v4 = [&[203, 0, 113, 42, 127, 0, 0, 1][..], &[0x1f, 0x90, 0x20, 0xfb]].concat();
    let with = |more: &[u8]| v2(0x21, 0x11, v4.len() + more.len(), &[&v4, more].concat());
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    for line in [
        "PROXY",
        "PROXY ",
        "PROXY TCP4",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2\r",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\r\n",
        "PROXY  TCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP4  203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2 \r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2 3\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 65536 2\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 -1 2\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 +1 2\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 0x1 2\r\n",
        "PROXY TCP4 203.0.113.042 127.0.0.1 1 2\r\n",
        "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        "PROXY TCP6 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP5 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY UDP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY tcp4 203.0.113.42 127.0.0.1 1 2\r\n",
        "proxy TCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY\tTCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.42\0 127.0.0.1 1 2\r\n",
        " PROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.42,127.0.0.1 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY unknown\r\n",
        "\r\nPROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\nPROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\n",
        "GET / HTTP/1.1\r\n",
        "PROXY TCP6 2001:db8::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [2001:db8::1] ::1 1 2\r\n",
    ] {
        rows.push((format!("{line:?}"), line.into()));
    }
    let unknown = format!("PROXY UNKNOWN {}\r\n", "f".repeat(108 - 16));
    assert_eq!(unknown.len(), 108);
    rows.push(("a line of 108 bytes".into(), unknown.into()));
    rows.push(("a line without an end".into(), [b"PROXY TCP4 ", &[b'1'; 5000][..]].concat()));
    for (rule, bytes) in [
        ("half a signature", SIGNATURE[..8].to_vec()),
        ("a signature alone", SIGNATURE.to_vec()),
        ("a wrong signature", [b"\r\n\r\n\0\r\nQUIX\n".as_slice(), &[0x21, 0x11, 0, 12], &v4].concat()),
        ("version 0", v2(0x01, 0x11, 12, &v4)),
        ("version 1 in the binary form", v2(0x11, 0x11, 12, &v4)),
        ("version 3", v2(0x31, 0x11, 12, &v4)),
        ("version 15", v2(0xf1, 0x11, 12, &v4)),
        ("an unknown command", v2(0x22, 0x11, 12, &v4)),
        ("command 15", v2(0x2f, 0x11, 12, &v4)),
        ("datagrams", v2(0x21, 0x12, 12, &v4)),
        ("an unknown transport", v2(0x21, 0x13, 12, &v4)),
        ("an unknown family", v2(0x21, 0x41, 12, &v4)),
        ("family 15", v2(0x21, 0xf1, 12, &v4)),
        ("no addresses", v2(0x21, 0x11, 0, &[])),
        ("one byte of addresses too few", v2(0x21, 0x11, 11, &v4[..11])),
        ("addresses of the other family", v2(0x21, 0x21, 12, &v4)),
        ("64 KiB", v2(0x21, 0x11, 65535, &v4)),
        ("5 KB of fields", v2(0x21, 0x11, 12 + 5000, &[&v4[..], &[0xee, 0x13, 0x85], &[0; 4997]].concat())),
        ("a field cut in its head", with(&[0xee, 0])),
        ("a field beyond the end", with(&[0xee, 0, 9, 1])),
        ("a field of 64 KiB", with(&[0xee, 0xff, 0xff, 1, 2, 3])),
        ("a field behind a good one beyond the end", with(&[0xee, 0, 1, 7, 0xee, 0xff, 0])),
        ("a checksum that is wrong", with(&[3, 0, 4, 1, 2, 3, 4])),
        ("a checksum that is short", with(&[3, 0, 2, 1, 2])),
        ("TLS facts cut short", with(&[0x20, 0, 2, 1, 0])),
    ] {
        rows.push((rule.into(), bytes));
    }
    let upstream = Upstream::start().await;
    let config =
        "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n[listen.timeouts]\nhandshake = \"1s\"";
    let inner = key("inner");
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(config).keys([&inner]).start().await;
    let mut faults = Vec::new();
    for (rule, header) in &rows {
        let mut wire = Wire::new(sidecar.tcp().await);
        let _ = wire.write([&header[..], asked("").as_bytes()].concat()).await;
        let said = within(rule, wire.rest()).await;
        // A header of which only the beginning was looked at may leave a line that is no request.
        if !(said.is_empty() || said.starts_with(b"HTTP/1.1 400 ")) || upstream.count() > 0 {
            faults.push(format!("{rule}: {:?}, {} upstream", said.escape_ascii().to_string(), upstream.count()));
        }
    }
    super::conclude(faults);
    // And the door is still open.
    let mut wire = Wire::new(sidecar.tcp().await);
    wire.write([&with(&[0xee, 0, 1, 7])[..], asked("").as_bytes()].concat()).await.unwrap();
    assert_eq!(wire.answer("GET").await.unwrap().status, 200);
}

/// Where no PROXY header is expected, every form of it is a request that cannot be read.
#[tokio::test]
async fn a_proxy_header_that_nobody_asked_for_is_no_request() {
    let v4 = [&[203, 0, 113, 42, 127, 0, 0, 1][..], &[0x1f, 0x90, 0x20, 0xfb]].concat();
    let mut rows = Vec::new();
    for (rule, header) in [
        ("a line", b"PROXY TCP4 203.0.113.42 127.0.0.1 1 2\r\n".to_vec()),
        ("a line of nobody", b"PROXY UNKNOWN\r\n".to_vec()),
        ("the binary form", v2(0x21, 0x11, 12, &v4)),
        ("the binary form of nobody", v2(0x20, 0, 0, &[])),
    ] {
        for name in ["inner", "writer"] {
            let request = asked("").replace(&key("inner").authorization(), &key(name).authorization());
            rows.push(Row::refused(
                format!("{rule}, {name}"),
                "HAProxy f30d6ac885",
                [&header[..], request.as_bytes()].concat(),
            ));
        }
    }
    check("", rows).await;
}
