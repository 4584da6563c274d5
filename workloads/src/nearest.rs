//! "Did you mean": the known name that is closest to a mistyped one.

/// The name with the smallest edit distance (letters left out, added, mistaken, swapped), if that is at most a third of what was typed.
pub fn nearest<'n>(typed: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let (distance, near) = known
        .into_iter()
        .map(|name| (strsim::osa_distance(typed, name), name))
        .min()?;
    (distance * 3 <= typed.len().max(3)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near() {
        let known = ["larson", "churn", "json-dom"];
        assert_eq!(nearest("larsen", known), Some("larson"));
        assert_eq!(nearest("chrun", known), Some("churn"));
        assert_eq!(nearest("crnuh", known), None);
        assert_eq!(nearest("jsondom", known), Some("json-dom"));
        assert_eq!(nearest("sqlite", known), None);
    }
}
