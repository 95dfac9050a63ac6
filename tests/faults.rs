//! A stage that panics or fails: that worker is replaced, the others go on, and what comes out is the same.
