//! Which preset a checkpoint belongs to, by the names and shapes of its tensors.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{self, Pool, TensorSpec, Variant};
use crate::checkpoint::Checkpoint;
use crate::cost::BackboneCost;
use crate::executor::ExecError;
use crate::presets::{self, Preset};

/// A preset beside a checkpoint.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The preset, for the picture size that was asked for and pooled as the checkpoint's tensors say.
    pub preset: Preset,
    /// Classes of the checkpoint's classifier.
    pub classes: usize,
    /// Tensors that it needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors that the checkpoint has and it does not know.
    pub surplus: Vec<String>,
    /// Tensors of another shape: name, expected, found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that agree.
    pub agreeing: usize,
}

impl Fit {
    /// Whether the checkpoint can be loaded as this preset.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.misshapen.is_empty()
    }

    /// Number of tensors that differ.
    pub fn differences(&self) -> usize {
        self.missing.len() + self.surplus.len() + self.misshapen.len()
    }

    /// Operations of the preset with the checkpoint's tensors.
    ///
    /// # Errors
    /// When the program's shapes do not fit together.
    pub fn cost(&self, checkpoint: &Checkpoint) -> Result<BackboneCost, ExecError> {
        BackboneCost::count(
            &*architecture::shaped_as(self.preset.architecture.as_ref(), self.preset.name, checkpoint).0,
        )
    }
}

/// Every preset that has a variant for pictures of `image` pixels (its own size if `None`), the best fit first.
pub fn rank(checkpoint: &Checkpoint, image: Option<usize>) -> Vec<Fit> {
    let mut fits: Vec<Fit> = presets::all().iter().filter_map(|preset| of_preset(preset, checkpoint, image)).collect();
    fits.sort_by_key(|fit| (fit.differences(), std::cmp::Reverse(fit.agreeing)));
    fits
}

/// The best of a preset's ways to pool.
fn of_preset(preset: &Preset, checkpoint: &Checkpoint, image: Option<usize>) -> Option<Fit> {
    let pools = [None, Some(Pool::Mean)];
    let variants = pools.iter().filter_map(|&pool| preset.varied(&Variant { image, pool }).ok());
    variants.map(|preset| compare(preset, checkpoint)).min_by_key(Fit::differences)
}

fn compare(preset: Preset, checkpoint: &Checkpoint) -> Fit {
    let (backbone, specs) = architecture::shaped_as(preset.architecture.as_ref(), preset.name, checkpoint);
    let expected: BTreeMap<&str, &TensorSpec> = specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
    let mut fit = Fit {
        preset,
        classes: backbone.classes(),
        missing: Vec::new(),
        surplus: Vec::new(),
        misshapen: Vec::new(),
        agreeing: 0,
    };
    for spec in &specs {
        match checkpoint.shape(&spec.name) {
            None => fit.missing.push(spec.name.clone()),
            Some(shape) if shape == spec.shape => fit.agreeing += 1,
            Some(shape) => fit.misshapen.push((spec.name.clone(), spec.shape.clone(), shape.to_vec())),
        }
    }
    let ignored = |name: &str| checkpoint.dtype(name).is_some_and(|dtype| dtype.is_integer());
    let surplus: BTreeSet<&str> =
        checkpoint.names().filter(|name| !expected.contains_key(name) && !ignored(name)).collect();
    fit.surplus = surplus.into_iter().map(str::to_owned).collect();
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint of a preset, all zeros.
    fn zeros(name: &str, classes: usize) -> Checkpoint {
        let specs = presets::find(name).unwrap().tensors(classes);
        let tensor = |spec: TensorSpec| {
            let values = vec![0.0; spec.shape.iter().product()];
            (spec.name, spec.shape, values)
        };
        Checkpoint::from_tensors(name, specs.into_iter().map(tensor))
    }

    #[test]
    fn a_checkpoint_finds_its_preset() {
        for name in ["vit_d6_w80_p2_8", "mixer_d8_w128_p4_32", "t2t_vit_7"] {
            let checkpoint = zeros(name, 7);
            let fits = rank(&checkpoint, None);
            assert_eq!((fits[0].preset.name, fits[0].classes, fits[0].is_exact()), (name, 7, true));
            assert!(!fits[1].is_exact(), "{} fits as well", fits[1].preset.name);
            let skeleton = presets::find(name).unwrap().skeleton(7);
            assert_eq!(fits[0].cost(&checkpoint).unwrap(), BackboneCost::count(&*skeleton).unwrap());
        }
    }

    #[test]
    fn presets_with_the_same_tensors_both_fit() {
        let fits = rank(&zeros("deit_tiny_patch16_224", 10), None);
        let exact: Vec<&str> = fits.iter().filter(|fit| fit.is_exact()).map(|fit| fit.preset.name).collect();
        assert_eq!(exact, ["vit_tiny_patch16_224", "deit_tiny_patch16_224"]);
    }

    #[test]
    fn what_differs_is_named() {
        let mut checkpoint = zeros("vit_d6_w80_p2_8", 10);
        checkpoint.take("blocks.2.norm1.bias", &[80]).unwrap();
        checkpoint.insert("ema.step", vec![1], vec![0.0]);
        checkpoint.insert("pos_embed", vec![1, 65, 80], vec![0.0; 65 * 80]);
        let fit = rank(&checkpoint, None).swap_remove(0);
        assert_eq!(fit.preset.name, "vit_d6_w80_p2_8");
        assert_eq!((fit.missing, fit.surplus), (vec!["blocks.2.norm1.bias".to_owned()], vec!["ema.step".to_owned()]));
        assert_eq!(fit.misshapen, [("pos_embed".to_owned(), vec![1, 17, 80], vec![1, 65, 80])]);
        let larger = rank(&checkpoint, Some(16)).swap_remove(0);
        assert!(larger.misshapen.is_empty(), "16 pixels make 64 patches");
    }

    #[test]
    fn normalisation_after_pooling_is_seen() {
        let mut checkpoint = zeros("vit_d6_w80_p2_8", 10);
        for part in ["weight", "bias"] {
            checkpoint.take(&format!("norm.{part}"), &[80]).unwrap();
            checkpoint.insert(&format!("fc_norm.{part}"), vec![80], vec![0.0; 80]);
        }
        assert!(rank(&checkpoint, None)[0].is_exact());
    }

    #[test]
    fn a_strange_checkpoint_fits_nothing() {
        let fits = rank(&Checkpoint::from_tensors("x", [("w".to_owned(), vec![0], vec![])]), None);
        assert!(fits.iter().all(|fit| !fit.is_exact() && fit.agreeing == 0));
        let odd = Checkpoint::from_tensors("x", [("head.weight".to_owned(), vec![], vec![1.0])]);
        assert!(!rank(&odd, None)[0].is_exact());
    }
}
