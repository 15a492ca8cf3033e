//! What the figures were measured on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Result;
use super::latency::Latency;
use super::process::Scratch;

/// Processor, memory, kernel, disk and how busy the machine was.
pub(crate) fn describe() -> Value {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    json!({
        "cpu": first("/proc/cpuinfo", "model name"),
        "mhz": first("/proc/cpuinfo", "cpu MHz"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load_average_at_start": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    })
}

/// How long the disk takes to make 16 KiB durable, appended to a file.
pub(crate) fn fdatasync() -> Result<Latency> {
    let scratch = Scratch::new()?;
    let mut file = File::create(scratch.path().join("appended"))?;
    let block = vec![0x5a; 16 * 1024];
    let mut latency = Latency::new();
    for _ in 0..300 {
        file.write_all(&block)?;
        let begun = Instant::now();
        file.sync_data()?;
        latency.record(begun.elapsed());
    }
    Ok(latency)
}

/// Processor time that the whole machine was busy with, since it started. Shows whether something else ran meanwhile.
pub(crate) fn busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: hundredths of a second.
    let ticks: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum();
    Duration::from_millis(ticks * 10)
}

/// Size of a directory's files in bytes.
pub(crate) fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|meta| meta.len()).sum()
}
