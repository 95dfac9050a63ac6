//! The tree of an expression, by precedence climbing: `or` binds loosest, then `and`, then `not`, then comparisons.

use std::cmp::Ordering;
use std::ops::Range;

use super::lexer::{Fault, Token, tokens};

/// How deep parentheses and `not` may be nested.
const MAX_DEPTH: usize = 64;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare {
        left: Operand,
        op: Compare,
        right: Operand,
    },
    In {
        left: Operand,
        items: Vec<Operand>,
    },
    IsNull {
        operand: Operand,
        negated: bool,
    },
    /// A boolean field, `true` or `false` on its own.
    Test(Operand),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A field or a literal, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) value: Value,
    pub(super) at: Range<usize>,
}

/// What an operand is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Field(String),
    Integer(i64),
    Float(f64),
    Text(String),
    Boolean(bool),
}

impl Compare {
    /// The comparison with its sides exchanged.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    /// Whether values in this order fulfil it.
    #[inline]
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len(), depth: 0 };
    let node = parser.either()?;
    match parser.tokens.get(parser.next) {
        None => Ok(node),
        Some((_, at)) => Err(Fault::syntax(at.clone(), format!("`{}` is not expected here", &text[at.clone()]))
            .help("conditions are joined by `and` or `or`")),
    }
}

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn either(&mut self) -> Result<Node, Fault> {
        let mut parts = vec![self.both()?];
        while self.take_word("or") {
            parts.push(self.both()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Or(parts) })
    }

    fn both(&mut self) -> Result<Node, Fault> {
        let mut parts = vec![self.condition()?];
        while self.take_word("and") {
            parts.push(self.condition()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::And(parts) })
    }

    fn condition(&mut self) -> Result<Node, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::syntax(self.here(), format!("the expression is nested more than {MAX_DEPTH} deep")));
        }
        let node = if self.take_word("not") {
            Node::Not(Box::new(self.condition()?))
        } else if self.take_sign("(") {
            let node = self.either()?;
            self.expect_sign(")")?;
            node
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, Fault> {
        let left = self.operand()?;
        if self.take_word("is") {
            let negated = self.take_word("not");
            if !self.take_word("null") {
                return Err(Fault::syntax(self.here(), "`is` is followed by `null` or `not null`"));
            }
            return Ok(Node::IsNull { operand: left, negated });
        }
        if self.take_word("in") {
            self.expect_sign("(")?;
            let mut items = vec![self.operand()?];
            while self.take_sign(",") {
                items.push(self.operand()?);
            }
            self.expect_sign(")")?;
            return Ok(Node::In { left, items });
        }
        let op = match self.tokens.get(self.next) {
            Some((Token::Sign(sign), _)) => Compare::of(sign),
            _ => None,
        };
        let Some(op) = op else { return Ok(Node::Test(left)) };
        self.next += 1;
        let right = self.operand()?;
        Ok(Node::Compare { left, op, right })
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let at = self.here();
        let value = match self.tokens.get(self.next).map(|(token, _)| token) {
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                "null" => {
                    let fault = Fault::syntax(at, "nothing compares with null");
                    return Err(fault.help("write `is null` or `is not null`"));
                }
                "and" | "or" | "not" | "in" | "is" => {
                    return Err(Fault::syntax(at, format!("there is a field or a value missing before `{word}`")));
                }
                _ => Value::Field(word.clone()),
            },
            Some(Token::Integer(value)) => Value::Integer(*value),
            Some(Token::Float(value)) => Value::Float(*value),
            Some(Token::Text(value)) => Value::Text(value.clone()),
            Some(Token::Sign(sign)) => {
                return Err(Fault::syntax(at, format!("there is a field or a value missing before `{sign}`")));
            }
            None => return Err(Fault::syntax(at, "there is a field or a value missing at the end")),
        };
        self.next += 1;
        Ok(Operand { value, at })
    }

    /// Where the next token stands; at the end, the place behind the last one.
    fn here(&self) -> Range<usize> {
        self.tokens.get(self.next).map_or(self.end..self.end, |(_, at)| at.clone())
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((Token::Word(word), _)) if word == keyword);
        self.next += usize::from(there);
        there
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((Token::Sign(found), _)) if *found == sign);
        self.next += usize::from(there);
        there
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), Fault> {
        if self.take_sign(sign) { Ok(()) } else { Err(Fault::syntax(self.here(), format!("`{sign}` is missing here"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (Range<usize>, String) {
        let fault = parse(text).unwrap_err();
        (fault.at, fault.message)
    }

    #[test]
    fn and_binds_tighter_than_or_and_not_tighter_than_both() {
        assert_eq!(parse("a or b and not c"), parse("a or (b and (not c))").map(strip));
        let Ok(Node::Or(parts)) = parse("a or b and not c") else { panic!() };
        assert!(matches!(&parts[1], Node::And(inner) if matches!(inner[1], Node::Not(_))));

        fn strip(mut node: Node) -> Node {
            move_to(&mut node, &mut vec![0..1, 5..6, 15..16].into_iter());
            node
        }
        fn move_to(node: &mut Node, places: &mut impl Iterator<Item = Range<usize>>) {
            match node {
                Node::Or(parts) | Node::And(parts) => parts.iter_mut().for_each(|part| move_to(part, places)),
                Node::Not(inner) => move_to(inner, places),
                Node::Test(operand) => operand.at = places.next().unwrap(),
                _ => unreachable!(),
            }
        }
    }

    #[test]
    fn faults_point_at_the_word() {
        assert_eq!(fault("a = 1").0, 2..3);
        assert_eq!(fault("a == ").0, 5..5);
        assert_eq!(fault("a == 1 b").0, 7..8);
        assert_eq!(fault("(a == 1").0, 7..7);
        assert_eq!(fault("a == 'x").0, 5..7);
        assert_eq!(fault("a == null").0, 5..9);
        assert_eq!(fault("a < 1 < 2").0, 6..7);
        assert_eq!(fault("").0, 0..0);
        assert_eq!(fault("a == 99999999999999999999").0, 5..25);
        assert_eq!(fault("a == ü").0, 5..7);
        assert_eq!(fault("a == -").0, 5..6);
    }

    #[test]
    fn nesting_has_a_limit_and_long_chains_have_none() {
        let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(fault(&deep).1.contains("64"), "{}", fault(&deep).1);
        assert!(fault(&"not ".repeat(100_000)).1.contains("64"));
        assert!(parse(&vec!["a == 1"; 100_000].join(" and ")).is_ok());
    }

    #[test]
    fn a_quote_in_a_text_is_written_twice() {
        let Ok(Node::Compare { right, .. }) = parse("a == 'it''s'") else { panic!() };
        assert_eq!(right.value, Value::Text("it's".into()));
    }
}
