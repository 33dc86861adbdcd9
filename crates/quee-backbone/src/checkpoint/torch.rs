//! Checkpoints that `torch.save` wrote: a zip archive since PyTorch 1.6, pickles followed by raw storages before.
//!
//! In both, a pickle describes the objects and refers to storages by key. They differ in where storages lie.

use std::collections::{BTreeMap, BTreeSet};

use super::CheckpointError;
use super::pickle::{self, Heap, Input, Node, StorageId, TensorNode, Value};
use super::source::Source;
use super::view::{Storage, View};
use super::zip::Archive;

const ZIP: &str = "PyTorch (zip)";
const LEGACY: &str = "PyTorch (before 1.6)";
const INCOMPLETE: &str = "the download may be incomplete";

/// Where a training script may have put the weights, the best place first: averaged weights are what is published.
const KEYS: [&str; 4] = ["state_dict_ema", "model_ema", "state_dict", "model"];

/// What wrappers of a model put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Elements as 32-bit floats may take this many times the file: twice for 16-bit floats, and shared ones.
const MOST_EXPANSION: u64 = 4;

/// Tensors by name, and the key of the dictionary that held them.
pub(super) type Found = (BTreeMap<String, View>, Option<&'static str>);

/// What the values of the pickle of all objects may take, in times the file. A small tensor takes about a kilobyte while
/// its pickle is read.
const OBJECTS: u64 = 6;
/// The same for the list of storages in files from before PyTorch 1.6.
const LIST: u64 = 1;

/// Reads a zip archive.
pub(super) fn read_zip(source: &Source) -> Result<Found, CheckpointError> {
    let archive = Archive::open(source)?;
    let foreign = |reason: &str, hint| source.invalid(ZIP, reason, hint);
    let mut pickles = archive.names().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let (Some(name), None) = (pickles.next(), pickles.next()) else {
        let hint = "only archives of torch.save are read, no .npz and no other zip files";
        return Err(foreign("the archive has no `data.pkl`, or several", hint));
    };
    let folder = name.strip_suffix("data.pkl").unwrap_or_default();
    if archive.find(&format!("{folder}constants.pkl")).is_some() {
        let hint = "save the tensors alone: torch.save(model.state_dict(), path)";
        return Err(foreign("it is a TorchScript program", hint));
    }
    let byte_order = format!("{folder}byteorder");
    if let Some(entry) = archive.find(&byte_order) {
        archive.verify(&byte_order)?;
        let order = source.bytes(entry.position, entry.bytes.min(16))?;
        if order != b"little" {
            let reason = format!("its numbers are in the byte order `{}`", order.escape_ascii());
            return Err(source.invalid(ZIP, reason, "save the file on a little-endian machine"));
        }
    }
    archive.verify(name)?;
    let Some(entry) = archive.find(name) else { return Err(foreign("`data.pkl` is missing", INCOMPLETE)) };
    let mut input = Input::new(source, entry.position, entry.position + entry.bytes, "data.pkl");
    let (heap, root) = pickle::load(&mut input, OBJECTS)?;
    let mut verified = BTreeSet::new();
    collect(source, &heap, root, |storage| {
        let name = format!("{folder}data/{}", storage.key);
        let Some(place) = archive.find(&name) else {
            return Ok(Err(format!("refers to the entry `{name}`, which is missing")));
        };
        if storage.bytes() != Some(place.bytes) {
            return Ok(Err(format!("refers to the entry `{name}`, which has {} bytes", place.bytes)));
        }
        if !verified.contains(&storage.key) {
            archive.verify(&name)?;
            verified.insert(storage.key.clone());
        }
        Ok(Ok(place))
    })
}

/// First pickle of the format before PyTorch 1.6, an integer of 10 bytes.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// Whether the bytes begin like a pickle.
pub(super) fn matches_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// Reads the format before PyTorch 1.6: pickles of a magic number, a version, facts about the machine, the objects and
/// the keys of the storages; then each storage as the number of its elements (8 bytes) and the elements.
pub(super) fn read_legacy(source: &Source) -> Result<Found, CheckpointError> {
    let invalid = |reason: String, hint| source.invalid(LEGACY, reason, hint);
    let mut input = Input::new(source, 0, source.length(), "the file");
    let (heap, magic) = pickle::load(&mut input, 0)?;
    if !matches!(heap.node(magic), Some(Node::Long(bytes)) if **bytes == MAGIC) {
        return Err(invalid("it is a pickle, but not by torch.save".into(), "save the tensors with torch.save"));
    }
    let (_, version) = pickle::load(&mut input, 0)?;
    if !matches!(version, Value::Int(VERSION)) {
        return Err(invalid(format!("its version is not {VERSION}"), INCOMPLETE));
    }
    let (heap, machine) = pickle::load(&mut input, 0)?;
    let little = entry(&heap, machine, "little_endian");
    if !matches!(little, Some(Value::Bool(true))) {
        let hint = "save the file on a little-endian machine";
        return Err(invalid("its numbers are not marked as little-endian".into(), hint));
    }
    let (heap, root) = pickle::load(&mut input, OBJECTS)?;
    let (key_heap, keys) = pickle::load(&mut input, LIST)?;
    let keys = key_heap.items(keys).ok_or_else(|| invalid("the list of storages is missing".into(), INCOMPLETE))?;
    let sizes = storage_sizes(&heap);

    let mut places = BTreeMap::new();
    let mut position = input.position();
    for &key in keys {
        let key = key_heap.text(key).unwrap_or_default();
        let Some(&(size, count)) = sizes.get(key) else {
            return Err(invalid(format!("no tensor refers to storage `{key}`"), INCOMPLETE));
        };
        let beyond = || invalid(format!("storage `{key}` reaches beyond the end of the file"), INCOMPLETE);
        if source.length() - position < 8 {
            return Err(beyond());
        }
        let mut stored = [0; 8];
        source.read_into(position, &mut stored)?;
        let stored = u64::from_le_bytes(stored);
        position += 8;
        if count.is_some_and(|count| count != stored) {
            return Err(invalid(
                format!("storage `{key}` has {stored} elements, its tensors say otherwise"),
                INCOMPLETE,
            ));
        }
        let bytes = stored.checked_mul(size).filter(|&n| n <= source.length() - position).ok_or_else(beyond)?;
        if places.insert(key, Storage { position, bytes }).is_some() {
            return Err(invalid(format!("storage `{key}` occurs twice"), INCOMPLETE));
        }
        position += bytes;
    }
    if position != source.length() {
        return Err(invalid(format!("{} bytes follow the last storage", source.length() - position), INCOMPLETE));
    }
    collect(source, &heap, root, |storage| {
        Ok(places.get(storage.key.as_str()).copied().ok_or_else(|| "refers to a storage that is missing".to_owned()))
    })
}

/// Bytes per element and number of elements of every storage that a pickle names. The number is not known when only a
/// part of the storage is named.
fn storage_sizes(heap: &Heap) -> BTreeMap<&str, (u64, Option<u64>)> {
    let mut sizes = BTreeMap::new();
    for storage in heap.storages() {
        sizes.insert(storage.key.as_str(), (storage.element_size(), storage.whole.then_some(storage.count)));
    }
    sizes
}

/// Value of a key that is a text. In Python, the last of several counts.
fn entry(heap: &Heap, dict: Value, key: &str) -> Option<Value> {
    heap.pairs(dict)?.iter().rev().find(|&&(k, _)| heap.text(k) == Some(key)).map(|&(_, value)| value)
}

/// Named tensors of a dictionary.
fn tensors(heap: &Heap, dict: Value) -> BTreeMap<&str, &TensorNode> {
    let named = heap.pairs(dict).unwrap_or_default().iter().filter_map(|&(key, value)| match heap.node(value)? {
        Node::Tensor(tensor) => Some((heap.text(key)?, &**tensor)),
        _ => None,
    });
    named.collect()
}

/// Finds the dictionary of weights and the place of each tensor.
fn collect(
    source: &Source,
    heap: &Heap,
    root: Value,
    mut locate: impl FnMut(&StorageId) -> Result<Result<Storage, String>, CheckpointError>,
) -> Result<Found, CheckpointError> {
    let under = KEYS.into_iter().find_map(|key| {
        let found = tensors(heap, entry(heap, root, key)?);
        (!found.is_empty()).then_some((Some(key), found))
    });
    let (key, found) = under.unwrap_or_else(|| (None, tensors(heap, root)));
    if found.is_empty() {
        let keys = heap.pairs(root).map(|pairs| pairs.iter().filter_map(|&(key, _)| heap.text(key)).take(8));
        let found = match keys.map(|keys| keys.collect::<Vec<_>>().join("`, `")) {
            Some(keys) if !keys.is_empty() => format!("`{keys}`"),
            _ => "no dictionary".into(),
        };
        return Err(CheckpointError::NoTensors { origin: source.origin().to_owned(), found });
    }
    let mut cut = 0;
    while let Some(prefix) = PREFIXES.iter().find(|prefix| found.keys().all(|name| name[cut..].starts_with(**prefix))) {
        cut += prefix.len();
    }
    let mut views = BTreeMap::new();
    let mut floats = 0u64;
    for (name, tensor) in found {
        let layout = |reason: String| CheckpointError::Layout {
            origin: source.origin().to_owned(),
            tensor: name.to_owned(),
            reason,
        };
        let storage = heap.storage(tensor.storage).ok_or_else(|| layout("has no storage".into()))?;
        let storage = locate(storage)?.map_err(layout)?;
        let view = View::new(tensor.dtype, storage, tensor.offset, tensor.shape.clone(), tensor.strides.clone());
        let view = view.map_err(layout)?;
        if view.dtype().converts() {
            floats = floats.saturating_add(4 * view.count() as u64);
        }
        if floats > MOST_EXPANSION.saturating_mul(source.length()) {
            return Err(layout("repeats the elements of the file too often".into()));
        }
        views.insert(name[cut..].to_owned(), view);
    }
    Ok((views, key))
}
