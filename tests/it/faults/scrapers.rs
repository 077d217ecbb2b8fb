//! Scrapers of metrics that are many and slow: nothing of it reaches the data plane, and a quick one is answered.

use socket2::{Domain, Socket, Type};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::UNLIMITED;
use crate::harness::{H1, H2, Key, Load, Sidecar, Upstream, get, others};

#[tokio::test]
async fn slow_scrapers_slow_nobody_down() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key]).start().await;
    let address = sidecar.admin_address().into();
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..50 {
        // With next to no room for what comes.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        socket.connect(&address).unwrap();
        let mut stream = TcpStream::from(socket);
        // Some never ask to the end; the others ask for much, and read next to nothing of it.
        let request = if number % 5 == 0 { "GET /met" } else { "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" };
        let times = if number % 5 == 0 { 1 } else { 40 };
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(request.repeat(times).as_bytes());
        slow.push(stream);
    }
    let load = Load::on(&sidecar, &[H1, H2], &get("/").key(&key));
    for _ in 0..20 {
        for stream in &mut slow {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.read(&mut [0]);
        }
        assert_eq!(sidecar.admin("GET", "/livez").await.status, 200);
        assert!(sidecar.metrics().await.get("keyside_requests_total", &[("outcome", "allowed")]).is_some());
        upstream.request(upstream.count() + 20).await;
    }
    let sent = load.stop().await;
    assert_eq!(others(&sent, 200), Vec::<&Result<u16, String>>::new());
    let slowest = sent.iter().map(|sent| sent.ended - sent.began).max().unwrap();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
