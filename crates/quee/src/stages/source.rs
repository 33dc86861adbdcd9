//! Pictures that come batch by batch, so that memory is bounded by the batches in flight and not by the data set.
//! What has to be decoded or resampled is prepared by threads of its own, a bounded number of batches ahead of the compute.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use quee_data::{DataError, Dataset, Transform};
use rayon::prelude::*;

use crate::cancel::Cancel;

/// Pictures by position, in the shape that the backbone takes, normalised.
pub trait Pictures: Sync {
    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are no pictures.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pictures of `range`, `[n, C, H, W]`.
    ///
    /// # Errors
    /// When a file cannot be read or decoded.
    fn batch(&self, range: Range<usize>) -> Result<Vec<f32>, DataError>;

    /// Whether a batch costs more than copying, so that it should be made ahead.
    fn is_costly(&self) -> bool;
}

/// Pictures of a data set, in the order of `indices`.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// Data set.
    pub data: &'a Dataset,
    /// To the backbone's shape.
    pub transform: &'a Transform,
    /// Positions in the data set.
    pub indices: &'a [usize],
}

impl Pictures for Part<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<f32>, DataError> {
        self.data.batch(&self.indices[range], self.transform)
    }

    fn is_costly(&self) -> bool {
        self.data.is_costly(self.transform)
    }
}

/// Some that follow one another.
pub struct Neighbours<'a> {
    /// All.
    pub all: &'a dyn Pictures,
    /// Position of the first.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl Pictures for Neighbours<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<f32>, DataError> {
        self.all.batch(self.first + range.start..self.first + range.end)
    }

    fn is_costly(&self) -> bool {
        self.all.is_costly()
    }
}

