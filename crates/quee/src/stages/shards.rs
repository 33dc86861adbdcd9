//! Runs on paths in parts, by pictures: each computed by a process of its own, then joined.
//!
//! A part holds what the exits see of its batches, pass by pass. Joining them asks for every batch of every pass: one that is there twice,
//! is not there, or that nobody asks for is an error.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

use super::tables::Scratch;
use crate::cache::{from_postcard, to_postcard};
use crate::recipe::Part;

/// A batch of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    pass: u64,
    batch: u64,
}

/// Where the bytes of a batch are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
}

/// What is computed of a part.
#[derive(Debug)]
pub struct ShardWriter {
    /// Which part.
    pub part: Part,
    passes: AtomicU64,
    inner: Mutex<Stored>,
}

#[derive(Debug)]
struct Stored {
    file: SpooledTempFile,
    end: u64,
    places: BTreeMap<Place, Extent>,
}

impl ShardWriter {
    /// Nothing is there yet.
    pub fn new(part: Part, scratch: &Scratch) -> Self {
        let inner = Stored { file: scratch.spooled(), end: 0, places: BTreeMap::new() };
        Self { part, passes: AtomicU64::new(0), inner: Mutex::new(inner) }
    }

    /// A pass begins: its number.
    pub fn begin_pass(&self) -> u64 {
        self.passes.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps the lists of a batch.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&self, pass: u64, batch: usize, lists: &[Vec<f32>]) -> Result<()> {
        let bytes = postcard::to_stdvec(lists)?;
        let mut inner = lock(&self.inner);
        let start = inner.end;
        inner.file.seek(SeekFrom::Start(start))?;
        inner.file.write_all(&bytes)?;
        inner.end += bytes.len() as u64;
        inner.places.insert(Place { pass, batch: batch as u64 }, Extent { start, length: bytes.len() as u64 });
        Ok(())
    }

    /// Number of batches, of all passes together.
    pub fn batches(&self) -> usize {
        lock(&self.inner).places.len()
    }

