//! What callers write, in the logs: one line of text a request, whatever they write.

use std::{net::SocketAddr, process::Stdio};

use tokio::net::TcpStream;

use super::{head, key, keys};
use crate::harness::{Lines, Sidecar, Upstream, Wire, basic, eventually, executable, free_port, key_file, within};

/// Fields and targets with line ends, escapes of terminals and quotes, raw and escaped.
fn attempts() -> Vec<String> {
    let mut all = Vec::new();
    let texts = [
        "\u{1b}[2J\u{1b}[1;31mALERT",
        "%1b%5b2J",
        "a\r\nforged: 1",
        "a%0d%0aforged",
        "\"}\n{\"forged\":true}",
        "%22%7d%0a%7b%22forged%22:true%7d",
        "a\u{85}forged",
        "a\u{2028}forged",
        "\u{202e}degrof",
        "\u{9b}2J",
        "\u{7}",
        "\u{8}\u{8}",
        "\\u001b[2J",
        "\\x1b[2J",
        "${jndi:ldap://a}",
        "=HYPERLINK(1)",
        "a\tb",
        "\0",
        "'; DROP TABLE keys; --",
        "{{7*7}}",
        "%s%s%n",
        "level=ERROR forged",
        "\" outcome=allowed key_id=\"key_boss",
    ];
    for text in texts {
        for name in [
            "User-Agent",
            "Referer",
            "X-Request-Id",
            "X-Forwarded-For",
            "Host",
            "Origin",
            "traceparent",
            "Via",
            "Cookie",
        ] {
            all.push(head("GET /", &format!("{name}: {text}")));
        }
        all.push(head(&format!("GET /{text}"), ""));
        all.push(head(&format!("GET /?{text}"), ""));
        all.push(head(&format!("{text} /"), ""));
        all.push(head("GET /", "").replacen("a.example", text, 1));
        all.push(head("GET /", "").replacen(&key("writer").authorization(), &format!("Basic {text}"), 1));
        all.push(head("GET /", "").replacen(&key("writer").authorization(), &basic(text, text), 1));
    }
    all
}

/// A character that a terminal, or a reader of lines, would obey.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Sends all of them, and then one that is known by its id.
async fn attempt(address: SocketAddr) {
    for bytes in attempts() {
        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
        let _ = wire.write(&bytes).await;
        let _ = within("an answer", wire.answer("GET")).await;
    }
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    wire.write(head("GET /last", "X-Request-Id: the-last-one")).await.unwrap();
    assert_eq!(within("an answer", wire.answer("GET")).await.unwrap().status, 200);
}

/// All lines, once the last one is among them: they are written in order.
async fn written(access: &Lines, log: &Lines) -> Vec<String> {
    let last = async || {
        let lines = access.all();
        if lines.iter().any(|line| line.contains("the-last-one")) { Ok(lines) } else { Err(lines.len()) }
    };
    let mut lines = eventually("the last line", last).await;
    lines.extend(log.all());
    for line in &lines {
        assert!(!line.chars().any(is_obeyed), "{line:?}");
    }
    lines
}

/// Each line is one object, and nothing in it is the caller's but values.
#[tokio::test]
async fn what_a_caller_writes_is_a_value() {
    let upstream = Upstream::start().await;
    let config = "[limits]\nfailures_per_ip = [\"100000/1m\"]";
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(config).keys(&keys()).start().await;
    attempt(sidecar.address()).await;
    for line in written(&sidecar.access, &sidecar.log).await {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line:?}"));
        assert!(object.get("forged").is_none(), "{line:?}");
        let key = object.get("key_id").and_then(|key| key.as_str()).unwrap_or("key_writer");
        assert_eq!(key, "key_writer", "{line:?}");
    }
}

/// The text form, which is for people and their terminals: a request is a line, and a line is a request.
#[tokio::test]
async fn what_a_caller_writes_is_one_line_of_text() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = format!(
        "[listen]\naddress = \"{address}\"\nplaintext = true\n[admin]\naddress = \"127.0.0.1:0\"\n[upstream]\nurl = {:?}\n\
         [keys]\nfile = \"keys.toml\"\n[limits]\nfailures_per_ip = [\"100000/1m\"]\n[log]\nformat = \"text\"\n",
        upstream.url()
    );
    std::fs::write(folder.path().join("keys.toml"), key_file(&keys())).unwrap();
    std::fs::write(folder.path().join("keyside.toml"), config).unwrap();
    let mut command = executable();
    command.args(["proxy", "--config"]).arg(folder.path().join("keyside.toml"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (access, log) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
    eventually("the door to open", async || TcpStream::connect(address).await.map(drop)).await;
    attempt(address).await;
    let lines = written(&access, &log).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // Each begins with its time, whatever is in it.
    for line in &lines {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line:?}");
    }
}
