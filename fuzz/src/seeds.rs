//! The first inputs of every target: valid files, as small as they can be. `seeds/<target>/<name>` holds them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

use quee_backbone::tensor_file::{TensorData, encode};
use quee_store::{KeyParts, Store};

use super::shells;

/// Takes a target, a name and bytes.
type Write<'w> = &'w mut dyn FnMut(&'static str, &'static str, &[u8]);

/// An element of a MATLAB file.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An array of a MATLAB file.
fn array(name: &str, class: u32, dims: &[u32], kind: u32, values: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let flags = [class.to_le_bytes(), [0; 4]].concat();
    let parts = [element(6, &flags), element(5, &dims), element(1, name.as_bytes()), element(kind, values)];
    element(14, &parts.concat())
}

fn mat5(write: Write) {
    let (x, y) = (array("X", 9, &[32, 32, 3, 1], 2, &[5; 3072]), array("y", 9, &[1, 1], 2, &[10]));
    let small = array("y", 6, &[2, 1], 9, &[0; 16]);
    let files =
        [("svhn", [x.clone(), y.clone()].concat()), ("doubles", small), ("other", array("z", 9, &[1], 2, &[1]))];
    for (name, arrays) in files {
        write("mat5", name, &[shells::mat_head(), arrays].concat());
    }
}

fn cifar(write: Write) {
    write("cifar", "cifar10", &[&[9][..], &[0; 3072]].concat());
    write("cifar", "cifar100", &[&[1, 99][..], &[0; 3072]].concat());
}

/// `{"w": tensor}` as torch.save writes it, one tensor of two floats.
const PICKLE: &[u8] = b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\n\
FloatStorage\nq\x04X\x01\x00\x00\x001q\x05X\x03\x00\x00\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q\x09\x89ccollections\nOrderedDict\n\
q\x0a)Rq\x0btq\x0cRq\x0ds.";

fn checkpoints(write: Write) {
    let tensors = [
        TensorData::f32("a", vec![2, 2], [1.0, 2.0, 3.0, 4.0]),
        TensorData::u16("b", vec![1], [1]),
        TensorData::u32("c", vec![1], [1]),
    ];
    let notes = BTreeMap::from([("note".to_owned(), "text".to_owned())]);
    write("checkpoint", "safetensors", &encode(&tensors, &notes));
    let archive = shells::zip(&[("a/data.pkl", PICKLE), ("a/byteorder", b"little"), ("a/data/1", &[0; 8])]);
    let read = quee_backbone::checkpoint::Checkpoint::parse(&archive, "seed").expect("the archive is read");
    assert_eq!(read.names().collect::<Vec<_>>(), ["w"]);
    write("checkpoint", "archive", &archive);
    write("pickle", "tensor", PICKLE);
    // The keys of the storages and one storage follow in the format before PyTorch 1.6.
    let tail =
        b"\x80\x02]q\x00X\x01\x00\x00\x001q\x01a.\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    // There a storage has a sixth element, the view.
    let text = PICKLE.to_vec();
    let at = text.windows(7).position(|bytes| bytes == b"K\x02tq\x07QK").expect("the storage");
    let legacy = [&text[..at + 2], b"N", &text[at + 2..], tail].concat();
    let file = [shells::LEGACY_START, &legacy].concat();
    let read = quee_backbone::checkpoint::Checkpoint::parse(&file, "seed").expect("the checkpoint is read");
    assert_eq!(read.names().collect::<Vec<_>>(), ["w"]);
    write("pickle", "legacy", &legacy);
}

fn quantizers(write: Write) {
    use quee_backbone::quant_file::{LayerNotes, PlanNotes};
    let notes = |layers: BTreeMap<String, LayerNotes>| {
        let (uniform, twin) = (
            "{\"uniform\":{\"bits\":4,\"scale\":0.5,\"zero\":3}}",
            "{\"twin\":{\"bits\":4,\"small\":0.1,\"shift\":2,\"signed\":true}}",
        );
        let log = "{\"log-sqrt2\":{\"bits\":4,\"scale\":1.0}}";
        let json = format!(
            "{{\"weights\":\"mse\",\"activations\":\"minmax\",\"sites\":{{\"x\":[{uniform}],\"y\":[{twin},{log}]}},\
             \"wider\":{{\"x\":{{\"w4a4\":\"w8a8\"}}}},\"layers\":{{}}}}"
        );
        let notes: PlanNotes = serde_json::from_str(&json).expect("the notes are read");
        PlanNotes { layers, ..notes }
    };
    let input = |notes: &PlanNotes, tensors: &[TensorData]| {
        let json = serde_json::to_vec(notes).expect("notes are representable");
        [json, vec![0], encode(tensors, &BTreeMap::new())].concat()
    };
    write("quantizers", "empty", &input(&notes(BTreeMap::new()), &[]));
    let layer = LayerNotes { n: 2, k: 3, norm: true, bias: true, bits: vec![4] };
    let layers = BTreeMap::from([("x".to_owned(), layer)]);
    let three = |name: &str| TensorData::f32(name, vec![3], [1.0; 3]);
    let tensors = [
        three("x.norm.gain"),
        three("x.norm.offset"),
        three("x.norm.factors"),
        TensorData::u32("x.w4.codes", vec![8], [0x8888_8888; 8]),
        TensorData::f32("x.w4.scales", vec![2], [1.0; 2]),
        TensorData::f32("x.w4.bias", vec![2], [0.0; 2]),
    ];
    write("quantizers", "layer", &input(&notes(layers), &tensors));
}

fn store(write: Write) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), u64::MAX).expect("a store");
    let key = KeyParts::new("s").text("a", 1).key().expect("a key");
    let claim = store.claim(&key, |_| ControlFlow::Continue(())).expect("a lock").expect("a claim");
    let file = |extension: &str| {
        fs::read(folder.path().join(format!("{}.{extension}", key.hash()))).expect("the file that was written")
    };
    let mut parts = claim.parts().expect("a part file");
    parts.append(0, b"zero").expect("room");
    parts.append(9, b"").expect("room");
    write("store_parts", "two", &file("parts"));
    drop(parts);
    claim.put(|out| out.write_all(b"payload")).expect("room");
    write("store_entry", "small", &file("entry"));
}

/// Hands every seed to `write`: its target, its name and its bytes.
///
/// # Panics
/// When one is not read, or there is no room for temporary files.
pub fn all(write: &mut dyn FnMut(&'static str, &'static str, &[u8])) {
    mat5(write);
    cifar(write);
    checkpoints(write);
    quantizers(write);
    store(write);
}
