//! What somebody may have meant by a name that does not exist.

use tidemill_core::EventType;

/// A help line for a field that `of` does not have.
pub(crate) fn unknown_field_help(name: &str, of: &EventType) -> String {
    let fields = || of.fields.iter().map(|field| field.name.as_str());
    match nearest(name, fields()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the fields of `{}` are {}", of.name, fields().collect::<Vec<_>>().join(", ")),
    }
}

/// The candidate that takes the fewest typing errors to get to, if those are few.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    candidates.map(|near| (distance(name, near), near)).filter(|(far, _)| *far <= most).min().map(|(_, near)| near)
}

/// Characters to insert, leave out, change or swap with their neighbour; upper and lower case are the same.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.to_lowercase().chars().collect::<Vec<_>>());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_another_word_is_not() {
        let names = ["country", "platform", "ms_played"];
        assert_eq!(nearest("contry", names.into_iter()), Some("country"));
        assert_eq!(nearest("Country", names.into_iter()), Some("country"));
        assert_eq!(nearest("ms_palyed", names.into_iter()), Some("ms_played"));
        assert_eq!(nearest("user", names.into_iter()), None);
    }
}
