//! What comes from outside and is wrong: one clear message that names the place, exit code 2, nothing half-written.

use std::path::PathBuf;

use quee_tests::{DIGITS, QUICK, entries, quee, stderr, workspace};
use tempfile::TempDir;

const WEIGHTS: &str = "assets/digits/vit_d6_w80_p2_8.safetensors";

/// Runs the quick digits recipe with `more`; it must fail with exit code 2, say all of `words`, and leave nothing in the
/// results folder.
fn refused(more: &[&str], words: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap()];
    args.extend(QUICK);
    args.extend(more);
    fails(&args, words);
    let left: Vec<PathBuf> = entries(out.path()).into_iter().filter(|p| p.is_file() || p.is_symlink()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn fails(args: &[&str], words: &[&str]) {
    let output = quee(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

/// A damaged copy of a file: its bytes after `damage`.
fn damaged(source: &str, damage: impl FnOnce(&mut Vec<u8>)) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(workspace().join(source)).unwrap();
    damage(&mut bytes);
    let path = folder.path().join("damaged.bin");
    std::fs::write(&path, bytes).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (folder, name)
}

fn bad_data(damage: impl FnOnce(&mut Vec<u8>), words: &[&str]) {
    let (_folder, path) = damaged("assets/digits/digits.bin", damage);
    let mut all = vec![path.as_str(), "hint"];
    all.extend(words);
    refused(&["--data", &path], &all);
}

#[test]
fn backbones_that_nobody_knows() {
    fails(&["inspect", "backbone", "vit_tiny"], &["`vit_tiny`", "hint: nearest are", "no such file"]);
    let (_folder, path) = damaged(WEIGHTS, |bytes| bytes.truncate(4000));
    fails(&["inspect", "backbone", &path], &[&path, "hint"]);
}

#[test]
fn data_that_is_missing() {
    refused(&["--data", "/no/such/file"], &["/no/such/file", "hint"]);
}

#[test]
fn data_that_is_truncated() {
    bad_data(|bytes| bytes.truncate(5000), &[]);
}

#[test]
fn data_with_another_magic_number() {
    bad_data(|bytes| bytes[0] = b'X', &[]);
}

#[test]
fn data_with_a_label_out_of_range() {
    // The first picture's label follows the header of 8 + 5·4 bytes.
    bad_data(|bytes| bytes[28] = 77, &["77"]);
}

fn bad_weights(damage: impl FnOnce(&mut Vec<u8>), words: &[&str]) {
    let (_folder, path) = damaged(WEIGHTS, damage);
    let mut all = vec![path.as_str(), "hint"];
    all.extend(words);
    refused(&["--weights", &path], &all);
}

#[test]
fn weights_that_are_missing() {
    refused(&["--weights", "/no/such/weights"], &["/no/such/weights", "hint"]);
}

#[test]
fn weights_that_are_truncated() {
    bad_weights(|bytes| bytes.truncate(2000), &["safetensors"]);
}

#[test]
fn weights_with_nan() {
    bad_weights(
        |bytes| {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        },
        &["NaN"],
    );
}

/// Renames a tensor inside the header without changing the header's length.
fn rename(from: &'static str, to: &'static str) -> impl FnOnce(&mut Vec<u8>) {
    assert_eq!(from.len(), to.len());
    move |bytes| {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("the name occurs");
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

/// Weights that are finite, but whose sums are not: the bias of the last block's last layer is as large as a number can be.
#[test]
fn weights_that_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(workspace().join(WEIGHTS)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let huge: Vec<u8> = (0..80).flat_map(|_| f32::MAX.to_le_bytes()).collect();
    let mut tensors: Vec<_> = file.tensors();
    let bias = tensors.iter_mut().find(|(name, _)| name == "blocks.5.mlp.fc2.bias").expect("the last block has it");
    bias.1 = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![80], &huge).unwrap();
    let path = folder.path().join("huge.safetensors");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    // Floats carry the values to the exit; quantization is not there to find them.
    let words = ["exit 3 behind segment 3", "NaN or infinity", "hint"];
    refused(&["--weights", path.to_str().unwrap(), "--backend", "cpu"], &words);
    if quee_tests::adapter().is_some() {
        refused(&["--weights", path.to_str().unwrap(), "--backend", "gpu"], &words);
    }
}

#[test]
fn weights_with_a_missing_tensor() {
    bad_weights(rename("blocks.3.mlp.fc1.bias", "blocks.3.mlp.fc9.bias"), &["blocks.3.mlp.fc1.bias", "missing"]);
}

#[test]
fn weights_of_another_preset() {
    let digits = ["--set", "backbone.preset=\"vit_d7_w192_p4_32\"", "--weights", WEIGHTS];
    refused(&digits, &[WEIGHTS, "shape", "hint"]);
}

#[test]
fn weights_for_another_number_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(workspace().join(WEIGHTS)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // The classifier loses its last row.
    let mut tensors = file.tensors();
    for (name, view) in tensors.iter_mut().filter(|(name, _)| name.starts_with("head.")) {
        let whole = file.tensor(name).unwrap();
        let shape = [&[9], &whole.shape()[1..]].concat();
        let data = &whole.data()[..4 * shape.iter().product::<usize>()];
        *view = safetensors::tensor::TensorView::new(whole.dtype(), shape, data).unwrap();
    }
    let path = folder.path().join("nine.safetensors");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    refused(&["--weights", path.to_str().unwrap()], &["9 classes", "hint", "--reset-head"]);
}

#[test]
fn variants_that_a_backbone_does_not_have() {
    refused(&["--set", "backbone.image=9"], &["vit_d6_w80_p2_8", "9×9", "patches of 2×2", "hint"]);
    refused(&["--set", "backbone.preset=\"vit_d6_w80_p2\""], &["vit_d6_w80_p2_8", "nearest", "hint"]);
}

#[test]
fn weights_with_a_tensor_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(workspace().join(WEIGHTS)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let extra = [0u8; 4];
    let mut tensors: Vec<_> = file.tensors();
    tensors.push((
        "surplus".into(),
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &extra).unwrap(),
    ));
    let path = folder.path().join("extra.safetensors");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    refused(&["--weights", path.to_str().unwrap()], &["surplus", "hint"]);
}

#[test]
fn recipes_with_unknown_keys() {
    refused(&["--set", "predictor.hiden=3"], &["predictor.hiden", "did you mean `predictor.hidden`"]);
}

#[test]
fn recipes_that_are_missing_or_no_toml() {
    fails(&["run", "/no/recipe.toml"], &["/no/recipe.toml", "hint"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, "paths = [").unwrap();
    fails(&["run", path.to_str().unwrap()], &["recipe.toml", "TOML"]);
}

#[test]
fn impossible_splits() {
    refused(&["--set", "data.fit=0.9"], &["split", "hint"]);
    refused(&["--set", "data.test=1200"], &["split", "hint"]);
}

#[test]
fn widths_outside_the_range() {
    refused(&["--set", "quant.widths=[9]"], &["`9`", "2 to 8"]);
    refused(&["--set", "quant.widths=[\"w4a33\"]"], &["w4a33"]);
}

#[test]
fn trees_over_the_limit() {
    refused(
        &["--set", "paths.segments=[1,1,1,1,1,1]", "--set", "quant.widths=[2,3,4,5]"],
        &["5460", "fewer segments", "fewer widths", "monotone"],
    );
}

#[test]
fn segments_that_do_not_add_up() {
    refused(&["--set", "paths.segments=[2,2]"], &["paths.segments", "hint"]);
}

#[test]
fn a_results_folder_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let mut args = vec!["run", DIGITS, "--out", file.to_str().unwrap()];
    args.extend(QUICK);
    fails(&args, &[file.to_str().unwrap(), "--out"]);
}

/// Runs with `--out` on a small file system of its own that is full, or read-only.
#[cfg(target_os = "linux")]
fn refused_on(options: &str) {
    let mount = tempfile::tempdir().unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(mount.path()).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        quee_tests::skipped(&format!("mounting a small file system ({options}) needs the rights of root"));
        return;
    }
    let mut args = vec!["run", DIGITS, "--out", mount.path().to_str().unwrap()];
    args.extend(QUICK);
    let output = quee(&args);
    let left: Vec<PathBuf> = entries(mount.path()).into_iter().filter(|p| p.is_file() || p.is_symlink()).collect();
    let unmounted = std::process::Command::new("umount").arg(mount.path()).status();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--out"), "{}", stderr(&output));
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(unmounted.is_ok_and(|s| s.success()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    refused_on("size=64k");
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_disk() {
    refused_on("ro");
}

#[test]
fn predicting_without_a_run_or_with_a_damaged_policy() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().to_str().unwrap();
    fails(&["predict", "--run", run, "--lambda", "1", "x.png"], &["policy.safetensors", "hint"]);
    std::fs::write(folder.path().join("policy.safetensors"), [0u8; 100]).unwrap();
    fails(&["predict", "--run", run, "--lambda", "1", "x.png"], &["policy.safetensors", "hint"]);
    std::fs::copy(workspace().join(WEIGHTS), folder.path().join("policy.safetensors")).unwrap();
    fails(&["predict", "--run", run, "--lambda", "1", "x.png"], &["format", "hint"]);
}
