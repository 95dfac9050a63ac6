//! The list of what breaks a rule today, and how it may change.

use std::collections::BTreeMap;
use std::fmt;

/// What has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Lines of a file of code.
    File,
    /// Lines of a function.
    Function,
    /// Lines of code in a file that are too wide.
    CodeLine,
    /// Lines of prose in a file that are too wide.
    ProseLine,
}

impl Rule {
    /// Columns that a line of code may have.
    pub const CODE_COLUMNS_MAX: usize = 120;
    /// Columns that a line of prose may have.
    pub const PROSE_COLUMNS_MAX: usize = 160;
    const ALL: [Self; 4] = [Self::File, Self::Function, Self::CodeLine, Self::ProseLine];

    /// The largest size that needs no entry: lines of a file or function, or how many lines may be too wide.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::File => 500,
            Self::Function => 70,
            Self::CodeLine | Self::ProseLine => 0,
        }
    }

    /// Its word in the list.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Function => "function",
            Self::CodeLine => "code-line",
            Self::ProseLine => "prose-line",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::File => "split it: one concept a file, 500 lines at most",
            Self::Function => "split it: 70 lines at most",
            Self::CodeLine => "break its lines at 120 columns",
            Self::ProseLine => "break its lines at 160 columns",
        }
    }
}

/// Something that is larger than its rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excess {
    /// The rule that it breaks.
    pub rule: Rule,
    /// Lines of a file or function, or how many lines are too wide.
    pub size: usize,
    /// Path from the root of the repository, with the name of the function where it is one.
    pub place: String,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rule.name(), self.size, self.place)
    }
}

/// A difference between the list and the repository, or between two lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not in the list, or is larger than the list says.
    Larger(Excess),
    /// The entry says more than there is.
    Stale(Excess),
    /// A list has more of a rule than the one before it: how many entries, and the sum of what is above the limit.
    Grown {
        /// The rule.
        rule: Rule,
        /// Entries and excess of the earlier list.
        before: (usize, usize),
        /// Entries and excess of the later list.
        after: (usize, usize),
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Larger(excess) => write!(f, "{excess}: {}", excess.rule.advice()),
            Self::Stale(excess) => write!(f, "{excess}: smaller now; UPDATE_TIDY=1 cargo test -p tidemill-tidy"),
            Self::Grown { rule, before, after } => write!(
                f,
                "known.txt has grown: {} {} entries, {} above the limit; before {} and {}",
                after.0,
                rule.name(),
                after.1,
                before.0,
                before.1
            ),
        }
    }
}

/// The list. Two functions of one name in one file stand in it twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(Vec<Excess>);

impl Known {
    /// A list of these.
    #[must_use]
    pub fn new(mut entries: Vec<Excess>) -> Self {
        entries.sort_by(|a, b| (a.rule, b.size, &a.place).cmp(&(b.rule, a.size, &b.place)));
        Self(entries)
    }

    /// Reads a list: lines of rule, size and place. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// The first line that is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entries: Result<Vec<Excess>, String> = lines
            .map(|line| {
                let entry = line.split_once(' ').and_then(|(rule, rest)| {
                    let rule = Rule::ALL.into_iter().find(|known| known.name() == rule)?;
                    let (size, place) = rest.split_once(' ')?;
                    let size = size.parse().ok().filter(|size| *size > rule.limit())?;
                    Some(Excess { rule, size, place: place.to_owned() })
                });
                entry.ok_or_else(|| format!("known.txt: `{line}` is not RULE SIZE PLACE with a size above the limit"))
            })
            .collect();
        Ok(Self::new(entries?))
    }

    /// Compares the list with what was found in the repository.
    #[must_use]
    pub fn compare(&self, found: &Self) -> Vec<Fault> {
        let (listed, found) = (self.by_place(), found.by_place());
        let mut faults = Vec::new();
        for (key, sizes) in &found {
            let known = listed.get(key).map_or(&[][..], Vec::as_slice);
            let larger = sizes.iter().enumerate().filter(|(at, size)| known.get(*at).is_none_or(|known| known < size));
            faults.extend(larger.map(|(_, size)| Fault::Larger(excess(*key, *size))));
        }
        for (key, known) in &listed {
            let sizes = found.get(key).map_or(&[][..], Vec::as_slice);
            let stale = known.iter().enumerate().filter(|(at, known)| sizes.get(*at).is_none_or(|size| size < known));
            faults.extend(stale.map(|(_, known)| Fault::Stale(excess(*key, *known))));
        }
        faults
    }

    /// The list without what is mended; nothing is added.
    #[must_use]
    pub fn shrunk_to(&self, found: &Self) -> Self {
        let found = found.by_place();
        let mut kept = Vec::new();
        for (key, known) in self.by_place() {
            let sizes = found.get(&key).map_or(&[][..], Vec::as_slice);
            kept.extend(known.iter().zip(sizes).map(|(known, size)| excess(key, *known.min(size))));
        }
        Self::new(kept)
    }

    /// In what a later list has more than this one. Places may change, because files are moved and split.
    #[must_use]
    pub fn growth(&self, later: &Self) -> Vec<Fault> {
        let grown = |rule: Rule| {
            let (before, after) = (self.sum(rule), later.sum(rule));
            (after.0 > before.0 || after.1 > before.1).then_some(Fault::Grown { rule, before, after })
        };
        Rule::ALL.into_iter().filter_map(grown).collect()
    }

    /// Entries of a rule, and the sum of what is above its limit.
    fn sum(&self, rule: Rule) -> (usize, usize) {
        let of_rule = self.0.iter().filter(|excess| excess.rule == rule);
        of_rule.fold((0, 0), |(count, sum), excess| (count + 1, sum + excess.size - rule.limit()))
    }

    /// Sizes by rule and place, largest first.
    fn by_place(&self) -> BTreeMap<(Rule, &str), Vec<usize>> {
        let mut sizes: BTreeMap<(Rule, &str), Vec<usize>> = BTreeMap::new();
        for excess in &self.0 {
            sizes.entry((excess.rule, &excess.place)).or_default().push(excess.size);
        }
        sizes
    }
}

