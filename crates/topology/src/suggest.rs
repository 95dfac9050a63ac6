//! Help that names what there is.

/// Names that are listed before the list is cut.
const LISTED: usize = 24;

/// The name that was probably meant.
pub(crate) fn nearest<'a>(wanted: &str, names: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let wanted = plain(wanted);
    let length = wanted.chars().count();
    let likely = |name: &str| {
        let name = plain(name);
        let distance = strsim::damerau_levenshtein(&wanted, &name);
        let part = length >= 3 && (name.starts_with(&wanted) || wanted.starts_with(&name) && name.len() >= 3);
        (distance <= (length / 3).max(1) && distance < length.max(1) || part).then_some(distance)
    };
    let scored = names.iter().filter_map(|name| Some((likely(name)?, *name)));
    scored.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// "did you mean `x`?", else "the `what` there are: ...".
pub(crate) fn help(wanted: &str, names: &[&str], what: &str) -> String {
    match nearest(wanted, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None => format!("the {what} there are: {}", list(names)),
    }
}

/// The names in backquotes, with commas.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keys_finds_its_name() {
        let names = ["window", "keys", "max_open_hours", "from"];
        assert_eq!(nearest("widnow", &names), Some("window"));
        assert_eq!(nearest("max-open-hours", &names), Some("max_open_hours"));
        assert_eq!(nearest("key", &names), Some("keys"));
        assert_eq!(nearest("form", &names), Some("from"));
    }

    #[test]
    fn what_is_like_nothing_gets_the_list() {
        assert_eq!(help("colour", &["window", "keys"], "keys"), "the keys there are: `window`, `keys`");
        assert_eq!(help("x", &["y"], "names"), "the names there are: `y`");
        assert_eq!(help("x", &[], "names"), "there are no names");
    }
}
