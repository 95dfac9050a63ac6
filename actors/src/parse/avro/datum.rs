//! Avro's binary encoding, read as a plan says.

use std::borrow::Cow;

use tidemill_core::Reason;

use super::resolve::{Blob, Number, Read, RecordPlan, Skip, Step};
use crate::parse::cell::Cell;
use crate::parse::fault::{Fault, shown};
use crate::parse::value;

/// Items that need no bytes (nulls, empty records) may be this many in a block, beyond one for each byte.
const FREE_ITEMS: usize = 1024;

/// Why bytes can't be decoded at all, so that what follows them is lost too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// Reads one datum after the other.
#[derive(Debug)]
pub(super) struct Datums<'d> {
    data: &'d [u8],
    at: usize,
    /// Items that may still be read. Keeps a few bytes from claiming any number of items.
    items: usize,
    /// What is wrong with the datum at hand, although its bytes could be decoded.
    fault: Option<Fault>,
}

impl<'d> Datums<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self { data, at: 0, items: data.len() + FREE_ITEMS, fault: None }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A record as cells, or what keeps it from being one of its type.
    pub(super) fn record(&mut self, plan: &RecordPlan) -> Result<Result<Vec<Cell<'d>>, Fault>, Broken> {
        self.claim(1)?;
        let cells = self.fields(plan)?;
        Ok(match self.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(cells),
        })
    }

    fn claim(&mut self, items: u64) -> Result<(), Broken> {
        let left = usize::try_from(items).ok().and_then(|items| self.items.checked_sub(items));
        self.items = left.ok_or_else(|| Broken(format!("it claims {items} items, more than its bytes can hold")))?;
        Ok(())
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'d [u8], Broken> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.data.len());
        let end =
            end.ok_or_else(|| Broken(format!("{len} bytes should follow byte {}, but it ends before", self.at)))?;
        let bytes = &self.data[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Broken> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(Broken(format!("the number that ends at byte {} has more than 64 bits", self.at)))
    }

    pub(super) fn blob(&mut self) -> Result<&'d [u8], Broken> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| Broken(format!("a length before byte {} is {len}", self.at)))?;
        self.take(len)
    }

    /// Number of items of the next block of an array or map; 0 at its end. Second, its bytes, if it says them.
    fn block(&mut self) -> Result<(u64, Option<i64>), Broken> {
        let count = self.long()?;
        let bytes = if count < 0 { Some(self.long()?) } else { None };
        Ok((count.unsigned_abs(), bytes))
    }

    fn branch<T>(&mut self, branches: &[T]) -> Result<usize, Broken> {
        let number = self.long()?;
        let branch = usize::try_from(number).ok().filter(|at| *at < branches.len());
        branch.ok_or_else(|| Broken(format!("branch {number} of a union of {} is chosen", branches.len())))
    }

    #[cold]
    fn refuse(&mut self, fault: Fault) -> Cell<'d> {
        self.fault.get_or_insert(fault);
        Cell::Null
    }

    fn fields(&mut self, plan: &RecordPlan) -> Result<Vec<Cell<'d>>, Broken> {
        let mut cells: Vec<Cell<'d>> = plan.defaults.iter().map(Cell::clone).collect();
        for step in &plan.steps {
            match step {
                Step::Skip(skip) => self.skip(skip)?,
                Step::Read(at, name, read) => {
                    let before = self.fault.is_some();
                    cells[*at] = self.read(read, name)?;
                    if !before && let Some(fault) = self.fault.take() {
                        self.fault = Some(match read {
                            read if read.is_nested() && !fault.is_of(name) => fault.inside(name),
                            _ => fault,
                        });
                    }
                }
            }
        }
        Ok(cells)
    }

    fn read(&mut self, read: &Read, name: &str) -> Result<Cell<'d>, Broken> {
        Ok(match read {
            Read::Null => Cell::Null,
            Read::Boolean => match self.array()? {
                [0] => Cell::Boolean(false),
                [1] => Cell::Boolean(true),
                [other] => return Err(Broken(format!("the boolean before byte {} is {other}", self.at))),
            },
            Read::Int(number) => {
                let value = self.long()?;
                if i32::try_from(value).is_err() {
                    return Err(Broken(format!("the int before byte {} has more than 32 bits", self.at)));
                }
                self.number(*number, value, name)
            }
            Read::Long(number) => {
                let value = self.long()?;
                self.number(*number, value, name)
            }
            Read::Float => Cell::Float(f32::from_le_bytes(self.array()?)),
            Read::FloatAsDouble => Cell::Double(f32::from_le_bytes(self.array()?).into()),
            Read::Double => Cell::Double(f64::from_le_bytes(self.array()?)),
            Read::Bytes(blob) => {
                let bytes = self.blob()?;
                self.bytes(*blob, bytes, name)
            }
            Read::Fixed(size, blob) => {
                let bytes = self.take(*size)?;
                self.bytes(*blob, bytes, name)
            }
            Read::Enum(symbols) => {
                let at = self.branch(symbols)?;
                match &symbols[at] {
                    Ok(number) => Cell::Int(*number),
                    Err(symbol) => {
                        let fault = Fault::value(name, symbol.as_bytes(), "a symbol of the type's enum");
                        self.refuse(fault)
                    }
                }
            }
            Read::Array(item) => {
                let mut cells = Vec::new();
                loop {
                    let (count, _) = self.block()?;
                    if count == 0 {
                        break Cell::List(cells);
                    }
                    self.claim(count)?;
                    for _ in 0..count {
                        cells.push(self.read(item, name)?);
                    }
                }
            }
            Read::Map(value) => {
                let mut entries = Vec::new();
                loop {
                    let (count, _) = self.block()?;
                    if count == 0 {
                        break Cell::Map(entries);
                    }
                    self.claim(count)?;
                    for _ in 0..count {
                        let key = self.blob()?;
                        let Ok(text) = std::str::from_utf8(key) else {
                            let fault = Fault::value(name, key, "valid UTF-8");
                            self.refuse(fault);
                            self.read(value, name)?;
                            continue;
                        };
                        entries.push((Cow::Borrowed(text), self.read(value, name)?));
                    }
                }
            }
            Read::Record(plan) => Cell::Record(self.fields(plan)?),
            Read::Union(branches) => {
                let at = self.branch(branches)?;
                self.read(&branches[at], name)?
            }
            Read::Refuse(skip, message) => {
                self.skip(skip)?;
                self.refuse(Fault::field(Reason::BadValue, name, message.clone()))
            }
        })
    }

    fn number(&mut self, number: Number, value: i64, name: &str) -> Cell<'d> {
        match number {
            Number::Int => Cell::Int(value as i32),
            Number::Long => Cell::Long(value),
            Number::Float => Cell::Float(value as f32),
            Number::Double => Cell::Double(value as f64),
            Number::Divided(by) => Cell::Long(value.div_euclid(by)),
            Number::Times(factor) => match value.checked_mul(factor) {
                Some(value) => Cell::Long(value),
                None => {
                    let fault = Fault::value(name, value.to_string().as_bytes(), "a time that its unit can hold");
                    self.refuse(fault)
                }
            },
        }
    }

    fn bytes(&mut self, blob: Blob, bytes: &'d [u8], name: &str) -> Cell<'d> {
        let text = || std::str::from_utf8(bytes).ok();
        let (cell, wanted) = match blob {
            Blob::Bytes => (Some(Cell::Bytes(Cow::Borrowed(bytes))), "bytes"),
            Blob::Text => (text().map(|text| Cell::Text(Cow::Borrowed(text))), "valid UTF-8"),
            Blob::Uuid => {
                let cell = match <&[u8; 16]>::try_from(bytes) {
                    Ok(bytes) => Some(Cell::Text(Cow::Owned(value::uuid_text(bytes)))),
                    Err(_) => text()
                        .filter(|text| value::is_uuid(text.as_bytes()))
                        .map(|text| Cell::Text(Cow::Borrowed(text))),
                };
                (cell, "a UUID")
            }
            Blob::Decimal(precision) => {
                let number = unscaled(bytes).filter(|value| value::fits(*value, precision));
                (number.map(Cell::Decimal), "a decimal of the type's precision")
            }
        };
        cell.unwrap_or_else(|| {
            self.refuse(Fault::field(Reason::BadValue, name, format!("{} is not {wanted}", shown(bytes))))
        })
    }

    fn skip(&mut self, skip: &Skip) -> Result<(), Broken> {
        match skip {
            Skip::Bytes(count) => drop(self.take(*count)?),
            Skip::Number => drop(self.long()?),
            Skip::Blob => drop(self.blob()?),
            Skip::All(parts) => {
                for part in parts {
                    self.skip(part)?;
                }
            }
            Skip::Union(branches) => {
                let at = self.branch(branches)?;
                self.skip(&branches[at])?;
            }
            Skip::Items(item) => loop {
                match self.block()? {
                    (0, _) => break,
                    (_, Some(bytes)) => {
                        let len = usize::try_from(bytes).map_err(|_| Broken(format!("a block has {bytes} bytes")))?;
                        self.take(len)?;
                    }
                    (count, None) => {
                        self.claim(count)?;
                        for _ in 0..count {
                            self.skip(item)?;
                        }
                    }
                }
            },
        }
        Ok(())
    }
}

/// A two's-complement big-endian number.
pub(super) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut wide = [sign; 16];
    wide[16 - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(wide);
    let extends = head.iter().all(|byte| *byte == sign) && (value < 0) == (sign != 0);
    extends.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_two_s_complement_of_any_length() {
        assert_eq!(unscaled(&[]), Some(0));
        assert_eq!(unscaled(&[0xff]), Some(-1));
        assert_eq!(unscaled(&[0x00, 0xff]), Some(255));
        assert_eq!(unscaled(&[0xff; 20]), Some(-1));
        assert_eq!(unscaled(&[&[0x00; 4][..], &[0xff; 16]].concat()), None);
    }

    #[test]
    fn numbers_have_at_most_64_bits() {
        let long = |bytes: &[u8]| Datums::new(bytes).long();
        assert_eq!(long(&[0x01]), Ok(-1));
        assert_eq!(long(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MAX));
        assert!(long(&[0xff; 11]).is_err());
        assert!(long(&[0x80]).is_err());
    }
}
