//! Results of finished stages on disk, found by what they were computed from, so that nothing is computed twice.
//!
//! A [`Key`] is the hash of everything that a result depends on. A [`Store`] is a folder with one file per result. Who needs a result looks
//! for it; who does not find it takes the key's [`Claim`], which one process holds at a time, looks again, computes, and stores:
//!
//! ```
//! use std::io::Write;
//! use std::ops::ControlFlow;
//! use quee_store::{KeyParts, Lookup, Store};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! let store = Store::open(folder, 20_000_000_000)?;
//! let key = KeyParts::new("sum").text("numbers", "1 to 10").key()?;
//! let claim = store.claim(&key, |_waited| ControlFlow::Continue(()))?.expect("nothing here stops waiting");
//! let sum = match claim.get() {
//!     Lookup::Found(found) => found.bytes()?,
//!     _missing_or_damaged => {
//!         let sum = (1..=10).sum::<u32>().to_le_bytes();
//!         claim.put(|file| file.write_all(&sum))?;
//!         sum.to_vec()
//!     }
//! };
//! assert_eq!(sum, 55_u32.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A long computation keeps what it has in the claim's [`Parts`]: numbered pieces, which are there again after the
//! process was killed, or a state that takes the place of the one before.
//!
//! - [`KeyParts`], [`Key`], [`Difference`]: what a result was computed from, and how that differs between two results
//! - [`Store`], [`Claim`], [`Lookup`], [`Found`]: looking, computing once, storing
//! - [`Parts`]: pieces of a result that is not finished
//! - [`Item`], [`Pruned`]: what is there, and what had to go
//! - [`entry`], [`pieces`]: the bytes of the two kinds of file, for any reader and writer
//!
//! # What holds whatever happens
//!
//! - What is found is what was stored: every byte is checked before the first is handed out. A file that is not right counts as missing.
//! - An entry appears under its name only when it is whole and on the disk. Everything that changes the files of a key happens under the
//!   key's lock, which the operating system takes from a process that dies.
//! - Trouble with the store is never a reason to stop: looking does not fail, and what [`StoreError`] says is that something was not kept.
//! - Nothing relies on clocks but the order in which results are thrown away.
//!
//! # Files
//!
//! | name | what |
//! | --- | --- |
//! | `<key>.entry` | a finished result |
//! | `<key>.parts` | pieces of a result that is not finished |
//! | `<key>.lock` | locked by who computes the result; removed afterwards |
//! | `<key>.partial` | an entry, or a piece in the place of others, that is being written |
//! | `evict.lock` | locked by who throws results away |
//!
//! Other files in the folder are left alone.

pub mod entry;
mod error;
mod files;
mod header;
mod inventory;
mod key;
mod lock;
mod parts;
pub mod pieces;
mod store;

pub use error::{Damage, StoreError};
pub use files::Kind;
pub use header::Header;
pub use inventory::{Item, Pruned};
pub use key::{Description, Difference, Key, KeyHash, KeyParts};
pub use parts::Parts;
pub use store::{Claim, Damaged, Found, Lookup, Store};
