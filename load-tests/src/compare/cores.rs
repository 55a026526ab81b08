//! Which core is whose, and what processes take of them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::site::PATIENCE;

/// One core for the proxies, another for everything around them.
#[derive(Debug)]
pub(crate) struct Cores {
    proxy: usize,
}

impl Cores {
    /// Moves this process, and so whatever it starts, off the proxies' core.
    pub(crate) fn take() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("this needs Linux")?;
        let allowed =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no list of cores")?;
        let cores = listed(allowed.trim());
        let [proxy, .., rest] = cores.as_slice() else { anyhow::bail!("this needs two cores at least: {allowed}") };
        let moved = Command::new("taskset")
            .args(["--cpu-list", "--all-tasks", "--pid", &rest.to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status()
            .context("running taskset, of util-linux")?;
        ensure!(moved.success(), "taskset does not move this process");
        // Thousands of connections are to be open, here and in the proxies, which inherit this.
        let own = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--pid", &own, "--nofile=20000:"]).status();
        ensure!(
            raised.is_ok_and(|raised| raised.success()),
            "prlimit, of util-linux, does not raise the number of open files"
        );
        Ok(Self { proxy: *proxy })
    }

    /// A command that will run on the proxies' core.
    pub(crate) fn for_proxy(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &self.proxy.to_string()]).arg(program);
        command
    }
}

/// The numbers of a list such as `0-2,5`.
fn listed(list: &str) -> Vec<usize> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// A process with all that it started; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Processes(Child);

impl Processes {
    /// Starts it, away from the terminal, in a group of its own.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// The same, with what it is told and what it says.
    pub(crate) fn start_with_pipes(mut command: Command) -> Result<(Self, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut own = Self::spawn(command)?;
        let (tell, told) = own.0.stdin.take().zip(own.0.stdout.take()).context("no pipes")?;
        Ok((own, tell, told))
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let named = format!("{command:?}");
        let child = command.process_group(0).spawn();
        child.map(Self).with_context(|| format!("starting {named}"))
    }

    /// Of the first of them.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Processor time, user and system, of all its threads, those that have ended included.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks = |pid: u32| {
            let fields = stat(pid)?;
            let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
            Some(ticks(11)? + ticks(12)?)
        };
        let all: u64 = self.all().into_iter().filter_map(ticks).sum();
        // In hundredths of a second, whatever the kernel counts in.
        Duration::from_millis(all * 10)
    }

    /// Resident memory in bytes, what is shared divided among those who share it.
    pub(crate) fn memory(&self) -> u64 {
        let pss = |pid: u32| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.all().into_iter().filter_map(pss).sum::<u64>() * 1024
    }

    /// How many files, sockets included, and how many threads are open.
    pub(crate) fn files_and_threads(&self) -> (usize, usize) {
        let count = |what: &str| {
            let of = |pid: u32| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
            self.all().into_iter().map(of).sum()
        };
        (count("fd"), count("task"))
    }

    /// Has the first of them look at its configuration again.
    pub(crate) fn hang_up(&self) -> Result<()> {
        self.signal("-HUP")
    }

    /// Asks the first of them to end, and gives how it did, [`PATIENCE`] later at most. Whoever is left of them is killed.
    pub(crate) fn end(mut self) -> Result<ExitStatus> {
        self.signal("-TERM")?;
        let asked = Instant::now();
        loop {
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            ensure!(asked.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, which: &str) -> Result<()> {
        let told = Command::new("kill").args([which, &self.id().to_string()]).status()?;
        ensure!(told.success(), "it is gone");
        Ok(())
    }

    /// It and its descendants.
    fn all(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let parent = stat(pid).and_then(|fields| fields.split_whitespace().nth(1)?.parse().ok());
            children.entry(parent.unwrap_or(0)).or_default().push(pid);
        }
        let mut all = vec![self.0.id()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let own = children.remove(pid).unwrap_or_default();
            all.extend(own);
            next += 1;
        }
        all
    }
}

/// What `/proc` tells of a process, from its state on: the name before it, in brackets, may hold anything.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')').map(|(_, fields)| fields.to_owned())
}

impl Drop for Processes {
    fn drop(&mut self) {
        let _it_may_have_ended =
            Command::new("kill").stderr(Stdio::null()).args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _reaped = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_has_ranges_and_single_ones() {
        assert_eq!(listed("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(listed("3"), [3]);
    }

    #[test]
    fn what_a_process_started_counts_with_it_and_ends_with_it() {
        let mut command = Command::new("bash");
        command.args(["-c", "while :; do :; done & wait"]);
        let processes = Processes::start(command).unwrap();
        let began = Instant::now();
        while processes.cpu() < Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(20), "no time of the child is seen");
        }
        assert!(processes.memory() > 0);
        let all = processes.all();
        assert!(all.len() >= 2, "{all:?}");
        drop(processes);
        let running = |pid: &u32| stat(*pid).is_some_and(|fields| !fields.trim_start().starts_with('Z'));
        while all.iter().any(running) {
            assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        }
    }
}
