//! Methods that are named elsewhere than in the request line: the narrower right counts.

use super::{Row, Verdict, check, check_plain, key, strict::Message};

const SOURCE: &str = "WordPress: class-wp-rest-server.php; php_register_variable_ex";

fn asked(name: &str, method: &str, target: &str, fields: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: a.example\r\nAuthorization: {}\r\n{fields}\r\n",
        key(name).authorization()
    )
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) if !digits.unwrap().starts_with('+') => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// The name under which PHP files a parameter.
fn filed(name: &str) -> Vec<u8> {
    let mut name = decoded(name);
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    let spaces = name.iter().take_while(|byte| **byte == b' ').count();
    name.drain(..spaces);
    let array = name.iter().position(|byte| *byte == b'[').filter(|at| name[*at..].contains(&b']'));
    let end = array.unwrap_or(name.len());
    for byte in &mut name[..end] {
        if matches!(byte, b' ' | b'.' | b'[') {
            *byte = b'_';
        }
    }
    name.truncate(end);
    name
}

/// Every method that some upstream may act on: the sent one, and all that is said by a parameter or a field.
fn readings(message: &Message) -> Vec<String> {
    let mut parts = message.line.split(' ');
    let mut methods = vec![parts.next().unwrap().to_owned()];
    let query = parts.next().unwrap().split_once('?').unwrap_or_default().1;
    for pair in query.split(['&']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if filed(name.trim_start_matches('?')) == b"_method" {
            methods.push(String::from_utf8_lossy(&decoded(value)).to_uppercase());
        }
    }
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        methods.extend(message.all(name).iter().map(|value| String::from_utf8_lossy(value).to_uppercase()));
    }
    methods
}

#[test]
fn the_readings_are_those_of_php() {
    for name in [
        "_method",
        ".method",
        "+_method",
        "%20.method",
        "_method%00x",
        "%5Fmethod",
        "_method[]",
        "_method[a]",
        "[method",
    ] {
        assert_eq!(filed(name), b"_method", "{name}");
    }
    for name in ["_Method", "_method_", "x_method", "method", "__method", "_method%5D"] {
        assert_ne!(filed(name), b"_method", "{name}");
    }
}

/// What arrives may be acted on by these methods alone.
fn only(allowed: &'static [&'static str]) -> Verdict {
    Verdict::Sound(Box::new(move |message| {
        let readings = readings(message);
        match readings.iter().find(|method| !allowed.contains(&method.as_str())) {
            Some(method) => Err(format!("it may be acted on as {method:?}: {message:?}")),
            None => Ok(()),
        }
    }))
}

const READS: &[&str] = &["GET", "HEAD", "OPTIONS"];
const WRITES: &[&str] = &["POST", "PUT", "PATCH", "DELETE"];

/// For a key that may only read, and for one that may only write.
fn both(rows: &mut Vec<Row>, what: &str, query: &str, fields: &str) {
    let method_of =
        |text: &str, method: &str| text.replace("METHOD", method).replace("method-small", &method.to_lowercase());
    for method in WRITES {
        let (query, fields) = (method_of(query, method), method_of(fields, method));
        for sent in READS {
            let sent_bytes = asked("reader", sent, &format!("/{query}"), &fields);
            rows.push(Row::new(
                format!("{what}: {sent} as {method} with a key that reads"),
                SOURCE,
                sent_bytes,
                only(READS),
            ));
        }
    }
    for method in READS {
        let (query, fields) = (method_of(query, method), method_of(fields, method));
        let bytes = asked("poster", "POST", &format!("/{query}"), &fields);
        rows.push(Row::new(format!("{what}: POST as {method} with a key that writes"), SOURCE, bytes, only(WRITES)));
    }
}

