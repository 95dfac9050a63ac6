//! Reading an hour once more.
//!
//! [`Target`]s say what is published of the hour. A run of its own, with a state and an output in a scratch directory, reads the same part of the input with
//! today's topology ([`again()`]), narrowed to what is asked for (`narrow`). What it makes is compared ([`Comparison`]), and given to the owner of the
//! output as a request ([`publish()`]).

mod again;
mod compare;
mod narrow;
mod publish;
mod rows;
mod target;

pub(crate) use again::{Again, Made, again};
pub(crate) use compare::Comparison;
pub(crate) use publish::{Outcome, publish};
pub(crate) use target::{Target, targets};
