//! PyTorch checkpoints given to the program.

use std::collections::BTreeMap;

use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_tests::{DIGITS, QUICK, entries, quee, stderr, workspace};
use safetensors::SafeTensors;

const FIXTURES: &str = "crates/quee-backbone/tests/fixtures";

/// Runs the quick digits recipe with these weights; it must fail with exit code 2, say all of `words`, and leave nothing
/// in the results folder.
fn refused(weights: &str, words: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let weights = format!("{FIXTURES}/{weights}");
    let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--weights", &weights];
    args.extend(QUICK);
    let output = quee(&args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words.iter().copied().chain([weights.as_str(), "hint"]) {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
    assert!(!entries(out.path()).iter().any(|path| path.is_file()), "{:?}", entries(out.path()));
}

#[test]
fn code_in_a_pickle_is_refused_by_name() {
    refused("system.pth", &["`posix.system`", "at byte"]);
    refused("eval.legacy.pth", &["`__builtin__.eval`", "at byte"]);
    refused("module.pth", &["`torch.nn.modules.linear.Linear`", "state_dict"]);
}

#[test]
fn other_archives_and_architectures_are_refused() {
    refused("deflated.pth", &["compressed"]);
    refused("big_endian.pth", &["byte order"]);
    refused("nested.legacy.pth.tar", &["[state_dict_ema]", "missing"]);
}

/// A file as PyTorch wrote it before 1.6, with the tensors under `state_dict`.
fn torch_file(tensors: &SafeTensors) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn sizes(out: &mut Vec<u8>, sizes: &[usize]) {
        out.push(b'(');
        for &size in sizes {
            out.push(b'J');
            out.extend(i32::try_from(size).unwrap().to_le_bytes());
        }
        out.push(b't');
    }
    let mut names = tensors.names();
    names.sort_unstable();
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}".to_vec();
    text(&mut file, "little_endian");
    file.extend(b"\x88s.\x80\x02}");
    text(&mut file, "state_dict");
    file.extend(b"}(");
    for name in &names {
        let tensor = tensors.tensor(name).unwrap();
        let shape = tensor.shape();
        text(&mut file, name);
        file.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut file, "storage");
        file.extend(b"ctorch\nFloatStorage\n");
        text(&mut file, name);
        text(&mut file, "cpu");
        file.push(b'J');
        file.extend(i32::try_from(tensor.data().len() / 4).unwrap().to_le_bytes());
        file.extend(b"NtQK\x00");
        sizes(&mut file, shape);
        let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        sizes(&mut file, &strides);
        file.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    file.extend(b"us.\x80\x02](");
    names.iter().for_each(|name| text(&mut file, name));
    file.extend(b"e.");
    for name in names {
        let data = tensors.tensor(name).unwrap().data().to_vec();
        file.extend((data.len() as u64 / 4).to_le_bytes());
        file.extend(data);
    }
    file
}

/// What a pickle may build is bounded by the size of the file, which small tensors hardly add to.
#[test]
fn files_of_many_small_tensors_are_read() {
    let names: Vec<String> = (0..2000).map(|i| format!("blocks.{i}.bias")).collect();
    let tensors: Vec<TensorData> = names.iter().map(|name| TensorData::f32(name, vec![1], [0.5])).collect();
    let bytes = encode(&tensors, &BTreeMap::new());
    let file = torch_file(&SafeTensors::deserialize(&bytes).unwrap());
    let mut checkpoint = Checkpoint::parse(&file, "small").unwrap();
    assert!(names.iter().all(|name| *checkpoint.take(name, &[1]).unwrap() == [0.5]));
    checkpoint.finish().unwrap();
}

#[test]
fn a_run_with_weights_from_pytorch() {
    let bytes = std::fs::read(workspace().join("assets/digits/vit_d6_w80_p2_8.safetensors")).unwrap();
    let out = tempfile::tempdir().unwrap();
    // The name says nothing: the content does.
    let weights = out.path().join("weights.bin");
    std::fs::write(&weights, torch_file(&SafeTensors::deserialize(&bytes).unwrap())).unwrap();
    let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--weights", weights.to_str().unwrap()];
    args.extend(QUICK);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let folder = String::from_utf8(output.stdout).unwrap();
    let summary = std::fs::read(std::path::Path::new(folder.trim()).join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert!(summary["weights"].as_str().unwrap().ends_with("weights.bin [state_dict]"), "{summary}");
    assert!(summary["static_accuracy"]["float"].as_f64().unwrap() >= 0.96, "{summary}");
}
