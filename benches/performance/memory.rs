//! Memory of processes.

/// Resident memory of this process in MB.
pub fn resident_mb() -> f64 {
    of_process("self", "VmRSS")
}

/// Memory of a process in MB, of the kind that the kernel calls so.
pub fn of_process(id: &str, kind: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).expect("a number of kB");
    kb / 1024.0
}