    /// Writes all of it, in the order of passes and batches.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn encode(&self, out: &mut dyn Write) -> Result<()> {
        let mut inner = lock(&self.inner);
        let mut start = 0;
        let mut places = Vec::with_capacity(inner.places.len());
        for (&place, extent) in &inner.places {
            places.push((place, Extent { start, length: extent.length }));
            start += extent.length;
        }
        to_postcard(&places, out)?;
        let extents: Vec<Extent> = inner.places.values().copied().collect();
        for extent in extents {
            inner.file.seek(SeekFrom::Start(extent.start))?;
            io::copy(&mut (&mut inner.file).take(extent.length), out)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One part that was stored.
#[derive(Debug)]
pub struct ShardReader {
    file: Mutex<SpooledTempFile>,
    places: BTreeMap<Place, Extent>,
}

impl ShardReader {
    /// Reads what [`ShardWriter::encode`] has written.
    ///
    /// # Errors
    /// When it cannot be read, put into a temporary file, or a batch is there twice.
    pub fn decode(from: &mut dyn Read, scratch: &Scratch) -> Result<Self> {
        let listed: Vec<(Place, Extent)> = from_postcard(from)?;
        let count = listed.len();
        let places: BTreeMap<Place, Extent> = listed.into_iter().collect();
        ensure!(places.len() == count, "a batch is there twice");
        let mut file = scratch.spooled();
        let copied = io::copy(from, &mut file)?;
        let lengths: u64 = places.values().map(|extent| extent.length).sum();
        ensure!(copied == lengths, "{copied} bytes of batches, expected {lengths}");
        Ok(Self { file: Mutex::new(file), places })
    }
}

/// Parts that were stored, to be joined.
#[derive(Debug)]
pub struct Shards {
    of: usize,
    /// By part; none where it is not stored.
    parts: Vec<(Part, Option<ShardReader>)>,
    passes: AtomicU64,
    taken: AtomicUsize,
}

impl Shards {
    /// Joins all `parts`, in order.
    pub fn new(parts: Vec<(Part, Option<ShardReader>)>) -> Self {
        Self { of: parts.len(), parts, passes: AtomicU64::new(0), taken: AtomicUsize::new(0) }
    }

    /// A pass begins: its number.
    pub fn begin_pass(&self) -> u64 {
        self.passes.fetch_add(1, Ordering::Relaxed)
    }

    /// The lists of a batch of the `batches` of a pass; none where its part is not stored.
    ///
    /// # Errors
    /// When they cannot be read, or a part that is stored lacks them.
    pub fn piece(&self, pass: u64, batch: usize, batches: usize) -> Result<Option<Vec<Vec<f32>>>> {
        let owner = self.parts.iter().find(|(part, _)| part.batches(batches).contains(&batch));
        let Some((part, Some(reader))) = owner else { return Ok(None) };
        let Some(extent) = reader.places.get(&Place { pass, batch: batch as u64 }) else {
            anyhow::bail!(
                "part {part} of the runs on paths lacks batch {batch} of pass {pass}; hint: throw it away with quee cache clear, and compute it anew"
            );
        };
        let mut bytes = Vec::new();
        let mut file = lock(&reader.file);
        file.seek(SeekFrom::Start(extent.start))?;
        (&mut *file).take(extent.length).read_to_end(&mut bytes)?;
        drop(file);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Some(postcard::from_bytes(&bytes)?))
    }

    /// Checks, when everything has run, that no part holds more than was asked for; in words what was joined.
    ///
    /// # Errors
    /// When one does.
    pub fn finish(&self) -> Result<String> {
        let held: usize = self.parts.iter().filter_map(|(_, reader)| reader.as_ref()).map(|r| r.places.len()).sum();
        let taken = self.taken.load(Ordering::Relaxed);
        ensure!(
            held == taken,
            "{held} batches are stored in parts, but the run has {taken} there; hint: throw them away with quee cache clear"
        );
        let stored = self.parts.iter().filter(|(_, reader)| reader.is_some()).count();
        Ok(format!("{taken} batches from {stored} of {} parts", self.of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHES: usize = 7;

    fn lists(pass: u64, batch: usize) -> Vec<Vec<f32>> {
        vec![vec![pass as f32, batch as f32], vec![], vec![-0.0]]
    }

    fn stored(part: Part, scratch: &Scratch, leave_out: Option<(u64, usize)>) -> Vec<u8> {
        let writer = ShardWriter::new(part, scratch);
        for _ in 0..2 {
            let pass = writer.begin_pass();
            // Batches end in any order.
            for batch in part.batches(BATCHES).rev().filter(|&batch| leave_out != Some((pass, batch))) {
                writer.keep(pass, batch, &lists(pass, batch)).unwrap();
            }
        }
        let mut bytes = Vec::new();
        writer.encode(&mut bytes).unwrap();
        bytes
    }

    fn joined(scratch: &Scratch, bytes: &[Option<Vec<u8>>]) -> Shards {
        let read = |bytes: &Vec<u8>| ShardReader::decode(&mut &bytes[..], scratch).unwrap();
        Shards::new(Part::all(bytes.len()).zip(bytes).map(|(part, bytes)| (part, bytes.as_ref().map(read))).collect())
    }

    #[test]
    fn parts_are_joined_batch_by_batch_and_what_is_missing_is_computed() {
        let scratch = Scratch::default();
        let mut bytes: Vec<_> = Part::all(3).map(|part| Some(stored(part, &scratch, None))).collect();
        bytes[1] = None;
        let shards = joined(&scratch, &bytes);
        let of_second = Part::all(3).nth(1).unwrap().batches(BATCHES);
        for _ in 0..2 {
            let pass = shards.begin_pass();
            for batch in 0..BATCHES {
                let expected = (!of_second.contains(&batch)).then(|| lists(pass, batch));
                assert_eq!(shards.piece(pass, batch, BATCHES).unwrap(), expected);
            }
        }
        assert_eq!(shards.finish().unwrap(), "10 batches from 2 of 3 parts");
    }

    #[test]
    fn a_batch_that_is_missing_or_left_over_is_an_error() {
        let scratch = Scratch::default();
        let first = Part::all(1).next().unwrap();
        let shards = joined(&scratch, &[Some(stored(first, &scratch, Some((1, 4))))]);
        assert!(shards.piece(1, 3, BATCHES).unwrap().is_some());
        assert!(shards.piece(1, 4, BATCHES).unwrap_err().to_string().contains("lacks batch 4 of pass 1"));
        assert!(shards.finish().unwrap_err().to_string().contains("13 batches are stored"));
    }

    #[test]
    fn a_part_that_is_cut_or_has_a_batch_twice_is_refused() {
        let scratch = Scratch::default();
        let bytes = stored(Part::all(1).next().unwrap(), &scratch, None);
        assert!(ShardReader::decode(&mut &bytes[..bytes.len() - 1], &scratch).is_err());
        let place = (Place { pass: 0, batch: 1 }, Extent { start: 0, length: 1 });
        let mut twice = postcard::to_stdvec(&vec![place, place]).unwrap();
        twice.push(0);
        let error = ShardReader::decode(&mut &twice[..], &scratch).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}
