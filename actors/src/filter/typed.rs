//! An expression bound to the fields of one type.

use tidemill_core::{EventType, Field, FieldKind};

use super::lexer::Fault;
use super::literal::Bound;
use super::nearest::{nearest, unknown_field_help};
use super::parser::{Compare, Node, Operand, Value};

/// A condition over columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Typed {
    Or(Vec<Typed>),
    And(Vec<Typed>),
    Not(Box<Typed>),
    Constant(bool),
    IsNull {
        column: usize,
        negated: bool,
    },
    /// A column against literals.
    Test {
        column: usize,
        test: Test,
    },
    /// Two columns of one domain.
    Columns {
        left: usize,
        op: Compare,
        right: usize,
    },
}

/// A test of the values of one column. A null is neither true nor false.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// The same for every value.
    Fixed(bool),
    Whole {
        op: Compare,
        value: i64,
    },
    WholeIn(Vec<i64>),
    Real {
        op: Compare,
        value: f64,
    },
    RealIn(Vec<f64>),
    Text {
        op: Compare,
        value: String,
    },
    TextIn(Vec<String>),
    /// For each symbol of an enum.
    Symbols(Vec<bool>),
    Boolean(bool),
}

/// What can be compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Domain {
    Number,
    Text,
    Boolean,
    Time,
    Date,
}

/// Binds an expression; `None` when there are faults.
pub(super) fn bind(node: &Node, of: &EventType, faults: &mut Vec<Fault>) -> Option<Typed> {
    let before = faults.len();
    let typed = Binder { of, faults }.node(node);
    typed.filter(|_| faults.len() == before)
}

struct Binder<'a> {
    of: &'a EventType,
    faults: &'a mut Vec<Fault>,
}

