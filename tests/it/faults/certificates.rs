//! A certificate that is swapped for a bad one: the one in force stays, that is told, and a good one mends it. Found by
//! looking at the files, without a word to the sidecar.

use crate::harness::{Authority, H1, Key, Sidecar, Upstream, eventually, get};

/// The certificate that a new connection is shown, whatever it is worth.
async fn shown(sidecar: &Sidecar) -> Vec<u8> {
    let stream = sidecar.tls().connect(sidecar.tcp().await, &["http/1.1"]).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_bad_certificate_does_not_replace_a_good_one() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let names = ["localhost", "127.0.0.1"];
    let good = sidecar.authority.issue(&names);
    let stranger = Authority::new().issue(&names);
    let expired = sidecar.authority.issue_for(&names, 2001, 2002);
    let early = sidecar.authority.issue_for(&names, 3001, 3002);
    let half = |text: &str| Some(text[..text.len() / 2].to_owned());
    let whole = |text: &str| Some(text.to_owned());
    // What the two files hold (none: removed), and what is said of it.
    let rows = [
        ("the key of another", whole(&good.certificate), whole(&stranger.private_key), "does not fit"),
        ("the certificate of another", whole(&stranger.certificate), whole(&good.private_key), "does not fit"),
        ("expired", whole(&expired.certificate), whole(&expired.private_key), "not now"),
        ("not valid yet", whole(&early.certificate), whole(&early.private_key), "not now"),
        ("a cut certificate", half(&good.certificate), whole(&good.private_key), "tls.crt"),
        ("a cut key", whole(&good.certificate), half(&good.private_key), "tls.key"),
        ("garbage", Some("\u{0}\u{1}garbage".into()), whole(&good.private_key), "no certificate in PEM form"),
        (
            "garbage in PEM",
            Some("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n".into()),
            whole(&good.private_key),
            "not valid X.509",
        ),
        ("an empty certificate", Some(String::new()), whole(&good.private_key), "no certificate in PEM form"),
        ("an empty key", whole(&good.certificate), Some(String::new()), "no private key in PEM form"),
        ("no certificate", None, whole(&good.private_key), "cannot read"),
        ("no key", whole(&good.certificate), None, "cannot read"),
    ];
    let put = |certificate: &Option<String>, key: &Option<String>| {
        for (file, text) in [("tls/tls.key", key), ("tls/tls.crt", certificate)] {
            match text {
                Some(text) => sidecar.replace(file, text),
                None => std::fs::remove_file(sidecar.path(file)).unwrap(),
            }
        }
    };
    put(&whole(&good.certificate), &whole(&good.private_key));
    eventually("the first certificate", async || {
        let now = shown(&sidecar).await;
        if now == good.der().to_vec() { Ok(()) } else { Err("another") }
    })
    .await;
    let mut kept = sidecar.connect(H1).await;
    let mut read = 0;
    for (what, certificate, private_key, told) in rows {
        let failed = [("what", "certificate"), ("result", "failed")];
        let before = sidecar.metrics().await.value("keyside_reloads_total", &failed);
        put(&certificate, &private_key);
        sidecar.measures("keyside_reloads_total", &failed, move |count| count > before).await;
        eventually("the alarm", async || {
            let lines = sidecar.log.all();
            let alarm = |line: &String| line.contains("ERROR") && line.contains("certificate") && line.contains(told);
            if lines[read..].iter().any(alarm) { Ok(()) } else { Err(format!("{what}: {:#?}", &lines[read..])) }
        })
        .await;
        read = sidecar.log.all().len();
        assert_eq!(shown(&sidecar).await, good.der().to_vec(), "{what}");
        assert_eq!(kept.send(&get("/").key(&key)).await.status, 200, "{what}");
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200, "{what}");
        let ready = sidecar.admin("GET", "/readyz?verbose").await;
        assert_eq!((ready.status, ready.text().contains("[!]certificate")), (200, true), "{what}: {}", ready.text());
        // The very files that are in force: nothing is wrong any more.
        put(&whole(&good.certificate), &whole(&good.private_key));
        eventually("no more alarm", async || {
            let text = sidecar.admin("GET", "/readyz?verbose").await.text();
            if text.contains("[!]") { Err(format!("{what}: {text}")) } else { Ok(()) }
        })
        .await;
    }
    let better = sidecar.authority.issue(&names);
    put(&whole(&better.certificate), &whole(&better.private_key));
    eventually("the better certificate", async || {
        if shown(&sidecar).await == better.der().to_vec() { Ok(()) } else { Err("the old one") }
    })
    .await;
}

/// At the start there is none to fall back to: it ends, with one line that says why.
#[tokio::test]
async fn a_start_without_a_good_certificate_ends_at_once() {
    let stranger = Authority::new().issue(&["localhost"]);
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let rows: [(&str, &str, &str, &str); 4] = [
        ("the key of another", "tls/tls.key", &stranger.private_key, "does not fit"),
        ("garbage", "tls/tls.crt", "garbage", "tls.crt"),
        ("an empty key", "tls/tls.key", "", "tls.key"),
        ("a missing file", "tls/none", "", "missing.crt"),
    ];
    for (what, file, text, told) in rows {
        let builder = Sidecar::in_front_of(&upstream).file(file, text).keys([&key]);
        let builder = match what {
            "a missing file" => builder.config("[listen.tls]\ncertificate = \"tls/missing.crt\""),
            _ => builder,
        };
        let ended = builder.try_start().await.err().unwrap_or_else(|| panic!("{what}: it started"));
        assert_eq!(ended.status, 78, "{what}: {}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(told)).collect();
        assert_eq!(lines.len(), 1, "{what}: {}", ended.stderr);
    }
}

/// One that has expired is served, for there is no other; but it is said.
#[tokio::test]
async fn an_expired_certificate_is_said() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let builder = Sidecar::in_front_of(&upstream).keys([&key]);
    let expired = builder.authority().issue_for(&["localhost"], 2001, 2002);
    let sidecar =
        builder.file("tls/tls.crt", expired.certificate).file("tls/tls.key", expired.private_key).start().await;
    sidecar
        .log
        .object("the alarm", |line| line["message"].as_str().is_some_and(|text| text.contains("has expired")))
        .await;
    let shown = sidecar.admin("GET", "/readyz?verbose").await;
    assert!(shown.text().contains("[!]certificate in force expired at 2002-01-01"), "{}", shown.text());
    let good = sidecar.authority.issue(&["localhost", "127.0.0.1"]);
    sidecar.replace("tls/tls.key", good.private_key);
    sidecar.replace("tls/tls.crt", good.certificate);
    eventually("no more alarm", async || {
        let shown = sidecar.admin("GET", "/readyz?verbose").await.text();
        if shown.contains("[!]") { Err(shown) } else { Ok(()) }
    })
    .await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}