/// By a parameter in every spelling that PHP files under its name, and by fields.
#[tokio::test]
async fn the_narrower_right_counts() {
    let mut rows = Vec::new();
    for query in [
        "?_method=METHOD",
        "?%5Fmethod=METHOD",
        "?%5fmethod=METHOD",
        "?.method=METHOD",
        "?%2emethod=METHOD",
        "?%2Emethod=METHOD",
        "?+_method=METHOD",
        "?%20_method=METHOD",
        "?+%20+_method=METHOD",
        "?+.method=METHOD",
        "?_method%00=METHOD",
        "?_method%00x=METHOD",
        "?_method%00[x]=METHOD",
        "?[method=METHOD",
        "?%5Bmethod=METHOD",
        "?%5f%6d%65%74%68%6f%64=METHOD",
        "?_method[]=METHOD",
        "?_method[0]=METHOD",
        "?_method%5B%5D=METHOD",
        "?_method[=METHOD",
        "?a=b&_method=METHOD",
        "?_method=METHOD&a=b",
        "?&&_method=METHOD",
        "?_method=GET&_method=METHOD",
        "?_method=METHOD&_method=GET",
        "?_method=POST&_method=METHOD",
        "?_method=METHOD&.method=POST",
        "?_method=METHOD&_method",
        "?_method&_method=METHOD",
        "?_method=METHOD&_method=",
        "?_method=&_method=METHOD",
        "??_method=METHOD",
        "???_method=METHOD",
        "?_method=method-small",
        "?_method=+METHOD",
        "?_method=METHOD+",
        "?_method=%20METHOD",
        "?_method=METHOD%20",
        "?_method=METHOD%00",
        "?_method=%00METHOD",
        "?_method=METHOD%0d%0a",
        "?_method=METHOD,GET",
        "?_method=GET,METHOD",
        "?_method=GET;METHOD",
        "?_method=\"METHOD\"",
        "?_method=METHOD=GET",
        "?_method==METHOD",
        "?_method=METHOD#&_method=GET",
        "?_method=%4DETHOD",
    ] {
        both(&mut rows, query, query, "");
    }
    for name in [
        "X-HTTP-Method-Override",
        "x-http-method-override",
        "X-HTTP-METHOD-OVERRIDE",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        for (how, fields) in [
            ("once", format!("{name}: METHOD\r\n")),
            ("in small letters", format!("{name}: method-small\r\n")),
            ("empty first", format!("{name}:\r\n{name}: METHOD\r\n")),
            ("empty last", format!("{name}: METHOD\r\n{name}:\r\n")),
            ("twice", format!("{name}: METHOD\r\n{name}: METHOD\r\n")),
            ("after a read", format!("{name}: GET\r\n{name}: METHOD\r\n")),
            ("before a read", format!("{name}: METHOD\r\n{name}: GET\r\n")),
            ("in a list", format!("{name}: GET, METHOD\r\n")),
            ("before a list", format!("{name}: METHOD, GET\r\n")),
            ("quoted", format!("{name}: \"METHOD\"\r\n")),
            ("with a parameter", format!("{name}: METHOD;a=b\r\n")),
            ("with a tab", format!("{name}:\tMETHOD\t\r\n")),
            ("nominated", format!("Connection: {name}\r\n{name}: METHOD\r\n")),
            ("beside another", format!("X-HTTP-Method: GET\r\nX-Method-Override: GET\r\n{name}: METHOD\r\n")),
        ] {
            both(&mut rows, &format!("{name} {how}"), "", &fields);
        }
        both(
            &mut rows,
            &format!("{name} beside a parameter that reads"),
            "?_method=GET",
            &format!("{name}: METHOD\r\n"),
        );
        both(
            &mut rows,
            &format!("{name} that reads beside a parameter"),
            "?_method=METHOD",
            &format!("{name}: GET\r\n"),
        );
        let odd = name.replace('-', "_");
        both(&mut rows, &format!("{odd}, spelt otherwise"), "", &format!("{odd}: METHOD\r\n"));
    }
    check_plain("", rows).await;
}

/// What is no method of this API is none by another way, either.
#[tokio::test]
async fn no_unknown_method_comes_by_another_way() {
    let mut rows = Vec::new();
    for method in ["PURGE", "CONNECT", "TRACE", "PROPFIND", "X", "", " ", "G\u{c9}T", "GET\u{0}", "DELETE X", "_METHOD"]
    {
        let escaped: String = method.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let sent = asked("writer", "GET", &format!("/?_method={escaped}"), "");
        rows.push(Row::refused(format!("{method:?} by a parameter"), SOURCE, sent));
        let sent = asked("writer", "POST", "/", &format!("X-HTTP-Method-Override: {method}\r\n"));
        rows.push(Row::refused(format!("{method:?} by a field"), SOURCE, sent));
    }
    check("", rows).await;
    // Where overrides are not taken at all, none of them arrives.
    let mut rows = Vec::new();
    for (rule, target, fields) in [
        ("a parameter", "/?_method=GET", ""),
        ("another spelling", "/?%2Emethod=GET", ""),
        ("an array", "/?_method[]=GET", ""),
        ("a field", "/", "X-HTTP-Method-Override: GET\r\n"),
        ("another field", "/", "X-HTTP-Method: GET\r\n"),
        ("a third", "/", "X-Method-Override: GET\r\n"),
    ] {
        rows.push(Row::new(
            rule,
            "Settled: judged or refused",
            asked("writer", "GET", target, fields),
            Verdict::Refused(&[400]),
        ));
    }
    check("[policy]\nmethod_override = \"refuse\"", rows).await;
}

/// Every byte before, in and behind the name and the value of the parameter.
#[tokio::test]
async fn no_byte_hides_an_override() {
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let mut forms = vec![format!("%{byte:02X}"), format!("%{byte:02x}")];
        if byte.is_ascii_graphic() {
            forms.push(char::from(byte).to_string());
        }
        forms.sort();
        forms.dedup();
        for form in forms {
            for query in [
                format!("{form}_method=DELETE"),
                format!("_{form}method=DELETE"),
                format!("{form}method=DELETE"),
                format!("_method{form}=DELETE"),
                format!("_method{form}x=DELETE"),
                format!("_method={form}DELETE"),
                format!("_method=DELETE{form}"),
                format!("a=b{form}_method=DELETE"),
                format!("{form}{form}_method=DELETE"),
                format!("+{form}_method=DELETE"),
                format!("_metho{form}=DELETE"),
            ] {
                let rule = format!("?{query} ({byte:02x})");
                rows.push(Row::new(rule, SOURCE, asked("reader", "GET", &format!("/?{query}"), ""), only(READS)));
            }
        }
    }
    let mut rules = std::collections::HashSet::new();
    rows.retain(|row| rules.insert(row.rule.clone()));
    check_plain("", rows).await;
}
