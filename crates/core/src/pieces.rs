//! State in pieces: what is too much to be written anew at every cut.

use std::io;

/// What a stage has of its state on disk, by name.
///
/// A piece is what the stage gave under its name in [`Effects::pieces`](crate::Effects::pieces), at the last cut that
/// is committed. Cuts
/// follow each other: what one snapshot gives can be read from the next snapshot on, and not before.
pub trait PieceReader: Send + Sync {
    /// Names that begin with `prefix`, in order.
    fn names(&self, prefix: &str) -> Vec<String>;

    /// What a piece holds. Costs a read of a file.
    ///
    /// # Errors
    /// When there is no such piece, it can't be read, or it is damaged.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
}

/// A reader of nothing: of a stage that has no pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPieces;

impl PieceReader for NoPieces {
    fn names(&self, _prefix: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no piece `{name}`")))
    }
}

/// What changes of a stage's pieces: their names, and what they hold from then on. `None` removes a piece.
pub type PieceChanges = Vec<(String, Option<Vec<u8>>)>;
