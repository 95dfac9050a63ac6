//! Stages that are put into a topology for reading an hour once more. No topology can name them: their names begin with `@`.

mod nowhere;
mod window;

pub use nowhere::Nowhere;
pub use window::{Window, WindowConfig};
