//! A log's way out: lines go into a bounded buffer, and a thread of its own writes them.
//!
//! A reader that is slow, asleep or gone costs lines, which are counted, and never a request.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::Duration,
};

/// How many bytes may wait. At 300 bytes a line, some 3,500 lines.
const CAPACITY: usize = 1024 * 1024;
/// How long the writer gathers lines after the first one, so that a busy log costs 50 writes a second and not one
/// per request.
const GATHER: Duration = Duration::from_millis(20);
/// How long the writer waits where the file was set to non-blocking by somebody who shares it.
const RETRY: Duration = Duration::from_millis(10);
/// What the buffers keep of their memory after a burst.
const KEEP: usize = 64 * 1024;

/// A bounded buffer of lines in front of a file, and the thread that writes them. Clones share both.
///
/// A line costs one short lock and a copy; only the first line after a pause wakes the writer.
#[derive(Clone)]
pub struct Output(Arc<Handle>);

/// Ends the thread when the last clone is gone.
struct Handle {
    shared: Arc<Shared>,
    writer: Thread,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told after every batch.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Bytes ever accepted, and of those, bytes that were written or given up.
    accepted: u64,
    settled: u64,
    /// Somebody waits for the log to be written: do not gather.
    flushing: bool,
    closed: bool,
}

