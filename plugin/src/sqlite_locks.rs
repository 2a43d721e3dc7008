//! Locks of the store's file that belong to the open file instead of the process.
//!
//! SQLite takes POSIX locks, which belong to the process: whoever else in the host opens the same file
//! (the host's own SQLite, a second copy of this library) and closes it takes them away, and then the
//! last to close deletes a journal that is in use. Open file description locks (fcntl(2), Linux 3.15)
//! are SQLite's locks with the same ranges and the same conflicts, also with POSIX locks of others in
//! this process or any other, and nobody else can drop them.
//!
//! SQLite offers its system calls for replacement (`xSetSystemCall`, sqlite.org/c3ref/vfs.html); this
//! copy of it belongs to this library alone. It needs one connection per file, which the store keeps
//! (`store/sqlite_file.rs`). A child of fork shares the open files of its parent, and so would share
//! their locks: it goes on with POSIX locks.

#[cfg(target_os = "linux")]
pub use linux::install;

#[cfg(not(target_os = "linux"))]
pub fn install() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        ffi::{CStr, c_int, c_void},
        mem, process, ptr,
        sync::Once,
        sync::atomic::{AtomicU32, Ordering},
    };

    use libsqlite3_sys::{SQLITE_OK, sqlite3_vfs_find};

    /// The process that may use them: the one that loaded the library.
    static HOME: AtomicU32 = AtomicU32::new(0);

    /// Before the first store is opened; again it does nothing.
    pub fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            HOME.store(process::id(), Ordering::Release);
            const NAME: &CStr = c"fcntl";
            // SAFETY: the default VFS lives for ever, and its function is called as sqlite3.h says. The
            // replacement takes what SQLite gives to fcntl(2): a descriptor, a command and one word.
            unsafe {
                let vfs = sqlite3_vfs_find(ptr::null());
                let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) else { return };
                type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
                let replaced = set(vfs, NAME.as_ptr(), Some(mem::transmute::<Fcntl, unsafe extern "C" fn()>(fcntl)));
                debug_assert_eq!(replaced, SQLITE_OK);
            }
        });
    }

    unsafe extern "C" fn fcntl(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
        let open_file = match command {
            libc::F_SETLK => libc::F_OFD_SETLK,
            libc::F_SETLKW => libc::F_OFD_SETLKW,
            libc::F_GETLK => libc::F_OFD_GETLK,
            // SAFETY: passed on as it came.
            _ => return unsafe { libc::fcntl(descriptor, command, argument) },
        };
        if HOME.load(Ordering::Acquire) != process::id() {
            // SAFETY: as above.
            return unsafe { libc::fcntl(descriptor, command, argument) };
        }
        // SAFETY: with these commands SQLite passes a `struct flock` of its own.
        unsafe {
            // As fcntl(2) demands of these commands.
            (*argument.cast::<libc::flock>()).l_pid = 0;
            let done = libc::fcntl(descriptor, open_file, argument);
            match done {
                // A kernel or a file system that does not know them.
                -1 if *libc::__errno_location() == libc::EINVAL => libc::fcntl(descriptor, command, argument),
                done => done,
            }
        }
    }
}
