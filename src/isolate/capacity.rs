//! What the machine, or the container, lets a process have.
//!
//! A run that waits costs no processor, but memory, descriptors of files, and mappings of memory: V8 maps each page of its
//! heaps by itself, and the kernel counts.

#![allow(unsafe_code)] // limits of the process

use std::fs;
use std::path::Path;

use super::limits::MIB;

/// What a run takes that waits for an answer, to within what its job loads: a job with a client for HTTP.
const MEMORY: usize = 16 * MIB;
const DESCRIPTORS: usize = 12;
const MAPPINGS: usize = 80;

/// What the rest of the process takes of those, at the most: connections, the store, spares.
const OTHER_DESCRIPTORS: usize = 5000;
const OTHER_MAPPINGS: usize = 5000;

/// Where the kernel says nothing.
const LIKELY_MAPPINGS: usize = 65_530;

/// How many runs can be under way in so many bytes of memory. Lets the process have as many open files as it may.
pub fn runs(memory: usize) -> usize {
    let descriptors = raise_descriptors();
    let by_descriptors = descriptors.saturating_sub(OTHER_DESCRIPTORS.min(descriptors / 2)) / DESCRIPTORS;
    let mappings = number(Path::new("/proc/sys/vm/max_map_count")).unwrap_or(LIKELY_MAPPINGS);
    let by_mappings = mappings.saturating_sub(OTHER_MAPPINGS.min(mappings / 2)) / MAPPINGS;
    (memory / MEMORY).min(by_descriptors).min(by_mappings)
}

/// Bytes of memory that the machine has, or the container may use.
pub fn memory() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let machine = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).map(|kib| kib << 10);
    let machine = machine.unwrap_or(4096 * MIB);
    cgroup_limit().map_or(machine, |limit| limit.min(machine))
}

/// The least that this process's control group, or one around it, may use.
fn cgroup_limit() -> Option<usize> {
    let of_process = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit_of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (root, file) = match fields.next()? {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let (root, within) = (Path::new(root), fields.next()?.trim_start_matches('/'));
        Path::new(within).ancestors().filter_map(|group| number(&root.join(group).join(file))).min()
    };
    of_process.lines().filter_map(limit_of).min()
}

/// Bytes of memory that are this process's own: not those of files, which the kernel drops when it needs the room.
pub fn memory_in_use() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).map(|pages| pages.parse::<usize>().unwrap_or_default());
    let (resident, of_files) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    resident.saturating_sub(of_files) * page_size()
}

/// Lets the process have as many open files as it may, and says how many that is.
fn raise_descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls, which do nothing but read or write it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 1024;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur as usize
}

fn page_size() -> usize {
    // SAFETY: asks for a constant.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// The number in a file; None: there is none, or it says that there is no limit.
fn number(file: &Path) -> Option<usize> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_counts_and_what_is_given_back_does_not() {
        let before = memory_in_use();
        let block = vec![1u8; 200 * MIB];
        let with = memory_in_use();
        assert!(with >= before + 150 * MIB && with < memory(), "{before} {with}");
        drop(block);
        assert!(memory_in_use() < with - 150 * MIB);
    }

    #[test]
    fn more_memory_lets_more_runs_in_up_to_what_else_they_take() {
        assert_eq!((runs(0), runs(5 * MEMORY)), (0, 5));
        let most = runs(usize::MAX);
        assert!((10..100_000).contains(&most), "{most}");
    }
}
