//! Snapshots of `hourly`: one version byte, then what is below in postcard. Tables are not kept, they are made anew.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{Origin, StageError};

use super::stage::{HourlyStage, OpenHour};

const VERSION: u8 = 1;

/// Groups and measures; types; open hours by index of their type.
type Kept<Hour> = (Vec<String>, Vec<KeptType>, Vec<(usize, i64, Hour)>);

#[derive(Serialize, Deserialize)]
struct KeptType {
    name: Arc<str>,
    sealed_before_ms: i64,
    /// Source, partition, first and next position of its last batch.
    last_origin: Option<(Arc<str>, Arc<str>, u64, u64)>,
}

pub(super) fn write(stage: &HourlyStage) -> Result<Vec<u8>, StageError> {
    let types = stage.inputs.iter().map(|input| KeptType {
        name: input.name.clone(),
        sealed_before_ms: input.sealed_before_ms,
        last_origin: (input.last_origin.as_deref())
            .map(|origin| (origin.source.clone(), origin.partition.clone(), origin.first, origin.next)),
    });
    let hours = stage.open.iter().map(|((at, start), hour)| (*at, *start, hour));
    let kept: Kept<&OpenHour> = (stage.plan.shape(), types.collect(), hours.collect());
    postcard::to_extend(&kept, vec![VERSION])
        .map_err(|error| StageError { message: "can't write the snapshot".into(), source: Some(error.into()) })
}

/// Gives a new stage the state of a snapshot.
pub(super) fn read(stage: &mut HourlyStage, snapshot: &[u8]) -> Result<(), StageError> {
    let Some((&VERSION, bytes)) = snapshot.split_first() else {
        return Err(StageError::new(format!(
            "the snapshot has version {:?}, this program reads version {VERSION}: start with the program that wrote it",
            snapshot.first()
        )));
    };
    let (shape, types, hours): Kept<OpenHour> = postcard::from_bytes(bytes)
        .map_err(|error| StageError { message: "can't read the snapshot".into(), source: Some(error.into()) })?;
    if shape != stage.plan.shape() {
        return Err(StageError::new(format!(
            "the state was made for {shape:?}, the topology asks for {:?}: change it back or start afresh",
            stage.plan.shape()
        )));
    }
    let place = |name: &str| stage.inputs.iter().position(|input| *input.name == *name);
    let places: Vec<Option<usize>> = types.iter().map(|kept| place(&kept.name)).collect();
    for (at, start, hour) in hours {
        let Some(Some(input)) = places.get(at) else {
            let name = types.get(at).map_or("?", |kept| &*kept.name);
            return Err(StageError::new(format!(
                "hours of type `{name}` are open, but it does not arrive any more: let it arrive, or start afresh"
            )));
        };
        let hour = OpenHour { groups: hour.groups.rebuilt(), measures: hour.measures };
        stage.groups += hour.groups.len();
        stage.open.insert((*input, start), hour);
    }
    for (kept, place) in types.into_iter().zip(places) {
        let Some(place) = place else { continue };
        let input = &mut stage.inputs[place];
        input.sealed_before_ms = input.sealed_before_ms.max(kept.sealed_before_ms);
        let origin =
            |(source, partition, first, next)| Arc::new(Origin { source, partition, first, next, enters: None });
        input.last_origin = kept.last_origin.map(origin);
    }
    Ok(())
}
