//! Connections that end at the wrong moment, on either side: nothing arrives twice, nothing half looks whole, and
//! nothing goes on for nobody.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{head, key, keys};
use crate::harness::{Answer, End, Gate, H1, H2, Sidecar, Upstream, eventually, get, post, within};

/// What an upstream does with a request on a kept connection.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Answers,
    /// Answers and closes at once, without a word of that.
    Closes,
    /// Answers, and resets the connection.
    Resets,
    /// Reads it and says nothing more.
    Dies,
    /// Ends in the middle of its answer.
    Breaks,
}

/// Serves one connection in moods that a seed chooses, and tells of every whole order.
async fn moody(mut stream: TcpStream, mut seed: u64, orders: mpsc::UnboundedSender<(String, Mood)>) {
    let mut read = Vec::new();
    loop {
        // Orders have heads and a length of eight.
        let end = loop {
            let head = read.windows(4).position(|four| four == b"\r\n\r\n");
            match head {
                Some(head) if read.len() >= head + 12 => break head + 4,
                _ => {}
            }
            match stream.read_buf(&mut read).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let order = String::from_utf8(read[end..end + 8].to_vec()).unwrap();
        read.drain(..end + 8);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mood = match (seed >> 33) % 10 {
            0 | 1 => Mood::Closes,
            2 => Mood::Resets,
            3 => Mood::Dies,
            4 => Mood::Breaks,
            _ => Mood::Answers,
        };
        let _ = orders.send((order, mood));
        let answer: &[u8] = match mood {
            Mood::Dies => return,
            Mood::Breaks => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
        match mood {
            Mood::Answers => {}
            Mood::Resets => {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                return;
            }
            _ => return,
        }
    }
}

/// Orders that arrive once or not at all, whatever becomes of the connections; and who was told that all is well, had
/// their order taken.
#[tokio::test]
async fn no_order_arrives_twice() {
    const CALLERS: usize = 8;
    const ORDERS: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut taken) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut seed = 20_261_121;
        while let Ok((stream, _)) = listener.accept().await {
            seed += 1;
            tokio::spawn(moody(stream, seed, sender.clone()));
        }
    });
    let sidecar = Sidecar::in_front_of_url(&url).keys(&keys()).start().await;
    let callers = (0..CALLERS).map(|caller| {
        let dialer = sidecar.dialer();
        tokio::spawn(async move {
            let version = if caller % 2 == 0 { H1 } else { H2 };
            let mut connection = dialer.connect(version).await.unwrap();
            let mut said = Vec::new();
            for number in 0..ORDERS {
                let order = format!("{caller:02}-{number:05}");
                let asked = post("/order", &order).key(&key("writer"));
                let answer = within("an answer", connection.try_send(&asked)).await;
                let well = match &answer {
                    Ok(answer) => answer.status == 200 && answer.broken.is_none(),
                    Err(_) => false,
                };
                let dead = answer.as_ref().map_or(true, |answer| answer.broken.is_some());
                if dead && version == H1 {
                    connection = dialer.connect(version).await.unwrap();
                }
                said.push((order, well));
            }
            said
        })
    });
    let mut said = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        said.extend(caller.await.unwrap());
    }
    serving.abort();
    let mut arrived = std::collections::HashMap::new();
    while let Ok((order, mood)) = taken.try_recv() {
        assert!(arrived.insert(order.clone(), mood).is_none(), "{order} arrived twice");
    }
    let mut lost = 0;
    for (order, well) in &said {
        match (arrived.get(order), well) {
            (Some(Mood::Answers | Mood::Closes | Mood::Resets), true) | (Some(Mood::Dies | Mood::Breaks), false) => {}
            // Never taken, or its answer was lost with a connection that was reset: told as failed, and not sent again.
            (None | Some(Mood::Resets), false) => lost += 1,
            other => panic!("{order}: {other:?}"),
        }
    }
    let kept = said.iter().filter(|(_, well)| *well).count();
    // Some are lost on connections that close while they are sent; most are not.
    assert!(lost * 4 < said.len(), "{lost} of {} orders were not taken", said.len());
    assert!(kept * 2 > said.len(), "{kept} of {} orders are well", said.len());
}

