//! A TCP relay between client and server: delays, cuts, stalls. It never looks at what it carries.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::net::connect_unspec;

use crate::Result;

/// One read, bytes.
const CHUNK: usize = 1 << 16;
/// Chunks on their way, in one direction; more than any test sends within one delay.
const CHUNKS_IN_FLIGHT: usize = 4_096;
const NEVER: u64 = u64::MAX;

/// Dropping it closes the listener and every connection.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What happens to a connection whose bytes are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Nothing passes any more, but it stays.
    Stall,
}

struct Shared {
    target: SocketAddr,
    one_way_micros: AtomicU64,
    /// Bytes that may still pass from server to client, and from client to server, before it happens.
    downstream_left: AtomicU64,
    upstream_left: AtomicU64,
    /// What happens then.
    ending: Mutex<Ending>,
    /// Only to one connection; those that come later are whole.
    once: AtomicBool,
    /// Bytes from server to client so far.
    downstream: AtomicU64,
    /// Of a thousand reads from the server, how many end their connection.
    bad_luck: AtomicU64,
    lots: AtomicU64,
    unlucky: AtomicU64,
    closed: AtomicBool,
    connections: AtomicUsize,
    /// Both ends of each connection, for [`Relay::break_all`]; weak, because a socket must close when its threads end.
    open: Mutex<Vec<Weak<[TcpStream; 2]>>>,
}

#[derive(Clone, Copy)]
enum Direction {
    Upstream,
    Downstream,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and passes on to `port` of 127.0.0.1.
    pub fn start(port: u16) -> Result<Self> {
        Self::start_at("127.0.0.1:0".parse().map_err(crate::Error::doing("an address"))?, port)
    }

    /// Listens elsewhere, for example at 127.0.0.2 on the server's own port.
    pub fn start_at(listen: SocketAddr, port: u16) -> Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], port)),
            one_way_micros: AtomicU64::new(0),
            downstream_left: AtomicU64::new(NEVER),
            upstream_left: AtomicU64::new(NEVER),
            ending: Mutex::new(Ending::Close),
            once: AtomicBool::new(false),
            downstream: AtomicU64::new(0),
            bad_luck: AtomicU64::new(0),
            lots: AtomicU64::new(0),
            unlucky: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Half of the round-trip time. Data is delayed, not slowed down.
    pub fn set_one_way_delay(&self, delay: Duration) {
        self.shared.one_way_micros.store(u64::try_from(delay.as_micros()).unwrap_or(NEVER), SeqCst);
    }

    /// Breaks connections after this many more bytes from the server.
    pub fn cut_after(&self, downstream_bytes: u64) {
        self.shared.set_ending(Ending::Close);
        self.shared.downstream_left.store(downstream_bytes, SeqCst);
    }

    /// Breaks connections after this many more bytes from the client.
    pub fn cut_after_upstream(&self, upstream_bytes: u64) {
        self.shared.set_ending(Ending::Close);
        self.shared.upstream_left.store(upstream_bytes, SeqCst);
    }

    /// After this many more bytes from the server nothing passes any more, but the connection stays.
    pub fn stall_after(&self, downstream_bytes: u64) {
        self.shared.set_ending(Ending::Stall);
        self.shared.downstream_left.store(downstream_bytes, SeqCst);
    }

    /// After this many more bytes from the server one connection ends like this; the next ones are whole.
    pub fn once_after(&self, downstream_bytes: u64, ending: Ending) {
        self.shared.set_ending(ending);
        self.shared.once.store(true, SeqCst);
        self.shared.downstream_left.store(downstream_bytes, SeqCst);
    }

    /// Bytes that came from the server so far.
    pub fn downstream(&self) -> u64 {
        self.shared.downstream.load(SeqCst)
    }

    /// From now on so many of a thousand reads from the server end their connection, drawn by lot.
    pub fn set_bad_luck(&self, of_a_thousand: u64) {
        self.shared.bad_luck.store(of_a_thousand, SeqCst);
    }

    /// Connections that ended by lot.
    pub fn unlucky(&self) -> u64 {
        self.shared.unlucky.load(SeqCst)
    }

    /// New connections are whole again; those that were cut or stalled stay lost.
    pub fn heal(&self) {
        self.shared.downstream_left.store(NEVER, SeqCst);
        self.shared.upstream_left.store(NEVER, SeqCst);
    }

    /// Breaks what is open now; new connections are not touched.
    pub fn break_all(&self) {
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap_or_else(PoisonError::into_inner));
        for ends in open.iter().filter_map(Weak::upgrade) {
            for end in ends.iter() {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.closed.load(SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        shared.connections.fetch_add(1, SeqCst);
        let shared = shared.clone();
        thread::spawn(move || {
            // What the handshake would have cost.
            thread::sleep(shared.delay() * 2);
            let Ok(server) = TcpStream::connect(shared.target) else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let clones = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
            if let (Ok(from_client), Ok(from_server), Ok(client_end), Ok(server_end)) = clones {
                let ends = Arc::new([client_end, server_end]);
                shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&ends));
                carry(&shared, Direction::Upstream, from_client, server, &ends);
                carry(&shared, Direction::Downstream, from_server, client, &ends);
            }
        });
    }
}

