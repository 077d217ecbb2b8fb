//! A file of JSON lines that is appended to, and written anew when most of it is outdated.
//!
//! The first line names the format and its version. A later line replaces earlier ones of the same subject. With many
//! keys, a save costs what has changed since the last one, not what there is.

use std::{
    fs::File,
    io::{self, Write as _},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Folder;

/// Outdated lines up to this number are no reason to write the file anew.
const SLACK: usize = 1024;

/// A file of lines.
#[derive(Debug)]
pub(super) struct Journal {
    folder: Folder,
    name: &'static str,
    header: Header,
    /// Absent until the file was written by this process, and after every failure: what its end looks like is unknown.
    file: Option<File>,
    /// Lines in the file.
    lines: usize,
    /// Lines in the file when it was last written anew.
    live: usize,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    format: String,
    version: u32,
    /// What chose the cells of addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cell_key: Option<String>,
}

/// What a journal held.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) cell_key: Option<String>,
    pub(super) lines: Vec<T>,
    /// Why the file is not what it should be. What could be read of it stands in `lines` all the same.
    pub(super) fault: Option<String>,
}

impl Journal {
    pub(super) fn new(folder: Folder, name: &'static str, format: &str, cell_key: Option<String>) -> Self {
        let header = Header { format: format.to_owned(), version: 1, cell_key };
        Self { folder, name, header, file: None, lines: 0, live: 0 }
    }

    pub(super) fn set_cell_key(&mut self, cell_key: String) {
        self.header.cell_key = Some(cell_key);
    }

    /// Whether the file has to be written anew before anything can be appended.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.file.is_none() || self.lines > 2 * self.live + SLACK
    }

    /// Appends lines and waits until they are on the disk.
    pub(super) fn append<T: Serialize>(&mut self, lines: &[T]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        put_lines(&mut text, lines)?;
        let mut file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(&text)?;
        file.sync_data()?;
        self.folder.check()?;
        self.file = Some(file);
        self.lines += lines.len();
        Ok(())
    }

    /// Writes the file anew.
    pub(super) fn rewrite<T: Serialize>(&mut self, lines: &[T]) -> io::Result<()> {
        let mut text = Vec::new();
        put_lines(&mut text, std::slice::from_ref(&self.header))?;
        put_lines(&mut text, lines)?;
        self.file = None;
        self.file = Some(self.folder.replace(self.name, &text)?);
        (self.lines, self.live) = (lines.len(), lines.len());
        Ok(())
    }

    /// Reads the file, and sets it aside if it is damaged. A file that does not exist holds nothing.
    pub(super) fn open<T: DeserializeOwned>(&self) -> Read<T> {
        let read = self.read();
        if let Some(fault) = &read.fault {
            let aside = self.folder.set_aside(self.name);
            let aside = aside.map_or_else(|error| error.to_string(), |path| path.display().to_string());
            tracing::error!(
                file.path = %self.folder.file(self.name).display(), fault, file.kept_as = aside, lines.read = read.lines.len(),
                "A state file is damaged; it is set aside, and what could be read of it is used",
            );
        }
        read
    }

    /// Reads the file. What follows the last line break was being written when the process died, and is no fault.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Read<T> {
        self.read_if_there().unwrap_or(Read { cell_key: None, lines: Vec::new(), fault: None })
    }

    /// As [`read`](Self::read); none where there is no file.
    pub(super) fn read_if_there<T: DeserializeOwned>(&self) -> Option<Read<T>> {
        let mut read = Read { cell_key: None, lines: Vec::new(), fault: None };
        let content = match self.folder.read(self.name) {
            Ok(content) => content?,
            Err(error) => {
                read.fault = Some(error.to_string());
                return Some(read);
            }
        };
        let mut lines = content.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
        match lines.next().map(serde_json::from_slice::<Header>) {
            Some(Ok(header)) if header.format == self.header.format && header.version == self.header.version => {
                read.cell_key = header.cell_key;
            }
            Some(Ok(header)) => {
                read.fault = Some(format!("it is {} version {}", header.format, header.version));
                return Some(read);
            }
            Some(Err(error)) => {
                read.fault = Some(format!("line 1: {error}"));
                return Some(read);
            }
            None => {
                read.fault = Some("it has no first line".to_owned());
                return Some(read);
            }
        }
        for (number, line) in lines.enumerate() {
            match serde_json::from_slice(line) {
                Ok(line) => read.lines.push(line),
                Err(error) if read.fault.is_none() => read.fault = Some(format!("line {}: {error}", number + 2)),
                Err(_) => {}
            }
        }
        Some(read)
    }
}

fn put_lines<T: Serialize>(text: &mut Vec<u8>, lines: &[T]) -> io::Result<()> {
    for line in lines {
        serde_json::to_writer(&mut *text, line)?;
        text.push(b'\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn journal(folder: &tempfile::TempDir) -> Journal {
        Journal::new(Folder::new(folder.path()), "x.ndjson", "test", None)
    }

    /// Reads a file of this content.
    #[track_caller]
    fn check(content: &str, lines: &[u32], fault: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.ndjson"), content).unwrap();
        let read = journal(&folder).open::<u32>();
        assert_eq!(read.lines, lines);
        match (fault, &read.fault) {
            (None, None) => assert!(folder.path().join("x.ndjson").exists()),
            (Some(expected), Some(fault)) => {
                assert!(fault.contains(expected), "{fault}");
                assert!(!folder.path().join("x.ndjson").exists());
                assert_eq!(fs::read_to_string(folder.path().join("x.ndjson.corrupt")).unwrap(), content);
            }
            (expected, fault) => panic!("expected {expected:?}, got {fault:?}"),
        }
    }

    const HEADER: &str = r#"{"format":"test","version":1}"#;

    #[test]
    fn damaged_files_are_set_aside_and_used_as_far_as_they_go() {
        check(&format!("{HEADER}\n1\n2\n"), &[1, 2], None);
        check(&format!("{HEADER}\n1\n2"), &[1], None);
        check(&format!("{HEADER}\n1\n{{\n3\n"), &[1, 3], Some("line 3"));
        check("", &[], Some("no first line"));
        check("\u{0}\u{0}\u{0}\n", &[], Some("line 1"));
        check("{\"format\":\"test\",\"version\":2}\n1\n", &[], Some("test version 2"));
        check("{\"format\":\"other\",\"version\":1}\n1\n", &[], Some("other version 1"));
    }

    #[test]
    fn what_is_appended_is_read_and_the_file_is_written_anew_when_it_has_grown() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(&folder);
        assert!(journal.read::<u32>().lines.is_empty());
        assert!(journal.wants_rewrite());
        assert!(journal.append(&[1]).is_err());
        journal.rewrite(&[1, 2]).unwrap();
        journal.append(&[3]).unwrap();
        assert!(!journal.wants_rewrite());
        assert_eq!(journal.read::<u32>().lines, [1, 2, 3]);
        journal.append(&vec![4; SLACK + 4]).unwrap();
        assert!(journal.wants_rewrite());
        journal.rewrite(&[5]).unwrap();
        assert_eq!(journal.read::<u32>().lines, [5]);
    }
}
