//! "Did you mean": the known name that is closest to a mistyped one.

/// The name with the smallest edit distance, if that is at most a third of what was typed.
pub fn nearest<'n>(typed: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let (distance, near) = known
        .into_iter()
        .map(|name| (edit_distance(typed, name), name))
        .min()?;
    (distance * 3 <= typed.len().max(3)).then_some(near)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near() {
        let known = ["larson", "churn", "json-dom"];
        assert_eq!(nearest("larsen", known), Some("larson"));
        assert_eq!(nearest("chrun", known), None);
        assert_eq!(nearest("jsondom", known), Some("json-dom"));
        assert_eq!(nearest("sqlite", known), None);
    }
}
