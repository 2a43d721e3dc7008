//! A library that was cut short, by a full disk or an interrupted copy, ends the process with SIGBUS inside dlopen: no
//! error comes back. So its own table says beforehand how long it must be.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Program headers of a shared library: about a dozen.
const HEADERS_MAX: u16 = 512;
const PT_LOAD: u32 = 1;

/// Is the file shorter than what dlopen will map of it? A file that cannot be read or is no ELF-64 is not: what to say of
/// it is left to dlopen.
pub fn is_cut_short(path: &Path) -> bool {
    let length = path.metadata().map_or(u64::MAX, |meta| meta.len());
    match mapped_length(path) {
        Ok(needed) => needed.is_some_and(|needed| needed > length),
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

/// How many bytes of the file dlopen maps (System V ABI, ELF-64: ELF header and program headers).
fn mapped_length(path: &Path) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let mut header = [0; 64];
    if file.read_exact(&mut header).is_err() || header[..4] != *b"\x7fELF" || header[4] != 2 || header[5] != 1 {
        return Ok(None);
    }
    let (start, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if size != 56 || count > HEADERS_MAX {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(start))?;
    let mut length = 0;
    for _ in 0..count {
        let mut entry = [0; 56];
        file.read_exact(&mut entry)?;
        if u32_at(&entry, 0) == PT_LOAD {
            length = length.max(u64_at(&entry, 8).saturating_add(u64_at(&entry, 32)));
        }
    }
    Ok(Some(length))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_as_long_as_it_says() {
        let path = std::env::current_exe().unwrap();
        assert!(!is_cut_short(&path));
        if let Some(length) = mapped_length(&path).unwrap() {
            let real = path.metadata().unwrap().len();
            assert!(length > 10_000 && length <= real, "{length} of {real}");
        }
    }

    #[test]
    fn a_file_that_is_no_elf_is_left_to_dlopen() {
        let path = std::env::temp_dir().join(format!("oauth-mail-abi-elf-{}", std::process::id()));
        for content in [&b""[..], b"\x7fELF", &[0x7f; 64]] {
            std::fs::write(&path, content).unwrap();
            assert!(!is_cut_short(&path));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
