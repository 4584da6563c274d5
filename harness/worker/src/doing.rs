//! What a thread does at a moment, by the kernel's word.

/// As far as somebody must know who waits for it to come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It runs, or waits for the CPU or for memory.
    Work,
    /// It waits on the word at this address, for a time; `private` is the flag by which it does.
    Sleep {
        /// The address.
        word: usize,
        /// [`libc::FUTEX_PRIVATE_FLAG`] or 0.
        private: i32,
    },
    /// It reads.
    Read,
    /// It waits for something else.
    Wait,
    /// It is no more.
    Gone,
}

impl Doing {
    /// From /proc/PID/task/TID/syscall: a number and its arguments, or `running`.
    pub fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let Some(call) = words.next().and_then(|word| word.parse::<i64>().ok()) else {
            return Self::Work;
        };
        let mut argument = || {
            let word = words.next().and_then(|word| word.strip_prefix("0x"));
            word.and_then(|word| usize::from_str_radix(word, 16).ok())
                .unwrap_or(0)
        };
        match call {
            // Held up outside of any call: by a page that it touches.
            -1 => Self::Work,
            libc::SYS_futex => {
                let [word, operation, _, time] = [(); 4].map(|()| argument());
                let operation = operation as i32 & !libc::FUTEX_CLOCK_REALTIME;
                let private = operation & libc::FUTEX_PRIVATE_FLAG;
                match operation - private {
                    libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET if time != 0 => {
                        Self::Sleep { word, private }
                    }
                    _ => Self::Wait,
                }
            }
            libc::SYS_read => Self::Read,
            libc::SYS_mmap
            | libc::SYS_munmap
            | libc::SYS_mremap
            | libc::SYS_mprotect
            | libc::SYS_madvise
            | libc::SYS_brk => Self::Work,
            _ => Self::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Doing;

    #[test]
    fn who_sleeps_for_a_time_is_told_from_who_waits_and_who_works() {
        for (line, doing) in [
            (
                "202 0x7f8e08000ba0 0x89 0x0 0x7f8e0e4ee9f0 0x0 0xffffffff 0x7f8e0e4ee940 0x7f8e0eaa3f16\n",
                Doing::Sleep {
                    word: 0x7f8e_0800_0ba0,
                    private: 128,
                },
            ),
            (
                "202 0x10 0x0 0x0 0x20 0x0 0x0 0x7 0x7\n",
                Doing::Sleep {
                    word: 0x10,
                    private: 0,
                },
            ),
            ("202 0x10 0x80 0x0 0x0 0x0 0x0 0x7 0x7\n", Doing::Wait),
            ("202 0x10 0x81 0x1 0x20 0x0 0x0 0x7 0x7\n", Doing::Wait),
            ("28 0x10 0x80 0x0 0x0 0x0 0x0 0x7 0x7\n", Doing::Work),
            ("0 0x10 0x80 0x0 0x0 0x0 0x0 0x7 0x7\n", Doing::Read),
            ("7 0x10 0x80 0x0 0x0 0x0 0x0 0x7 0x7\n", Doing::Wait),
            ("-1 0x7 0x7\n", Doing::Work),
            ("running\n", Doing::Work),
            ("", Doing::Work),
        ] {
            assert_eq!(Doing::parse(line), doing, "{line}");
        }
    }
}
