//! Texts that mean null.

/// The option `null`.
#[derive(Clone, Debug)]
pub(super) struct Nulls {
    texts: Vec<Box<[u8]>>,
    /// Bit `n` is set if one of them has `n` bytes; the highest bit stands for all longer ones.
    lens: u64,
}

impl Nulls {
    pub(super) fn new(texts: &[String]) -> Self {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        let lens = texts.iter().fold(0, |lens, text| lens | 1 << text.len().min(63));
        Self { texts, lens }
    }

    /// Whether it is one of the texts.
    #[inline]
    pub(super) fn are(&self, text: &[u8]) -> bool {
        self.lens >> text.len().min(63) & 1 == 1 && self.texts.iter().any(|null| **null == *text)
    }
}
