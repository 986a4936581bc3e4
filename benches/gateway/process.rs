//! What a program and those that it started cost: processor time and memory, by what the kernel says of them.

use std::fs;

/// A process and its descendants. Threads and children that ended are not in the figures: none of these programs
/// ends one while it is measured.
fn family(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let mut next = 0;
    while let Some(&id) = all.get(next) {
        next += 1;
        for thread in threads(id) {
            let children = fs::read_to_string(format!("/proc/{id}/task/{thread}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        }
    }
    all
}

fn threads(id: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/task")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Seconds that the process and its descendants have been on a processor: the first figure of `/proc/ID/task/TID/schedstat`,
/// in nanoseconds (the kernel's `sched-stats.rst`).
pub(crate) fn cpu_seconds(id: u32) -> f64 {
    let mut nanoseconds = 0.0;
    for id in family(id) {
        for thread in threads(id) {
            let stat = fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat")).unwrap_or_default();
            nanoseconds += stat.split_whitespace().next().map_or(0.0, |text| text.parse().unwrap());
        }
    }
    nanoseconds / 1e9
}

/// The most memory that they have held since [`forget_peak`], in MiB: the sum of `VmHWM` of `/proc/ID/status`
/// (`proc_pid_status(5)`). What several processes share is counted for each.
pub(crate) fn peak_memory_mib(id: u32) -> f64 {
    let peak = |id: &u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
    };
    family(id).iter().map(peak).sum()
}

/// Begins the peak anew, at what is held now: 5 into `/proc/ID/clear_refs` (`proc_pid_clear_refs(5)`).
pub(crate) fn forget_peak(id: u32) {
    for id in family(id) {
        fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
    }
}
