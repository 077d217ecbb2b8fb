//! The list of keys, for spreadsheets.

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};

use super::{
    super::{
        super::keys::{self, Listed, list::MOST},
        page::Sorry,
        visit::Visit,
    },
    list::filter,
};
use crate::{
    clock::Wall,
    keys::{Mode, words::prefix},
};

const HEAD: &str =
    "id,name,prefix,environment,permissions,owner,status,last_used_at,last_ip,created_at,expires_at,revoked_at\r\n";

/// `GET /keys.csv`: all keys that the filters of the list let through.
pub(in super::super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    let (filter, caller) = (filter(&visit.query), visit.caller());
    let mut text = HEAD.to_owned();
    let mut cursor = None;
    loop {
        let page = keys::list(&visit.desk, &caller, &filter, cursor.as_deref(), MOST)?;
        page.rows.iter().for_each(|listed| line(&mut text, listed));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"keys.csv\""));
    Ok(response)
}

fn line(text: &mut String, listed: &Listed) {
    let row = &listed.row;
    let moment = |at: Option<Wall>| at.map(|at| at.to_string()).unwrap_or_default();
    let cells = [
        row.id.to_string(),
        row.name.to_string(),
        prefix(row).unwrap_or_default().to_owned(),
        row.mode.map_or("", Mode::as_str).to_owned(),
        row.scopes.to_string(),
        row.owner.to_string(),
        listed.standing.as_str().to_owned(),
        moment(listed.usage.last_used_at),
        listed.usage.last_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        moment(row.created_at),
        moment(row.expires_at),
        moment(row.revoked_at),
    ];
    text.push_str(&cells.map(|cell| self::cell(&cell)).join(","));
    text.push_str("\r\n");
}

/// Quoted (RFC 4180). A spreadsheet would run what begins like a formula: an apostrophe before it makes it text. Also behind
/// what parts cells where a comma does not, as a spreadsheet that goes by such a sign begins a cell there.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len() + 3);
    cell.push('"');
    let mut begins = true;
    for char in text.chars() {
        if begins && "=+-@\t\r\n＝＋－＠".contains(char) {
            cell.push('\'');
        }
        begins = ";,|\t".contains(char) || (begins && char == ' ');
        cell.push(char);
        if char == '"' {
            cell.push('"');
        }
    }
    cell.push('"');
    cell
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_is_a_formula() {
        assert_eq!(cell("Accounting export"), "\"Accounting export\"");
        assert_eq!(cell("=HYPERLINK(\"http://evil.test\")"), "\"'=HYPERLINK(\"\"http://evil.test\"\")\"");
        for start in ["=", "+", "-", "@", "\t", "\r", "＝"] {
            assert!(cell(&format!("{start}1")).starts_with("\"'"), "{start}");
        }
        assert_eq!(cell("a,b\r\nc"), "\"a,b\r\nc\"");
        assert_eq!(cell("x;=1; +2,- 3"), "\"x;'=1; '+2,'- 3\"");
        assert_eq!(cell(" =1"), "\" '=1\"");
        assert_eq!(cell("a - b = c"), "\"a - b = c\"");
    }
}
