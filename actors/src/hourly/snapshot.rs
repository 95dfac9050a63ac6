//! What `hourly` writes whole at each cut: one version byte, then what is below in postcard. Hours are in pieces
//! (`state`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{Origin, RevisionMode, StageError};

use super::stage::HourlyStage;
use super::state::{OpenHour, Phase};
use crate::by_hour::hour_and_type;
use crate::dedup::first_open_ms;

const VERSION: u8 = 4;

/// Groups and measures; types; the rows.
type Kept = (Vec<String>, Vec<KeptType>, KeptRows);

#[derive(Serialize, Deserialize)]
struct KeptRows {
    sealed_before_ms: i64,
    given_up_ms: i64,
    /// How they are revised: by rows to be added to others, by rows that stand for all before them, or by rows of
    /// types that had none.
    revised: Revised,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Revised {
    Appended,
    Added,
    Restated,
}

impl Revised {
    fn of(stage: &HourlyStage) -> Self {
        match stage.output.late.mode {
            RevisionMode::Replace => Self::Restated,
            RevisionMode::Delta => Self::Added,
            RevisionMode::Append => Self::Appended,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct KeptType {
    name: Arc<str>,
    sealed_before_ms: i64,
    given_up_ms: i64,
    /// Source, partition, first and next position of its last batch.
    last_origin: Option<(Arc<str>, Arc<str>, u64, u64)>,
}

pub(super) fn write(stage: &HourlyStage) -> Result<Vec<u8>, StageError> {
    let types = stage.inputs.iter().map(|input| KeptType {
        name: input.name.clone(),
        sealed_before_ms: input.sealed_before_ms,
        given_up_ms: input.given_up_ms,
        last_origin: (input.last_origin.as_deref())
            .map(|origin| (origin.source.clone(), origin.partition.clone(), origin.first, origin.next)),
    });
    let rows = KeptRows {
        sealed_before_ms: stage.sealed_before_ms,
        given_up_ms: stage.given_up_ms,
        revised: Revised::of(stage),
    };
    let kept: Kept = (stage.plan.shape(), types.collect(), rows);
    postcard::to_extend(&kept, vec![VERSION]).map_err(|error| unwritten(error.into()))
}

pub(super) fn unwritten(error: Box<dyn std::error::Error + Send + Sync>) -> StageError {
    StageError { message: "can't write the state of the open hours".into(), source: Some(error) }
}

pub(super) fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> StageError {
    StageError { message: "can't read the state of the open hours".into(), source: Some(error) }
}

/// Gives a new stage the state of a snapshot.
pub(super) fn read(stage: &mut HourlyStage, snapshot: &[u8]) -> Result<(), StageError> {
    let Some((&VERSION, bytes)) = snapshot.split_first() else {
        return Err(StageError::new(format!(
            "the snapshot has version {:?}, this program reads version {VERSION}: start with the program that wrote it",
            snapshot.first()
        )));
    };
    let (shape, types, rows): Kept = postcard::from_bytes(bytes).map_err(|error| unread(error.into()))?;
    if shape != stage.plan.shape() {
        return Err(StageError::new(format!(
            "the state was made for {shape:?}, the topology asks for {:?}: change it back or start afresh",
            stage.plan.shape()
        )));
    }
    let is_same_way = rows.revised == Revised::of(stage);
    let place = |name: &str| stage.inputs.iter().position(|input| *input.name == *name);
    let places: Vec<Option<usize>> = types.iter().map(|kept| place(&kept.name)).collect();
    let have_left_ms = first_open_ms(rows.sealed_before_ms, stage.limits.bucket_ms);
    // Rows that stand for all of their hour can't be made any more where some were let go.
    let mut given_up_ms = rows.given_up_ms;
    for piece in stage.pieces.names("h/") {
        let name = &piece[2..];
        let no_hour = || StageError::new(format!("the state has a piece `{piece}`, which names no hour"));
        let (start_ms, input) = hour_and_type(name).ok_or_else(no_hour)?;
        let hour = OpenHour::read(&stage.plan, name, &*stage.pieces)?;
        let place = place(input);
        let is_dropped = hour.phase() == Phase::Kept && (place.is_none() || !is_same_way);
        if is_dropped {
            if place.is_none() {
                given_up_ms = given_up_ms.max(i64::saturating_add(start_ms, stage.limits.bucket_ms));
            }
            hour.remove(name, &mut stage.gone);
            continue;
        }
        let Some(place) = place else {
            return Err(StageError::new(format!(
                "hours of type `{input}` are open, but it does not arrive any more: let it arrive, or start afresh"
            )));
        };
        match hour.phase() {
            Phase::Open if start_ms >= have_left_ms => {}
            Phase::Open | Phase::Revising if !is_same_way => {
                return Err(StageError::new(
                    "events wait to be published as a revision of their hour, and how was changed (`late`, \
                     `late_rows`): change it back until they are published (`late_delay`), or start afresh",
                ));
            }
            _ => {}
        }
        stage.open.insert((place, start_ms), hour);
    }
    for (kept, place) in types.into_iter().zip(places) {
        let Some(place) = place else { continue };
        let input = &mut stage.inputs[place];
        input.sealed_before_ms = input.sealed_before_ms.max(kept.sealed_before_ms);
        input.given_up_ms = kept.given_up_ms;
        let origin =
            |(source, partition, first, next)| Arc::new(Origin { source, partition, first, next, enters: None });
        input.last_origin = kept.last_origin.map(origin);
    }
    stage.sealed_before_ms = stage.sealed_before_ms.max(rows.sealed_before_ms);
    stage.given_up_ms = given_up_ms;
    if !is_same_way {
        // Of what has left until now nothing is kept.
        let sealed = stage.inputs.iter().map(|input| input.sealed_before_ms);
        stage.given_up_ms = sealed.fold(stage.given_up_ms.max(stage.sealed_before_ms), i64::max);
    }
    Ok(())
}