impl Output {
    /// The standard output of this process.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be duplicated or the thread cannot be started.
    pub fn stdout() -> io::Result<Self> {
        Self::new("stdout-writer", File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }

    /// The standard error of this process.
    ///
    /// # Errors
    ///
    /// As [`stdout`](Self::stdout).
    pub fn stderr() -> io::Result<Self> {
        Self::new("stderr-writer", File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// Any unbuffered sink, written by a thread with this name (at most 15 characters are shown by the system).
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn new(name: &str, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || Writer::new(sink).run(&theirs))?;
        Ok(Self(Arc::new(Handle { shared, writer: thread.thread().clone() })))
    }

    /// Takes a whole line, final newline included, or drops and counts it when the buffer is full. Never blocks on
    /// the file.
    pub fn push(&self, line: &[u8]) {
        let Handle { shared, writer } = &*self.0;
        let wake = {
            let mut waiting = shared.lock();
            let before = waiting.bytes.len();
            let after = before + line.len();
            if after > CAPACITY {
                drop(waiting);
                shared.dropped.fetch_add(1, Relaxed);
                return;
            }
            waiting.bytes.extend_from_slice(line);
            waiting.accepted += line.len() as u64;
            // At half full, gathering has gone on for long enough.
            before == 0 || (before < CAPACITY / 2 && after >= CAPACITY / 2)
        };
        // Outside the lock: the writer takes it first thing.
        if wake {
            writer.unpark();
        }
    }

    /// How many lines were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.shared.dropped.load(Relaxed)
    }

    /// Waits until all that was pushed before is written or given up, at most for `bound`. Says whether it was.
    pub fn flush(&self, bound: Duration) -> bool {
        let Handle { shared, writer } = &*self.0;
        let mut waiting = shared.lock();
        let target = waiting.accepted;
        waiting.flushing = true;
        writer.unpark();
        let (mut waiting, _) = shared
            .written
            .wait_timeout_while(waiting, bound, |waiting| waiting.settled < target)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.flushing = false;
        waiting.settled >= target
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

/// For `tracing`: one write is one whole event.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.writer.unpark();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<W> {
    sink: W,
    batch: Vec<u8>,
    /// A write failed in the middle of a line: the next one starts on a new line.
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn new(sink: W) -> Self {
        Self { sink, batch: Vec::new(), torn: false }
    }

    fn run(mut self, shared: &Shared) {
        loop {
            let waiting = shared.lock();
            if waiting.bytes.is_empty() {
                if waiting.closed {
                    return;
                }
                drop(waiting);
                thread::park();
                continue;
            }
            let hurry = waiting.flushing || waiting.closed;
            drop(waiting);
            if !hurry {
                thread::park_timeout(GATHER);
            }
            self.batch.clear();
            std::mem::swap(&mut self.batch, &mut shared.lock().bytes);
            self.write(shared);
            shared.lock().settled += self.batch.len() as u64;
            shared.written.notify_all();
            if self.batch.len() < KEEP {
                self.batch.shrink_to(KEEP);
            }
        }
    }

    /// Writes the batch. What cannot be written is dropped and counted: a closed pipe (EPIPE), a full disk.
    fn write(&mut self, shared: &Shared) {
        if self.torn {
            self.torn = self.sink.write(b"\n").is_err();
        }
        let mut rest = &self.batch[..];
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if shared.lock().closed {
                        break;
                    }
                    thread::sleep(RETRY);
                }
                Err(_) => break,
            }
        }
        if rest.is_empty() {
            return;
        }
        let written = self.batch.len() - rest.len();
        self.torn |= written > 0 && self.batch[written - 1] != b'\n';
        let lines = rest.iter().filter(|byte| **byte == b'\n').count();
        shared.dropped.fetch_add(lines as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    /// A pipe whose reader sleeps: nothing more fits in, and every further write blocks.
    fn blocked_pipe() -> (io::PipeReader, Output) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Output::new("test", writer).unwrap())
    }

    /// Pushes lines of 1 KiB until some were dropped; says how many were pushed. Bounded by the two buffers and what
    /// a pipe holds.
    fn fill(output: &Output) -> u64 {
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for pushed in 1..=100_000 {
            output.push(&line);
            if output.dropped() > 0 {
                return pushed;
            }
        }
        panic!("nothing was ever dropped");
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (mut reader, output) = blocked_pipe();
        for number in 0..1000 {
            output.push(format!("line {number}\n").as_bytes());
        }
        assert!(output.flush(BOUND));
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.lines().eq((0..1000).map(|number| format!("line {number}"))));
    }

    #[test]
    fn a_reader_that_sleeps_costs_counted_lines_and_blocks_nobody() {
        let (mut reader, output) = blocked_pipe();
        let pushed = fill(&output);
        assert!(!output.flush(Duration::from_millis(50)), "the pipe is blocked");
        output.push(b"one more\n");
        let dropped = output.dropped();
        // The reader wakes up: all lines that were not dropped arrive.
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text)
        });
        assert!(output.flush(BOUND));
        drop(output);
        let text = reading.join().unwrap().unwrap();
        let arrived = text.split(|byte| *byte == b'\n').filter(|line| line.len() == 1023).count() as u64;
        let last = u64::from(text.ends_with(b"one more\n"));
        assert_eq!(arrived + last + dropped, pushed + 1);
    }

    #[test]
    fn a_closed_pipe_costs_lines_and_the_writer_lives_on() {
        let (reader, output) = blocked_pipe();
        drop(reader);
        for _ in 0..3 {
            output.push(b"nobody reads this\nnor this\n");
            assert!(output.flush(BOUND));
        }
        assert_eq!(output.dropped(), 6);
    }

    #[test]
    fn after_a_torn_write_the_next_line_starts_on_a_new_one() {
        /// Takes three bytes, then fails once, as a full disk does until somebody makes room.
        #[derive(Clone, Default)]
        struct Full(Arc<Mutex<(Vec<u8>, u32)>>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let (text, calls) = &mut *self.0.lock().unwrap();
                *calls += 1;
                let taken = match calls {
                    1 => 3,
                    2 => return Err(ErrorKind::StorageFull.into()),
                    _ => bytes.len(),
                };
                text.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let full = Full::default();
        let output = Output::new("test", full.clone()).unwrap();
        output.push(b"first\n");
        assert!(output.flush(BOUND));
        output.push(b"second\n");
        assert!(output.flush(BOUND));
        assert_eq!(full.0.lock().unwrap().0, b"fir\nsecond\n");
        assert_eq!(output.dropped(), 1);
    }
}
