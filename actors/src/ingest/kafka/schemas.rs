//! Schemas that messages refer to, asked for at the cluster's registry on a thread of its own: that blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::control::TELL_EVERY;
use crate::kafka::registry::{Registry, RegistryError};

/// Schemas that are kept; with more, it begins anew when none is waited for.
const KEPT: usize = 1_000;
/// Pause before a registry that does not answer is asked again.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// An id that the registry does not know may be registered later: after this time it is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// The text of a schema, or why there is none.
pub(super) type Found = Result<Arc<str>, Arc<str>>;

/// Schemas by id. A source that is closed drops it, and the thread ends with its next answer.
pub(super) struct Schemas {
    wanted: Sender<u32>,
    answers: Receiver<Answer>,
    known: HashMap<u32, (Found, Instant)>,
    /// Asked for, and not answered yet.
    waiting: BTreeSet<u32>,
    trouble: Option<String>,
}

enum Answer {
    Found(u32, Found),
    /// The registry does not answer; it is asked again.
    Trouble(String),
}

impl Schemas {
    pub(super) fn start(source: &Arc<str>, registry: Registry) -> Self {
        let (wanted, asked) = channel();
        let (answers, heard) = channel();
        let source = source.clone();
        let asking = move || ask_all(&source, &registry, &asked, &answers);
        let _ = std::thread::Builder::new().name("kafka-schemas".into()).spawn(asking);
        Self { wanted, answers: heard, known: HashMap::new(), waiting: BTreeSet::new(), trouble: None }
    }

    /// What is known of these ids; `None` as long as some are still being asked for.
    pub(super) fn of(&mut self, ids: &BTreeSet<u32>) -> Option<BTreeMap<u32, Found>> {
        self.hear();
        for id in ids {
            if !self.known.contains_key(id) && self.waiting.insert(*id) {
                // The thread is there as long as this is.
                let _ = self.wanted.send(*id);
            }
        }
        let found = ids.iter().map(|id| Some((*id, self.known.get(id)?.0.clone()))).collect();
        // Not before: whoever waits for many ids needs the first answers when the last one comes.
        if self.waiting.is_empty() {
            self.forget();
        }
        found
    }

    /// Forgets what may be different by now, and everything when it is too much.
    fn forget(&mut self) {
        self.known.retain(|_, (found, at)| found.is_ok() || at.elapsed() < UNKNOWN_FOR);
        if self.known.len() > KEPT {
            self.known.clear();
        }
    }

    /// Why ids are waited for.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref().filter(|_| !self.waiting.is_empty())
    }

    fn hear(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Trouble(why) => self.trouble = Some(why),
                Answer::Found(id, found) => {
                    self.trouble = None;
                    self.waiting.remove(&id);
                    self.known.insert(id, (found, Instant::now()));
                }
            }
        }
    }
}

/// Answers one id after the other. Ends when nobody asks any more.
fn ask_all(source: &str, registry: &Registry, wanted: &Receiver<u32>, answers: &Sender<Answer>) {
    while let Ok(id) = wanted.recv() {
        let mut troubled: Option<(Instant, Instant)> = None;
        let found: Found = loop {
            match registry.schema(id) {
                Ok(text) => break Ok(text.into()),
                Err(error @ RegistryError::Unavailable { .. }) => {
                    let (now, why) = (Instant::now(), error.to_string());
                    let (since, told) = troubled.unwrap_or((now, now));
                    if troubled.is_none() || told.elapsed() >= TELL_EVERY {
                        warn!(source, schema = id, waited_s = since.elapsed().as_secs(), "waiting: {why}");
                        troubled = Some((since, now));
                    }
                    if answers.send(Answer::Trouble(why)).is_err() {
                        return;
                    }
                    std::thread::sleep(ASK_PAUSE);
                }
                Err(error) => {
                    warn!(
                        source,
                        schema = id,
                        "{error}; messages that refer to it become dead letters `unknown_schema`"
                    );
                    break Err(error.to_string().into());
                }
            }
        };
        if let Some((since, _)) = troubled {
            info!(source, waited_ms = since.elapsed().as_millis() as u64, "the schema registry answers");
        }
        if answers.send(Answer::Found(id, found)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a registry: what it asks for, and where answers go.
    fn alone() -> (Schemas, Receiver<u32>, Sender<Answer>) {
        let (wanted, asked) = channel();
        let (answers, heard) = channel();
        let schemas =
            Schemas { wanted, answers: heard, known: HashMap::new(), waiting: BTreeSet::new(), trouble: None };
        (schemas, asked, answers)
    }

    #[test]
    fn a_chunk_with_more_schemas_than_are_kept_gets_all_of_them_and_then_they_are_forgotten() {
        let (mut schemas, asked, answers) = alone();
        let ids: BTreeSet<u32> = (0..KEPT as u32 + 5).collect();
        for id in &ids {
            assert!(schemas.of(&ids).is_none(), "{id} is still waited for");
            answers.send(Answer::Found(*id, Err("unknown".into()))).unwrap();
        }
        assert_eq!(schemas.of(&ids).map(|found| found.len()), Some(ids.len()));
        assert_eq!(asked.try_iter().count(), ids.len(), "each was asked for once");
        assert!(schemas.known.is_empty());
    }

    #[test]
    fn an_unknown_id_is_asked_for_again_only_when_it_has_been_for_long() {
        let (mut schemas, asked, answers) = alone();
        let ids = BTreeSet::from([7]);
        assert!(schemas.of(&ids).is_none());
        answers.send(Answer::Found(7, Err("unknown".into()))).unwrap();
        assert!(schemas.of(&ids).is_some() && schemas.of(&ids).is_some());
        schemas.known.get_mut(&7).unwrap().1 -= UNKNOWN_FOR;
        // Known a last time, and forgotten then.
        assert!(schemas.of(&ids).is_some() && schemas.of(&ids).is_none());
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), [7, 7]);
    }
}
