//! An upstream's answer is framed as a naive reader of RFC 9112 frames it, or refused; what follows it is not read as
//! part of it.
//!
//! An input: switches, where it is cut in two (in bytes), the bytes of an answer. `h` it answers HEAD.

#![no_main]

use std::future::poll_fn;

use http::{HeaderName, HeaderValue};
use keyside::listener::framing::Source as _;
use keyside::proxy::upstream::{
    UpstreamStream,
    answer::{AnswerError, Asked, HeadReader},
    wire::Wire,
};
use keyside_fuzz::{Switches, line, run};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

/// An answer, read to its end.
#[derive(Debug, PartialEq)]
struct Read {
    status: u16,
    body: Vec<u8>,
    trailers: usize,
    /// What comes behind it.
    rest: Vec<u8>,
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (switches, rest) = line(input);
    let (cut, answer) = line(rest);
    if answer.len() > 12 * 1024 {
        return;
    }
    let cut = std::str::from_utf8(cut).ok().and_then(|cut| cut.parse().ok()).unwrap_or(answer.len()).min(answer.len());
    let head = Switches(switches).has(b'h');
    let read = run(read(answer, cut, Asked { head }));
    let naive = naive(answer, head);
    match (read, naive) {
        (Ok((read, kept)), Some((naive, certain))) => {
            assert_eq!(read, naive);
            assert!(!kept || certain, "kept although where it ends is a matter of opinion");
        }
        (Err(_), None) => {}
        (Ok(read), None) => panic!("read {read:?}, which a naive reader refuses"),
        (Err(why), Some(naive)) => panic!("refused ({why}), where a naive reader has {naive:?}"),
    }
});

async fn read(answer: &[u8], cut: usize, asked: Asked) -> Result<(Read, bool), AnswerError> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let mut wire = Wire::new(UpstreamStream::Unix(ours));
    theirs.write_all(&answer[..cut]).await.expect("room");
    let write = async {
        tokio::task::yield_now().await;
        let _ = theirs.write_all(&answer[cut..]).await;
        drop(theirs);
    };
    tokio::join!(read_from(&mut wire, asked), write).0
}

async fn read_from(wire: &mut Wire, asked: Asked) -> Result<(Read, bool), AnswerError> {
    let mut reader = HeadReader::default();
    let answer = poll_fn(|cx| reader.poll(wire, asked, cx)).await?;
    let (status, mut download) = (answer.status.as_u16(), answer.body);
    let (mut body, mut trailers) = (Vec::new(), 0);
    let mut announced = download.size_hint().exact();
    while let Some(frame) = poll_fn(|cx| download.poll_frame(wire, cx)).await {
        match frame?.into_data() {
            Ok(piece) => {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
                announced = announced.map(|left| left - piece.len() as u64);
                assert_eq!(download.size_hint().exact().filter(|_| announced.is_some()), announced);
            }
            Err(frame) => trailers = frame.into_trailers().expect("one or the other").len(),
        }
    }
    assert!(download.is_end_stream());
    let kept = download.leaves_connection();
    while poll_fn(|cx| wire.poll_fill(cx)).await.is_ok_and(|bytes| bytes > 0) {}
    Ok((Read { status, body, trailers, rest: wire.input().to_vec() }, kept))
}

/// Reads the whole text at once; says also whether nobody could frame it in another way.
fn naive(mut text: &[u8], head: bool) -> Option<(Read, bool)> {
    for _ in 0..=32 {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = parsed.parse(text).ok()? else { return None };
        let (status, version) = (parsed.code?, parsed.version?);
        if status < 100 {
            return None;
        }
        let (mut lengths, mut codings) = (Vec::new(), Vec::new());
        let (mut close, mut keep) = (false, false);
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            HeaderValue::from_bytes(field.value).ok()?;
            let members = || field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            match name.as_str() {
                "content-length" => lengths.extend(members()),
                "transfer-encoding" => codings.push(field.value.trim_ascii().to_ascii_lowercase()),
                "connection" => {
                    close |= members().any(|member| member.eq_ignore_ascii_case(b"close"));
                    keep |= members().any(|member| member.eq_ignore_ascii_case(b"keep-alive"));
                }
                _ => {}
            }
        }
        let lengths: Option<Vec<u64>> = lengths.into_iter().map(number).collect();
        let mut lengths = lengths?;
        lengths.dedup();
        if lengths.len() > 1 {
            return None;
        }
        let chunked = match &codings[..] {
            [] => false,
            [coding] if coding == b"chunked" && version == 1 => true,
            _ => return None,
        };
        text = &text[length..];
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let length = lengths.first().copied();
        let bodiless = head || status == 101 || status == 204 || status == 304;
        let (body, trailers, rest) = match length {
            _ if bodiless => (Vec::new(), 0, text),
            _ if chunked => dechunked(text)?,
            Some(length) => {
                let (body, rest) = text.split_at_checked(usize::try_from(length).ok()?)?;
                (body.to_vec(), 0, rest)
            }
            None => (text.to_vec(), 0, &[][..]),
        };
        let has_end =
            if bodiless { !head && !chunked && length.unwrap_or(0) == 0 } else { chunked != length.is_some() };
        let certain = has_end && !close && (version == 1 || keep);
        return Some((Read { status, body, trailers, rest: rest.to_vec() }, certain));
    }
    None
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn dechunked(mut text: &[u8]) -> Option<(Vec<u8>, usize, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = text.iter().position(|&byte| byte == b'\n').filter(|&end| end <= 4096)?;
        let line = text[..end].strip_suffix(b"\r")?;
        let (size, extension) = match line.iter().position(|&byte| byte == b';') {
            Some(at) => line.split_at(at),
            None => (line, &[][..]),
        };
        let blanks = size.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let size = &size[..size.len() - blanks];
        if extension.contains(&b'\r') || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        text = &text[end + 1..];
        if size == 0 {
            break;
        }
        let (chunk, rest) = text.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        text = rest.strip_prefix(b"\r\n")?;
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    if let Some(rest) = text.strip_prefix(b"\r\n") {
        return Some((body, 0, rest));
    }
    let httparse::Status::Complete((length, fields)) = httparse::parse_headers(text, &mut fields).ok()? else {
        return None;
    };
    // The parser takes a bare line feed for the end of a line; that is another one's opinion.
    let lines = text[..length].strip_suffix(b"\n")?;
    if !lines.split(|&byte| byte == b'\n').all(|line| line.ends_with(b"\r")) {
        return None;
    }
    for field in fields {
        HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        HeaderValue::from_bytes(field.value).ok()?;
    }
    Some((body, fields.len(), &text[length..]))
}
