//! Backbones that come with the program.

use quee_backbone::checkpoint::{Checkpoint, CheckpointError};

/// Weights embedded for a preset and data set.
struct Embedded {
    preset: &'static str,
    dataset: &'static str,
    origin: &'static str,
    bytes: &'static [u8],
}

const EMBEDDED: &[Embedded] = &[Embedded {
    preset: "vit_d6_w80_p2_8",
    dataset: "digits",
    origin: "assets/digits/vit_d6_w80_p2_8.safetensors (embedded)",
    bytes: include_bytes!("../../../assets/digits/vit_d6_w80_p2_8.safetensors"),
}];

/// The embedded checkpoint of `preset` for `dataset`, if there is one.
///
/// # Errors
/// When the embedded bytes are damaged, which a test excludes.
pub fn checkpoint(preset: &str, dataset: &str) -> Option<Result<Checkpoint, CheckpointError>> {
    let found = EMBEDDED.iter().find(|e| e.preset == preset && e.dataset == dataset)?;
    Some(Checkpoint::parse(found.bytes, found.origin))
}
