//! What a Reader reads from: a source, a pond, or requests for replays.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Counts, Cure, Idle, Input, Lag, Moved, PartitionPosition, Polled, Source, SourceError};

use crate::audit::{Books, Mismatch};
use crate::engine::panic_text;
use crate::horizon::Closing;
use crate::item::Part;
use crate::pond::reader::{Drawn, Heard, PARTITION, PondReader};
use crate::progress::Seen;
use crate::replay::{ReplayReader, Replayed};

/// How long a pond that is empty is left alone at most, unless it says that there is more.
const EMPTY: Duration = Duration::from_secs(1);
/// Records of a pond are handed on together until they have so many bytes, about as many as a chunk of a source, or this part of what may be in flight.
const TOGETHER_BYTES: u64 = 1 << 20;
const TOGETHER_PART: u64 = 4;

/// See the module.
pub(crate) enum Intake {
    Source(Box<dyn Source>),
    Pond(Box<PondReader>),
    Replay(Box<ReplayReader>),
}

/// What it had to give.
pub(crate) enum Taken {
    /// To be handed on together, with the bytes that they count as. Event times of events are seen here; those of what is yet to be parsed,
    /// by the stage that parses.
    Parts {
        parts: Vec<Part>,
        bytes: u64,
        seen: Vec<Seen>,
        books: Books,
        /// Barriers of the region that fills the pond that are behind us with it, when we have come to its end.
        barriers: u64,
    },
    /// A dead letter, to be handed to the stage of that name, with the bytes that it counts as.
    Letter(Part, Arc<str>, u64),
    /// Hours are sealed here: nothing comes before a barrier says so.
    Seals(Closing),
    Idle(Duration),
    Ended,
}

/// Where it is.
pub(crate) struct Place {
    /// What has moved since it was asked last, behind what was taken.
    pub(crate) moved: Moved,
    /// What barriers in a pond have said.
    pub(crate) heard: Arc<Heard>,
}

/// Partitions that give nothing.
#[derive(Default)]
pub(crate) struct Still {
    /// Those that hold no hour.
    pub(crate) idle: Idle,
    /// For how long the others have given nothing and proven nothing.
    pub(crate) silent: BTreeMap<Arc<str>, Duration>,
}

/// What an intake waits for, and how far its partitions are behind.
type Outlook = (Option<String>, BTreeMap<Arc<str>, Lag>);

impl Intake {
    /// Takes what is next; `replay_bytes` may be in flight.
    pub(crate) fn take(&mut self, bucket_ms: i64, replay_bytes: u64) -> Result<Taken, SourceError> {
        caught(|| match self {
            Self::Source(source) => Ok(match source.poll()? {
                Polled::Chunk(chunk) => {
                    let bytes = chunk.bytes.len() as u64;
                    let input = Input::Raw(chunk);
                    let mut books = Books::default();
                    books.give(&input, bucket_ms);
                    Taken::Parts { parts: vec![Part::Live(input)], bytes, seen: Vec::new(), books, barriers: 0 }
                }
                Polled::Idle(pause) => Taken::Idle(pause),
                Polled::Ended => Taken::Ended,
            }),
            Self::Pond(pond) => drawn(pond, bucket_ms, TOGETHER_BYTES.min(replay_bytes / TOGETHER_PART)),
            Self::Replay(letters) => Ok(match letters.draw()? {
                Replayed::Letter(input, stage) => {
                    let bytes = input.weight_bytes() as u64;
                    Taken::Letter(Part::Live(input), stage, bytes)
                }
                Replayed::Empty(pause) => Taken::Idle(pause),
                Replayed::Ended => Taken::Ended,
            }),
        })
    }

    pub(crate) fn place(&mut self) -> Result<Place, SourceError> {
        caught(|| {
            let moved = |positions| Moved { positions, gone: BTreeSet::new() };
            Ok(match self {
                Self::Source(source) => Place { moved: source.moved(), heard: Arc::default() },
                Self::Pond(pond) => {
                    let at = BTreeMap::from([(PARTITION.into(), pond.position())]);
                    Place { moved: moved(at), heard: pond.heard().clone() }
                }
                Self::Replay(letters) => Place { moved: moved(letters.positions()), heard: Arc::default() },
            })
        })
    }

