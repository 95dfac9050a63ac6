//! Finds separators and line feeds, 64 bytes at a time.

/// Positions of separators and line feeds within 64 bytes, one bit a byte, the lowest for the first.
struct Found {
    both: u64,
    feeds: u64,
}

/// Compares first, which compilers turn into vector instructions, then gathers one bit of each byte by multiplication. It takes about 25 ns
/// for a line of 106 bytes; SSE2's `movemask` takes 14 but can't be called without `unsafe`.
#[inline]
fn find(block: &[u8; 64], separator: u8) -> Found {
    let equal = |what: u8| {
        // A loop: `array::map` is vectorised only where the whole crate is one unit of compilation.
        let mut flags = [0; 64];
        for (flag, byte) in flags.iter_mut().zip(block) {
            *flag = u8::from(*byte == what);
        }
        let (words, _) = flags.as_chunks::<8>();
        words.iter().enumerate().fold(0, |mask, (at, word)| {
            let bits = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            mask | bits << (8 * at)
        })
    };
    let feeds = equal(b'\n');
    Found { both: feeds | equal(separator), feeds }
}

/// Appends the position of every separator and line feed to `ends`, and calls `line` at each line feed with all ends so far
/// and the numbers of the line's first and last. Lines begin behind the position before their first end, so `ends` must hold
/// one to begin with. `bytes` are less than 4 GiB. The end of the last line, if it has no line feed, is the end of the bytes.
#[inline]
pub(super) fn lines(bytes: &[u8], separator: u8, ends: &mut Vec<u32>, mut line: impl FnMut(&[u32], usize, usize)) {
    let mut first = ends.len();
    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut add = |found: Found, base: u32, ends: &mut Vec<u32>| {
        let before = ends.len();
        let mut both = found.both;
        while both != 0 {
            ends.push(base + both.trailing_zeros());
            both &= both - 1;
        }
        let mut feeds = found.feeds;
        while feeds != 0 {
            let below = (feeds & feeds.wrapping_neg()) - 1;
            let last = before + (found.both & below).count_ones() as usize;
            line(ends, first, last);
            first = last + 1;
            feeds &= feeds - 1;
        }
    };
    for (at, block) in blocks.iter().enumerate() {
        add(find(block, separator), (at * 64) as u32, ends);
    }
    let mut block = [0; 64];
    block[..rest.len()].copy_from_slice(rest);
    let mut found = find(&block, separator);
    let inside = (1u64 << rest.len()) - 1;
    found.both &= inside;
    found.feeds &= inside;
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        // As if a line feed stood behind the last byte; `rest` is at most 63 bytes, so there is room for its bit.
        found.both |= 1 << rest.len();
        found.feeds |= 1 << rest.len();
    }
    add(found, (blocks.len() * 64) as u32, ends);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8], separator: u8) -> Vec<Vec<Vec<u8>>> {
        let mut ends = vec![u32::MAX];
        let mut spans = Vec::new();
        lines(bytes, separator, &mut ends, |_, first, last| spans.push((first, last)));
        let field = |at: usize| bytes[ends[at - 1].wrapping_add(1) as usize..ends[at] as usize].to_vec();
        spans.into_iter().map(|(first, last)| (first..=last).map(field).collect()).collect()
    }

    fn expected(bytes: &[u8], separator: u8) -> Vec<Vec<Vec<u8>>> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let fields = |line: &[u8]| line.split(|byte| *byte == separator).map(<[u8]>::to_vec).collect();
        bytes.split(|byte| *byte == b'\n').map(fields).collect()
    }

    #[test]
    fn fields_are_found_at_every_length_and_offset() {
        let mut random = 7u64;
        for len in 1..400 {
            let mut bytes = Vec::new();
            for _ in 0..len {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(b"ab\t\n\x00\xff\x89\x0b"[(random >> 40) as usize % 8]);
            }
            assert_eq!(split(&bytes, b'\t'), expected(&bytes, b'\t'), "{bytes:?}");
            assert_eq!(split(&bytes, 0), expected(&bytes, 0), "{bytes:?}");
        }
        assert!(split(b"", b'\t').is_empty());
    }
}
