//! A batch on a device that may be lost, or whose memory may not suffice.
//!
//! A picture's result depends neither on the pictures beside it nor on the device's past, so a batch may be run again, and in pieces.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use quee_backbone::{ExecError, Executor};

use super::walk::Drive;
use crate::backend::Engine;

/// What the memory of a device has turned out to hold.
#[derive(Debug)]
pub struct Room {
    /// Most pictures of a piece.
    pub(super) pictures: AtomicUsize,
    /// Whether there is room for one batch at a time only.
    alone: AtomicBool,
    /// Held for writing by what runs alone, for reading by everything else.
    turn: RwLock<()>,
}

impl Default for Room {
    /// For everything, until a batch does not fit.
    fn default() -> Self {
        Self { pictures: AtomicUsize::new(usize::MAX), alone: AtomicBool::new(false), turn: RwLock::new(()) }
    }
}

/// Work on some pictures, `[n, C, H, W]`: lists of results, each with as many numbers for every picture.
pub type Work<'a> = dyn Fn(&mut dyn Executor, &[f32]) -> Result<Vec<Vec<f32>>, ExecError> + Sync + 'a;

impl Drive<'_> {
    /// Runs `work` on a batch of pictures of `picture` numbers each, with an executor of its own, and tells the progress.
    ///
    /// What loses its device is run once more on a new one. What does not fit the device's memory is run alone, then in halves, down to
    /// single pictures.
    ///
    /// # Errors
    /// What the executor reports, a second loss included.
    pub fn attempt(&self, batch: &[f32], picture: usize, work: &Work) -> Result<Vec<Vec<f32>>, ExecError> {
        let count = batch.len() / picture;
        let (mut lists, mut done, mut lost) = (Vec::new(), 0, false);
        while done < count {
            let size = self.room.pictures.load(Ordering::Relaxed).min(count - done);
            let alone = self.room.alone.load(Ordering::Relaxed);
            match self.once(&batch[done * picture..(done + size) * picture], alone, work) {
                Ok(part) => {
                    append(&mut lists, part);
                    done += size;
                    self.progress.advance(size);
                }
                Err(error @ ExecError::OutOfMemory { .. }) if !alone || size > 1 => {
                    if alone {
                        self.room.pictures.fetch_min(size / 2, Ordering::Relaxed);
                    } else if !self.room.alone.swap(true, Ordering::Relaxed) {
                        self.progress.say(&format!(
                            "{}; going on with one batch at a time, halved until it fits",
                            cause(&error)
                        ));
                    }
                    self.engine.trim();
                }
                Err(error @ ExecError::DeviceLost { .. }) if !lost => {
                    lost = true;
                    self.progress.say(&format!("{error}; the batch is run once more, on a new device"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lists)
    }

    fn once(&self, pictures: &[f32], alone: bool, work: &Work) -> Result<Vec<Vec<f32>>, ExecError> {
        // A panic elsewhere ends the run anyhow, so poison is of no interest.
        let (_one, _many);
        if alone {
            _one = self.room.turn.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _many = self.room.turn.read().unwrap_or_else(PoisonError::into_inner);
        }
        work(self.engine.executor()?.as_mut(), pictures)
    }
}

/// Runs `work` with batches of `batch` pictures, from the beginning once more after a loss of the device, and with half as many for as long
/// as its memory does not hold them. For what cannot be cut into batches of their own.
///
/// # Errors
/// What `work` reports.
pub fn whole<T>(
    engine: &dyn Engine,
    batch: usize,
    say: &dyn Fn(&str),
    mut work: impl FnMut(usize) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (mut size, mut lost) = (batch, false);
    loop {
        let error = match work(size) {
            Err(error) => error,
            done => return done,
        };
        match error.downcast_ref() {
            Some(error @ ExecError::OutOfMemory { .. }) if size > 1 => {
                if size == batch {
                    say(&format!("{}; once more with batches halved until they fit", cause(error)));
                }
                size /= 2;
                engine.trim();
            }
            Some(ExecError::DeviceLost { .. }) if !lost => {
                lost = true;
                say(&format!("{error}; once more, on a new device"));
            }
            _ => return Err(error),
        }
    }
}

/// What is wrong, without the advice on what to do when it cannot be helped.
fn cause(error: &ExecError) -> String {
    let message = error.to_string();
    message.split("; hint:").next().unwrap_or_default().to_owned()
}

/// Puts the results of further pictures behind those of the earlier ones, list by list.
pub fn append(lists: &mut Vec<Vec<f32>>, part: Vec<Vec<f32>>) {
    if lists.is_empty() {
        *lists = part;
        return;
    }
    for (list, part) in lists.iter_mut().zip(part) {
        list.extend(part);
    }
}
