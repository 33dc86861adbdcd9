//! One predictor for all gates, which takes the continuation as an input.
//!
//! It pools over gates, prefixes and continuations, and can be asked about one path at a time, so that the paths need
//! not be listed (a choice of this project; QuEE has one predictor per gate).

use serde::{Deserialize, Serialize};

use crate::{Calibration, Ensemble, FeatureSpec, HeadsError, Standardizer, Trees};

/// What computes the probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SharedModel {
    /// Small networks with one output, averaged.
    Ensemble(Ensemble),
    /// Gradient-boosted trees.
    Trees(Trees),
}

/// Predicts, at any gate, the probability of error of any continuation.
///
/// Inputs, in order: the first [`cell_dim`](FeatureSpec::cell_dim) features of the sample at the gate, which are there
/// at every gate, and [`describe_path`](FeatureSpec::describe_path).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct SharedPredictor(Parts);

/// What a predictor consists of, before it is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    spec: FeatureSpec,
    standardizer: Standardizer,
    model: SharedModel,
    calibration: Calibration,
}

impl SharedPredictor {
    /// Puts the parts together, without calibration.
    ///
    /// # Errors
    /// When standardizer and model do not read `spec.cell_dim() + spec.path_dim()` inputs, networks have not exactly
    /// one output, or a part fails its own check.
    pub fn new(spec: FeatureSpec, standardizer: Standardizer, model: SharedModel) -> Result<Self, HeadsError> {
        Self::try_from(Parts { spec, standardizer, model, calibration: Calibration::Identity })
    }

    /// The same predictor with another calibration, of all gates together.
    ///
    /// # Errors
    /// As [`Calibration::check`].
    pub fn with_calibration(mut self, calibration: Calibration) -> Result<Self, HeadsError> {
        calibration.check()?;
        self.0.calibration = calibration;
        Ok(self)
    }

    /// Which features it reads.
    pub fn spec(&self) -> &FeatureSpec {
        &self.0.spec
    }

    /// How its inputs are standardised.
    pub fn standardizer(&self) -> &Standardizer {
        &self.0.standardizer
    }

    /// What computes the probability.
    pub fn model(&self) -> &SharedModel {
        &self.0.model
    }

    /// Its calibration.
    pub fn calibration(&self) -> &Calibration {
        &self.0.calibration
    }

    /// Calibrated probability of error if a sample with `features`, which came by `prefix`, goes on by `suffix` at
    /// relative `cost`. The same number as that of [`predict_all`](Self::predict_all).
    ///
    /// # Panics
    /// As [`predict_all`](Self::predict_all).
    pub fn predict(&self, features: &[f32], prefix: &[usize], suffix: &[usize], cost: f32) -> f32 {
        let mut out = Vec::with_capacity(1);
        self.predict_all(features, prefix, [(suffix, cost)], &mut out);
        out[0]
    }

    /// Calibrated probabilities of error, one per continuation, written over `out`.
    ///
    /// `features` are those of [`FeatureSpec::write`], not yet standardised; widths so far at their end are not read.
    /// `prefix` and suffixes are indices of widths; the cost of a suffix is that of
    /// [`describe_path`](FeatureSpec::describe_path), the same as in training.
    ///
    /// # Panics
    /// When there are fewer than [`cell_dim`](FeatureSpec::cell_dim) features, `prefix` is empty (gate 0 has no
    /// exit to read), a path is longer than the backbone, or a width does not exist.
    pub fn predict_all<S: AsRef<[usize]>>(
        &self,
        features: &[f32],
        prefix: &[usize],
        continuations: impl IntoIterator<Item = (S, f32)>,
        out: &mut Vec<f32>,
    ) {
        let Parts { spec, standardizer, model, calibration } = &self.0;
        assert!(!prefix.is_empty(), "a shared predictor reads exits: gate 0 has none");
        let common = spec.cell_dim();
        let mut row = features[..common].to_vec();
        standardizer.apply_from(0, &mut row);
        out.clear();
        match model {
            SharedModel::Ensemble(ensemble) => {
                let mut paths = Vec::new();
                for (suffix, cost) in continuations {
                    let start = paths.len();
                    spec.describe_path(prefix, suffix.as_ref(), cost, &mut paths);
                    standardizer.apply_from(common, &mut paths[start..]);
                }
                ensemble.probabilities_of_many(&row, &paths, out);
            }
            SharedModel::Trees(trees) => {
                for (suffix, cost) in continuations {
                    row.truncate(common);
                    spec.describe_path(prefix, suffix.as_ref(), cost, &mut row);
                    standardizer.apply_from(common, &mut row[common..]);
                    out.push(trees.probability(&row));
                }
            }
        }
        out.iter_mut().for_each(|p| *p = calibration.apply(*p));
    }

