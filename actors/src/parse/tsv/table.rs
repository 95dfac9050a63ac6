//! The first pass over a chunk: where the fields of each line are, and which type it has.

use tidemill_core::{Framing, Limits, Message, RawChunk, Reason, StageError};

use super::layout::Layout;
use super::scan;
use crate::parse::config::TypeFrom;
use crate::parse::fault::{Fault, Letters, shown, too_large};
use crate::parse::message::type_number;
use crate::parse::names::Names;
use crate::parse::records;

/// How lines are read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) separator: u8,
    pub(super) header: bool,
    pub(super) type_column: Option<usize>,
    pub(super) type_from: Option<TypeFrom>,
    pub(super) names: Names,
}

/// The lines of a chunk. Kept between calls for its memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Ends of fields, in order; a field begins one byte behind the end before its own.
    pub(super) ends: Vec<u32>,
    /// One a type.
    pub(super) groups: Vec<Group>,
}

/// The lines of one type, in order.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Number of the end of each line's first field.
    pub(super) firsts: Vec<u32>,
    /// Position of each line; empty when that follows from its offset.
    pub(super) positions: Vec<u64>,
}

impl Table {
    /// Finds all fields. Lines that can't be laid out as their type says go to `letters`. Returns the number of records.
    pub(super) fn fill(
        &mut self,
        chunk: &RawChunk,
        reading: &Reading,
        layouts: &[Layout],
        limits: &Limits,
        letters: &mut Letters<'_>,
    ) -> Result<u64, StageError> {
        records::check_size(chunk)?;
        self.ends.clear();
        self.groups.resize_with(layouts.len(), Group::default);
        for group in &mut self.groups {
            group.firsts.clear();
            group.positions.clear();
        }
        let bytes = chunk.bytes.as_slice();
        let mut sorter = Sorter { bytes, reading, layouts, limits, letters, groups: &mut self.groups, received: 0 };
        match &chunk.framing {
            Framing::Lines => {
                let begin = records::first_offset(chunk);
                let headed = reading.header && chunk.origin.first == 0;
                self.ends.push((begin as u32).wrapping_sub(1));
                scan::lines(bytes, reading.separator, &mut self.ends, |ends, first, last| {
                    if headed && first == 1 {
                        sorter.header(ends, first, last);
                    } else {
                        sorter.line(ends, first, last, None);
                    }
                });
            }
            Framing::Messages(messages) => {
                for (span, message) in records::messages(chunk, messages) {
                    self.ends.push((span.start as u32).wrapping_sub(1));
                    let first = self.ends.len();
                    let text = &bytes[span.start..span.end];
                    let separators = memchr::memchr_iter(reading.separator, text);
                    self.ends.extend(separators.map(|at| (span.start + at) as u32));
                    self.ends.push(span.end as u32);
                    sorter.line(&self.ends, first, self.ends.len() - 1, Some(message));
                }
            }
            Framing::AvroBlocks { .. } => return Err(records::wrong_framing("lines or messages, not Avro blocks")),
        }
        Ok(sorter.received)
    }
}

/// Puts lines to the group of their type.
struct Sorter<'a, 'l> {
    bytes: &'a [u8],
    reading: &'a Reading,
    layouts: &'a [Layout],
    limits: &'a Limits,
    letters: &'a mut Letters<'l>,
    groups: &'a mut [Group],
    received: u64,
}

