//! Text for people, in lines that a terminal is wide enough for.

/// Lines of whole words, broken at spaces: the first of at most `first` characters, the others of at most `next`. A longer word has
/// a line of its own.
pub fn wrapped(text: &str, first: usize, next: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let room = if lines.len() > 1 { next } else { first };
        let line = lines.last_mut().expect("there is a first line");
        let used = line.chars().count();
        if used > 0 && used.saturating_add(1 + word.chars().count()) > room {
            lines.push(word.to_owned());
        } else {
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_lines_within_their_width() {
        let lines = wrapped("one two three incomprehensibilities four", 9, 6);
        assert_eq!(lines, ["one two", "three", "incomprehensibilities", "four"]);
        assert_eq!(wrapped("", 9, 9), [""]);
        assert_eq!(wrapped("one two", usize::MAX, 0), ["one two"]);
    }
}