/// Calls `work(number, pictures)` for every batch of `size` pictures; results in the order of the batches. `at_a_time` batches are worked on
/// side by side, by threads of their own; without a number, one by each of rayon's threads. Batches are the same either way.
///
/// Costly pictures are prepared by as many threads as rayon has, others by the threads that work or by one more. They run ahead by as many
/// batches as are worked on: with `p` threads that prepare and `w` that work, at most `p + 2w` batches exist.
///
/// # Errors
/// The first, in the order of batches, of those that occurred before everything stopped: what `pictures` or `work` reports,
/// or a wish to stop.
pub fn over_batches<T: Send>(
    pictures: &dyn Pictures,
    size: usize,
    at_a_time: Option<usize>,
    cancel: &Cancel,
    work: impl Fn(usize, &[f32]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let count = pictures.len().div_ceil(size);
    let range = |index: usize| index * size..((index + 1) * size).min(pictures.len());
    if at_a_time.is_some() || pictures.is_costly() {
        let preparing = if pictures.is_costly() { rayon::current_num_threads() } else { 1 };
        return ahead(count, preparing, at_a_time, &|index| pictures.batch(range(index)), cancel, &work);
    }
    let batch = |index: usize| {
        cancel.check()?;
        work(index, &pictures.batch(range(index))?)
    };
    (0..count).into_par_iter().map(batch).collect()
}

fn ahead<T: Send>(
    count: usize,
    preparing: usize,
    at_a_time: Option<usize>,
    prepare: &(dyn Fn(usize) -> Result<Vec<f32>, DataError> + Sync),
    cancel: &Cancel,
    work: &(impl Fn(usize, &[f32]) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut done = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(at_a_time.unwrap_or_else(rayon::current_num_threads));
        for _ in 0..preparing.min(count) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || stop.load(Ordering::Relaxed) || cancel.check().is_err() {
                        break;
                    }
                    let pictures = prepare(index);
                    let failed = pictures.is_err();
                    // Nobody listens any more when the workers have stopped.
                    if sender.send((index, pictures)).is_err() || failed {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // Owned in here, so that it is gone, and no sender waits for it, when the scope waits for the threads, even when
        // a worker panics.
        let receiver = Mutex::new(receiver);
        let worker = || {
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let received = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((index, pictures)) = received else { break };
                let result = cancel
                    .check()
                    .map_err(anyhow::Error::from)
                    .and_then(|()| Ok(pictures?))
                    .and_then(|pictures| work(index, &pictures));
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                done.push((index, result));
            }
            done
        };
        let lists = match at_a_time {
            None => rayon::broadcast(|_| worker()),
            Some(workers) => side_by_side(workers, &worker),
        };
        lists.into_iter().flatten().collect::<Vec<_>>()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    let complete = done.len() == count;
    let results = done.into_iter().map(|(_, result)| result).collect::<Result<Vec<T>>>()?;
    if !complete {
        cancel.check()?;
    }
    Ok(results)
}

/// Runs `worker` on so many threads; a panic is passed on.
fn side_by_side<T: Send>(workers: usize, worker: &(impl Fn() -> T + Sync)) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use anyhow::bail;

    use super::*;

    /// Picture number `i` is the one value `i`; some cannot be decoded.
    struct Numbers {
        count: usize,
        broken: BTreeSet<usize>,
        costly: bool,
        alive: AtomicUsize,
        most: AtomicUsize,
    }

    impl Numbers {
        fn new(count: usize, broken: &[usize], costly: bool) -> Self {
            let broken = broken.iter().copied().collect();
            Self { count, broken, costly, alive: AtomicUsize::new(0), most: AtomicUsize::new(0) }
        }
    }

    impl Pictures for Numbers {
        fn len(&self) -> usize {
            self.count
        }

        fn batch(&self, range: Range<usize>) -> Result<Vec<f32>, DataError> {
            let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(alive, Ordering::SeqCst);
            match range.clone().find(|index| self.broken.contains(index)) {
                Some(index) => Err(DataError::UnsupportedPicture { path: format!("{index}.jpg").into() }),
                None => Ok(range.map(|index| index as f32).collect()),
            }
        }

        fn is_costly(&self) -> bool {
            self.costly
        }
    }

    fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn every_batch_comes_once_and_results_are_in_order() {
        for threads in [1, 2, 5] {
            for costly in [false, true] {
                let numbers = Numbers::new(103, &[], costly);
                let sums = with_threads(threads, || {
                    over_batches(&numbers, 10, None, &Cancel::default(), |index, batch| Ok((index, batch.to_vec())))
                });
                let sums = sums.unwrap();
                assert_eq!(sums.len(), 11);
                for (index, (number, batch)) in sums.into_iter().enumerate() {
                    let end = (10 * index + 10).min(103);
                    assert_eq!((number, batch), (index, (10 * index..end).map(|i| i as f32).collect()));
                }
            }
        }
        let none = Numbers::new(0, &[], true);
        assert!(over_batches(&none, 10, None, &Cancel::default(), |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn the_number_of_batches_in_flight_is_bounded() {
        for threads in [1, 3] {
            let numbers = Numbers::new(300, &[], true);
            with_threads(threads, || {
                over_batches(&numbers, 1, None, &Cancel::default(), |_, _| {
                    std::thread::yield_now();
                    numbers.alive.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                })
            })
            .unwrap();
            let most = numbers.most.load(Ordering::SeqCst);
            assert!(most <= 3 * threads, "{most} batches with {threads} threads");
        }
    }

    #[test]
    fn so_many_batches_are_worked_on_at_a_time_whatever_the_threads() {
        for (threads, costly) in [(1, false), (1, true), (5, false), (5, true)] {
            let numbers = Numbers::new(100, &[], costly);
            let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let meeting = std::sync::Barrier::new(2);
            let sums = with_threads(threads, || {
                over_batches(&numbers, 1, Some(2), &Cancel::default(), |index, batch| {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Two must be here at once to go on.
                    meeting.wait();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    numbers.alive.fetch_sub(1, Ordering::SeqCst);
                    Ok((index, batch[0]))
                })
            });
            assert_eq!(sums.unwrap(), (0..100).map(|i| (i, i as f32)).collect::<Vec<_>>());
            assert_eq!(most.load(Ordering::SeqCst), 2);
            let preparing = if costly { threads } else { 1 };
            assert!(numbers.most.load(Ordering::SeqCst) <= preparing + 4);
        }
    }

    #[test]
    fn a_file_in_the_middle_that_cannot_be_decoded_is_the_error() {
        for threads in [1, 2, 4] {
            for costly in [false, true] {
                for at_a_time in [None, Some(2)] {
                    let numbers = Numbers::new(1000, &[523], costly);
                    let result = with_threads(threads, || {
                        over_batches(&numbers, 10, at_a_time, &Cancel::default(), |_, _| Ok(()))
                    });
                    assert!(result.unwrap_err().to_string().contains("523.jpg"));
                }
            }
        }
        // All at once, and nobody hangs.
        let numbers = Numbers::new(1000, &(0..1000).collect::<Vec<_>>(), true);
        assert!(with_threads(4, || over_batches(&numbers, 10, None, &Cancel::default(), |_, _| Ok(()))).is_err());
    }

    #[test]
    fn an_error_of_the_compute_or_a_wish_to_stop_ends_everything() {
        for threads in [1, 4] {
            let numbers = Numbers::new(1000, &[], true);
            let result =
                with_threads(threads, || {
                    over_batches(&numbers, 1, None, &Cancel::default(), |index, _| {
                        if index == 7 { bail!("seven") } else { Ok(()) }
                    })
                });
            assert_eq!(result.unwrap_err().to_string(), "seven");
            let cancel = Cancel::default();
            let result = with_threads(threads, || {
                over_batches(&numbers, 1, None, &cancel, |index, _| {
                    if index == 20 {
                        cancel.request();
                    }
                    Ok(())
                })
            });
            assert!(result.unwrap_err().downcast_ref::<crate::cancel::Cancelled>().is_some());
        }
    }

    #[test]
    #[should_panic(expected = "a defect")]
    fn a_panic_of_a_thread_of_its_own_is_passed_on() {
        let numbers = Numbers::new(1000, &[], false);
        let _ = over_batches(&numbers, 1, Some(2), &Cancel::default(), |index, _| -> Result<()> {
            assert!(index != 3, "a defect");
            Ok(())
        });
    }

    #[test]
    #[should_panic(expected = "a defect")]
    fn a_panic_of_the_compute_is_passed_on() {
        let numbers = Numbers::new(1000, &[], true);
        let _ = with_threads(2, || {
            over_batches(&numbers, 1, None, &Cancel::default(), |index, _| -> Result<()> {
                assert!(index != 3, "a defect");
                Ok(())
            })
        });
    }
}
