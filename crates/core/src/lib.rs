//! The vocabulary of Tidemill and the traits that sources, stages and sinks implement.
//!
//! This crate does no I/O and knows no actors. It is all that a custom stage or sink depends on:
//! the runtime calls what is defined here, never the other way round.
//!
//! ```text
//!   Source --Input::Raw--> Stage (parse) --Input::Rows--> Stage --> ... --> Stage/Sink
//!              positions                    Effects: batches, dead letters, log appends, publications
//! ```

mod avro_schema;
mod batch;
mod cluster;
mod dead_letter;
mod effects;
mod event_type;
mod hour;
mod id_hash;
mod kind;
mod late;
mod message;
mod moved;
mod pieces;
mod producers;
mod schema;
mod seal;
mod sink;
mod source;
mod stage;
mod state_key;
mod totals;

pub use avro_schema::parse_avro_schema;
pub use batch::{Batch, Framing, Input, Origin, RawChunk, RowOrigins};
pub use cluster::{Clusters, Properties, UnknownCluster, shown_property};
pub use dead_letter::{DEAD_LETTER_TYPE, DeadLetter, Reason, dead_letter_batch, dead_letter_type};
pub use effects::{Account, Accounts, Counted, Effects, Home, HourNote, LogName, Publication, Tally};
pub use event_type::{EventType, Tier, TypeError, schema_fingerprint};
pub use hour::{GAP_HOURS_MAX, Hour, format_time_ms, parse_duration_ms, parse_size_bytes, parse_time_ms};
pub use id_hash::{IdSum, KeyColumns, ids_algorithm, key_hash};
pub use kind::{
    DefaultValue, Finding, KindSpec, OptionSpec, OptionType, Options, OptionsError, Role, Severity, Shape, State,
};
pub use late::{Late, LatePolicy, RevisionMode};
pub use message::{Message, MessageTable, MessageTime, Messages, SCHEMA_MAGIC, Span, framed};
pub use moved::{Idle, Moved, Reported};
pub use pieces::{NoPieces, PieceChanges, PieceReader};
pub use producers::{ProducerColumn, Producers};
pub use schema::{DecimalRepr, Field, FieldKind, Nullability, SchemaError, TimeColumn, fields_of};
pub use seal::{
    Horizon, PONDS, PRODUCERS_OF, PartitionPosition, Partitions, Positions, Request, SealReason, Seals, SourcePositions,
};
pub use sink::{CutId, DeliveryId, Guarantee, Refused, Resume, Sink, SinkContext, SinkError, SinkKind};
pub use source::{Cure, Lag, Polled, Source, SourceContext, SourceError, SourceKind, Stretch};
pub use stage::{Limits, LogReader, Stage, StageContext, StageError, StageInput, StageKind};
pub use state_key::StateKey;
pub use totals::{Counts, HourTotals, Totals};
