//! Commands as a POSIX shell reads them back: whatever is printed for a user to type again goes through here.

use std::path::Path;

/// A word in quotes where a shell would otherwise take it for something else.
pub fn word(word: &str) -> String {
    // `~` and `#` mean something at the beginning of a word only, `=` only before it.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+~#".contains(c);
    if word.chars().all(plain) && !word.is_empty() && !word.starts_with(['~', '#', '=']) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A path as one word.
pub fn path(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// A whole command line.
pub fn command<W: AsRef<str>>(words: &[W]) -> String {
    let words: Vec<String> = words.iter().map(|w| word(w.as_ref())).collect();
    words.join(" ")
}

/// The command line `line`, made by [`command`], with `option` before a `--`, behind which everything is the measured
/// program's. A `--` within quotes is part of a word.
pub fn with_option(line: &str, option: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.char_indices().find(|(at, c)| {
        quoted ^= *c == '\'' && !escaped;
        escaped = *c == '\\' && !quoted && !escaped;
        !quoted && line[*at..].starts_with(" -- ")
    });
    match end {
        Some((at, _)) => format!("{} {option}{}", &line[..at], &line[at..]),
        None => format!("{line} {option}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_every_word() {
        let words = [
            "a b",
            "it's",
            "",
            "*",
            "$HOME",
            "a\"b",
            "\\",
            "~",
            "#x",
            "x#y",
            "=ls",
            "A=b c",
            "-n",
            "{a,b}",
            "a;b",
            "`id`",
            "!1",
            "line\nline",
            "[é]",
            "plain/path-1.so",
            "'",
            "''",
            "(",
            "<in",
            "&",
        ];
        let line = format!("printf '%s\\0' {}", command(&words));
        let out = Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .output()
            .unwrap();
        let read = String::from_utf8(out.stdout).unwrap();
        assert_eq!(read.split_terminator('\0').collect::<Vec<_>>(), words);
        assert_eq!(
            command(&["heaplab", "run", "churn", "-a", "system,./lib.so"]),
            "heaplab run churn -a system,./lib.so"
        );
    }

    #[test]
    fn an_option_goes_before_the_programs_words() {
        let line = command(&["heaplab", "run", "--", "sh", "-c", "x -- y"]);
        assert_eq!(
            with_option(&line, "--seed 7"),
            "heaplab run --seed 7 -- sh -c 'x -- y'"
        );
        let line = command(&["heaplab", "gate", "run", "--base-cmd", "it's -- x"]);
        assert_eq!(
            with_option(&line, "--only x"),
            r"heaplab gate run --base-cmd 'it'\''s -- x' --only x"
        );
    }
}
