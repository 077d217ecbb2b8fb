//! Bad days: files, disks, clocks, upstreams and processes that fail.
