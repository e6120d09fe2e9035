use std::io::{Read, Write};

use flate2::{Compression, Crc, GzBuilder, bufread::GzDecoder};

use super::line::Line;
use crate::model::Moment;

/// The lines of one block, in bytes, at most: the 10,000 rules of the largest policy are one line of some MB. What is read of
/// a line takes several times as much, so this bounds what a recording that somebody has made up costs.
pub const PLAIN_MAX: usize = 16 << 20;

/// A block as it is kept, at most: what cannot be packed grows by little.
pub const BLOCK_MAX: usize = 17 << 20;

/// What every block begins with: a gzip member (RFC 1952 2.3) with an extra field of ours.
const MAGIC: [u8; 4] = [0x1f, 0x8b, 8, 4];
const SUBFIELD: [u8; 2] = *b"TF";
/// Before the extra field: magic, time, flags, system (RFC 1952 2.3.1).
const EXTRA_AT: usize = 10;
/// Behind the length of the extra field, the name and the length of the subfield.
const FIELDS_AT: usize = EXTRA_AT + 6;
const FIELDS_LEN: usize = 56;
/// Bytes before the compressed lines.
pub const HEADER_LEN: usize = FIELDS_AT + FIELDS_LEN;
/// Where a block's length stands, in its fields.
const LENGTH_LEN: usize = 4;

/// What a block says of itself, so that it can be passed over unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// Bytes, this header included.
    pub length: u32,
    /// Bytes of its lines.
    pub plain: u32,
    /// Of its first line, counted from the daemon's start.
    pub number: u64,
    pub lines: u32,
    /// Of one run of the daemon: moments of different runs have nothing to do with each other.
    pub run: u64,
    pub first: Moment,
    pub last: Moment,
    pub unix_ms_at_zero: u64,
}

/// Lines on their way into a file: a gzip member of its own, so that `zcat` shows a whole file, and one
/// that is damaged costs only itself.
#[derive(Debug)]
pub struct Block {
    plain: Vec<u8>,
    lines: u32,
    number: u64,
    run: u64,
    first: Moment,
    last: Moment,
    unix_ms_at_zero: u64,
}

/// Why bytes are no block.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    #[error("no block begins here")]
    NotABlock,
    #[error("it ends before its block does")]
    Short,
    #[error("the checksum of its header is wrong")]
    Header,
    #[error("its header tells of {length} bytes that hold {plain}: no block is so long, or so short")]
    Length { length: u32, plain: u32 },
    #[error("its lines are damaged: {0}")]
    Lines(String),
}

impl Block {
    /// Empty; `number` is of the first line to come.
    pub fn new(run: u64, number: u64, unix_ms_at_zero: u64) -> Block {
        let (first, last) = (Moment::ZERO, Moment::ZERO);
        Block { plain: Vec::new(), lines: 0, number, run, first, last, unix_ms_at_zero }
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Bytes of its lines.
    pub fn len(&self) -> usize {
        self.plain.len()
    }

    pub fn next_number(&self) -> u64 {
        self.number.saturating_add(u64::from(self.lines))
    }

    /// `false`, and the line is left out: it is too long for any block.
    pub fn push(&mut self, line: &Line) -> bool {
        let before = self.plain.len();
        if serde_json::to_writer(&mut self.plain, line).is_err() || self.plain.len() >= PLAIN_MAX {
            self.plain.truncate(before);
            return false;
        }
        self.plain.push(b'\n');
        if self.lines == 0 {
            self.first = line.at;
            self.last = line.at;
        }
        // Notes of workers come a little late.
        self.first = self.first.min(line.at);
        self.last = self.last.max(line.at);
        self.lines = self.lines.saturating_add(1);
        true
    }

    /// A line as another version may write it.
    #[cfg(test)]
    pub(super) fn push_text(&mut self, text: &str) {
        self.plain.extend(text.bytes().chain([b'\n']));
        self.lines += 1;
    }

    /// As it is written.
    pub fn seal(&self) -> std::io::Result<Vec<u8>> {
        let header = BlockHeader {
            length: 0,
            plain: u32::try_from(self.plain.len()).unwrap_or(u32::MAX),
            number: self.number,
            lines: self.lines,
            run: self.run,
            first: self.first,
            last: self.last,
            unix_ms_at_zero: self.unix_ms_at_zero,
        };
        let mut extra = Vec::with_capacity(4 + FIELDS_LEN);
        extra.extend(SUBFIELD);
        extra.extend((FIELDS_LEN as u16).to_le_bytes());
        extra.extend(header.fields());
        let mut packer = GzBuilder::new().extra(extra).write(Vec::new(), Compression::default());
        packer.write_all(&self.plain)?;
        let mut bytes = packer.finish()?;
        // Only now its length is known.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let fields = BlockHeader { length, ..header }.fields();
        if let Some(place) = bytes.get_mut(FIELDS_AT..HEADER_LEN) {
            place.copy_from_slice(&fields);
        }
        Ok(bytes)
    }
}

impl BlockHeader {
    pub(super) fn fields(&self) -> [u8; FIELDS_LEN] {
        let mut bytes = [0; FIELDS_LEN];
        let mut rest = bytes.as_mut_slice();
        let mut put = |value: &[u8]| {
            // All together they are as long as the fields.
            let _ = rest.write_all(value);
        };
        put(&self.length.to_le_bytes());
        put(&self.plain.to_le_bytes());
        put(&self.number.to_le_bytes());
        put(&self.lines.to_le_bytes());
        put(&self.run.to_le_bytes());
        put(&self.first.as_nanos().to_le_bytes());
        put(&self.last.as_nanos().to_le_bytes());
        put(&self.unix_ms_at_zero.to_le_bytes());
        let mut sum = Crc::new();
        let (summed, place) = bytes.split_at_mut(FIELDS_LEN - LENGTH_LEN);
        sum.update(summed);
        place.copy_from_slice(&sum.sum().to_le_bytes());
        bytes
    }

