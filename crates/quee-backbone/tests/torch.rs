//! Checkpoints made by PyTorch, compared with what Python reads from them (see `fixtures/make_torch.py`).

use std::path::{Path, PathBuf};

use quee_backbone::checkpoint::{Checkpoint, CheckpointError, Dtype};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Checkpoint {
    Checkpoint::read(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// 32-bit FNV-1a over the little-endian bytes.
fn checksum(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).into()
}

/// Takes every tensor that Python found and compares it. Returns how many those were.
fn compare(mut checkpoint: Checkpoint, expected: &serde_json::Value) -> usize {
    let expected = expected.as_object().unwrap();
    for (name, tensor) in expected {
        let shape: Vec<usize> =
            tensor["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        // Formats with 8 bits are floats for Python, but no weights here.
        if checkpoint.dtype(name).is_some_and(|dtype| !dtype.converts()) {
            assert!(matches!(checkpoint.take(name, &shape), Err(CheckpointError::Type { .. })), "{name}");
            continue;
        }
        let values = checkpoint.take(name, &shape).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(checksum(&values), tensor["checksum"].as_u64().unwrap(), "{name} of {}", checkpoint.origin());
    }
    checkpoint.finish().unwrap();
    expected.len()
}

fn expected(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

#[test]
fn every_tensor_is_what_python_reads() {
    let expected = expected("expected.json");
    for (name, tensors) in expected.as_object().unwrap() {
        assert!(compare(read(name), tensors) > 0, "{name}");
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert!(compare(Checkpoint::parse(&bytes, name).unwrap(), tensors) > 0, "{name}");
    }
    assert_eq!(expected.as_object().unwrap().len(), 9);
}

#[test]
fn the_golden_checkpoints_are_what_python_reads() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, tensors) in expected("golden.expected.json").as_object().unwrap() {
        let places = ["tests/fixtures/golden", "../shared/golden"].map(|folder| workspace.join(folder).join(name));
        let Some(path) = places.iter().find(|path| path.exists()) else {
            // Written past the test harness, which shows no output of tests that pass.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: {name} is in none of {places:?}\n"),
            );
            continue;
        };
        let checkpoint = Checkpoint::read(path).unwrap();
        assert!(checkpoint.origin().ends_with("[state_dict_ema]"));
        assert!(compare(checkpoint, tensors) > 40);
    }
}

#[test]
fn averaged_weights_come_first_and_the_prefix_is_dropped() {
    for name in ["nested.protocol2.pth.tar", "nested.protocol5.pth.tar", "nested.legacy.pth.tar"] {
        let checkpoint = read(name);
        assert!(checkpoint.origin().ends_with("[state_dict_ema]"), "{}", checkpoint.origin());
        let names: Vec<&str> = checkpoint.names().collect();
        assert_eq!(names[..2], ["0.bias", "0.weight"]);
        assert_eq!(checkpoint.shape("0.weight"), Some(&[4, 3][..]));
    }
}

#[test]
fn integers_are_refused_when_taken_and_ignored_when_not() {
    let mut checkpoint = read("plain.pth");
    assert_eq!(checkpoint.dtype("1.num_batches_tracked"), Some(Dtype::I64));
    let text = checkpoint.take("1.num_batches_tracked", &[]).unwrap_err().to_string();
    assert!(text.contains("`1.num_batches_tracked`") && text.contains("int64") && text.contains("hint"), "{text}");
    assert!(checkpoint.finish().unwrap_err().to_string().contains("6 tensors"));
}

#[test]
fn other_types_are_refused_by_name() {
    for name in ["dtypes.pth", "dtypes.legacy.pth"] {
        let mut checkpoint = read(name);
        for (tensor, shape, dtype) in [("bool", 2, "bool"), ("uint16", 2, "uint16"), ("float8", 8, "float8_e4m3fn")] {
            let text = checkpoint.take(tensor, &[shape]).unwrap_err().to_string();
            assert!(text.contains(&format!("`{tensor}` has type {dtype}")), "{text}");
        }
    }
}

#[test]
fn safetensors_of_other_types() {
    let floats: Vec<u8> = [0x3c00u16, 0xc000].into_iter().flat_map(u16::to_le_bytes).collect();
    let tensor = |dtype, bytes| safetensors::tensor::TensorView::new(dtype, vec![2], bytes).unwrap();
    let tensors = [
        ("half", tensor(safetensors::Dtype::F16, &floats)),
        ("brain", tensor(safetensors::Dtype::BF16, &floats)),
        ("short", tensor(safetensors::Dtype::I16, &floats)),
        ("tiny", tensor(safetensors::Dtype::F8_E5M2, &floats[..2])),
    ];
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let mut checkpoint = Checkpoint::parse(&bytes, "test").unwrap();
    assert_eq!(&*checkpoint.take("half", &[2]).unwrap(), [1.0, -2.0]);
    assert_eq!(&*checkpoint.take("brain", &[2]).unwrap(), [0.0078125, -2.0]);
    assert!(checkpoint.clone().take("short", &[2]).unwrap_err().to_string().contains("int16"));
    assert!(checkpoint.clone().take("tiny", &[2]).unwrap_err().to_string().contains("float8_e5m2"));
    assert!(checkpoint.finish().unwrap_err().to_string().contains("`tiny`"));
}

#[test]
fn code_is_refused_by_name() {
    for (name, global) in [
        ("system.pth", "posix.system"),
        ("bare.pickle", "posix.system"),
        ("eval.legacy.pth", "__builtin__.eval"),
        ("module.pth", "torch.nn.modules.linear.Linear"),
    ] {
        let error = Checkpoint::read(&fixture(name)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CheckpointError::Global { .. }), "{text}");
        for word in [name, &format!("`{global}`"), "at byte", "hint"] {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
    }
}

#[test]
fn archives_that_torch_does_not_write() {
    for (name, word) in [
        ("big_endian.pth", "byte order `big`"),
        ("deflated.pth", "compressed"),
        ("duplicate.pth", "two entries of the name"),
    ] {
        let text = Checkpoint::read(&fixture(name)).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(word) && text.contains("hint"), "{text}");
    }
}

#[test]
fn archives_without_checksums_are_read() {
    assert_eq!(&*read("no_checksums.pth").take("w", &[2]).unwrap(), [1.0, 1.0]);
}

#[test]
fn a_damaged_element_in_an_archive_is_found() {
    let mut bytes = std::fs::read(fixture("plain.pth")).unwrap();
    let one = 1f32.to_le_bytes().repeat(4);
    let at = bytes.windows(16).position(|w| w == one).expect("the weight of the normalisation is all ones");
    bytes[at] ^= 1;
    let text = Checkpoint::parse(&bytes, "test").unwrap_err().to_string();
    assert!(text.contains("checksum") && text.contains("data/"), "{text}");
}

#[test]
fn files_that_are_something_else() {
    for (bytes, word) in [
        (&b"<!DOCTYPE html><html>"[..], "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00", "gzip"),
        (b"", "incomplete"),
        (b"PK\x03\x04 and no more", "directory"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "data.pkl"),
        (b"\x80\x02K\x01.", "not by torch.save"),
        (b"\x05\0\0\0\0\0\0\0{nono", "safetensors"),
    ] {
        let text = Checkpoint::parse(bytes, "test").unwrap_err().to_string();
        assert!(text.contains(word) && text.contains("hint"), "{text}");
    }
    assert!(matches!(Checkpoint::read(&fixture("")), Err(CheckpointError::Io { .. })));
}
