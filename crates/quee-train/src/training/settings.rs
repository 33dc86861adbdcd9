//! How a backbone is trained.

use quee_backbone::{Backbone, Param};

use crate::TrainError;
use crate::data::expect_setting;

/// What turns gradients into steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// AdamW (arXiv 1711.05101) with moments 0.9 and 0.999; weight decay is decoupled from the gradient.
    AdamW,
    /// Gradient descent; weight decay is added to the gradient.
    Sgd {
        /// Share of the last step that is kept, from 0 to below 1.
        momentum: f64,
        /// Looks one step ahead (Nesterov 1983, in the form of Sutskever et al., ICML 2013).
        nesterov: bool,
    },
}

/// How a backbone is trained: on the cross-entropy, with a linear warm-up and half a cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Passes over the training pictures; default 200.
    pub epochs: usize,
    /// Pictures per step; default 64.
    pub batch: usize,
    /// Default AdamW.
    pub rule: Rule,
    /// Highest learning rate, that of the head; default 1e-3.
    pub learning_rate: f64,
    /// Factor on the learning rate of everything but the head; default 1. At 0 the head alone is trained, and no gradient
    /// of the rest is computed.
    pub backbone_rate: f64,
    /// Further factor on the learning rate per block, counted from the head down, from 0 to 1; default 1. Block l of L has
    /// `layer_decay^(L − l)`, the stem `layer_decay^(L + 1)` (arXiv 2106.08254).
    pub layer_decay: f64,
    /// Weight decay on matrices; default 0.05. Biases, gains and learned tokens have none.
    pub weight_decay: f64,
    /// Epochs of linear warm-up; default 10.
    pub warmup_epochs: usize,
    /// Probability mass that is spread evenly over all classes; default 0.1.
    pub label_smoothing: f32,
    /// α of mixup (arXiv 1710.09412): pictures of a batch are blended in pairs, with a share from Beta(α, α) per batch.
    /// Default 0, which blends nothing.
    pub mixup: f64,
    /// Largest Euclidean norm of all gradients together; default 1.
    pub clip_norm: f64,
    /// Seed of order, augmentation and mixup; default 0.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 200,
            batch: 64,
            rule: Rule::AdamW,
            learning_rate: 1e-3,
            backbone_rate: 1.0,
            layer_decay: 1.0,
            weight_decay: 0.05,
            warmup_epochs: 10,
            label_smoothing: 0.1,
            mixup: 0.0,
            clip_norm: 1.0,
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), TrainError> {
        expect_setting("epochs", self.epochs as f64, 1.0, "at least 1")?;
        expect_setting("batch", self.batch as f64, 1.0, "at least 1")?;
        if let Rule::Sgd { momentum, .. } = self.rule {
            expect_setting("momentum", momentum, 0.0, "from 0 to below 1")?;
            expect_setting("momentum", 1.0 - momentum, f64::MIN_POSITIVE, "from 0 to below 1")?;
        }
        expect_setting("learning rate", self.learning_rate, 0.0, "0 or more")?;
        expect_setting("backbone rate", self.backbone_rate, 0.0, "0 or more")?;
        expect_setting("weight decay", self.weight_decay, 0.0, "0 or more")?;
        expect_setting("mixup", self.mixup, 0.0, "0 or more")?;
        expect_setting("clip norm", self.clip_norm, f64::MIN_POSITIVE, "above 0")?;
        for (what, share) in [("label smoothing", f64::from(self.label_smoothing)), ("layer decay", self.layer_decay)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(TrainError::Setting { what, value: share, hint: "from 0 to 1" });
            }
        }
        Ok(())
    }

    /// Factor on the learning rate of every parameter, by id; 0 where nothing is trained.
    pub(super) fn rates(&self, backbone: &dyn Backbone) -> Vec<f64> {
        let head: Vec<usize> = backbone.head().params().map(|p| p.id).collect();
        let depth = backbone.depth();
        let rate = |param: &Param| {
            if param.frozen {
                return 0.0;
            }
            if head.contains(&param.id) {
                return 1.0;
            }
            let below_head = depth + 1 - layer(&param.name, depth);
            self.backbone_rate * self.layer_decay.powi(below_head as i32)
        };
        backbone.params().iter().map(rate).collect()
    }
}

/// 0 for the stem, l + 1 for block l, and that of the last block for what follows it.
fn layer(name: &str, depth: usize) -> usize {
    let block: Option<usize> =
        name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()).and_then(|l| l.parse().ok());
    match block {
        Some(block) => depth.min(block + 1),
        None if name.starts_with("norm.") || name.starts_with("fc_norm.") => depth,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_from_the_stem() {
        let layers =
            ["cls_token", "patch_embed.proj.weight", "blocks.0.norm1.bias", "blocks.11.attn.qkv.weight", "norm.weight"];
        assert_eq!(layers.map(|name| layer(name, 12)), [0, 0, 1, 12, 12]);
    }

    #[test]
    fn impossible_settings_are_named() {
        let default = TrainConfig::default();
        assert!(default.check().is_ok());
        let sgd = |momentum| Rule::Sgd { momentum, nesterov: true };
        let wrong = [
            (TrainConfig { epochs: 0, ..default.clone() }, "epochs"),
            (TrainConfig { batch: 0, ..default.clone() }, "batch"),
            (TrainConfig { rule: sgd(1.0), ..default.clone() }, "momentum"),
            (TrainConfig { rule: sgd(-0.5), ..default.clone() }, "momentum"),
            (TrainConfig { learning_rate: f64::NAN, ..default.clone() }, "learning rate"),
            (TrainConfig { backbone_rate: -1.0, ..default.clone() }, "backbone rate"),
            (TrainConfig { layer_decay: 1.5, ..default.clone() }, "layer decay"),
            (TrainConfig { label_smoothing: f32::NAN, ..default.clone() }, "label smoothing"),
            (TrainConfig { mixup: f64::INFINITY, ..default.clone() }, "mixup"),
            (TrainConfig { clip_norm: 0.0, ..default.clone() }, "clip norm"),
        ];
        for (config, name) in wrong {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