/// A client that closes its sending side is taken to be gone: what was for it ends, and its place is free.
#[tokio::test]
async fn a_client_that_closes_its_side_is_gone() {
    let upstream = Upstream::start().await;
    upstream.on("/silent", Answer::silence());
    upstream.on("/begun", Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").then_silence());
    let config = "[upstream]\nmax_in_flight = 1";
    for plain in [true, false] {
        let builder = Sidecar::in_front_of(&upstream).config(config).keys(&keys());
        let sidecar = if plain { builder.plaintext() } else { builder }.start().await;
        for path in ["/silent", "/begun"] {
            let before = upstream.count();
            let mut wire = sidecar.wire().await;
            let id = format!("{}-{plain}", &path[1..]);
            wire.write(head(&format!("GET {path}"), &format!("X-Request-Id: {id}"))).await.unwrap();
            upstream.request(before + 1).await;
            if path == "/begun" {
                assert_eq!(wire.answer_head("GET").await.unwrap().status, 200);
            }
            wire.shutdown().await.unwrap();
            within("the end", wire.rest()).await;
            let line = sidecar.logged(&id).await;
            assert_eq!(line["outcome"], "failed", "{line}");
            eventually("a free place", async || {
                let answer = sidecar.ask(get("/").key(&key("writer"))).await;
                if answer.status == 200 { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }
}

/// A client that closes its side in the middle of its body: the upstream never has a whole request.
#[tokio::test]
async fn half_a_body_is_never_a_whole_one() {
    let upstream = Upstream::start().await;
    let hidden = super::hidden();
    for plain in [true, false] {
        let builder = Sidecar::in_front_of(&upstream).keys(&keys());
        let sidecar = if plain { builder.plaintext() } else { builder }.start().await;
        let chunks = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        for (framing, whole) in [
            (format!("Content-Length: {}", hidden.len()), hidden.clone()),
            ("Transfer-Encoding: chunked".into(), chunks),
        ] {
            for cut in
                [1, 2, 4, 5, 30, whole.len() / 2, whole.len() - 6, whole.len() - 5, whole.len() - 3, whole.len() - 1]
            {
                let before = upstream.count();
                let mut wire = sidecar.wire().await;
                let begun = format!("{}{}", head("POST /", &framing), &whole[..cut]);
                wire.write(begun).await.unwrap();
                upstream.request(before + 1).await;
                wire.shutdown().await.unwrap();
                drop(wire);
                let seen = upstream.until("the end", |seen| seen[before].end != End::Arriving).await;
                assert_eq!(seen[before].end, End::Broken, "{framing}, cut at {cut}: {seen:?}");
                assert_eq!(seen.len(), before + 1, "{framing}, cut at {cut}");
            }
        }
    }
}

/// An upstream that closes its sending side, before its answer or within it, has not answered.
#[tokio::test]
async fn half_an_upstream_is_no_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sidecar = Sidecar::in_front_of_url(&url).keys(&keys()).start().await;
    for (said, cut) in [
        ("", false),
        ("HTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 100 Continue\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
    ] {
        for version in [H1, H2] {
            let mut connection = sidecar.connect(version).await;
            let order = post("/", "order").key(&key("writer"));
            let asked = connection.try_send(&order);
            let answered = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut got = Vec::new();
                while !got.ends_with(b"order") {
                    assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
                }
                stream.write_all(said.as_bytes()).await.unwrap();
                // Its other side stays open, and would take more.
                stream.shutdown().await.unwrap();
                let mut more = Vec::new();
                let _ = stream.read_to_end(&mut more).await;
                assert!(more.is_empty(), "{said:?}: {:?}", more.escape_ascii().to_string());
            };
            let both = async { tokio::join!(asked, answered) };
            let (answer, ()) = within("both", both).await;
            match answer {
                Ok(answer) if cut => assert!(answer.broken.is_some(), "{said:?} over {version:?}: {answer:?}"),
                Ok(answer) => assert_eq!(answer.brief(), "502 upstream_unreachable", "{said:?} over {version:?}"),
                // What had begun need not have left before it was cut.
                Err(why) => assert!(cut, "{said:?} over {version:?}: {why}"),
            }
        }
    }
}

/// A caller that goes on sending behind an early answer holds nobody up, and its body is never whole.
#[tokio::test]
async fn an_early_answer_leaves_nothing_behind() {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/early", Answer::with(422, &[], "no").early().then(&gate, "").then_read());
    let sidecar = Sidecar::in_front_of(&upstream).keys(&keys()).start().await;
    let mut wire = sidecar.wire().await;
    let hidden = super::hidden();
    wire.write(format!("{}{}", head("POST /early", "Content-Length: 100000"), &hidden)).await.unwrap();
    let answer = wire.answer("POST").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (422, "no"));
    // What it sends now is the rest of its body, or nothing.
    let _ = wire.write(&hidden).await;
    let _ = wire.shutdown().await;
    within("the end", wire.rest()).await;
    gate.open();
    let seen = upstream.until("the end", |seen| seen[0].end != End::Arriving).await;
    assert_eq!((seen.len(), seen[0].end), (1, End::Broken));
    assert_eq!(sidecar.ask(get("/").key(&key("writer"))).await.status, 200);
    assert_eq!(upstream.count(), 2);
}
