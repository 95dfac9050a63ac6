//! Paths of hours: the template, its checks, and values that can't leave their part of a path.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidemill_core::{Finding, Hour, StageInput};
use xxhash_rust::xxh3::xxh3_128;

use super::latest::LATEST_NAME;

/// Longest encoded value that is kept whole.
const VALUE_LIMIT: usize = 96;
/// Bytes that are kept of a longer one, before its hash.
const VALUE_PREFIX: usize = 80;
/// Longest literal text in one part of a path; with a value it stays below the 255 bytes of file systems.
const LITERAL_LIMIT: usize = 80;
/// What a null value is called in a path.
const NULL: &str = "__null__";

/// A path template such as `{event_type}/year={year}/country={country}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: String,
    parts: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    EventType,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Field(String),
}

impl Piece {
    fn variable(name: &str) -> Self {
        match name {
            "event_type" => Self::EventType,
            "year" => Self::Year,
            "month" => Self::Month,
            "day" => Self::Day,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            field => Self::Field(field.to_owned()),
        }
    }
}

fn finding(code: &'static str, range: std::ops::Range<usize>, message: String, help: &str) -> Finding {
    Finding { range: Some(range), ..Finding::error(code, "path", message).help(help) }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Everything that is wrong with its form.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut parts = Vec::new();
        let mut at = 0;
        for part in text.split('/') {
            match parse_part(part, at) {
                Ok(pieces) => parts.push(pieces),
                Err(finding) => findings.push(*finding),
            }
            at += part.len() + 1;
        }
        if findings.is_empty() { Ok(Self { text: text.to_owned(), parts }) } else { Err(findings) }
    }

    /// Whether every type and hour gets a path of its own, and every field is there.
    pub(super) fn check(&self, input: &StageInput) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut need = |piece: &Piece, name: &str, why: String| {
            if !self.parts.iter().flatten().any(|there| there == piece) {
                let message = format!("the path lacks {{{name}}}: {why}");
                findings.push(Finding::error("path-not-unique", "path", message).help(format!("add {{{name}}} to it")));
            }
        };
        if input.types.len() > 1 {
            need(&Piece::EventType, "event_type", format!("{} types would share it", input.types.len()));
        }
        need(&Piece::Year, "year", "hours of different years would share it".into());
        need(&Piece::Month, "month", "hours of different months would share it".into());
        need(&Piece::Day, "day", "hours of different days would share it".into());
        if input.limits.bucket_ms < 86_400_000 {
            need(&Piece::Hour, "hour", "the bucket is less than a day, so several would share it".into());
        }
        if input.limits.bucket_ms < 3_600_000 {
            need(&Piece::Minute, "minute", "the bucket is less than an hour, so several would share it".into());
        }
        for name in self.fields() {
            let start = self.text.find(&format!("{{{name}}}")).unwrap_or_default() + 1;
            let range = start..start + name.len();
            for event_type in &input.types {
                match event_type.field(name) {
                    None => {
                        let names: Vec<&str> = event_type.fields.iter().map(|field| field.name.as_str()).collect();
                        let help = format!(
                            "variables are event_type, year, month, day, hour, minute, and the fields {}",
                            names.join(", ")
                        );
                        let message = format!("type `{}` has no field `{name}`", event_type.name);
                        findings.push(finding("unknown-field", range.clone(), message, &help));
                    }
                    Some((_, field)) if !field.kind.is_scalar() => {
                        let message =
                            format!("field `{name}` of type `{}` is a {}", event_type.name, field.kind.name());
                        let help = "take a field that holds a single value";
                        findings.push(finding("not-a-scalar", range.clone(), message, help));
                    }
                    Some(_) => {}
                }
            }
        }
        findings
    }

    /// The template as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Names of the fields in it, each once, in order.
    pub(super) fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for piece in self.parts.iter().flatten() {
            if let Piece::Field(name) = piece
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }

    /// The path of an hour; `None` when the hour is outside the years 1 to 9999. `value` gives encoded values by field.
    pub(super) fn render<'v>(
        &self,
        event_type: &str,
        hour: Hour,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Option<String> {
        let start = Timestamp::from_millisecond(hour.start_ms).ok()?.to_zoned_datetime(TimeZone::UTC);
        if start.year() < 1 {
            return None;
        }
        let mut path = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                path.push('/');
            }
            for piece in part {
                match piece {
                    Piece::Literal(text) => path.push_str(text),
                    Piece::EventType => path.push_str(&encode_value(Some(event_type))),
                    Piece::Year => path.push_str(&format!("{:04}", start.year())),
                    Piece::Month => path.push_str(&format!("{:02}", start.month())),
                    Piece::Day => path.push_str(&format!("{:02}", start.day())),
                    Piece::Hour => path.push_str(&format!("{:02}", start.hour())),
                    Piece::Minute => path.push_str(&format!("{:02}", start.minute())),
                    Piece::Field(name) => path.push_str(value(name)?),
                }
            }
        }
        Some(path)
    }
}