fn excess((rule, place): (Rule, &str), size: usize) -> Excess {
    Excess { rule, size, place: place.to_owned() }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Places that break a rule of tests/tidy: RULE SIZE PLACE. This list may only shrink.")?;
        self.0.iter().try_for_each(|excess| writeln!(f, "{excess}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(lines: &str) -> Known {
        Known::parse(lines).expect("a list")
    }

    fn faults(listed: &str, found: &str) -> Vec<String> {
        known(listed).compare(&known(found)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let list = known("file 501 a.rs\nfunction 80 a.rs f\nfunction 90 b.rs g\nprose-line 3 a b.md\n");
        assert_eq!(Known::parse(&list.to_string()), Ok(list.clone()));
        assert!(list.to_string().contains("\nfunction 90 b.rs g\nfunction 80 a.rs f\n"), "largest first: {list}");
        for line in ["files 501 a.rs", "file 500 a.rs", "file a.rs"] {
            assert!(
                Known::parse(line).unwrap_err().starts_with(&format!("known.txt: `{line}` is not RULE SIZE PLACE"))
            );
        }
    }

    #[test]
    fn what_is_new_or_larger_fails_and_says_what_to_do() {
        assert_eq!(faults("file 600 a.rs", "file 600 a.rs"), [""; 0]);
        let advice = "split it: one concept a file, 500 lines at most";
        assert_eq!(faults("", "file 501 a.rs"), [format!("file 501 a.rs: {advice}")]);
        assert_eq!(faults("file 600 a.rs", "file 601 a.rs").first(), Some(&format!("file 601 a.rs: {advice}")));
    }

    #[test]
    fn an_entry_that_is_mended_or_smaller_fails_until_the_list_says_so() {
        for found in ["", "file 550 a.rs"] {
            assert!(faults("file 600 a.rs", found)[0].starts_with("file 600 a.rs: smaller now"));
            assert_eq!(known("file 600 a.rs").shrunk_to(&known(found)), known(found));
        }
        assert_eq!(known("file 600 a.rs").shrunk_to(&known("file 700 a.rs\nfile 501 b.rs")), known("file 600 a.rs"));
    }

    #[test]
    fn two_functions_of_one_name_are_two_entries() {
        let both = "function 90 a.rs new\nfunction 80 a.rs new";
        assert_eq!(faults(both, both), [""; 0]);
        assert_eq!(faults("function 90 a.rs new", both).len(), 1);
        assert_eq!(known(both).shrunk_to(&known("function 90 a.rs new")), known("function 90 a.rs new"));
    }

    #[test]
    fn a_later_list_may_have_other_places_but_no_more_entries_and_no_more_above_the_limit() {
        let before = known("file 600 a.rs\nfile 700 b.rs");
        assert_eq!(before.growth(&known("file 600 moved.rs\nfile 700 b.rs")), []);
        assert_eq!(before.growth(&known("file 800 b.rs")), [], "the same sum");
        assert_eq!(before.growth(&known("file 600 a.rs\nfile 701 b.rs")).len(), 1);
        assert_eq!(before.growth(&known("file 501 a.rs\nfile 501 b.rs\nfile 501 c.rs")).len(), 1);
        assert_eq!(before.growth(&known("function 71 a.rs f")).len(), 1, "each rule by itself");
    }
}
