//! What is printed of presets and files.

use std::path::PathBuf;

use quee_backbone::presets;
use quee_backbone::tensor_file::{TensorData, encode};

use super::*;

const EMBEDDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/digits/vit_d6_w80_p2_8.safetensors");

fn inspect(what: &str, image: Option<u16>, classes: Option<u32>, json: bool) -> Result<String> {
    run(&InspectCommand::Backbone(BackboneArgs { what: what.to_owned(), image, classes, json }))
}

fn refused(what: &str, image: Option<u16>, classes: Option<u32>) -> String {
    format!("{:#}", inspect(what, image, classes, false).unwrap_err())
}

/// A file with the tensors of a preset, after `change`.
fn file(name: &str, change: impl FnOnce(&mut Vec<TensorData>)) -> (tempfile::TempDir, PathBuf) {
    let specs = presets::find(name).unwrap().tensors(10);
    let zeros = |spec: &quee_backbone::architecture::TensorSpec| {
        TensorData::f32(spec.name.clone(), spec.shape.clone(), vec![0.0; spec.shape.iter().product()])
    };
    let mut tensors: Vec<TensorData> = specs.iter().map(zeros).collect();
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, encode(&tensors, &Default::default())).unwrap();
    (folder, path)
}

#[test]
fn the_digits_backbone_reads_like_this() {
    let text = inspect("vit_d6_w80_p2_8", None, None, false).unwrap();
    assert_eq!(text, include_str!("digits.txt"), "\n{text}");
}

#[test]
fn a_file_is_recognised() {
    let text = inspect(EMBEDDED, None, None, false).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.ends_with("vit_d6_w80_p2_8.safetensors"), "{first}");
    assert_eq!(rest, include_str!("digits.txt"));
}

#[test]
fn blocks_that_differ_are_shown_apart() {
    let text = inspect("t2t_vit_7", None, None, false).unwrap();
    assert!(text.contains("blocks 0–6, each:") && text.contains("performer"), "{text}");
    assert!(!text.contains("blocks.3"), "{text}");
    let mut parts =
        Inspection::new(&subject::of_preset(&presets::find("t2t_vit_7").unwrap(), None, None).unwrap()).parts;
    parts[3].operations[0].parameters += 1;
    let inspection = Inspection {
        backbone: Vec::new(),
        file: None,
        image: [3, 224, 224],
        classes: 1000,
        parts,
        totals: Totals::new(&BackboneCost { stem: PartCost::default(), blocks: vec![], head: PartCost::default() }),
    };
    let text = text::text(&inspection);
    assert!(text.contains("blocks 0–1, each:") && text.contains("\nblock 2:") && text.contains("blocks 3–6, each:"));
}

#[test]
fn json_has_every_block_and_sums_that_fit() {
    let json: serde_json::Value =
        serde_json::from_str(&inspect("mixer_s16_224", Some(64), Some(7), true).unwrap()).unwrap();
    assert_eq!((&json["image"], &json["classes"]), (&serde_json::json!([3, 64, 64]), &serde_json::json!(7)));
    let parts = json["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 10);
    for key in ["parameters", "macs"] {
        let sum: u64 = parts.iter().map(|part| part[key].as_u64().unwrap()).sum();
        assert_eq!(json["totals"][key].as_u64(), Some(sum), "{key}");
    }
    assert_eq!(parts[9]["operations"].as_array().unwrap().last().unwrap()["arithmetic"], "float");
    assert_eq!(parts[1]["operations"][1]["arithmetic"], "none");
    assert_eq!(json["totals"]["bytes_32_bits"].as_u64(), json["totals"]["parameters"].as_u64().map(|n| 4 * n));
}

#[test]
fn a_file_that_fits_two_presets_names_both() {
    let (_folder, path) = file("deit_tiny_patch16_224", |_| {});
    let text = inspect(path.to_str().unwrap(), None, None, false).unwrap();
    assert!(text.contains("vit_tiny_patch16_224 or deit_tiny_patch16_224: pictures 3×224×224, 10 classes"), "{text}");
    assert!(text.contains("deit_tiny_patch16_224: mean [0.485, 0.456, 0.406]"), "{text}");
}

#[test]
fn what_cannot_be_inspected_is_refused_with_a_hint() {
    let unknown = refused("vit_tiny_patch16", None, None);
    assert!(
        unknown.contains("hint: nearest are vit_tiny_patch16_224") && unknown.contains("no such file"),
        "{unknown}"
    );
    assert!(refused("vit_tiny_patch16_224", Some(100), None).contains("16×16"));
    assert!(refused(EMBEDDED, None, Some(10)).contains("hint: leave --classes away"));
    assert!(refused(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), None, None).contains("hint"));
    let (_folder, path) = file("vit_d6_w80_p2_8", |tensors| {
        tensors.retain(|tensor| tensor.name != "blocks.2.norm1.bias");
        tensors.push(TensorData::f32("neck.weight".to_owned(), vec![1], [0.0]));
    });
    let none = refused(path.to_str().unwrap(), None, None);
    for part in [
        "fit no preset",
        "vit_d6_w80_p2_8: 79 tensors agree; 1 missing: blocks.2.norm1.bias; 1 unknown: neck.weight",
        "hint",
    ] {
        assert!(none.contains(part), "`{part}` is missing in: {none}");
    }
    assert!(!none.contains("t2t_vit_7"), "only presets that are near: {none}");
}