fn parse_part(part: &str, at: usize) -> Result<Vec<Piece>, Box<Finding>> {
    let wrong = |code, range, message, help| Box::new(finding(code, range, message, help));
    let whole = at..at + part.len();
    let literal_help = "literal text takes letters, digits and `_`, `-`, `.`, `=`";
    if part.is_empty() {
        let help = "write it without a `/` at its ends and without two in a row";
        return Err(wrong("bad-path", whole, "the path has an empty part".into(), help));
    }
    let mut pieces = Vec::new();
    let mut rest = part;
    let (mut literal_bytes, mut variable) = (0, 0);
    while !rest.is_empty() {
        let from = at + part.len() - rest.len();
        if let Some(inside) = rest.strip_prefix('{') {
            let Some(end) = inside.find('}') else {
                return Err(wrong("bad-path", from..whole.end, "`{` without `}`".into(), "close the variable"));
            };
            let piece = Piece::variable(&inside[..end]);
            variable += usize::from(matches!(piece, Piece::EventType | Piece::Field(_)));
            pieces.push(piece);
            rest = &inside[end + 1..];
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            if let Some(odd) = rest[..end].find(|c: char| !is_plain(c)) {
                let message = format!("`{}` can't be part of a path", &rest[odd..].chars().next().unwrap_or_default());
                return Err(wrong("bad-path", from + odd..from + odd + 1, message, literal_help));
            }
            literal_bytes += end;
            pieces.push(Piece::Literal(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    if variable > 1 {
        let message = "two variables of any length in one part: different values could give one path".to_owned();
        return Err(wrong("ambiguous-path", whole, message, "put a `/` between them"));
    }
    if literal_bytes > LITERAL_LIMIT {
        let message = format!("{literal_bytes} bytes of text in one part");
        return Err(wrong("bad-path", whole, message, "at most 80 bytes are taken"));
    }
    if part.starts_with('.') || part.starts_with("rev=") {
        let message = format!("a part can't begin with `{}`", if part.starts_with('.') { "." } else { "rev=" });
        return Err(wrong("bad-path", whole, message, "such names are used by the program itself"));
    }
    Ok(pieces)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=')
}

/// A value as it stands in a path: no two values give the same text (for values over 96 bytes: but for a collision of 128-bit
/// hashes), and none gives an empty part, `.`, `..`, a hidden name, or a name that the sink itself uses.
pub(super) fn encode_value(value: Option<&str>) -> String {
    let Some(value) = value else { return NULL.to_owned() };
    if value.is_empty() {
        return "__empty__".to_owned();
    }
    let special = ["__", ".", "rev="].iter().any(|start| value.starts_with(start)) || value == LATEST_NAME;
    let mut out = String::with_capacity(value.len());
    let mut kept = 0;
    for (at, byte) in value.bytes().enumerate() {
        if is_plain(char::from(byte)) && !(special && at == 0) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        if out.len() <= VALUE_PREFIX {
            kept = out.len();
        }
        if out.len() > VALUE_LIMIT {
            out.truncate(kept);
            return format!("{out}--{:032x}", xxh3_128(value.as_bytes()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_value_leaves_its_part_or_meets_another() {
        let long = "x".repeat(300);
        let longer = format!("{long}y");
        let values = [
            "latest.json",
            "",
            ".",
            "..",
            "../x",
            "/etc",
            "a/b",
            "a%2Fb",
            "__null__",
            "__empty__",
            "%5F_null__",
            ".hidden",
            "rev=0",
            "%72ev=0",
            "é",
            "\0",
            "a b",
            "SE",
            "se",
            "\\",
            &long,
            &longer,
            "a\n",
            "_x",
            "日本",
        ];
        let mut seen = BTreeSet::from([encode_value(None)]);
        for value in values {
            let text = encode_value(Some(value));
            assert!(text.bytes().all(|byte| is_plain(char::from(byte)) || byte == b'%'), "{text}");
            assert!(!text.is_empty() && !text.starts_with('.') && text.len() <= 120, "{text}");
            assert!(!text.starts_with("rev="));
            assert!(seen.insert(text), "{value:?} meets another value");
        }
    }

    #[test]
    fn wrong_templates_are_found_with_their_place() {
        for (text, code, place) in [
            ("/a", "bad-path", 0..0),
            ("a//b", "bad-path", 2..2),
            ("a/../b", "bad-path", 2..4),
            ("a/{x", "bad-path", 2..4),
            ("a/b c", "bad-path", 3..4),
            ("{a}-{b}", "ambiguous-path", 0..7),
            ("rev={year}", "bad-path", 0..10),
        ] {
            let findings = Template::parse(text).unwrap_err();
            assert_eq!((findings[0].code, findings[0].range.clone()), (code, Some(place)), "{text}");
        }
        assert!(Template::parse("{event_type}/{year}-{month}-{day}T{hour}").is_ok());
    }

    #[test]
    fn years_outside_1_to_9999_have_no_path() {
        let template = Template::parse("{year}-{month}-{day}").unwrap();
        let path = |start_ms| template.render("t", Hour { start_ms, width_ms: 1 }, |_| None);
        assert_eq!(path(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(path(-62_135_596_800_000).as_deref(), Some("0001-01-01"));
        assert_eq!(path(-62_135_596_800_001), None);
        assert_eq!(path(253_402_300_799_999 + 86_400_000), None);
    }
}
