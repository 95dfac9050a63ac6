//! What Tidemill promises, seen from outside: the real binary, real files, other people's readers.

mod support;

mod audit;
mod bad_input;
mod broken_topologies;
mod cli;
mod closing;
mod crash;
mod custom_sink;
mod dead_letters;
mod display;
mod docs;
mod draining;
mod faults;
mod flights;
mod following;
mod hours;
mod index;
mod kafka;
mod kafka_avro;
mod kafka_sink;
mod late;
mod no_room;
mod ponds;
mod producers;
mod replay;
mod reprocess;
mod small_buckets;
mod suspects;
mod sync_order;
mod take_over;
mod terminal;
mod tiers;
mod tools;
mod workers;
