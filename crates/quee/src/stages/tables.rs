//! Features of many pictures at many places, which together may be larger than memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Bytes of features that a run holds in memory; what goes beyond is in temporary files.
const IN_MEMORY: usize = 8 << 20;
/// Bytes of one file that are held in memory at most.
const SPOOLED: usize = 1 << 20;
/// Floats that are converted at once.
const CHUNK: usize = 1 << 14;

/// Where tables lie: in memory as far as it may be used, then in temporary files, which are gone with the process.
#[derive(Debug)]
pub struct Scratch {
    folders: Vec<PathBuf>,
    /// Bytes of memory that are left.
    memory: AtomicUsize,
}

impl Default for Scratch {
    /// Files in the system's folder of temporary files.
    fn default() -> Self {
        Self::within(IN_MEMORY, None)
    }
}

impl Scratch {
    /// Files in `folder`, or else in the system's folder of temporary files.
    pub fn in_folder(folder: Option<PathBuf>) -> Self {
        Self::within(IN_MEMORY, folder)
    }

    /// So many bytes in memory, the rest in files.
    pub fn within(memory: usize, folder: Option<PathBuf>) -> Self {
        Self { folders: folder.into_iter().chain([std::env::temp_dir()]).collect(), memory: AtomicUsize::new(memory) }
    }

    /// A table of lists with so many numbers for each of so many pictures.
    pub fn table(&self, dims: &[usize], pictures: usize) -> TableWriter {
        self.of_length(dims.iter().map(|dim| pictures * dim).collect())
    }

    /// A file that is in memory while it is small.
    pub fn spooled(&self) -> tempfile::SpooledTempFile {
        let usable = self.folders.iter().find(|folder| tempfile::tempfile_in(folder).is_ok());
        match usable {
            Some(folder) => tempfile::spooled_tempfile_in(SPOOLED, folder),
            // Without a place for files, memory is what there is.
            None => tempfile::spooled_tempfile(usize::MAX),
        }
    }

    fn of_length(&self, lengths: Vec<usize>) -> TableWriter {
        let bytes = lengths.iter().sum::<usize>() * size_of::<f32>();
        let take = |left: usize| left.checked_sub(bytes);
        let in_memory = self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        // Without a place for files, memory is what there is.
        let file = if in_memory { None } else { self.folders.iter().find_map(|at| roomy_file(at, bytes)) };
        let place = match file {
            Some(file) => Place::File(Mutex::new(file)),
            None => Place::Memory(lengths.iter().map(|&length| Mutex::new(vec![0.0; length])).collect()),
        };
        TableWriter { lengths, place }
    }
}

/// A file without a name in `folder`, if that can have one of so many bytes. Where the system can set them aside it does: a full disk is known
/// now, when there is still a choice.
fn roomy_file(folder: &Path, bytes: usize) -> Option<File> {
    let file = tempfile::tempfile_in(folder).ok()?;
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        let set_aside = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1) as u64);
        // File systems that know no such thing are taken at their word.
        if matches!(set_aside, Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) {
            return None;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
    Some(file)
}

#[derive(Debug)]
enum Place<List> {
    Memory(Vec<List>),
    /// Lists one behind the other, little endian.
    File(Mutex<File>),
}

/// A table that is filled, by several threads at once.
#[derive(Debug)]
pub struct TableWriter {
    lengths: Vec<usize>,
    place: Place<Mutex<Vec<f32>>>,
}

impl TableWriter {
    /// Puts the numbers of some of `pictures` into every list, from picture `first` on.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// When a list is shorter than that.
    pub fn put(&self, first: usize, pictures: usize, parts: &[Vec<f32>]) -> Result<()> {
        let start = |list: usize| first * (self.lengths[list] / pictures);
        parts.iter().enumerate().try_for_each(|(list, part)| self.put_into(list, start(list), part))
    }

