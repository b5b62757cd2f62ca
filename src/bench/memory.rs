//! Peak memory of this process, where the system tells (Linux).
//!
//! Several models in one process share what the allocator keeps, so each is measured in a process of its own.

use std::fs;

/// Starts the peak anew from what is held now. Where that is refused, the peak since the start counts.
pub fn forget_peak() {
    // proc(5): writing 5 resets the peak resident set size.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Most bytes that were resident at once.
pub fn peak_of_this_process() -> Option<u64> {
    peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_read() {
        let status = "Name:\tvitq\nVmPeak:\t  999 kB\nVmHWM:\t   12345 kB\nVmRSS:\t  1 kB\n";
        assert_eq!(super::peak(status), Some(12345 * 1024));
        assert_eq!(super::peak("Name:\tvitq\n"), None);
    }
}