impl Sorter<'_, '_> {
    #[inline]
    fn line(&mut self, ends: &[u32], first: usize, last: usize, message: Option<Message<'_>>) {
        let position = message.map(|message| message.position());
        let (start, feed) = (ends[first - 1].wrapping_add(1) as usize, ends[last] as usize);
        let width = last - first + 1;
        if width == 1 && position.is_none() && records::without_line_end(self.bytes, start, feed) == start {
            return;
        }
        self.received += 1;
        let number = match self.reading.type_column {
            None => match type_number(self.reading.type_from.as_ref(), &self.reading.names, message) {
                None => Some(0),
                Some(Ok(number)) => Some(number),
                Some(Err(fault)) => {
                    let end = records::without_line_end(self.bytes, start, feed);
                    let position = position.unwrap_or_else(|| self.letters.position(start));
                    return self.letters.add(position, None, &fault, &self.bytes[start..end]);
                }
            },
            Some(column) if column < width => {
                let at = first + column;
                let begin = ends[at - 1].wrapping_add(1) as usize;
                let end = ends[at] as usize;
                let end = if at == last { records::without_line_end(self.bytes, begin, end) } else { end };
                self.reading.names.find(&self.bytes[begin..end])
            }
            Some(_) => None,
        };
        match number {
            Some(number) if self.layouts[number].width == width && feed - start <= self.limits.max_event_bytes => {
                let group = &mut self.groups[number];
                group.firsts.push(first as u32);
                group.positions.extend(position);
            }
            number => self.refuse(ends, first, last, number, position),
        }
    }

    #[cold]
    fn refuse(&mut self, ends: &[u32], first: usize, last: usize, number: Option<usize>, position: Option<u64>) {
        let start = ends[first - 1].wrapping_add(1) as usize;
        let end = records::without_line_end(self.bytes, start, ends[last] as usize);
        let width = last - first + 1;
        let layout = number.map(|number| &self.layouts[number]);
        let fault = match (too_large(self.letters.whole_length(end - start), self.limits), layout) {
            (Some(fault), _) => fault,
            // Only a carriage return made the line look too long.
            (None, Some(layout)) if layout.width == width => {
                let group = &mut self.groups[number.unwrap_or(0)];
                group.firsts.push(first as u32);
                group.positions.extend(position);
                return;
            }
            (None, Some(layout)) => {
                let names: Vec<&str> = layout.names().into_iter().map(|name| name.unwrap_or("-")).collect();
                let (name, expected) = (&layout.event_type.name, layout.width);
                let message =
                    format!("the line has {width} columns; type `{name}` has {expected}: {}", names.join(", "));
                Fault::record(Reason::Malformed, message)
            }
            (None, None) => self.no_type(ends, first, last),
        };
        let event_type = layout.map(|layout| &layout.event_type.name);
        let position = position.unwrap_or_else(|| self.letters.position(start));
        self.letters.add(position, event_type, &fault, &self.bytes[start..end]);
    }

    fn no_type(&self, ends: &[u32], first: usize, last: usize) -> Fault {
        let column = self.reading.type_column.unwrap_or(0);
        let at = first + column;
        if at > last {
            let message =
                format!("the line has {} columns, so there is no column {column} with the type", last - first + 1);
            return Fault::record(Reason::Malformed, message);
        }
        let begin = ends[at - 1].wrapping_add(1) as usize;
        let end = records::without_line_end(self.bytes, begin, ends[at] as usize);
        let name = shown(&self.bytes[begin..end]);
        Fault::record(Reason::UnknownType, format!("column {column} names the type {name}, which is not declared here"))
    }

    /// The first line of a partition. A header that matches is no record.
    #[cold]
    fn header(&mut self, ends: &[u32], first: usize, last: usize) {
        let start = ends[first - 1].wrapping_add(1) as usize;
        let end = records::without_line_end(self.bytes, start, ends[last] as usize);
        let line = &self.bytes[start..end];
        let found: Vec<&[u8]> = line.split(|byte| *byte == self.reading.separator).collect();
        let Some(layout) = self.layouts.first() else { return };
        let names = layout.names();
        let matches = names.len() == found.len()
            && names.iter().zip(&found).all(|(name, found)| name.is_none_or(|name| name.as_bytes() == *found));
        if matches {
            return;
        }
        self.received += 1;
        let names: Vec<&str> = names.into_iter().map(|name| name.unwrap_or("-")).collect();
        let separator = char::from(self.reading.separator).to_string();
        let message = format!(
            "the header {} does not match the columns that are expected, {}; correct `columns`, or say `header = false`",
            shown(line),
            shown(names.join(&separator).as_bytes()),
        );
        let position = self.letters.position(start);
        self.letters.add(position, None, &Fault::record(Reason::Malformed, message), line);
    }
}
