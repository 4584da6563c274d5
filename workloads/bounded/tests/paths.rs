//! What a path may turn out to be. None of these ends by itself without the bounds, or only with a gigabyte in memory.

use heaplab_bounded::{MIB, check, read, read_text};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

fn refused(path: &Path) -> String {
    let words = read(path, MIB).unwrap_err().to_string();
    assert_eq!(check(path, MIB).unwrap_err().to_string(), words);
    assert_eq!(read_text(path, MIB).unwrap_err().to_string(), words);
    words
}

#[test]
fn what_is_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let socket = folder.path().join("socket");
    let _listens = UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (Path::new("/dev/zero"), "device"),
        (Path::new("/dev/random"), "device"),
        (&pipe, "pipe"),
        (&socket, "socket"),
        (folder.path(), "folder"),
    ] {
        assert_eq!(refused(path), format!("it is a {what} and no regular file"));
    }
}

#[test]
fn a_pipe_that_is_open_is_read_and_bounded() {
    let through = |bytes: usize, most| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b'a'; bytes]));
        let found = read(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())), most);
        // Whoever writes more than is read is told so.
        drop(reader);
        let _ = writing.join().unwrap();
        found.map(|bytes| bytes.len())
    };
    assert_eq!(through(100_000, MIB).unwrap(), 100_000);
    assert!(through(200_000, 1_000).is_err());
}

#[test]
fn the_limit_is_the_last_size_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![b'a'; MIB as usize]).unwrap();
    assert_eq!(read(&path, MIB).unwrap().len() as u64, MIB);
    fs::write(&path, vec![b'a'; MIB as usize + 1]).unwrap();
    assert_eq!(
        refused(&path),
        "it has 2 MiB, more than the 1 MiB that such a file may have"
    );
}

#[test]
fn a_sparse_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    File::create(&path).unwrap().set_len(5 << 30).unwrap();
    assert!(refused(&path).starts_with("it has 5120 MiB, more than"));
}

#[test]
fn a_file_that_does_not_say_how_large_it_is_is_read_and_bounded() {
    let maps = Path::new("/proc/self/maps");
    assert!(!read(maps, MIB).unwrap().is_empty());
    assert!(read(maps, 10).is_err());
}

#[test]
fn what_is_no_text_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"good\xff").unwrap();
    let error = read_text(&path, MIB).unwrap_err();
    assert_eq!(error.to_string(), "byte 4 is no UTF-8, so it is no text");
}
