//! What calls in a pickle make: tensors, storages, dictionaries. Nothing is called; the arguments are looked at.

use super::globals::Global;
use super::heap::{Heap, Node, Reason, StorageId, TensorNode, Value};

/// As many as PyTorch allows.
const MOST_AXES: usize = 64;

/// What `callable(*args)` makes.
pub(super) fn call(heap: &mut Heap, callable: Value, args: Value) -> Result<Value, Reason> {
    let Value::Global(global) = callable else { return Err("something that is no function is called".into()) };
    let items = heap.items(args).ok_or("the arguments of a call are no tuple")?;
    match global {
        Global::Inert => heap.add(Node::Inert),
        Global::Dict => dict(heap, args),
        Global::Size => items.first().copied().ok_or("`torch.Size` without an argument".into()),
        Global::Tensor | Global::TypedTensor => {
            let tensor = tensor(heap, global, items)?;
            heap.add(Node::Tensor(Box::new(tensor)))
        }
        Global::Parameter => match items.first() {
            Some(&inner) if matches!(heap.node(inner), Some(Node::Tensor(_))) => Ok(inner),
            _ => Err("a parameter without a tensor".into()),
        },
        Global::WithAttributes => match *items {
            [Value::Global(inner @ (Global::Tensor | Global::TypedTensor | Global::Parameter)), _, args, ..] => {
                call(heap, Value::Global(inner), args)
            }
            _ => Err("a tensor of an unknown kind".into()),
        },
        Global::Storage(_) | Global::Bytes | Global::Dtype(_) => Err("an element type is called".into()),
    }
}

/// An ordered dictionary, whose argument may be a list of pairs.
fn dict(heap: &mut Heap, args: Value) -> Result<Value, Reason> {
    let first = heap.items(args).and_then(|items| items.first().copied());
    let pairs = first.and_then(|first| heap.items(first)).unwrap_or_default();
    let count = pairs.len();
    heap.charge::<(Value, Value)>(count)?;
    let pairs = first.and_then(|first| heap.items(first)).unwrap_or_default();
    let pairs: Option<Vec<(Value, Value)>> = pairs
        .iter()
        .map(|&pair| match heap.items(pair) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        })
        .collect();
    heap.add(Node::Dict(pairs.ok_or("a dictionary of something else than pairs")?))
}

fn tensor(heap: &Heap, global: Global, args: &[Value]) -> Result<TensorNode, Reason> {
    let [storage, offset, shape, strides, rest @ ..] = args else {
        return Err("a tensor with too few arguments".into());
    };
    let node = *storage;
    let storage = heap.storage(node).ok_or("a tensor without a storage")?;
    let dtype = match (global, rest) {
        (Global::TypedTensor, [_, _, Value::Global(Global::Dtype(dtype)), ..]) => *dtype,
        (Global::TypedTensor, _) => return Err("a tensor without an element type".into()),
        _ => storage.dtype.ok_or("a tensor of bytes without an element type")?,
    };
    // After the hooks (and the type) come marks such as "conjugated" or "negated", which would change the values.
    let metadata = rest.get(if global == Global::TypedTensor { 3 } else { 2 }).copied().unwrap_or(Value::None);
    let plain = matches!(metadata, Value::None) || heap.pairs(metadata).is_some_and(<[_]>::is_empty);
    if !plain {
        return Err("a tensor that is to be conjugated or negated".into());
    }
    let offset = size(*offset)? as u64;
    Ok(TensorNode {
        storage: node,
        dtype,
        offset: storage.offset.checked_add(offset).ok_or("an offset beyond 64 bits")?,
        shape: sizes(heap, *shape)?,
        strides: sizes(heap, *strides)?,
    })
}

fn size(value: Value) -> Result<usize, Reason> {
    match value {
        Value::Int(n) => usize::try_from(n).map_err(|_| "a negative size".into()),
        _ => Err("a size that is no integer".into()),
    }
}

fn sizes(heap: &Heap, value: Value) -> Result<Vec<usize>, Reason> {
    let items = heap.items(value).ok_or("a shape that is no tuple")?;
    if items.len() > MOST_AXES {
        return Err(format!("a tensor of {} axes", items.len()).into());
    }
    items.iter().map(|&n| size(n)).collect()
}

/// The storage that a persistent id names: `("storage", type, key, device, count)`, and in files from before PyTorch 1.6
/// a sixth entry, `None` or `(key, offset, count)` of a part.
pub(super) fn storage(heap: &mut Heap, id: Value) -> Result<Value, Reason> {
    let items = heap.items(id).ok_or("a persistent id that is no tuple")?;
    let &[kind, class, key, _, count, ref part @ ..] = items else {
        let kind = items.first().and_then(|&kind| heap.text(kind)).unwrap_or("?");
        return Err(format!("an unknown persistent id, `{kind}`").into());
    };
    if heap.text(kind) != Some("storage") {
        let hint = "; was a whole model saved instead of its state_dict?";
        return Err(format!("an unknown persistent id, `{}`{hint}", heap.text(kind).unwrap_or("?")).into());
    }
    let dtype = match class {
        Value::Global(Global::Storage(dtype)) => Some(dtype),
        Value::Global(Global::Bytes) => None,
        _ => return Err("a storage of an unknown type".into()),
    };
    let key = heap.text(key).ok_or("a storage whose key is no text")?.to_owned();
    let (offset, whole) = match part.first().map(|&part| heap.items(part)) {
        None | Some(None) => (0, true),
        Some(Some(&[_, offset, _])) => (size(offset)? as u64, false),
        Some(Some(_)) => return Err("a part of a storage with too few entries".into()),
    };
    let count = size(count)? as u64;
    heap.add(Node::Storage(Box::new(StorageId { dtype, key, count, offset, whole })))
}