impl Binder<'_> {
    fn node(&mut self, node: &Node) -> Option<Typed> {
        match node {
            Node::Or(parts) => self.nodes(parts).map(Typed::Or),
            Node::And(parts) => self.nodes(parts).map(Typed::And),
            Node::Not(inner) => Some(Typed::Not(Box::new(self.node(inner)?))),
            Node::Test(operand) => self.condition(operand),
            Node::IsNull { operand, negated } => {
                let (column, _) = self.field(operand)?;
                Some(Typed::IsNull { column, negated: *negated })
            }
            Node::In { left, items } => self.membership(left, items),
            Node::Compare { left, op, right } => self.comparison(left, *op, right),
        }
    }

    /// All parts are looked at, so that every fault is found.
    fn nodes(&mut self, parts: &[Node]) -> Option<Vec<Typed>> {
        let parts: Vec<Option<Typed>> = parts.iter().map(|part| self.node(part)).collect();
        parts.into_iter().collect()
    }

    fn fault<T>(&mut self, fault: Fault) -> Option<T> {
        self.faults.push(fault);
        None
    }

    /// The field that an operand must be.
    fn field(&mut self, operand: &Operand) -> Option<(usize, FieldKind)> {
        let Value::Field(name) = &operand.value else {
            let message = "there must be a field here, not a value";
            return self.fault(Fault::types(operand.at.clone(), message));
        };
        match self.of.field(name) {
            Some((column, Field { kind, .. })) => Some((column, kind.clone())),
            None => self.fault(Fault {
                code: "unknown-field",
                at: operand.at.clone(),
                message: format!("type `{}` has no field `{name}`", self.of.name),
                help: Some(unknown_field_help(name, self.of)),
            }),
        }
    }

    /// A field that can be compared.
    fn comparable(&mut self, operand: &Operand) -> Option<(usize, FieldKind, Domain)> {
        let (column, kind) = self.field(operand)?;
        let Some(domain) = domain(&kind) else {
            let message =
                format!("field `{}` of type `{}` is {}", self.name(column), self.of.name, with_article(&kind));
            let fault = Fault::types(operand.at.clone(), format!("{message}, which can't be compared"));
            return self.fault(fault.help("only `is null` and `is not null` work with it"));
        };
        Some((column, kind, domain))
    }

    fn condition(&mut self, operand: &Operand) -> Option<Typed> {
        if let Value::Boolean(value) = operand.value {
            return Some(Typed::Constant(value));
        }
        if !matches!(operand.value, Value::Field(_)) {
            return self.fault(Fault::types(operand.at.clone(), "a value alone is no condition"));
        }
        let (column, kind) = self.field(operand)?;
        if kind != FieldKind::Boolean {
            let message = format!(
                "field `{}` of type `{}` is {}, which is no condition by itself",
                self.name(column),
                self.of.name,
                with_article(&kind)
            );
            return self.fault(Fault::types(operand.at.clone(), message).help("compare it with something"));
        }
        Some(Typed::Test { column, test: Test::Boolean(true) })
    }

    fn comparison(&mut self, left: &Operand, op: Compare, right: &Operand) -> Option<Typed> {
        match (&left.value, &right.value) {
            (Value::Field(_), Value::Field(_)) => {
                let (first, second) = (self.comparable(left), self.comparable(right));
                let ((left, left_kind, domain), (other, right_kind, right_domain)) = (first?, second?);
                if domain != right_domain {
                    let message =
                        format!("{} can't be compared with {}", with_article(&right_kind), with_article(&left_kind));
                    return self.fault(Fault::types(right.at.clone(), message));
                }
                self.ordered(domain, op, right)?;
                Some(Typed::Columns { left, op, right: other })
            }
            (Value::Field(_), _) => {
                let (column, kind, domain) = self.comparable(left)?;
                self.ordered(domain, op, right)?;
                Some(Typed::Test { column, test: self.test(column, &kind, op, right)? })
            }
            (_, Value::Field(_)) => self.comparison(right, op.flipped(), left),
            _ => {
                let at = left.at.start..right.at.end;
                self.fault(Fault::types(at, "two values are compared: one side must be a field"))
            }
        }
    }

    fn ordered(&mut self, domain: Domain, op: Compare, at: &Operand) -> Option<()> {
        if domain == Domain::Boolean && !matches!(op, Compare::Equal | Compare::NotEqual) {
            let fault = Fault::types(at.at.clone(), "true and false have no order");
            return self.fault(fault.help("use `==` or `!=`"));
        }
        Some(())
    }

    fn test(&mut self, column: usize, kind: &FieldKind, op: Compare, literal: &Operand) -> Option<Test> {
        match (kind, &literal.value) {
            (FieldKind::Int | FieldKind::Long, Value::Integer(value)) => Some(Bound::of_integer(*value).test(op)),
            (FieldKind::Int | FieldKind::Long, Value::Float(value)) => Some(Bound::of_float(*value).test(op)),
            (FieldKind::Float | FieldKind::Double, _) => {
                self.real(column, kind, literal).map(|value| Test::Real { op, value })
            }
            (FieldKind::TimestampMillis | FieldKind::TimestampMicros | FieldKind::Date, _) => {
                Some(self.bound(column, kind, literal)?.test(op))
            }
            (FieldKind::String | FieldKind::Uuid, Value::Text(value)) => Some(Test::Text { op, value: value.clone() }),
            (FieldKind::Enum(symbols), Value::Text(value)) => {
                if matches!(op, Compare::Equal | Compare::NotEqual) {
                    self.symbol(symbols, value, literal)?;
                }
                Some(Test::Symbols(symbols.iter().map(|symbol| op.holds(symbol.cmp(value))).collect()))
            }
            (FieldKind::Boolean, Value::Boolean(value)) => Some(Test::Boolean(*value == (op == Compare::Equal))),
            _ => self.mismatch(column, kind, literal),
        }
    }

    fn membership(&mut self, left: &Operand, items: &[Operand]) -> Option<Typed> {
        let (column, kind, _) = self.comparable(left)?;
        let before = self.faults.len();
        let test = match &kind {
            FieldKind::Float | FieldKind::Double => {
                Test::RealIn(items.iter().filter_map(|item| self.real(column, &kind, item)).collect())
            }
            FieldKind::String | FieldKind::Uuid => {
                Test::TextIn(items.iter().filter_map(|item| self.text(column, &kind, item)).collect())
            }
            FieldKind::Enum(symbols) => {
                let texts: Vec<String> = items.iter().filter_map(|item| self.text(column, &kind, item)).collect();
                for (text, item) in texts.iter().zip(items) {
                    self.symbol(symbols, text, item);
                }
                Test::Symbols(symbols.iter().map(|symbol| texts.contains(symbol)).collect())
            }
            FieldKind::Boolean => {
                let message = "a boolean field is a condition by itself: `in` has no use here";
                return self.fault(Fault::types(left.at.clone(), message));
            }
            _ => {
                let bounds = items.iter().filter_map(|item| self.bound(column, &kind, item));
                Test::WholeIn(bounds.filter_map(Bound::whole).collect())
            }
        };
        (self.faults.len() == before).then_some(Typed::Test { column, test })
    }

    fn bound(&mut self, column: usize, kind: &FieldKind, literal: &Operand) -> Option<Bound> {
        let (bound, form) = match (kind, &literal.value) {
            (FieldKind::Int | FieldKind::Long, Value::Integer(value)) => return Some(Bound::of_integer(*value)),
            (FieldKind::Int | FieldKind::Long, Value::Float(value)) => return Some(Bound::of_float(*value)),
            (FieldKind::TimestampMillis, Value::Text(text)) => (Bound::of_time(text, 1_000_000), "a time such as"),
            (FieldKind::TimestampMicros, Value::Text(text)) => (Bound::of_time(text, 1_000), "a time such as"),
            (FieldKind::Date, Value::Text(text)) => (Bound::of_date(text), "a date such as"),
            _ => return self.mismatch(column, kind, literal),
        };
        let example = if *kind == FieldKind::Date { "\"2024-02-29\"" } else { "\"2024-02-29T12:00:00Z\"" };
        match bound {
            Some(bound) => Some(bound),
            None => self.fault(Fault::types(literal.at.clone(), format!("this is not {form} {example}"))),
        }
    }

    fn real(&mut self, column: usize, kind: &FieldKind, literal: &Operand) -> Option<f64> {
        match literal.value {
            Value::Float(value) => Some(value),
            Value::Integer(value) if value as f64 as i128 == i128::from(value) => Some(value as f64),
            Value::Integer(value) => {
                self.fault(Fault::types(literal.at.clone(), format!("{value} has no exact value as a {}", kind.name())))
            }
            _ => self.mismatch(column, kind, literal),
        }
    }

    fn text(&mut self, column: usize, kind: &FieldKind, literal: &Operand) -> Option<String> {
        match &literal.value {
            Value::Text(text) => Some(text.clone()),
            _ => self.mismatch(column, kind, literal),
        }
    }

    fn symbol(&mut self, symbols: &[String], value: &str, literal: &Operand) -> Option<()> {
        if symbols.iter().any(|symbol| symbol == value) {
            return Some(());
        }
        let help = match nearest(value, symbols.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("the symbols are {}", symbols.join(", ")),
        };
        let message = format!("the enum has no symbol \"{value}\"");
        self.fault(Fault { code: "unknown-symbol", ..Fault::types(literal.at.clone(), message) }.help(help))
    }

    fn mismatch<T>(&mut self, column: usize, kind: &FieldKind, literal: &Operand) -> Option<T> {
        let found = match literal.value {
            Value::Field(_) => "a field",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::Boolean(_) => "true or false",
        };
        let (field, of) = (self.name(column), &self.of.name);
        let message = format!("field `{field}` of type `{of}` is {}, this is {found}", with_article(kind));
        self.fault(Fault::types(literal.at.clone(), message))
    }

    fn name(&self, column: usize) -> String {
        self.of.fields[column].name.clone()
    }
}

fn with_article(kind: &FieldKind) -> String {
    let name = kind.name();
    let article = if name.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {name}")
}

fn domain(kind: &FieldKind) -> Option<Domain> {
    Some(match kind {
        FieldKind::Int | FieldKind::Long | FieldKind::Float | FieldKind::Double => Domain::Number,
        FieldKind::String | FieldKind::Uuid | FieldKind::Enum(_) => Domain::Text,
        FieldKind::Boolean => Domain::Boolean,
        FieldKind::TimestampMillis | FieldKind::TimestampMicros => Domain::Time,
        FieldKind::Date => Domain::Date,
        FieldKind::Bytes
        | FieldKind::Fixed(_)
        | FieldKind::Decimal { .. }
        | FieldKind::Array(_)
        | FieldKind::Map(_)
        | FieldKind::Record(_) => return None,
    })
}
