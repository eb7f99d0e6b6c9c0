//! What processes cost, read from `/proc`: CPU of a process tree, memory, threads, descriptors.
//!
//! `stat` counts in clock ticks (10 ms) but holds what ended threads and children used; the scheduler's own
//! count (`task/*/schedstat`) is in nanoseconds but forgets them. A difference takes the finer figure as long as
//! both agree, else the coarse one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Instant;

use serde_json::{Map, Value};

/// Seconds by which the two counts may differ and still mean the same: ticks of user, system, and of a sample.
const AGREE_S: f64 = 0.04;

/// CPU seconds of a process tree since its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    user_s: f64,
    system_s: f64,
    fine_s: f64,
}

impl Cpu {
    /// Reads the tree under `root`.
    ///
    /// # Errors
    /// `root` is gone.
    pub(crate) fn of(root: u32) -> io::Result<Self> {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let mut sum = Self::default();
        for pid in tree(root)? {
            let Some(stat) = Stat::read(pid) else { continue };
            sum.user_s += stat.user_ticks as f64 * tick;
            sum.system_s += stat.system_ticks as f64 * tick;
            sum.fine_s += run_ns(pid) as f64 * 1e-9;
        }
        Ok(sum)
    }

    /// Seconds used since `earlier`: all, and of it in the kernel.
    pub(crate) fn since(self, earlier: Self) -> (f64, f64) {
        let system = self.system_s - earlier.system_s;
        let coarse = self.user_s - earlier.user_s + system;
        let fine = self.fine_s - earlier.fine_s;
        if (fine - coarse).abs() < AGREE_S { (fine, system) } else { (coarse, system) }
    }
}

/// What a process tree holds at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Footprint {
    /// Resident memory, KiB.
    pub(crate) rss_kb: u64,
    /// Of it anonymous, KiB.
    pub(crate) anon_kb: u64,
    /// Threads, those of the ring included.
    pub(crate) threads: u64,
    /// Open descriptors.
    pub(crate) fds: u64,
}

impl Footprint {
    /// Reads the tree under `root`.
    ///
    /// # Errors
    /// `root` is gone, or its memory map may not be read.
    pub(crate) fn of(root: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in tree(root)? {
            let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            sum.rss_kb += kilobytes(&memory, "Rss:");
            sum.anon_kb += kilobytes(&memory, "Anonymous:");
            sum.threads += entries(&format!("/proc/{pid}/task"));
            sum.fds += entries(&format!("/proc/{pid}/fd"));
        }
        Ok(sum)
    }
}

/// The processes that one measurement looks at.
#[derive(Clone, Copy)]
pub(crate) struct Gauge {
    /// Root of the proxy's process tree.
    pub(crate) proxy: u32,
    /// The origin's process.
    pub(crate) origin: u32,
}

/// The beginning of a measured stretch.
pub(crate) struct Mark {
    gauge: Gauge,
    proxy: Cpu,
    origin: Cpu,
    generator: Cpu,
    machine_s: f64,
    at: Instant,
}

/// A measured stretch: the proxy's CPU, the time, and everything as JSON.
pub(crate) struct Stretch {
    /// CPU seconds of the proxy.
    pub(crate) cpu_s: f64,
    /// Seconds on the clock.
    pub(crate) seconds: f64,
    /// `seconds`, `cpu_s`, `system_s`, `origin_cpu_s`, `generator_cpu_s`, `others_share`, `rss_kb`, `threads`, `fds`.
    /// `others_share` is the part of the machine's time that went to none of the three: the noise around.
    pub(crate) figures: Map<String, Value>,
}

impl Gauge {
    /// Begins a stretch.
    pub(crate) fn begin(self) -> io::Result<Mark> {
        let (origin, generator) = (Cpu::of(self.origin)?, Cpu::of(std::process::id())?);
        let machine_s = machine_busy_s()?;
        Ok(Mark {
            gauge: self,
            origin,
            generator,
            machine_s,
            proxy: Cpu::of(self.proxy)?,
            at: Instant::now(),
        })
    }
}

impl Mark {
    /// Ends the stretch now.
    pub(crate) fn end(self) -> io::Result<Stretch> {
        let seconds = self.at.elapsed().as_secs_f64();
        let (cpu_s, system_s) = Cpu::of(self.gauge.proxy)?.since(self.proxy);
        let (origin_s, _) = Cpu::of(self.gauge.origin)?.since(self.origin);
        let (generator_s, _) = Cpu::of(std::process::id())?.since(self.generator);
        let others_s = machine_busy_s()? - self.machine_s - cpu_s - origin_s - generator_s;
        let cores = std::thread::available_parallelism()?.get() as f64;
        let held = Footprint::of(self.gauge.proxy)?;
        let figures = named([
            ("seconds", seconds),
            ("cpu_s", cpu_s),
            ("system_s", system_s),
            ("origin_cpu_s", origin_s),
            ("generator_cpu_s", generator_s),
            ("others_share", (others_s / seconds / cores).max(0.0)),
            ("rss_kb", held.rss_kb as f64),
            ("threads", held.threads as f64),
            ("fds", held.fds as f64),
        ]);
        Ok(Stretch { cpu_s, seconds, figures })
    }
}

/// Figures by name, to a ten-thousandth.
pub(crate) fn named<const N: usize>(figures: [(&str, f64); N]) -> Map<String, Value> {
    figures.into_iter().map(|(name, value)| (name.to_owned(), round(value).into())).collect()
}

/// To a ten-thousandth: what a result file keeps.
pub(crate) fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Waits; the workloads do it only where memory has to settle or another process has to answer.
#[expect(
    clippy::disallowed_methods,
    reason = "what is waited for happens inside another process and has no event"
)]
pub(crate) fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Seconds that all CPUs were not idle, time stolen by the hypervisor included (proc_stat(5): idle and iowait are
/// the fourth and fifth field, guest time is in the first two already).
fn machine_busy_s() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).take(8).enumerate();
    let busy = ticks
        .filter(|(index, _)| !(3..=4).contains(index))
        .filter_map(|(_, field)| field.parse::<u64>().ok());
    Ok(busy.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `root` and all its descendants.
fn tree(root: u32) -> io::Result<Vec<u32>> {
    if Stat::read(root).is_none() {
        return Err(io::Error::other(format!("process {root} is gone")));
    }
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.get(&pid).into_iter().flatten());
        next += 1;
    }
    Ok(found)
}

/// What `/proc/PID/stat` says; ticks include children that were waited for (proc_pid_stat(5), fields 14 to 17).
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before the last parenthesis may hold spaces; after it follow state, parent, …
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            user_ticks: number(11)? + number(13)?,
            system_ticks: number(12)? + number(14)?,
        })
    }
}

/// Nanoseconds on a CPU of all living threads of `pid`.
fn run_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let on_cpu = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(|task| on_cpu(task.path())).sum()
}

fn kilobytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn entries(directory: &str) -> u64 {
    fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}
