//! Architectures by their timm-style name.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::vit::{Pool, Vit, VitConfig};

/// An architecture by name, and how its pictures are normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Name, as timm writes it where timm has it.
    pub name: &'static str,
    /// Dimensions; the number of classes is read from the checkpoint.
    pub config: VitConfig,
    /// Mean of each channel, on the 0–1 scale.
    pub mean: &'static [f32],
    /// Standard deviation of each channel, on the 0–1 scale.
    pub std: &'static [f32],
}

/// Why no backbone could be made.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// No such preset.
    #[error("backbone preset `{name}` is not known; hint: known presets are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The checkpoint does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Every preset.
pub fn all() -> Vec<Preset> {
    vec![
        // The embedded backbone for 8×8 digits: 16 patches of 2×2 pixels.
        Preset {
            name: "vit_d6_w80_p2_8",
            config: VitConfig {
                image: 8,
                channels: 1,
                patch: 2,
                dim: 80,
                depth: 6,
                heads: 4,
                hidden: 160,
                classes: 10,
                qkv_bias: true,
                pool: Pool::ClassToken,
            },
            mean: &[0.305],
            std: &[0.376],
        },
        // Small transformer for 32×32 pictures, normalised with the statistics of CIFAR-10.
        Preset {
            name: "vit_d7_w192_p4_32",
            config: VitConfig {
                image: 32,
                channels: 3,
                patch: 4,
                dim: 192,
                depth: 7,
                heads: 3,
                hidden: 384,
                classes: 10,
                qkv_bias: true,
                pool: Pool::ClassToken,
            },
            mean: &[0.4914, 0.4822, 0.4465],
            std: &[0.2470, 0.2435, 0.2616],
        },
    ]
}

/// The preset called `name`.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<Preset, PresetError> {
    let known = || all().iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    let preset = all().into_iter().find(|p| p.name == name);
    preset.ok_or_else(|| PresetError::Unknown { name: name.to_owned(), known: known() })
}

impl Preset {
    /// Loads weights; the number of classes is that of the checkpoint's `head.weight`.
    ///
    /// # Errors
    /// When the checkpoint does not fit the architecture.
    pub fn load(&self, checkpoint: Checkpoint) -> Result<Vit, PresetError> {
        let mut config = self.config.clone();
        if let Some(&[classes, _]) = checkpoint.shape("head.weight") {
            config.classes = classes;
        }
        Ok(Vit::load(self.name, config, checkpoint)?)
    }
}
