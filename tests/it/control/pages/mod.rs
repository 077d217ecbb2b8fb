//! The admin pages: who gets in, whose forms are believed, what is shown and what is not; and walks through them with a
//! real browser.

mod forms;
mod receipts;
mod scripts;
mod secrets;
mod sessions;
mod setup;
mod walks;

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use crate::harness::{H1, Plane, PlaneBuilder, Received, Request, get, post, within};

/// The first operator's, where a test gives them one.
const PASSWORD: &str = "a password of the tests";

/// A control plane with an operator `root`, an admin, who can sign in.
fn with_password() -> PlaneBuilder {
    let builder = Plane::prepare();
    std::fs::write(builder.folder().join("admin-password"), PASSWORD).unwrap();
    builder.config("[setup]\npassword = { file = \"admin-password\" }\n[presets]\nnames = [\"wallet\", \"web3pay\"]")
}

/// Somebody at a browser, as far as the server can see: cookies, and the secret of the last page's forms.
struct Visitor<'p> {
    plane: &'p Plane,
    from: Option<IpAddr>,
    cookies: BTreeMap<String, String>,
    csrf: String,
}

impl<'p> Visitor<'p> {
    fn new(plane: &'p Plane) -> Self {
        Self { plane, from: None, cookies: BTreeMap::new(), csrf: String::new() }
    }

    /// Somebody who is signed in as `root`.
    async fn signed_in(plane: &'p Plane) -> Self {
        let mut visitor = Self::new(plane);
        let answer = visitor.sign_in("root", PASSWORD).await;
        assert_eq!((answer.status, answer.field("location")), (303, "/keys"), "{}", answer.text());
        visitor
    }

    /// Sends a request with the cookies, and keeps those that the answer sets.
    async fn send(&mut self, request: Request) -> Received {
        let request = match self.cookies.is_empty() {
            true => request,
            false => {
                let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
                request.field("Cookie", cookies.join("; "))
            }
        };
        let mut dialer = self.plane.dialer();
        dialer.from = self.from;
        let asked = async { dialer.connect(H1).await.unwrap().send(&request).await };
        let answer = within("an answer", asked).await;
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        answer
    }

    fn host(&self) -> String {
        self.plane.address.to_string()
    }

    fn origin(&self) -> String {
        format!("http://{}", self.plane.address)
    }

    /// Looks at a page.
    async fn look(&mut self, target: &str) -> Received {
        let request = get(target).host(&self.host()).field("Accept", "text/html");
        let answer = self.send(request).await;
        if let Some(csrf) = hidden(&answer.text(), "csrf") {
            self.csrf = csrf;
        }
        answer
    }

    /// Looks at a page that there is.
    async fn see(&mut self, target: &str) -> String {
        let answer = self.look(target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        answer.text()
    }

    /// A form, as our own pages send it, with this secret.
    fn form(&self, target: &str, fields: &[(&str, &str)], csrf: &str) -> Request {
        let mut pairs = vec![format!("csrf={}", escaped(csrf))];
        pairs.extend(fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))));
        let kind = "application/x-www-form-urlencoded";
        post(target, pairs.join("&")).host(&self.host()).field("Content-Type", kind).field("Accept", "text/html")
    }

    /// Fills in a form of the last page, and sends it.
    async fn fill(&mut self, target: &str, fields: &[(&str, &str)]) -> Received {
        let request = self.form(target, fields, &self.csrf).field("Origin", self.origin());
        let answer = self.send(request.field("Sec-Fetch-Site", "same-origin")).await;
        if let Some(csrf) = hidden(&answer.text(), "csrf") {
            self.csrf = csrf;
        }
        answer
    }

    /// Goes to the page for signing in, and signs in.
    async fn sign_in(&mut self, name: &str, password: &str) -> Received {
        self.look("/sign-in").await;
        self.fill("/sign-in", &[("name", name), ("password", password)]).await
    }

    /// The session's cookie.
    fn session(&self) -> Option<&String> {
        self.cookies.get("keyside")
    }

    /// Mints a key, and gives the page with its secret.
    async fn mint(&mut self, name: &str, owner: &str) -> Received {
        let page = self.see("/keys/new").await;
        let once = hidden(&page, "once").unwrap();
        let fields = [("name", name), ("owner", owner), ("permissions", "read"), ("once", &once), ("do", "mint")];
        self.fill("/keys/new", &fields).await
    }

    /// Whether somebody is signed in with these cookies.
    async fn is_in(&mut self) -> bool {
        let answer = self.look("/account").await;
        assert!(matches!(answer.status, 200 | 303), "{}", answer.text());
        answer.status == 200
    }
}

/// One of the addresses of this machine.
fn local(last: [u8; 3]) -> IpAddr {
    [127, last[0], last[1], last[2]].into()
}

/// The value of the first hidden field of this name.
fn hidden(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// The id of the key whose page an answer links to.
fn made(page: &str) -> String {
    let (_, rest) = page.split_once("href=\"/keys/key_").expect("a link to the key");
    format!("key_{}", rest.split_once('"').unwrap().0)
}

/// As it stands in a form.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// THE LIST of pages, as the code has it: each path with its methods.
fn listed() -> Vec<(String, bool, bool)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/ui/mod.rs");
    let text = std::fs::read_to_string(file).unwrap();
    let routes = text.lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    let route = |line: &str| {
        let (path, methods) = line.split_once("\", ").unwrap();
        (path.to_owned(), methods.contains("get("), methods.contains("post("))
    };
    let found: Vec<_> = routes.map(route).collect();
    assert!(found.len() > 20, "the list was not found");
    found
}
