//! An address that moves, as a virtual IP or a proxy does: connections are passed on to a target that can be changed.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The address. What is open lives on when this goes out of scope; nothing new comes through then.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// None: nobody is let through.
    target: Option<SocketAddr>,
    /// Both ends of what is open.
    open: Vec<(TcpStream, TcpStream)>,
}

impl Forwarder {
    /// Listens on a free port.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { target: Some(target), open: Vec::new() }));
        let forwarder = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                // A target that is not there: the stream is dropped, which closes it.
                if let Some(Ok(other)) = state.target.map(TcpStream::connect) {
                    state.join(stream, other);
                }
            }
        });
        forwarder
    }

    /// Leads elsewhere from now on. What is open stays where it leads.
    pub(crate) fn turn(&self, target: Option<SocketAddr>) {
        self.state().target = target;
    }

    /// Cuts what is open. Returns how many those were.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.state().open);
        for (one, other) in &open {
            // An error means that it has ended already.
            let _ = (one.shutdown(Shutdown::Both), other.shutdown(Shutdown::Both));
        }
        open.len()
    }

    /// `REDIS_URL`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.turn(None);
        self.cut();
    }
}

impl State {
    fn join(&mut self, one: TcpStream, other: TcpStream) {
        for stream in [&one, &other] {
            stream.set_nodelay(true).expect("a socket");
        }
        let clone = |stream: &TcpStream| stream.try_clone().expect("a file");
        for (from, to) in [(clone(&one), clone(&other)), (clone(&other), clone(&one))] {
            std::thread::spawn(move || copy(from, to));
        }
        self.open.push((one, other));
    }
}

/// Copies until either ends, and ends both then.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
