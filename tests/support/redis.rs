//! A Redis of the test's own: a process on a free port that keeps nothing, and a client that says anything to it.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The longest that is waited for anything here.
const WAIT: Duration = Duration::from_secs(20);

/// A Redis. It is killed when this goes out of scope.
pub(crate) struct Redis {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    password: Option<&'static str>,
    folder: PathBuf,
}

impl Redis {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let mut redis = Self::absent();
        redis.run();
        redis
    }

    /// Starts one that asks for a password.
    pub(crate) fn start_with_password(password: &'static str) -> Self {
        let mut redis = Self::absent();
        redis.password = Some(password);
        redis.run();
        redis
    }

    /// The place where one will be.
    pub(crate) fn absent() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("parlor-redis-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        // The port is free once this listener is gone, and given to nobody else for a while.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self { child: None, address, password: None, folder }
    }

    /// Starts it, empty, and waits until it answers.
    pub(crate) fn run(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let port = self.address.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
        command.args(["--daemonize", "no", "--loglevel", "warning"]).arg("--dir").arg(&self.folder);
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => panic!(
                "redis-server is missing: the tests of several hosts start one of their own. On Debian: \
                 apt-get install redis-server"
            ),
            _ => panic!("redis-server: {error}"),
        });
        self.child = Some(child);
        let start = Instant::now();
        while self.connect().is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("our child"));
            assert!(ended.is_none(), "redis-server has ended: {ended:?}");
            assert!(start.elapsed() < WAIT, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it without a word, and waits for its end.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Has it stand still.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it runs");
    }

    /// `REDIS_URL`.
    pub(crate) fn url(&self) -> String {
        match self.password {
            Some(password) => format!("redis://:{password}@{}", self.address),
            None => format!("redis://{}", self.address),
        }
    }

    /// Says something on a connection of its own.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.connect().and_then(|mut connection| connection.ask(&words)).expect("an answer")
    }

    /// A connection that is let in.
    pub(crate) fn connect(&self) -> std::io::Result<Connection> {
        let mut connection = Connection::open(self.address)?;
        let greeting = match self.password {
            Some(password) => connection.ask(&[b"AUTH", password.as_bytes()])?,
            None => connection.ask(&[b"PING"])?,
        };
        match greeting {
            Value::Text(_) => Ok(connection),
            other => Err(Error::other(format!("{other:?}"))),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What Redis says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Nil,
    List(Vec<Value>),
}

/// What the cluster would be given.
impl From<Value> for parlor::cluster::Reply {
    fn from(value: Value) -> Self {
        let item = |value| match value {
            Value::Bytes(bytes) => bytes,
            Value::Integer(number) => number.to_string().into_bytes(),
            other => panic!("{other:?}"),
        };
        match value {
            Value::Text(_) => Self::Done,
            Value::Integer(number) => Self::Integer(number),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Nil => Self::Nil,
            Value::List(items) => Self::List(items.into_iter().map(item).collect()),
            Value::Error(error) => panic!("{error}"),
        }
    }
}

/// A connection to Redis, in RESP2.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Says something and takes the answer.
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> std::io::Result<Value> {
        self.say(words)?;
        self.next()
    }

    /// Says something.
    pub(crate) fn say(&mut self, words: &[&[u8]]) -> std::io::Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)
    }

    /// Whether something comes within this time.
    pub(crate) fn has_news(&mut self, patience: Duration) -> bool {
        if !self.0.buffer().is_empty() {
            return true;
        }
        self.0.get_ref().set_read_timeout(Some(patience)).expect("a socket");
        let has_news = self.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.0.get_ref().set_read_timeout(Some(WAIT)).expect("a socket");
        has_news
    }

    /// The next thing that Redis says.
    pub(crate) fn next(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().map_err(|_| Error::other(line.clone()));
        match kind {
            "+" => Ok(Value::Text(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => number().map(Value::Integer),
            "$" | "*" if rest == "-1" => Ok(Value::Nil),
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Value::Bytes(bytes))
            }
            "*" => (0..number()?).map(|_| self.next()).collect::<Result<_, _>>().map(Value::List),
            _ => Err(Error::other(line)),
        }
    }
}
