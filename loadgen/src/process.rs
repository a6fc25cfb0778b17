//! What /proc says about the server under test.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Time on a CPU of every thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuReading {
    thread_ns: BTreeMap<u32, u64>,
}

impl CpuReading {
    /// Reads `/proc/<pid>/task/*/schedstat`, which counts nanoseconds.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let directory = format!("/proc/{pid}/task");
        let mut thread_ns = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(|error| no_process(pid, &error))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            let thread = entry.file_name().to_string_lossy().parse();
            if let (Ok(thread), Some(ns)) = (thread, first_number(&text)) {
                thread_ns.insert(thread, ns);
            }
        }
        Ok(Self { thread_ns })
    }

    /// Nanoseconds on a CPU between `earlier` and this reading; threads that began between them count from 0.
    pub(crate) fn ns_since(&self, earlier: &Self) -> u64 {
        let spent = |(thread, ns): (&u32, &u64)| {
            ns.saturating_sub(earlier.thread_ns.get(thread).copied().unwrap_or(0))
        };
        self.thread_ns.iter().map(spent).sum()
    }
}

/// User-space memory of a process that is its own, in bytes: `Pss_Anon` of `/proc/<pid>/smaps_rollup`.
pub(crate) fn memory_bytes(pid: u32) -> io::Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(|error| no_process(pid, &error))?;
    kilobytes(&text, "Pss_Anon:").ok_or_else(|| io::Error::other("smaps_rollup has no line Pss_Anon"))
}

/// All memory of a process that is in RAM, in bytes: `VmRSS` of `/proc/<pid>/status`.
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| no_process(pid, &error))?;
    kilobytes(&text, "VmRSS:").ok_or_else(|| io::Error::other("status has no line VmRSS"))
}

/// What each of `count` costs, given readings before and after they came; less than nothing is nothing.
pub(crate) fn bytes_per(count: usize, before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64 / count.max(1) as f64
}

/// The bytes of a line `<name> <kilobytes> kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(first_number(line)? * 1024)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn no_process(pid: u32, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("process {pid} cannot be read (is it yours, does it run?): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u32, u64)]) -> CpuReading {
        CpuReading { thread_ns: threads.iter().copied().collect() }
    }

    #[test]
    fn time_is_summed_over_threads_old_and_new() {
        let before = reading(&[(1, 100), (2, 50), (9, 7)]);
        assert_eq!(reading(&[(1, 150), (2, 50), (3, 25)]).ns_since(&before), 75);
    }

    #[test]
    fn one_s_own_process_can_be_read() {
        assert!(memory_bytes(std::process::id()).expect("own memory") > 0);
        let own = memory_bytes(std::process::id()).expect("own memory");
        assert!(rss_bytes(std::process::id()).expect("own memory") > own / 2);
        CpuReading::of(std::process::id()).expect("own threads");
        assert!(
            CpuReading::of(u32::MAX).expect_err("no such process").to_string().contains("cannot be read")
        );
    }

    #[test]
    fn the_rollup_is_in_kilobytes() {
        let text = "Rss: 9 kB\nPss_Anon:       12 kB\nPss_File: 3 kB\n";
        assert_eq!(kilobytes(text, "Pss_Anon:"), Some(12_288));
        assert_eq!(kilobytes("Rss: 9 kB\n", "Pss_Anon:"), None);
    }

    #[test]
    fn bytes_per_client_never_go_below_zero() {
        assert_eq!(bytes_per(100, 1_000, 41_000).round(), 400.0);
        assert_eq!(bytes_per(0, 2, 1).round(), 0.0);
    }
}
