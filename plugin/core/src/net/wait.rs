//! Waiting for a socket by poll(2), which is exact: the timeout of a socket (SO_RCVTIMEO) lasts up to
//! an eighth longer on Linux, whose timer wheel rounds it up.

use std::{io, net::TcpStream, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};

use crate::seam;

/// The socket, which must not block, can be read or written (or has failed).
///
/// # Errors
/// `TimedOut` after `wait`.
pub(super) fn ready(socket: &TcpStream, for_what: PollFlags, wait: Duration) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket, for_what)], wait)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// How many are ready; 0 after `wait`.
pub(super) fn poll(sockets: &mut [PollFd<'_>], wait: Duration) -> io::Result<usize> {
    let end = seam::instant() + wait;
    loop {
        let left = end.saturating_duration_since(seam::instant());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos() as _ };
        match rustix::event::poll(sockets, Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
