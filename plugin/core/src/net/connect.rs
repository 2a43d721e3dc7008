//! A TCP connection to whichever address of a name answers first (RFC 8305): every address gets its
//! turn, whatever the others do. One function for mail, HTTPS and the diagnosis.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::wait;
use crate::{clock::Deadline, limits, seam};

/// The connection, and the addresses that were tried before it and did not answer in time.
pub(super) struct Connected {
    pub tcp: TcpStream,
    pub address: SocketAddr,
    pub took: Duration,
    pub silent: Vec<Silent>,
}

/// An address that did not answer, and what the system said.
pub struct Silent {
    pub address: SocketAddr,
    pub why: io::Error,
}

/// One attempt after the other, each begun `limits::CONNECT_ATTEMPT_DELAY` after the last or as soon
/// as that one failed; all go on to the deadline, and the first that answers wins.
///
/// # Errors
/// When none answered, why not, in the order of the ends.
pub(super) fn race(addresses: &[SocketAddr], deadline: Deadline) -> Result<Connected, Vec<Silent>> {
    let mut queue = interleaved(addresses);
    let mut pending: Vec<Attempt> = Vec::new();
    let mut silent = Vec::new();
    let mut next_at = seam::instant();
    loop {
        let now = seam::instant();
        if pending.is_empty() || now >= next_at {
            if let Some(address) = queue.pop_front() {
                next_at = now + limits::CONNECT_ATTEMPT_DELAY;
                match Attempt::begin(address) {
                    Ok(attempt) => pending.push(attempt),
                    Err(why) => {
                        silent.push(Silent { address, why });
                        next_at = now;
                        continue;
                    }
                }
            } else if pending.is_empty() {
                return Err(silent);
            }
        }
        let left = deadline.left();
        if left.is_zero() {
            let late = |attempt: Attempt| Silent { address: attempt.address, why: io::ErrorKind::TimedOut.into() };
            silent.extend(pending.into_iter().map(late));
            return Err(silent);
        }
        let wait = match queue.is_empty() {
            true => left,
            false => left.min(next_at.saturating_duration_since(seam::instant())),
        };
        let ready = match first_ready(&pending, wait) {
            Ok(ready) => ready,
            Err(why) => {
                silent.extend(pending.pop().map(|attempt| Silent { address: attempt.address, why }));
                continue;
            }
        };
        let Some(ready) = ready else { continue };
        let attempt = pending.remove(ready);
        match attempt.socket.take_error() {
            Ok(None) => {
                let took = seam::instant().saturating_duration_since(attempt.begun);
                let late = |other: Attempt| Silent { address: other.address, why: io::ErrorKind::TimedOut.into() };
                silent.extend(pending.into_iter().map(late));
                let tcp = TcpStream::from(attempt.socket);
                return Ok(Connected { tcp, address: attempt.address, took, silent });
            }
            Ok(Some(why)) | Err(why) => {
                silent.push(Silent { address: attempt.address, why });
                next_at = seam::instant();
            }
        }
    }
}

struct Attempt {
    socket: Socket,
    address: SocketAddr,
    begun: Instant,
}

impl Attempt {
    fn begin(address: SocketAddr) -> io::Result<Self> {
        seam::step("net.connect")?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        let begun = seam::instant();
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(Self { socket, address, begun })
    }
}

fn first_ready(pending: &[Attempt], wait: Duration) -> io::Result<Option<usize>> {
    let mut sockets: Vec<_> = pending.iter().map(|one| PollFd::new(&one.socket, PollFlags::OUT)).collect();
    wait::poll(&mut sockets, wait)?;
    Ok(sockets.iter().position(|one| !one.revents().is_empty()))
}

/// The families in turn, beginning with the one that the resolver prefers (RFC 8305 section 4).
pub(super) fn interleaved(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<SocketAddr>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = VecDeque::with_capacity(addresses.len());
    loop {
        let before = order.len();
        order.extend(preferred.next());
        order.extend(other.next());
        if order.len() == before || order.len() >= limits::CONNECT_ADDRESSES_MAX {
            order.truncate(limits::CONNECT_ADDRESSES_MAX);
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// Its queue is full and nobody accepts: a SYN is dropped, as by a black hole.
    pub fn black_hole() -> (Socket, Vec<Socket>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let fill = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        };
        let filled = (0..4).map(|_| fill()).collect();
        std::thread::sleep(Duration::from_millis(50));
        (listener, filled, address)
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[test]
    fn the_families_take_turns_and_the_resolver_chooses_who_begins() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (parse("[2001:db8::1]:1"), parse("[2001:db8::2]:1"), parse("192.0.2.1:1"));
        assert_eq!(interleaved(&[a, b, c]), [a, c, b]);
        assert_eq!(interleaved(&[c, a, b]), [c, a, b]);
        assert_eq!(interleaved(&vec![a; 100]).len(), limits::CONNECT_ADDRESSES_MAX);
    }

    #[test]
    fn a_black_holed_first_address_does_not_keep_the_second_from_being_tried() {
        let (_listener, _filled, hole) = black_hole();
        let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let begun = Instant::now();
        let connected = race(&[hole, hole, good.local_addr().unwrap()], soon()).unwrap_or_else(|_| panic!("none"));
        assert_eq!(connected.address, good.local_addr().unwrap());
        assert!(begun.elapsed() >= 2 * limits::CONNECT_ATTEMPT_DELAY, "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(connected.silent.len(), 2);
    }

    #[test]
    fn one_that_refuses_gives_way_at_once_and_all_end_at_the_deadline() {
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let begun = Instant::now();
        let connected = race(&[closed, good.local_addr().unwrap()], soon()).unwrap_or_else(|_| panic!("none"));
        assert_eq!(connected.silent[0].why.kind(), io::ErrorKind::ConnectionRefused);
        assert!(begun.elapsed() < limits::CONNECT_ATTEMPT_DELAY, "{:?}", begun.elapsed());
        let (_listener, _filled, hole) = black_hole();
        let begun = Instant::now();
        let wait = Duration::from_millis(700);
        let silent = race(&[hole, closed], Deadline::after(wait)).err().unwrap();
        let late = begun.elapsed().saturating_sub(wait);
        assert!(begun.elapsed() >= wait && late < Duration::from_millis(100), "{late:?}");
        let kinds: Vec<_> = silent.iter().map(|one| one.why.kind()).collect();
        assert_eq!(kinds, [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut]);
    }
}
