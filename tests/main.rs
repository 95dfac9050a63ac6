//! What Tidemill promises, seen from outside: the real binary, real files, other people's readers.

mod support;

mod crash;
mod faults;
mod flights;
mod small_buckets;
mod terminal;
