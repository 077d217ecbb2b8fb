//! Splits the text at the headers of its tables, so that each entry is read, remembered, cut out or replaced alone.
//!
//! The scanner knows of TOML what it takes to find a header: comments, the four kinds of strings, and brackets. Where
//! it is wrong about a broken text, a block does not parse, and the whole text is refused.

/// One table of the text: from the comment right above its header up to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the comment lines right above the header begin; the header itself when there are none.
    pub(super) start: usize,
    /// Where the header begins.
    pub(super) header: usize,
    /// Where the next block starts.
    pub(super) end: usize,
}

/// The blocks of a text, and where what stands before the first one ends.
pub(super) fn split(text: &str) -> (usize, Vec<Block>) {
    let headers = headers(text.as_bytes());
    let mut blocks: Vec<Block> = headers
        .into_iter()
        .map(|header| Block { start: start_of_comment(text, header), header, end: text.len() })
        .collect();
    for index in 1..blocks.len() {
        blocks[index - 1].end = blocks[index].start;
    }
    (blocks.first().map_or(text.len(), |block| block.start), blocks)
}

/// Where the comment lines directly above a header begin: they are about what follows.
fn start_of_comment(text: &str, header: usize) -> usize {
    // A header may be indented; what counts is where its line begins.
    let mut start = text[..header].rfind('\n').map_or(0, |at| at + 1);
    while start > 0 {
        let above = text[..start - 1].rfind('\n').map_or(0, |at| at + 1);
        if !text[above..start].trim_start().starts_with('#') {
            break;
        }
        start = above;
    }
    start
}

/// Where headers with a name of one part begin; `[key.more]` belongs to the table before it.
fn headers(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    // A byte order mark may stand at the beginning.
    let mut at = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'#' => at = line_end(text, at),
            b'[' => {
                if !is_dotted(text, at) {
                    found.push(at);
                }
                at = line_end(text, at);
            }
            _ => at = statement_end(text, at),
        }
    }
    found
}

fn line_end(text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |at| from + at)
}

/// Whether the header that begins here names a table within a table.
fn is_dotted(text: &[u8], header: usize) -> bool {
    let mut at = header;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'.' => return true,
            b']' | b'\n' | b'#' => return false,
            b'"' | b'\'' => at = string_end(text, at),
            _ => at += 1,
        }
    }
    false
}

/// Where a field's statement ends: at the first line end outside strings and brackets.
fn statement_end(text: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\n' if depth == 0 => return at,
            b'#' => {
                at = line_end(text, at);
                continue;
            }
            b'"' | b'\'' => {
                at = string_end(text, at);
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    at
}

/// The byte after the string that begins here. A one-line string that is not closed ends with its line.
fn string_end(text: &[u8], from: usize) -> usize {
    let quote = text[from];
    let triple = [quote; 3];
    let escapes = quote == b'"';
    if text[from..].starts_with(&triple) {
        let mut at = from + 3;
        while at < text.len() {
            if escapes && text[at] == b'\\' {
                at += 2;
            } else if text[at..].starts_with(&triple) {
                // Up to two quotes may stand right before the closing three.
                let extra = text[at + 3..].iter().take(2).take_while(|&&byte| byte == quote).count();
                return at + 3 + extra;
            } else {
                at += 1;
            }
        }
    } else {
        let mut at = from + 1;
        while at < text.len() {
            match text[at] {
                b'\n' => return at,
                b'\\' if escapes => at += 2,
                byte if byte == quote => return at + 1,
                _ => at += 1,
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (_, blocks) = split(text);
        let found: Vec<&str> = blocks.iter().map(|block| &text[block.start..block.end]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_block_takes_the_comment_right_above_it() {
        check(
            "# file\n\n# one\n[[key]]\na = 1\n\n# free\n\n# two\n# more\n[end]\n",
            &["# one\n[[key]]\na = 1\n\n# free\n\n", "# two\n# more\n[end]\n"],
        );
    }

    #[test]
    fn headers_inside_strings_comments_and_arrays_are_none() {
        let text = "[[key]]\na = \"\"\"\n[[key]]\n\\\"\"\"\n\"\"\"\"\"\nb = '''\n[end]'''\nc = [\n[1],\n# ]\n]\n# [[key]]\nd = '[' # [\n[end]\n";
        let (_, blocks) = split(text);
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        assert_eq!(&text[blocks[1].start..], "[end]\n");
    }

    #[test]
    fn tables_within_an_entry_stay_with_it() {
        check("[[key]]\n[key.more]\na = 1\n[ \"end\" ]\n", &["[[key]]\n[key.more]\na = 1\n", "[ \"end\" ]\n"]);
    }

    #[test]
    fn broken_texts_end() {
        for text in ["[[key]]\na = \"", "[[key]]\na = \"\"\"\\", "a = [", "[", "\"", "a = \"\\", "'''", "[\"", "# x"] {
            split(text);
        }
    }

    mod properties {
        use proptest::prelude::*;

        use super::super::split;

        proptest! {
            /// Blocks never overlap and cover everything after the first.
            #[test]
            fn blocks_cover_the_text(text in "[\\[\\]\"'#=a\\\\ \n.é]{0,60}") {
                let (mut at, blocks) = split(&text);
                for block in blocks {
                    prop_assert_eq!(block.start, at);
                    prop_assert!(block.start <= block.header && block.header < block.end);
                    at = block.end;
                }
                prop_assert_eq!(at, text.len());
            }

            /// A text is TOML when each of its blocks is, as long as no table is opened twice.
            #[test]
            fn whole_and_blocks_agree(text in "(\\[\\[k\\]\\]|k = |\"\"\"|'''|'|\"|\\[|\\]|#| |a|\\\\|\n){0,24}") {
                let text = format!("[[k]]\n{text}\n[[k]]\nz = 1\n");
                let (_, blocks) = split(&text);
                let apart = blocks.iter().all(|block| toml::de::DeTable::parse(&text[block.header..block.end]).is_ok());
                prop_assert_eq!(apart, toml::de::DeTable::parse(&text).is_ok(), "{}", text);
            }
        }
    }
}
