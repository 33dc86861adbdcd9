//! Architectures by their timm-style name.

use std::sync::Arc;

use crate::architecture::{self, Architecture, TensorSpec, Variant};
use crate::backbone::Backbone;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::families;

/// How pictures are brought to another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Linear in both directions.
    Bilinear,
    /// Cubic in both directions.
    Bicubic,
}

/// Mean of each channel over ImageNet, on the 0–1 scale.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of each channel over ImageNet, on the 0–1 scale.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// An architecture by name, and how its pictures are prepared.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Name, as timm writes it where timm has it.
    pub name: &'static str,
    /// Dimensions; the number of classes is read from the checkpoint.
    pub architecture: Arc<dyn Architecture>,
    /// Mean of each channel, on the 0–1 scale.
    pub mean: &'static [f32],
    /// Standard deviation of each channel, on the 0–1 scale.
    pub std: &'static [f32],
    /// Share of a test picture's shorter side that is kept, cut out of its centre.
    pub crop: f32,
    /// How pictures are resized.
    pub interpolation: Interpolation,
}

/// Why no backbone could be made.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// No such preset.
    #[error("backbone preset `{name}` is not known; hint: {near}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names like it, or all names.
        near: String,
    },
    /// A variant that the architecture does not have.
    #[error(
        "backbone preset `{name}` cannot be had with {wish}: {reason}; hint: choose another `backbone.image` or `backbone.pool`"
    )]
    Variant {
        /// Preset.
        name: String,
        /// What was asked for.
        wish: String,
        /// Why not.
        reason: String,
    },
    /// The checkpoint does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Every preset.
pub fn all() -> Vec<Preset> {
    families::presets()
}

/// The preset called `name`.
///
/// # Errors
/// When there is none; the message names the nearest.
pub fn find(name: &str) -> Result<Preset, PresetError> {
    let mut all = all();
    if let Some(index) = all.iter().position(|preset| preset.name == name) {
        return Ok(all.swap_remove(index));
    }
    let mut ranked: Vec<(f64, &str)> = all.iter().map(|p| (strsim::jaro_winkler(name, p.name), p.name)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = ranked.iter().take(3).map(|(_, name)| *name).collect();
    let known: Vec<&str> = all.iter().map(|p| p.name).collect();
    let near = format!("nearest are {}; known presets are {}", near.join(", "), known.join(", "));
    Err(PresetError::Unknown { name: name.to_owned(), near })
}

impl Preset {
    /// This preset with what `variant` asks for.
    ///
    /// # Errors
    /// When the architecture does not have that variant.
    pub fn varied(&self, variant: &Variant) -> Result<Self, PresetError> {
        let refuse = |reason| {
            let image = variant.image.map(|side| format!("pictures of {side}×{side}"));
            let pool = variant.pool.map(|pool| format!("pooling {pool:?}"));
            let wish = image.into_iter().chain(pool).collect::<Vec<_>>().join(" and ");
            PresetError::Variant { name: self.name.to_owned(), wish, reason }
        };
        Ok(Self { architecture: self.architecture.varied(variant).map_err(refuse)?, ..self.clone() })
    }

    /// Loads weights; the number of classes is that of the checkpoint's classifier. Where `variant` asks for a picture
    /// size, learned position embeddings of another size are resampled; otherwise they are an error.
    ///
    /// # Errors
    /// When the architecture does not have that variant, or the checkpoint does not fit.
    pub fn load(&self, variant: &Variant, checkpoint: Checkpoint) -> Result<Box<dyn Backbone>, PresetError> {
        let preset = self.varied(variant)?;
        Ok(architecture::load(preset.architecture.as_ref(), self.name, checkpoint, variant.image.is_some())?)
    }

    /// Every tensor of a checkpoint with `classes` classes.
    pub fn tensors(&self, classes: usize) -> Vec<TensorSpec> {
        architecture::tensors(self.architecture.as_ref(), classes)
    }

    /// The backbone without values: for executors that look at shapes only.
    pub fn skeleton(&self, classes: usize) -> Box<dyn Backbone> {
        architecture::skeleton(self.architecture.as_ref(), self.name, classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_nearest_is_offered() {
        let all = all();
        for preset in &all {
            assert_eq!(find(preset.name).unwrap().name, preset.name);
            assert_eq!(all.iter().filter(|p| p.name == preset.name).count(), 1, "{}", preset.name);
            assert_eq!(preset.mean.len(), preset.architecture.image_shape()[0], "{}", preset.name);
            assert_eq!(preset.mean.len(), preset.std.len(), "{}", preset.name);
        }
        let message = find("t2t-vit-7").unwrap_err().to_string();
        assert!(message.contains("hint: nearest are t2t_vit_7, "), "{message}");
    }
}