    /// Number of stored parameters: those of the model, standardisation and calibration included.
    pub fn parameters(&self) -> usize {
        let model = match &self.0.model {
            SharedModel::Ensemble(ensemble) => ensemble.parameters(),
            SharedModel::Trees(trees) => trees.parameters(),
        };
        model + 2 * self.0.standardizer.dim() + self.0.calibration.parameters()
    }

    /// Multiply-accumulates of the probabilities of `continuations` continuations of one sample, features included.
    /// What depends on the sample alone counts once: the projection, and the first layer's product with the features.
    /// Trees count as [`Trees::macs`] says.
    pub fn macs(&self, continuations: usize) -> u64 {
        self.0.spec.macs() + self.macs_after_features(continuations)
    }

    /// [`macs`](Self::macs) without those of the features.
    pub(crate) fn macs_after_features(&self, continuations: usize) -> u64 {
        let Parts { spec, model, calibration, .. } = &self.0;
        let n = continuations as u64;
        let standardisation = spec.cell_dim() as u64 + n * spec.path_dim() as u64;
        let model = match model {
            SharedModel::Ensemble(ensemble) => ensemble.macs_of_many(spec.cell_dim(), continuations),
            SharedModel::Trees(trees) => n * trees.macs(),
        };
        standardisation + model + n * calibration.macs()
    }
}

impl TryFrom<Parts> for SharedPredictor {
    type Error = HeadsError;

    fn try_from(parts: Parts) -> Result<Self, HeadsError> {
        let Parts { spec, standardizer, model, calibration } = &parts;
        spec.check()?;
        let inputs = spec.cell_dim() + spec.path_dim();
        standardizer.check(inputs)?;
        calibration.check()?;
        match model {
            SharedModel::Ensemble(ensemble) => ensemble.check(inputs, 1)?,
            SharedModel::Trees(trees) => trees.check(inputs)?,
        }
        Ok(Self(parts))
    }
}