    pub(crate) fn still(&self) -> Result<Still, SourceError> {
        caught(|| {
            Ok(match self {
                Self::Source(source) => Still { idle: source.idle(), silent: source.silent_partitions() },
                Self::Pond(_) | Self::Replay(_) => Still::default(),
            })
        })
    }

    /// A barrier carries the seals at which it stands.
    pub(crate) fn pass(&mut self) {
        if let Self::Pond(pond) = self {
            pond.pass();
        }
    }

    /// What has come out of a pond and is not what was written into it, since it was asked last.
    pub(crate) fn damage(&mut self) -> Vec<Mismatch> {
        match self {
            Self::Pond(pond) => pond.damage(),
            Self::Source(_) | Self::Replay(_) => Vec::new(),
        }
    }

    /// A cut with these positions is committed.
    pub(crate) fn committed(&mut self, positions: &BTreeMap<Arc<str>, PartitionPosition>) -> Result<(), SourceError> {
        caught(|| {
            if let Self::Source(source) = self {
                source.committed(positions);
            }
            Ok(())
        })
    }

    /// Where its partitions end, of a run to the end; `None` as long as it does not know.
    pub(crate) fn ends(&self) -> Result<Option<BTreeMap<Arc<str>, u64>>, SourceError> {
        caught(|| {
            Ok(match self {
                Self::Source(source) => source.ends(),
                Self::Pond(_) | Self::Replay(_) => None,
            })
        })
    }

    /// What it waits for, and how far it is behind.
    pub(crate) fn look(&self) -> Result<Outlook, SourceError> {
        caught(|| {
            Ok(match self {
                Self::Source(source) => (source.waits_for(), source.lag()),
                Self::Pond(_) | Self::Replay(_) => (None, BTreeMap::new()),
            })
        })
    }
}

/// Records of a pond, as many as are there. Where events come a few at a time, a pond has a record for each few, and a sink that waited for an answer
/// about each of them would not keep up.
fn drawn(pond: &mut PondReader, bucket_ms: i64, enough_bytes: u64) -> Result<Taken, SourceError> {
    let (mut parts, mut bytes, mut seen, mut books) = (Vec::new(), 0, Vec::new(), Books::default());
    let (mut barriers, mut is_at_end) = (0, false);
    while bytes < enough_bytes.max(1) {
        // What ends it is drawn again when it is the first.
        let is_first = bytes == 0;
        match pond.draw() {
            Ok(Drawn::Rows(batch, id, length)) => {
                seen.extend(Seen::of(&batch, Counts::of(&batch, bucket_ms).hours(), None));
                let input = Input::Rows(batch);
                books.give(&input, bucket_ms);
                parts.push(Part::Delivery(input, id));
                bytes += length;
            }
            Ok(Drawn::Note(note, length)) => {
                parts.push(Part::Live(Input::Note(note)));
                bytes += length;
            }
            Ok(Drawn::Barrier(length)) => {
                bytes += length;
                barriers += 1;
            }
            Ok(Drawn::Seals(closing)) if is_first => return Ok(Taken::Seals(closing)),
            Ok(Drawn::Empty) if is_first => return Ok(Taken::Idle(EMPTY)),
            Ok(Drawn::Ended) if is_first => return Ok(Taken::Ended),
            Err(error) if is_first => return Err(error),
            Ok(Drawn::Seals(_) | Drawn::Empty | Drawn::Ended) | Err(_) => {
                is_at_end = true;
                break;
            }
        }
    }
    books.damage = pond.damage();
    // Who is behind does not wait for them.
    Ok(Taken::Parts { parts, bytes, seen, books, barriers: if is_at_end { barriers } else { 0 } })
}

/// Calls into a source; a panic is an error that may be tried again.
pub(crate) fn caught<T>(call: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(SourceError { message: panic_text(&*panic), cure: Cure::Reopen, source: None }))
}