    /// The header at the beginning of these bytes.
    pub fn read(bytes: &[u8]) -> Result<BlockHeader, BlockError> {
        let have = bytes.len().min(MAGIC.len());
        if bytes.get(..have) != MAGIC.get(..have) {
            return Err(BlockError::NotABlock);
        }
        let header = bytes.get(..HEADER_LEN).ok_or(BlockError::Short)?;
        let (front, fields) = header.split_at(FIELDS_AT);
        let extra_len = ((4 + FIELDS_LEN) as u16).to_le_bytes();
        let expected = [extra_len, SUBFIELD, (FIELDS_LEN as u16).to_le_bytes()].concat();
        if front.get(EXTRA_AT..) != Some(&expected) {
            return Err(BlockError::NotABlock);
        }
        let mut fields = Fields(fields);
        let header = BlockHeader {
            length: fields.u32(),
            plain: fields.u32(),
            number: fields.u64(),
            lines: fields.u32(),
            run: fields.u64(),
            first: Moment::from_nanos(fields.u64()),
            last: Moment::from_nanos(fields.u64()),
            unix_ms_at_zero: fields.u64(),
        };
        let sound = header.fields().get(FIELDS_LEN - LENGTH_LEN..) == Some(&fields.u32().to_le_bytes());
        let length = header.length as usize;
        match () {
            _ if !sound => Err(BlockError::Header),
            _ if !(HEADER_LEN..=BLOCK_MAX).contains(&length) || header.plain as usize > PLAIN_MAX => {
                Err(BlockError::Length { length: header.length, plain: header.plain })
            }
            _ => Ok(header),
        }
    }

    /// The lines of the block at the beginning of these bytes.
    pub fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>, BlockError> {
        let block = bytes.get(..self.length as usize).ok_or(BlockError::Short)?;
        let damaged = |what: String| BlockError::Lines(what);
        let mut plain = Vec::new();
        // It grows with what is really there: a length that lies takes no memory.
        let most = u64::from(self.plain).saturating_add(1);
        GzDecoder::new(block).take(most).read_to_end(&mut plain).map_err(|error| damaged(error.to_string()))?;
        if plain.len() != self.plain as usize {
            return Err(damaged(format!("{} bytes instead of {}", plain.len(), self.plain)));
        }
        Ok(plain)
    }
}

/// Where the next block may begin, behind the first byte.
pub fn next_block(bytes: &[u8]) -> Option<usize> {
    let found = bytes.get(1..)?.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    found.checked_add(1)
}

/// The header of the last block that begins in these bytes, wherever they begin.
pub fn last_block(bytes: &[u8]) -> Option<BlockHeader> {
    let mut places = bytes.windows(MAGIC.len()).enumerate().rev().filter(|(_, window)| *window == MAGIC);
    places.find_map(|(at, _)| BlockHeader::read(bytes.get(at..)?).ok())
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((value, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *value
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recording::Entry;

    fn block(lines: u64) -> Block {
        let mut block = Block::new(0xabcd, 100, 5_000);
        for number in 0..lines {
            let line = Line { at: Moment::from_millis(1_000 + number), entry: Entry::LeftOut { flows: number } };
            assert!(block.push(&line));
        }
        block
    }

    fn unpacked(bytes: &[u8]) -> Result<(BlockHeader, Vec<u8>), BlockError> {
        let header = BlockHeader::read(bytes)?;
        Ok((header, header.unpack(bytes)?))
    }

    #[test]
    fn a_block_is_a_gzip_member_that_any_tool_reads() {
        let block = block(50);
        let bytes = block.seal().unwrap();
        let (header, plain) = unpacked(&bytes).unwrap();
        assert_eq!((header.number, header.lines, header.run), (100, 50, 0xabcd));
        assert_eq!((header.first, header.last), (Moment::from_millis(1_000), Moment::from_millis(1_049)));
        assert_eq!((header.length as usize, header.unix_ms_at_zero), (bytes.len(), 5_000));
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), plain);
        assert_eq!(text.lines().next(), Some(r#"{"at":1000000000,"left_out":{"flows":0}}"#));
        assert_eq!(block.next_number(), 150);
    }

    #[test]
    fn lengths_that_lie_take_no_memory_and_are_told() {
        let bytes = block(50).seal().unwrap();
        let header = BlockHeader::read(&bytes).unwrap();
        let lying = |plain, length| BlockHeader { plain, length, ..header };
        assert!(matches!(lying(10, header.length).unpack(&bytes), Err(BlockError::Lines(_))), "there is more");
        assert!(matches!(lying(u32::MAX, header.length).unpack(&bytes), Err(BlockError::Lines(_))), "there is less");
        assert_eq!(lying(header.plain, u32::MAX).unpack(&bytes), Err(BlockError::Short));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_and_no_damage_goes_unnoticed(
            place in 0usize..2_000, bit in 0u8..8, length in 0usize..2_000, noise in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let bytes = block(50).seal().unwrap();
            let expected = unpacked(&bytes).unwrap();
            prop_assert!(unpacked(bytes.get(..length % bytes.len()).unwrap()).is_err());
            let mut flipped = bytes.clone();
            flipped[place % bytes.len()] ^= 1 << bit;
            if let Ok(read) = unpacked(&flipped) {
                // Time, flags and system of gzip's own header say nothing here.
                prop_assert_eq!(read, expected);
            }
            let _ = unpacked(&noise);
            let _ = unpacked(&[&MAGIC, noise.as_slice()].concat());
            let _ = next_block(&noise);
        }
    }
}