/// Two threads: one reads and stamps, one waits until it is due and writes.
fn carry(
    shared: &Arc<Shared>,
    direction: Direction,
    mut from: TcpStream,
    mut to: TcpStream,
    ends: &Arc<[TcpStream; 2]>,
) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS_IN_FLIGHT);
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    thread::spawn({
        let (shared, ends) = (shared.clone(), ends.clone());
        let mut buffer = vec![0; CHUNK];
        move || {
            let _ends = ends;
            while !shared.closed.load(SeqCst) {
                match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        if sender.send((Instant::now() + shared.delay(), buffer[..count].to_vec())).is_err() {
                            let _ = from.shutdown(Shutdown::Both);
                            return;
                        }
                    }
                    Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                    Err(_) => return,
                }
            }
        }
    });
    thread::spawn({
        let (shared, ends) = (shared.clone(), ends.clone());
        move || {
            let _ends = ends;
            for (due, bytes) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if matches!(direction, Direction::Downstream) && shared.is_unlucky() {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                let allowed = shared.take(direction, bytes.len());
                if to.write_all(&bytes[..allowed]).is_err() {
                    break;
                }
                if matches!(direction, Direction::Downstream) {
                    shared.downstream.fetch_add(allowed as u64, SeqCst);
                }
                if allowed < bytes.len() {
                    if shared.once.load(SeqCst) {
                        shared.downstream_left.store(NEVER, SeqCst);
                    }
                    while shared.ending() == Ending::Stall && !shared.closed.load(SeqCst) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    let _ = match shared.ending() {
                        Ending::Reset => connect_unspec(&to).map_err(std::io::Error::from),
                        Ending::Close | Ending::Stall => to.shutdown(Shutdown::Both),
                    };
                    return;
                }
            }
            let _ = to.shutdown(if shared.closed.load(SeqCst) { Shutdown::Both } else { Shutdown::Write });
        }
    });
}

impl Shared {
    fn ending(&self) -> Ending {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_ending(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = ending;
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.one_way_micros.load(SeqCst))
    }

    /// The same lots in every run, in the order in which they are drawn.
    fn is_unlucky(&self) -> bool {
        let bad_luck = self.bad_luck.load(SeqCst);
        if bad_luck == 0 {
            return false;
        }
        let mut lot = (self.lots.fetch_add(1, SeqCst) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        lot = (lot ^ (lot >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let is_unlucky = (lot ^ (lot >> 27)) % 1_000 < bad_luck;
        self.unlucky.fetch_add(u64::from(is_unlucky), SeqCst);
        is_unlucky
    }

    /// How many of these bytes may pass.
    fn take(&self, direction: Direction, wanted: usize) -> usize {
        let left = match direction {
            Direction::Upstream => &self.upstream_left,
            Direction::Downstream => &self.downstream_left,
        };
        let subtract = |left: u64| if left == NEVER { None } else { Some(left.saturating_sub(wanted as u64)) };
        match left.fetch_update(SeqCst, SeqCst, subtract) {
            Ok(before) => wanted.min(usize::try_from(before).unwrap_or(wanted)),
            Err(_) => wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_connection_is_closed_or_reset_after_as_many_bytes() {
        for ending in [Ending::Close, Ending::Reset] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let relay = Relay::start(server.local_addr().unwrap().port()).unwrap();
            relay.once_after(3, ending);
            let mut client = TcpStream::connect(relay.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let (mut accepted, _) = server.accept().unwrap();
            accepted.write_all(b"hello").unwrap();
            let mut bytes = [0; 3];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hel");
            let end = client.read(&mut bytes);
            match ending {
                Ending::Close => assert_eq!(end.unwrap(), 0),
                _ => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
            }
        }
    }
}
