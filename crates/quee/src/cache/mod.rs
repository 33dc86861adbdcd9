//! Results of finished stages, kept from run to run: what was computed is looked up, and a run that was killed goes on.
//!
//! Trouble with the cache never stops a run. It is said, and the stage is computed.
//!
//! - [`keys`]: what each stage depends on
//! - [`Checkpoint`]: pieces of a long stage, or where it stands
//! - [`explain`]: which stages would run, and why

pub mod explain;
pub mod keys;

use std::io::{BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quee_store::{Claim, Key, Lookup, Parts, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache_command::{LIMIT, Size};
use crate::cancel::Cancel;
use crate::folders;
use crate::stages::tables::Scratch;

/// What `--cache` and QUEE_CACHE call no cache.
const NONE: &str = "none";
/// A stage keeps no pieces before it has run for so long: short ones would only be slowed down.
const KEEP_AFTER: Duration = Duration::from_secs(2);
/// The piece that says where work stands that goes on step by step. No pass comes so far.
const STATE: u64 = u64::MAX;
/// Bytes that strings are read into.
const STRINGS: usize = 1 << 16;

/// Where results of finished stages are kept.
#[derive(clap::Args, Clone, Debug)]
pub struct CacheArgs {
    /// Folder of stored results of finished stages, or `none` [default: QUEE_CACHE, or the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Most bytes of all stored results together; those that were not used for longest go first
    #[arg(long, value_name = "SIZE", default_value_t = LIMIT)]
    cache_limit: Size,
}

impl CacheArgs {
    /// The same for the command line of another process.
    pub fn arguments(&self) -> Vec<String> {
        let folder = self.cache.iter().map(|folder| format!("--cache={}", folder.display()));
        folder.chain([format!("--cache-limit={}", self.cache_limit.0)]).collect()
    }
}

/// Results of finished stages.
#[derive(Debug, Default)]
pub struct Cache {
    store: Option<Store>,
    /// Whether trouble was told already.
    told: AtomicBool,
}

impl Cache {
    /// No cache: everything is computed.
    pub fn off() -> Self {
        Self::default()
    }

    /// The cache that the command line asks for. Where there can be none, that is said, and everything is computed.
    pub fn open(args: &CacheArgs) -> Self {
        let named = args.cache.clone().or_else(|| std::env::var_os("QUEE_CACHE").map(PathBuf::from));
        if named.is_some_and(|name| name.as_os_str() == NONE) {
            return Self::off();
        }
        let opened = folders::cache(args.cache.as_deref())
            .and_then(|folder| Store::open(folder, args.cache_limit.0).context("the cache cannot be used"));
        match opened {
            Ok(store) => Self { store: Some(store), told: AtomicBool::new(false) },
            Err(error) => {
                eprintln!(
                    "{error:#}; going on without; hint: name a folder with --cache or QUEE_CACHE, or --cache none"
                );
                Self::off()
            }
        }
    }

    /// A result that is stored.
    ///
    /// # Errors
    /// When `read` fails.
    pub fn stored<T>(&self, key: &Key, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<Option<T>> {
        match self.store.as_ref().map(|store| store.get(key)) {
            Some(Lookup::Found(found)) => read(&mut BufReader::with_capacity(1 << 17, found)).map(Some),
            Some(Lookup::Damaged(damaged)) => bail!("{damaged}; hint: compute it anew"),
            Some(Lookup::Missing) | None => Ok(None),
        }
    }

    /// Where features of many pictures lie while a run works on them: beside the results that are kept.
    pub fn scratch(&self) -> Scratch {
        Scratch::in_folder(self.store.as_ref().map(|store| store.folder().to_owned()))
    }

    /// The store, where there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The result of `key`: stored, or else computed and stored. `compute` may keep pieces of its work, which are there again when it was
    /// killed; `say` gets what the user should know. Also whether it was stored.
    ///
    /// # Errors
    /// Those of `compute`, or a wish to stop while another process computes the same result.
    pub fn stage<T: Serialize + DeserializeOwned>(
        &self,
        key: &Key,
        cancel: &Cancel,
        say: &(dyn Fn(&str) + Sync),
        compute: impl FnOnce(&Checkpoint) -> Result<T>,
    ) -> Result<(T, bool)> {
        self.stage_in_form(key, cancel, say, (&from_postcard, &to_postcard), compute)
    }

    /// As [`stage`](Self::stage), with a result that is read and written in a form of its own.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    pub fn stage_in_form<T>(
        &self,
        key: &Key,
        cancel: &Cancel,
        say: &(dyn Fn(&str) + Sync),
        form: Form<T>,
        compute: impl FnOnce(&Checkpoint) -> Result<T>,
    ) -> Result<(T, bool)> {
        let Some(store) = &self.store else { return Ok((compute(&Checkpoint::none())?, false)) };
        if let Some(value) = decode(store.get(key), form.0, say) {
            return Ok((value, true));
        }
        let mut waits = false;
        let claimed = store.claim(key, |_| {
            if !std::mem::replace(&mut waits, true) {
                say("another run computes the same; waiting for its result");
            }
            if cancel.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let claim = match claimed {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                cancel.check()?;
                return Ok((compute(&Checkpoint::none())?, false));
            }
            Err(error) => {
                self.trouble(&format!("results are not kept: {error}"), say);
                return Ok((compute(&Checkpoint::none())?, false));
            }
        };
        // Who had the claim may have stored it.
        if let Some(value) = decode(claim.get(), form.0, say) {
            return Ok((value, true));
        }
        let value = compute(&Checkpoint::of(&claim, say))?;
        let stored = claim.put(|file| (form.1)(&value, file).map_err(std::io::Error::other));
        if let Err(error) = stored {
            self.trouble(&format!("the result is not kept: {error}"), say);
        }
        Ok((value, false))
    }

    /// Said once: a full disk is full for every stage.
    fn trouble(&self, text: &str, say: &dyn Fn(&str)) {
        if !self.told.swap(true, Ordering::Relaxed) {
            say(&format!("{text}; going on"));
        }
    }
}

/// How a result is read and written.
pub type Form<'f, T> = (&'f dyn Fn(&mut dyn Read) -> Result<T>, &'f dyn Fn(&T, &mut dyn Write) -> Result<()>);

/// A value as [`to_postcard`] has written it.
///
/// # Errors
/// When it is of another form or cannot be read.
pub fn from_postcard<T: DeserializeOwned>(from: &mut dyn Read) -> Result<T> {
    let mut strings = vec![0; STRINGS];
    Ok(postcard::from_io((from, &mut strings[..]))?.0)
}

/// Writes a value.
///
/// # Errors
/// When it is not representable or cannot be written.
pub fn to_postcard<T: Serialize>(value: &T, out: &mut dyn Write) -> Result<()> {
    postcard::to_io(value, out)?;
    Ok(())
}

fn decode<T>(lookup: Lookup, read: &dyn Fn(&mut dyn Read) -> Result<T>, say: &dyn Fn(&str)) -> Option<T> {
    let found = match lookup {
        Lookup::Missing => return None,
        Lookup::Damaged(damaged) => {
            say(&format!("{damaged}; computing it anew"));
            return None;
        }
        Lookup::Found(found) => found,
    };
    let value = read(&mut BufReader::with_capacity(1 << 17, found));
    value.inspect_err(|error| say(&format!("a stored result is of another form ({error}); computing it anew"))).ok()
}

/// What is kept of a stage that runs, from a run that was killed and from this one: pieces, for work that has parts, or a state, for work that
/// goes on step by step.
pub struct Checkpoint<'c> {
    parts: Option<Mutex<Parts<'c>>>,
    started: Instant,
    passes: AtomicU64,
}

impl<'c> Checkpoint<'c> {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self { parts: None, started: Instant::now(), passes: AtomicU64::new(0) }
    }

    fn of(claim: &'c Claim, say: &dyn Fn(&str)) -> Self {
        let parts = match claim.parts() {
            Ok(parts) => {
                // Who reads a state says itself where it stands.
                let known = parts.numbers().filter(|number| *number != STATE).count();
                if known > 0 {
                    say(&format!("going on where a run was stopped, with {known} pieces of its work"));
                }
                if let Some(damage) = parts.cut() {
                    say(&format!("an incomplete piece of a stopped run's work was cut off: {damage}"));
                }
                Some(Mutex::new(parts))
            }
            // Storing the result will say what is wrong.
            Err(_) => None,
        };
        Self { parts, started: Instant::now(), passes: AtomicU64::new(0) }
    }

    /// Where the work stood when a run was stopped.
    pub fn state(&self) -> Option<Vec<u8>> {
        self.locked()?.read(STATE).ok()?
    }

    /// Keeps where the work stands, on the disk, in the place of everything kept before. Whether there is anywhere to keep it.
    ///
    /// # Errors
    /// When it cannot be kept; then what was kept before is still there.
    pub fn keep_state(&self, state: &[u8]) -> Result<bool, StoreError> {
        self.locked().map_or(Ok(false), |mut parts| parts.replace(STATE, state).map(|()| true))
    }

    fn locked(&self) -> Option<MutexGuard<'_, Parts<'c>>> {
        self.parts.as_ref().map(|parts| parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Numbered pieces of work, in passes. Passes must begin in the same order in every run.
pub trait Pieces: Sync {
    /// A pass begins: its number.
    fn begin_pass(&self) -> u64;

    /// A piece that an earlier run has kept.
    fn piece(&self, pass: u64, number: usize) -> Option<Vec<Vec<f32>>>;

    /// Keeps a piece, once the stage has run for a while. A piece that cannot be kept is only computed again.
    fn keep(&self, pass: u64, number: usize, piece: &[Vec<f32>]);
}

impl Pieces for Checkpoint<'_> {
    fn begin_pass(&self) -> u64 {
        self.passes.fetch_add(1, Ordering::Relaxed)
    }

    fn piece(&self, pass: u64, number: usize) -> Option<Vec<Vec<f32>>> {
        let bytes = self.locked()?.read(number_of(pass, number)).ok()??;
        postcard::from_bytes(&bytes).ok()
    }

    fn keep(&self, pass: u64, number: usize, piece: &[Vec<f32>]) {
        if self.started.elapsed() < KEEP_AFTER {
            return;
        }
        let (Ok(bytes), Some(mut parts)) = (postcard::to_stdvec(piece), self.locked()) else { return };
        let _ = parts.append(number_of(pass, number), &bytes);
    }
}

fn number_of(pass: u64, number: usize) -> u64 {
    pass << 40 | number as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use quee_store::KeyParts;

    use super::*;

    fn cache(folder: &std::path::Path) -> Cache {
        Cache { store: Some(Store::open(folder, 1 << 30).unwrap()), told: AtomicBool::new(false) }
    }

    fn key(value: u32) -> Key {
        KeyParts::new("stage").text("value", value).key().unwrap()
    }

    #[test]
    fn a_result_is_computed_once_and_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let value = (vec![vec![f32::MIN_POSITIVE, -0.0, 1.0 / 3.0], vec![]], "text".to_owned(), f64::EPSILON);
        let computed = AtomicUsize::new(0);
        let run = |cache: &Cache, key: &Key| {
            let compute = |_: &Checkpoint| {
                computed.fetch_add(1, Ordering::Relaxed);
                Ok(value.clone())
            };
            cache.stage(key, &Cancel::default(), &|_| (), compute).unwrap()
        };
        for (number, reused, times) in [(1, false, 1), (1, true, 1), (2, false, 2), (1, true, 2)] {
            let (got, was_stored) = run(&cache(folder.path()), &key(number));
            assert_eq!((got.0[0][1].to_bits(), &got), ((-0.0f32).to_bits(), &value));
            assert_eq!((was_stored, computed.load(Ordering::Relaxed)), (reused, times), "{number}");
        }
        assert!(!run(&Cache::off(), &key(1)).1, "without a cache everything is computed");
    }

    #[test]
    fn a_stored_result_of_another_form_is_said_and_computed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let said = Mutex::new(Vec::new());
        let say = |text: &str| said.lock().unwrap().push(text.to_owned());
        cache.stage(&key(1), &Cancel::default(), &say, |_| Ok(7u8)).unwrap();
        let (text, stored) = cache.stage(&key(1), &Cancel::default(), &say, |_| Ok("seven".to_owned())).unwrap();
        assert_eq!((text.as_str(), stored), ("seven", false));
        assert!(said.lock().unwrap()[0].contains("another form"), "{said:?}");
    }

    #[test]
    fn pieces_of_a_killed_stage_are_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let died: Result<(u8, bool)> = cache.stage(&key(1), &Cancel::default(), &|_| (), |checkpoint| {
            let pass = checkpoint.begin_pass();
            checkpoint.keep(pass, 0, &[vec![1.5]]);
            assert_eq!(checkpoint.piece(pass, 0), None, "too early to be kept");
            std::thread::sleep(KEEP_AFTER);
            checkpoint.keep(pass, 3, &[vec![2.5], vec![]]);
            anyhow::bail!("killed")
        });
        assert!(died.is_err());
        let said = Mutex::new(String::new());
        let say = |text: &str| said.lock().unwrap().push_str(text);
        let found = cache.stage(&key(1), &Cancel::default(), &say, |checkpoint| {
            let pass = checkpoint.begin_pass();
            Ok((checkpoint.piece(pass, 0), checkpoint.piece(pass, 3)))
        });
        assert_eq!(found.unwrap().0, (None, Some(vec![vec![2.5], vec![]])));
        assert!(said.lock().unwrap().contains("1 pieces"), "{said:?}");
    }

    #[test]
    fn the_last_state_of_a_killed_stage_is_there_again_and_goes_with_the_result() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let run = |compute: &dyn Fn(&Checkpoint) -> Result<u8>| {
            cache.stage(&key(1), &Cancel::default(), &|text| panic!("{text}"), compute)
        };
        let died = run(&|checkpoint| {
            assert_eq!(checkpoint.state(), None);
            assert!(checkpoint.keep_state(b"first").unwrap() && checkpoint.keep_state(b"second").unwrap());
            anyhow::bail!("killed")
        });
        assert!(died.is_err());
        let went_on = run(&|checkpoint| {
            assert_eq!(checkpoint.state().as_deref(), Some(&b"second"[..]));
            Ok(7)
        });
        assert_eq!(went_on.unwrap(), (7, false));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the result and the lock of those who evict");
        assert!(!Checkpoint::none().keep_state(b"x").unwrap(), "there is nowhere to keep it");
    }
}
