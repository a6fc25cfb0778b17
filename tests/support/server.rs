//! The program under test, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Response, WAIT, get, wait_until};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");

/// `IO_DRIVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// What every test chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) driver: Driver,
    pub(crate) shards: u16,
}

impl Setup {
    pub(crate) const IO_URING_1: Self = Self { driver: Driver::IoUring, shards: 1 };
    pub(crate) const IO_URING_2: Self = Self { driver: Driver::IoUring, shards: 2 };
    pub(crate) const IO_URING_4: Self = Self { driver: Driver::IoUring, shards: 4 };
    pub(crate) const EPOLL_1: Self = Self { driver: Driver::Epoll, shards: 1 };
    pub(crate) const EPOLL_4: Self = Self { driver: Driver::Epoll, shards: 4 };
}

/// What the tests' own environment says to every process.
pub(crate) fn kept_environment() -> impl Iterator<Item = (String, String)> {
    let kept = ["PATH", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"];
    kept.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
}

/// What a setup says to the program. Rings are small: all of one user share 8 MiB of locked memory.
pub(crate) fn environment_of(setup: Setup) -> [(&'static str, String); 5] {
    [
        ("HOST", "127.0.0.1".into()),
        ("PORT", "0".into()),
        ("RING_ENTRIES", "256".into()),
        ("IO_DRIVER", setup.driver.name().into()),
        ("SHARDS", setup.shards.to_string()),
    ]
}

/// A running server. It is killed when this goes out of scope, and must not have panicked.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Log,
}

impl Server {
    /// Starts the program and waits until it listens. Fails unless it runs on the driver that was asked for.
    pub(crate) fn start(setup: Setup, environment: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(PARLOR), setup, environment)
    }

    /// [`Server::start`], with no more than this many open files.
    pub(crate) fn start_with_files(files: u32, setup: Setup, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$1\" && exec \"$0\"", PARLOR, &files.to_string()]);
        Self::start_as(command, setup, environment)
    }

    fn start_as(command: Command, setup: Setup, environment: &[(&str, &str)]) -> Self {
        let (child, log) = spawn(command, setup, environment);
        let line = log.wait_for(" listening ").unwrap_or_else(|| {
            panic!(
                "no server on {} with {} shards; that this machine refuses io_uring would be a failure, too:\n{}",
                setup.driver.name(),
                setup.shards,
                log.text()
            )
        });
        assert_eq!(field(&line, "driver"), setup.driver.name(), "the wrong driver: {line}");
        assert_eq!(field(&line, "shards"), setup.shards.to_string(), "the wrong number of shards: {line}");
        let address = field(&line, "address").parse().expect("the start line has an address");
        Self { child, address, log }
    }

    /// Starts the program where it is not expected to say that it listens.
    pub(crate) fn start_silently(setup: Setup, environment: &[(&str, &str)], address: SocketAddr) -> Self {
        let (child, log) = spawn(Command::new(PARLOR), setup, environment);
        let server = Self { child, address, log };
        wait_until("the port to open", || std::net::TcpStream::connect(address).is_ok());
        server
    }

    /// Runs the program where it is expected to end by itself. Returns its exit code and its log.
    pub(crate) fn run_to_end(
        setup: Setup,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> (Option<i32>, String) {
        let mut command = Command::new(PARLOR);
        command.args(flags);
        let (mut child, log) = spawn(command, setup, environment);
        let status = wait_for_exit(&mut child, WAIT);
        let _ = child.kill();
        let text = log.wait_for_end();
        (status.unwrap_or_else(|| panic!("the program did not end:\n{text}")).code(), text)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of the log that contains `part`.
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        self.log.wait_for(part).unwrap_or_else(|| panic!("{part:?} is not in the log:\n{}", self.log()))
    }

    /// One number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric_in(&get(self.address, "/metrics"), name)
    }

    /// Waits until a number of `/metrics` has this value.
    pub(crate) fn wait_for_metric(&self, name: &str, value: u64) {
        let mut last = 0;
        let start = Instant::now();
        while start.elapsed() < WAIT {
            last = self.metric(name);
            if last == value {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("waited {WAIT:?} for {name} to be {value}, it is {last}:\n{}", self.log());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let status = wait_for_exit(&mut self.child, WAIT);
        status.unwrap_or_else(|| panic!("waited {WAIT:?} for the end of the server:\n{}", self.log()))
    }

    /// Processor time that it has used, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).expect("it runs");
        // Fields 14 and 15; the second field is the name, in brackets.
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let ticks =
            after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Memory in use now, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was ever in use, in KiB.
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(self.proc("task")).expect("it runs").count()
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("the line is there");
        line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "the log belongs to the failure")]
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log.text();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "the server panicked:\n{log}");
        }
    }
}

/// A field of a line of the log.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = line.find(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in: {line}"));
    let value = line[start + name.len() + 2..].split(' ').next().unwrap_or_default();
    value.trim_matches('"')
}

/// One number in an answer of `/metrics`.
pub(crate) fn metric_in(response: &Response, name: &str) -> u64 {
    let mut lines = response.body.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} in:\n{}", response.body));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

fn spawn(mut command: Command, setup: Setup, environment: &[(&str, &str)]) -> (Child, Log) {
    command.env_clear().envs(kept_environment()).envs(environment_of(setup));
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is there");
    let log = Log::collect(child.stderr.take().expect("a pipe"));
    (child, log)
}

fn wait_for_exit(child: &mut Child, longest: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < longest {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// The program's standard error, collected by a thread.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    fn collect(stderr: ChildStderr) -> Self {
        let log = Self::default();
        let collector = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                collector.change(|lines| lines.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            collector.change(|lines| lines.has_ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// Waits for a line that contains `part`; nothing if the log ends without one.
    fn wait_for(&self, part: &str) -> Option<String> {
        let find = |lines: &Lines| lines.lines.iter().find(|line| line.contains(part)).cloned();
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |lines: &mut Lines| !lines.has_ended && find(lines).is_none();
        let (guard, _) =
            self.0.1.wait_timeout_while(guard, WAIT, waiting).unwrap_or_else(PoisonError::into_inner);
        find(&guard)
    }

    fn wait_for_end(&self) -> String {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(guard, WAIT, |lines| !lines.has_ended);
        drop(waited);
        self.text()
    }
}
