//! As many open files as this process may have: each mailbox takes up to four.

/// Raises the soft limit to the hard one. Where that is not allowed, the library names the limit when
/// it is met.
pub fn allow_all() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