    fn put_into(&self, list: usize, start: usize, part: &[f32]) -> Result<()> {
        assert!(start + part.len() <= self.lengths[list], "a list of {} numbers", self.lengths[list]);
        match &self.place {
            Place::Memory(lists) => {
                let mut list = lists[list].lock().unwrap_or_else(PoisonError::into_inner);
                list[start..start + part.len()].copy_from_slice(part);
                Ok(())
            }
            Place::File(file) => {
                let at = (begin(&self.lengths, list) + start) * size_of::<f32>();
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at as u64)).and_then(|_| write_floats(&mut *file, part)).context(
                    "features cannot be written to a temporary file; hint: name a roomy folder with --cache or TMPDIR",
                )
            }
        }
    }

    /// The table; what was not put is 0.
    ///
    /// # Errors
    /// When the file cannot be brought to its length.
    pub fn finish(self) -> Result<Table> {
        let place = match self.place {
            Place::Memory(lists) => {
                let list = |list: Mutex<Vec<f32>>| list.into_inner().unwrap_or_else(PoisonError::into_inner);
                Place::Memory(lists.into_iter().map(list).collect())
            }
            Place::File(file) => {
                let bytes = self.lengths.iter().sum::<usize>() * size_of::<f32>();
                let held = file.lock().unwrap_or_else(PoisonError::into_inner);
                held.set_len(bytes as u64).context("features cannot be written to a temporary file")?;
                drop(held);
                Place::File(file)
            }
        };
        Ok(Table { lengths: self.lengths, place })
    }
}

/// Lists of features, in memory or in a temporary file.
#[derive(Debug)]
pub struct Table {
    lengths: Vec<usize>,
    place: Place<Vec<f32>>,
}

impl Default for Table {
    /// No lists.
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<Vec<f32>>> for Table {
    fn from(lists: Vec<Vec<f32>>) -> Self {
        Self { lengths: lists.iter().map(Vec::len).collect(), place: Place::Memory(lists) }
    }
}

impl Table {
    /// A list; read from its file, where it is in one.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When there is no such list.
    pub fn list(&self, list: usize) -> Result<Cow<'_, [f32]>> {
        match &self.place {
            Place::Memory(lists) => Ok(Cow::Borrowed(&lists[list])),
            Place::File(file) => {
                let at = begin(&self.lengths, list) * size_of::<f32>();
                let mut numbers = Vec::with_capacity(self.lengths[list]);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at as u64))
                    .and_then(|_| read_floats(&mut *file, self.lengths[list], |part| numbers.extend_from_slice(part)))
                    .context("features cannot be read from a temporary file")?;
                Ok(Cow::Owned(numbers))
            }
        }
    }

    /// All lists.
    pub fn lists(&self) -> Lists<'_> {
        self.part(0..self.lengths.len())
    }

    /// Some lists.
    pub fn part(&self, lists: Range<usize>) -> Lists<'_> {
        Lists { table: self, first: lists.start, count: lists.len() }
    }

    /// Whether it lies in a file.
    pub fn is_in_a_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn encode(&self, out: &mut dyn Write) -> io::Result<()> {
        write_number(out, self.lengths.len())?;
        self.lengths.iter().try_for_each(|&length| write_number(out, length))?;
        match &self.place {
            Place::Memory(lists) => lists.iter().try_for_each(|list| write_floats(out, list)),
            Place::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(0))?;
                io::copy(&mut *file, out).map(|_| ())
            }
        }
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// When it cannot be read, or put into a temporary file.
    pub fn decode(from: &mut dyn Read, scratch: &Scratch) -> Result<Self> {
        let count = read_number(from)?;
        let lengths = (0..count).map(|_| read_number(from)).collect::<io::Result<Vec<_>>>()?;
        let writer = scratch.of_length(lengths.clone());
        for (list, &length) in lengths.iter().enumerate() {
            let (mut start, mut written) = (0, Ok(()));
            read_floats(from, length, |part| {
                if written.is_ok() {
                    written = writer.put_into(list, start, part);
                }
                start += part.len();
            })?;
            written?;
        }
        writer.finish()
    }
}

/// Some lists of a table.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    table: &'a Table,
    first: usize,
    count: usize,
}

impl<'a> Lists<'a> {
    /// Number of lists.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no lists.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A list.
    ///
    /// # Errors
    /// When its file cannot be read.
    ///
    /// # Panics
    /// When there is no such list.
    pub fn get(&self, list: usize) -> Result<Cow<'a, [f32]>> {
        assert!(list < self.count, "one of {} lists", self.count);
        self.table.list(self.first + list)
    }

    /// The last list.
    ///
    /// # Errors
    /// When its file cannot be read.
    ///
    /// # Panics
    /// When there are no lists.
    pub fn last(&self) -> Result<Cow<'a, [f32]>> {
        self.get(self.count.checked_sub(1).expect("a path has segments"))
    }
}

/// Numbers before a list.
fn begin(lengths: &[usize], list: usize) -> usize {
    lengths[..list].iter().sum()
}

fn write_number(out: &mut dyn Write, number: usize) -> io::Result<()> {
    out.write_all(&(number as u64).to_le_bytes())
}