impl From<SharedPredictor> for Parts {
    fn from(predictor: SharedPredictor) -> Self {
        predictor.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use quee_quant::Width;

    use super::*;
    use crate::Mlp;

    pub(crate) fn spec() -> FeatureSpec {
        let widths = vec![Width::new(4, 4).unwrap(), Width::new(8, 8).unwrap()];
        FeatureSpec { classes: 2, widths, segments: 3, projection: 0, token_dim: 0, projection_seed: 0 }
    }

    fn inputs() -> usize {
        spec().cell_dim() + spec().path_dim()
    }

    fn standardizer() -> Standardizer {
        let numbers = 0..inputs();
        Standardizer { mean: numbers.clone().map(|i| i as f32 / 50.0).collect(), std: vec![0.5; inputs()] }
    }

    pub(crate) fn networks() -> SharedPredictor {
        let values = |n: usize, of: fn(f32) -> f32| (0..n).map(|i| of(i as f32) / 3.0).collect::<Vec<f32>>();
        let (w1, b1) = (values(4 * inputs(), f32::sin), values(4, f32::cos));
        let hidden = Mlp { inputs: inputs(), hidden: 4, outputs: 1, w1, b1, w2: values(4, f32::sin), b2: vec![0.1] };
        let w2 = values(inputs(), f32::cos);
        let linear = Mlp { inputs: inputs(), hidden: 0, outputs: 1, w1: vec![], b1: vec![], w2, b2: vec![-0.1] };
        let model = SharedModel::Ensemble(Ensemble { members: vec![hidden, linear] });
        SharedPredictor::new(spec(), standardizer(), model).unwrap()
    }

    /// A stump on the largest probability at 0.6 and one on the cost at 0.25, before standardisation.
    fn trees() -> SharedPredictor {
        let standardizer = Standardizer { mean: vec![0.0; inputs()], std: vec![1.0; inputs()] };
        let trees = Trees {
            inputs: inputs(),
            base: 0.0,
            roots: vec![0, 3],
            feature: vec![0, 0, 0, inputs() as u32 - 1, 0, 0],
            value: vec![0.6, 1.0, -1.0, 0.25, 0.5, -0.5],
            child: vec![1, 0, 0, 4, 0, 0],
        };
        SharedPredictor::new(spec(), standardizer, SharedModel::Trees(trees)).unwrap()
    }

    fn features(so_far: &[usize]) -> Vec<f32> {
        let mut out = Vec::new();
        spec().write(so_far.len(), &[0.9, 0.1], Some(&[0.5, 0.5]), so_far, &[], &mut out);
        out
    }

    #[test]
    fn networks_read_features_and_path_as_one_row() {
        let predictor = networks();
        let SharedModel::Ensemble(ensemble) = predictor.model() else { panic!("built from networks") };
        let suffixes: [(&[usize], f32); 3] = [(&[], 0.0), (&[1], 0.2), (&[1, 0], 0.3)];
        let mut found = Vec::new();
        predictor.predict_all(&features(&[0]), &[0], suffixes, &mut found);
        for (&found, (suffix, cost)) in found.iter().zip(suffixes) {
            let mut row = features(&[0])[..spec().cell_dim()].to_vec();
            spec().describe_path(&[0], suffix, cost, &mut row);
            standardizer().apply(&mut row);
            let mut expected = Vec::new();
            ensemble.probabilities(&row, &mut expected);
            assert!((found - expected[0]).abs() < 1e-6, "{found}, expected {}", expected[0]);
            assert_eq!(predictor.predict(&features(&[0]), &[0], suffix, cost), found);
        }
        assert!(found[0] != found[1] && found[1] != found[2], "{found:?}");
    }

    #[test]
    fn trees_read_the_same_inputs_and_are_calibrated() {
        let sigmoid = |z: f32| 1.0 / (1.0 + (-z).exp());
        let calibrated = trees().with_calibration(Calibration::Logit { scale: 2.0, bias: 1.0 }).unwrap();
        for (cost, logit) in [(0.2, -0.5), (0.3, -1.5)] {
            let found = trees().predict(&features(&[0, 1]), &[0, 1], &[1], cost);
            assert!((found - sigmoid(logit)).abs() < 1e-6, "{found}");
            let found = calibrated.predict(&features(&[0, 1]), &[0, 1], &[1], cost);
            assert!((found - sigmoid(2.0 * logit + 1.0)).abs() < 1e-6, "{found}");
        }
    }

    #[test]
    fn costs_are_counted() {
        let (common, path) = (spec().cell_dim(), spec().path_dim());
        let first = common + 4 * common + common;
        let each = path + (4 * path + 4) + path;
        assert_eq!(networks().macs(7), (first + 7 * each) as u64);
        assert_eq!(trees().macs(7), (common + 7 * (path + 2)) as u64);
        assert_eq!(trees().parameters(), 1 + 2 * (3 + 2) + 2 * inputs());
    }

    #[test]
    fn predictors_read_back_and_broken_ones_are_refused() {
        for predictor in [networks(), trees()] {
            let text = serde_json::to_string(&predictor).unwrap();
            assert_eq!(serde_json::from_str::<SharedPredictor>(&text).unwrap(), predictor);
            assert!(
                serde_json::from_str::<SharedPredictor>(&text.replace("\"segments\":3", "\"segments\":4")).is_err()
            );
        }
    }

    #[test]
    #[should_panic(expected = "a shared predictor reads exits: gate 0 has none")]
    fn the_root_is_not_asked_about() {
        trees().predict(&features(&[]), &[], &[0], 0.5);
    }
}
