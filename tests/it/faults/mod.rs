//! Bad days: files, disks, clocks, upstreams and processes that fail.

mod certificates;
mod clock;
mod commands;
mod control;
mod disk;
mod key_file;
mod logs;
mod memory;
mod names;
mod scrapers;
mod starved;
mod storm;
mod surroundings;
mod upstream;

/// No limits: what is tested asks often.
const UNLIMITED: &str = "[limits]\nper_ip = []\nper_key = []\nfailures_per_ip = []";

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// The next one, below this.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A program that stands between the test and the executable, and gives its place to it: a line of shell.
fn shell(line: &str) -> [String; 4] {
    ["sh", "-c", &format!("{line}\nexec \"$@\""), "sh"].map(str::to_owned)
}