fn read_number(from: &mut dyn Read) -> io::Result<usize> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    usize::try_from(u64::from_le_bytes(bytes)).map_err(io::Error::other)
}

fn write_floats(out: &mut dyn Write, numbers: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(numbers.len().min(CHUNK) * size_of::<f32>());
    for part in numbers.chunks(CHUNK) {
        bytes.clear();
        part.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads so many numbers, and gives them to `take` chunk by chunk.
fn read_floats(from: &mut dyn Read, count: usize, mut take: impl FnMut(&[f32])) -> io::Result<()> {
    let mut bytes = vec![0; count.min(CHUNK) * size_of::<f32>()];
    let mut numbers = Vec::with_capacity(count.min(CHUNK));
    let mut left = count;
    while left > 0 {
        let now = left.min(CHUNK);
        let bytes = &mut bytes[..now * size_of::<f32>()];
        from.read_exact(bytes)?;
        numbers.clear();
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        numbers.extend(bytes.chunks_exact(size_of::<f32>()).map(number));
        take(&numbers);
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three lists of 20,001 numbers, put in pieces from several threads, backwards.
    fn filled(scratch: &Scratch) -> Table {
        let writer = scratch.table(&[3; 3], 6667);
        let number = |list: usize, at: usize| (list * 100_000 + at) as f32;
        std::thread::scope(|scope| {
            for piece in (0..7).rev() {
                let writer = &writer;
                scope.spawn(move || {
                    let range = piece * 3000..((piece + 1) * 3000).min(20_001);
                    let parts: Vec<Vec<f32>> =
                        (0..3).map(|list| range.clone().map(|at| number(list, at)).collect()).collect();
                    writer.put(range.start / 3, 6667, &parts).unwrap();
                });
            }
        });
        let table = writer.finish().unwrap();
        for list in 0..3 {
            assert!(table.list(list).unwrap().iter().enumerate().all(|(at, &x)| x == number(list, at)), "{list}");
        }
        table
    }

    #[test]
    fn a_table_is_the_same_in_memory_and_in_a_file_and_comes_back_from_either() {
        let folder = tempfile::tempdir().unwrap();
        let place = Some(folder.path().to_owned());
        let (roomy, tight) = (Scratch::within(1 << 20, place.clone()), Scratch::within(0, place));
        let (memory, file) = (filled(&roomy), filled(&tight));
        assert!(!memory.is_in_a_file() && file.is_in_a_file());
        let encoded = |table: &Table| {
            let mut bytes = Vec::new();
            table.encode(&mut bytes).unwrap();
            bytes
        };
        let bytes = encoded(&memory);
        assert!(bytes == encoded(&file));
        for scratch in [&roomy, &tight] {
            let back = Table::decode(&mut &bytes[..], scratch).unwrap();
            assert!(encoded(&back) == bytes);
            assert!(Table::decode(&mut &bytes[..bytes.len() - 1], scratch).is_err());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names, so none is left behind");
    }

    #[test]
    fn memory_is_used_up_before_files_are() {
        let scratch = Scratch::within(100 * 4, None);
        let in_a_file = |pictures| scratch.table(&[1; 2], pictures).finish().unwrap().is_in_a_file();
        assert_eq!([40, 40, 10, 1].map(in_a_file), [false, true, false, true]);
    }

    #[test]
    fn without_a_place_for_files_tables_are_in_memory() {
        let nowhere = Scratch { folders: vec!["/there/is/no/such/folder".into()], memory: AtomicUsize::new(0) };
        assert!(!filled(&nowhere).is_in_a_file());
    }

    #[test]
    fn what_was_not_put_is_zero_and_parts_of_a_table_are_tables() {
        for memory in [0, 1000] {
            let writer = Scratch::within(memory, None).table(&[2; 3], 2);
            writer.put(1, 2, &[vec![1.0, 2.0], vec![]]).unwrap();
            let table = writer.finish().unwrap();
            assert_eq!(table.lists().get(0).unwrap(), [0.0, 0.0, 1.0, 2.0].as_slice());
            let part = table.part(1..3);
            assert_eq!((part.len(), part.is_empty(), part.get(1).unwrap().into_owned()), (2, false, vec![0.0; 4]));
        }
        let given = Table::from(vec![vec![], vec![3.0]]);
        let mut bytes = Vec::new();
        given.encode(&mut bytes).unwrap();
        let back = Table::decode(&mut &bytes[..], &Scratch::within(0, None)).unwrap();
        assert_eq!((back.list(0).unwrap().len(), back.list(1).unwrap().into_owned()), (0, vec![3.0]));
    }
}
