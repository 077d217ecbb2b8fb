//! The lines by which a test says what it proves, read from the source.

/// What one doc line says, and on which test it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) row: String,
    pub(super) sentence: String,
    pub(super) test: String,
}

/// All proofs in a module's source; an error is every line that claims to be one and is not.
pub(super) fn proofs(text: &str) -> Result<Vec<Proof>, Vec<String>> {
    let (mut proofs, mut wrong) = (Vec::new(), Vec::new());
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut at = 0;
    while at < lines.len() {
        // A block of doc lines, then one of attributes, then what they are about.
        let docs = at + lines[at..].iter().take_while(|line| line.starts_with("///")).count();
        let claims = claims(&lines[at..docs], at + 1, &mut wrong);
        let attributes = docs + lines[docs..].iter().take_while(|line| line.starts_with("#[")).count();
        if !claims.is_empty() {
            match test(&lines[docs..attributes], lines.get(attributes).copied().unwrap_or_default()) {
                Ok(test) => proofs.extend(claims.into_iter().map(|(row, sentence)| Proof {
                    row,
                    sentence,
                    test: test.to_owned(),
                })),
                Err(why) => wrong.push(format!("line {}: {why}", docs + 1)),
            }
        }
        at = attributes.max(at + 1);
    }
    if wrong.is_empty() { Ok(proofs) } else { Err(wrong) }
}

/// The rows and sentences in a block of doc lines, the first of which has this number.
fn claims(docs: &[&str], first: usize, wrong: &mut Vec<String>) -> Vec<(String, String)> {
    let mut claims = Vec::new();
    let mut docs = docs.iter().map(|line| line.trim_start_matches('/').trim()).enumerate().peekable();
    while let Some((number, line)) = docs.next() {
        // A link to an item begins with a bracket, too.
        let Some(rest) = line.strip_prefix('[').filter(|rest| !rest.starts_with('`')) else { continue };
        let mut rest = rest.to_owned();
        while !rest.ends_with('"') {
            let Some((_, more)) = docs.next_if(|(_, line)| !line.starts_with('[')) else { break };
            rest = format!("{rest} {more}");
        }
        let claim = rest.split_once("] \"").and_then(|(row, sentence)| Some((row, sentence.strip_suffix('"')?)));
        match claim {
            Some((row, sentence)) if !sentence.is_empty() => claims.push((row.to_owned(), sentence.to_owned())),
            _ => wrong.push(format!("line {}: a proof reads [row] \"sentence\"", first + number)),
        }
    }
    claims
}

/// The name of the test that these attributes and this line make.
fn test<'t>(attributes: &[&str], line: &'t str) -> Result<&'t str, String> {
    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ").and_then(|rest| rest.split('(').next());
    let Some(name) = name else { return Err("no test follows".into()) };
    if !attributes.iter().any(|attribute| *attribute == "#[test]" || attribute.starts_with("#[tokio::test")) {
        return Err(format!("{name} is no test"));
    }
    if attributes.iter().any(|attribute| attribute.contains("ignore") || attribute.contains("cfg")) {
        return Err(format!("{name} does not always run"));
    }
    Ok(name)
}
