//! Words of an expression.

use std::ops::Range;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Word(String),
    Integer(i64),
    Float(f64),
    Text(String),
    /// `==`, `!=`, `<`, `<=`, `>`, `>=`, `(`, `)` or `,`.
    Sign(&'static str),
}

/// Something that is wrong at a place of the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Fault {
    pub(super) fn syntax(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { code: "bad-expression", at, message: message.into(), help: None }
    }

    pub(super) fn types(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { code: "type-mismatch", at, message: message.into(), help: None }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// The words with the bytes that they span.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Fault> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let run = |accept: fn(&u8) -> bool| at + bytes[at..].iter().take_while(|byte| accept(byte)).count();
        let (token, end) = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let end = run(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                (Token::Word(text[at..end].to_owned()), end)
            }
            b'0'..=b'9' | b'-' => number(text, at)?,
            quote @ (b'"' | b'\'') => quoted(text, at, char::from(*quote))?,
            _ => sign(text, at)?,
        };
        found.push((token, at..end));
        at = end;
    }
    Ok(found)
}

fn sign(text: &str, at: usize) -> Result<(Token, usize), Fault> {
    let signs = ["==", "!=", "<=", ">=", "<", ">", "(", ")", ","];
    if let Some(sign) = signs.into_iter().find(|sign| text[at..].starts_with(sign)) {
        return Ok((Token::Sign(sign), at + sign.len()));
    }
    let found = text[at..].chars().next().unwrap_or_default();
    let fault = Fault::syntax(at..at + found.len_utf8(), format!("`{found}` has no meaning here"));
    Err(match found {
        '=' => fault.help("write `==` to compare"),
        '&' => fault.help("write `and`"),
        '|' => fault.help("write `or`"),
        '!' => fault.help("write `not`, or `!=` to compare"),
        _ => fault,
    })
}

fn number(text: &str, at: usize) -> Result<(Token, usize), Fault> {
    let bytes = text.as_bytes();
    let mut end = at + 1;
    while let Some(byte) = bytes.get(end) {
        let exponent_sign = matches!(byte, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign) {
            break;
        }
        end += 1;
    }
    let word = &text[at..end];
    let plain = word.replace('_', "");
    let digits = plain.trim_start_matches('-');
    let fault = || Fault::syntax(at..end, format!("`{word}` is not a number"));
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(fault());
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let outside = |_| Fault::syntax(at..end, format!("`{word}` does not fit 64 bits"));
        return Ok((Token::Integer(plain.parse().map_err(outside)?), end));
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Token::Float(value), end)),
        _ => Err(fault()),
    }
}

/// A quote within the text is written twice.
fn quoted(text: &str, at: usize, quote: char) -> Result<(Token, usize), Fault> {
    let mut value = String::new();
    let mut rest = at + 1;
    while let Some(length) = text[rest..].find(quote) {
        value.push_str(&text[rest..rest + length]);
        rest += length + 1;
        if !text[rest..].starts_with(quote) {
            return Ok((Token::Text(value), rest));
        }
        value.push(quote);
        rest += 1;
    }
    Err(Fault::syntax(at..text.len(), format!("the text has no closing {quote}")))
}
