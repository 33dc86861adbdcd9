//! Everything a gate needs to go from features to probabilities of error.

use serde::{Deserialize, Serialize};

use crate::error::{expect_finite, expect_len};
use crate::{
    Calibration, Cells, Ensemble, FeatureSpec, GatePaths, HeadsError, RateTable, SharedPredictor, Standardizer, Trees,
};

/// How the probabilities of a gate are computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// Small networks, averaged; a single one without a hidden layer is logistic regression.
    Ensemble(Ensemble),
    /// The error rates of the cell that a sample falls into.
    Cells {
        /// Partition of the standardised features without the widths so far.
        cells: Cells,
        /// Rates of each cell, prefix and suffix.
        rates: RateTable,
    },
    /// Boosted trees of this gate that read the standardised features and
    /// [`describe_suffix`](FeatureSpec::describe_suffix).
    Trees {
        /// The trees.
        trees: Trees,
        /// Cost of every suffix relative to the float reference, `[suffixes]`, as in training.
        costs: Vec<f32>,
    },
    /// A predictor of all gates. It standardises for itself: the standardizer of this gate serves its cells alone.
    Shared {
        /// The predictor.
        shared: SharedPredictor,
        /// Cost of every suffix relative to the float reference, `[suffixes]`, as in training.
        costs: Vec<f32>,
    },
}

/// Predicts, at one gate, the probability of error of every continuation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct GatePredictor(Parts);

/// What a predictor consists of, before it is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    spec: FeatureSpec,
    paths: GatePaths,
    standardizer: Standardizer,
    kind: Kind,
    calibration: Calibration,
}

impl GatePredictor {
    /// Puts the parts of a gate (0 to `spec.segments − 1`) together, without calibration.
    ///
    /// # Errors
    /// When there is no such gate, its `paths` leave the backbone, or the parts do not fit each other: the standardizer covers `spec.dim(gate)`
    /// features, networks map these to one output per suffix, cells cover `spec.cell_dim()` features, rates exist for
    /// every cell, prefix and suffix, trees read features and description of a suffix, a shared predictor has the same
    /// `spec`, there is one cost per suffix; and every number is finite.
    pub fn new(
        spec: FeatureSpec,
        paths: GatePaths,
        standardizer: Standardizer,
        kind: Kind,
    ) -> Result<Self, HeadsError> {
        Self::try_from(Parts { spec, paths, standardizer, kind, calibration: Calibration::Identity })
    }

    /// The same predictor with another calibration.
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

    /// The gate it stands at.
    pub fn gate(&self) -> usize {
        self.0.paths.gate()
    }

    /// How features are standardised.
    pub fn standardizer(&self) -> &Standardizer {
        &self.0.standardizer
    }

    /// How probabilities are computed.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Its calibration.
    pub fn calibration(&self) -> &Calibration {
        &self.0.calibration
    }

    /// Prefixes and what may follow them.
    pub fn paths(&self) -> &GatePaths {
        &self.0.paths
    }

    /// Calibrated probability of error of every way to go on behind `prefix`, by [place](GatePaths::places), written over `out`.
    ///
    /// `features` `[dim]` are those of [`FeatureSpec::write`], not yet standardised; `prefix` is the number of the
    /// widths so far.
    ///
    /// # Panics
    /// When the number of features does not fit or the prefix does not exist.
    pub fn predict(&self, features: &[f32], prefix: usize, out: &mut Vec<f32>) {
        let Parts { spec, paths, standardizer, kind, calibration } = &self.0;
        let (gate, places) = (paths.gate(), paths.places(prefix));
        let mut row = features.to_vec();
        assert_eq!(row.len(), standardizer.dim(), "features at gate {gate}");
        standardizer.apply(&mut row);
        match kind {
            Kind::Ensemble(ensemble) => {
                ensemble.probabilities(&row, out);
                // Places ascend, so what is moved has not been overwritten.
                places.iter().enumerate().for_each(|(place, &suffix)| out[place] = out[suffix]);
                out.truncate(places.len());
            }
            Kind::Cells { cells, rates } => {
                let rates = rates.row(cells.assign(&row[..spec.cell_dim()]), prefix);
                out.clear();
                out.extend(places.iter().map(|&suffix| rates[suffix]));
            }
            Kind::Trees { trees, costs } => {
                out.clear();
                for &suffix in places {
                    row.truncate(features.len());
                    spec.describe_suffix(gate, &paths.suffixes()[suffix], costs[suffix], &mut row);
                    out.push(trees.probability(&row));
                }
            }
            Kind::Shared { shared, costs } => {
                let ways = places.iter().map(|&suffix| (&paths.suffixes()[suffix], costs[suffix]));
                shared.predict_all(features, &paths.prefixes()[prefix], ways, out);
            }
        }
        out.iter_mut().for_each(|p| *p = calibration.apply(*p));
    }

    /// Number of stored parameters: those of the model; costs of suffixes, standardisation and calibration included.
    pub fn parameters(&self) -> usize {
        let kind = match &self.0.kind {
            Kind::Ensemble(ensemble) => ensemble.parameters(),
            Kind::Cells { cells, rates } => cells.k() * cells.dim() + rates.rates.len(),
            Kind::Trees { trees, costs } => trees.parameters() + costs.len(),
            Kind::Shared { shared, costs } => shared.parameters() + costs.len(),
        };
        kind + 2 * self.0.standardizer.dim() + self.0.calibration.parameters()
    }

    /// Multiply-accumulates of one evaluation, behind the prefix with the most ways to go on: projection, standardisation, networks,
    /// distances or trees (of every way, see [`Trees::macs`]), calibration.
    /// Softmax, sorting and logarithms of the features multiply nothing and count nothing.
    pub fn macs(&self) -> u64 {
        let (standardisation, places) = (self.0.standardizer.dim() as u64, self.0.paths.most_places());
        let kind = match &self.0.kind {
            Kind::Ensemble(ensemble) => standardisation + ensemble.macs(),
            Kind::Cells { cells, .. } => standardisation + (cells.k() * cells.dim()) as u64,
            Kind::Trees { trees, .. } => standardisation + places as u64 * trees.macs(),
            Kind::Shared { shared, .. } => shared.macs_after_features(places),
        };
        self.0.spec.macs() + kind + places as u64 * self.0.calibration.macs()
    }
}

impl TryFrom<Parts> for GatePredictor {
    type Error = HeadsError;

    fn try_from(parts: Parts) -> Result<Self, HeadsError> {
        let Parts { spec, paths, standardizer, kind, calibration } = &parts;
        spec.check()?;
        paths.check(spec.widths.len(), spec.segments)?;
        let gate = paths.gate();
        if gate >= spec.segments {
            return Err(HeadsError::Setting {
                what: "gate",
                value: gate.to_string(),
                hint: "predictors stand before the first segment and after each but the last",
            });
        }
        let (dim, suffixes) = (spec.dim(gate), paths.suffixes().len());
        standardizer.check(dim)?;
        calibration.check()?;
        match kind {
            Kind::Ensemble(ensemble) => ensemble.check(dim, suffixes)?,
            Kind::Cells { cells, rates } => {
                cells.check()?;
                rates.check()?;
                expect_len("features of the cells", spec.cell_dim(), cells.dim())?;
                expect_len("cells of the rates", cells.k(), rates.cells)?;
                expect_len("prefixes of the rates", paths.prefixes().len(), rates.prefixes)?;
                expect_len("suffixes of the rates", suffixes, rates.suffixes)?;
            }
            Kind::Trees { trees, costs } => {
                trees.check(dim + spec.suffix_dim(gate))?;
                expect_len("costs of the suffixes", suffixes, costs.len())?;
                expect_finite("costs of the suffixes", costs)?;
            }
            Kind::Shared { shared, costs } => {
                if gate == 0 {
                    let hint = "a shared predictor reads exits, and gate 0 has none";
                    return Err(HeadsError::Setting { what: "gate", value: "0".into(), hint });
                }
                if shared.spec() != spec {
                    let (value, hint) = (format!("{:?}", shared.spec()), "it must be that of the gate");
                    return Err(HeadsError::Setting { what: "features of the shared predictor", value, hint });
                }
                expect_len("costs of the suffixes", suffixes, costs.len())?;
                expect_finite("costs of the suffixes", costs)?;
            }
        }
        Ok(Self(parts))
    }
}

impl From<GatePredictor> for Parts {
    fn from(predictor: GatePredictor) -> Self {
        predictor.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::spec;
    use crate::{Mlp, shared};

    /// All paths of gate 2.
    fn paths() -> GatePaths {
        GatePaths::all(2, 3, 2).unwrap()
    }

    fn plain(dim: usize) -> Standardizer {
        Standardizer { mean: vec![0.0; dim], std: vec![1.0; dim] }
    }

    /// Gate 2: logits are the last feature (activation bits of segment 2) times 1, 2, 3.
    fn logistic() -> GatePredictor {
        let dim = spec().dim(2);
        let mut w2 = vec![0.0; 3 * dim];
        (0..3).for_each(|o| w2[(o + 1) * dim - 1] = (o + 1) as f32);
        let member = Mlp { inputs: dim, hidden: 0, outputs: 3, w1: vec![], b1: vec![], w2, b2: vec![0.0; 3] };
        GatePredictor::new(spec(), paths(), plain(dim), Kind::Ensemble(Ensemble { members: vec![member] })).unwrap()
    }

    fn table() -> GatePredictor {
        let spec = spec();
        let dim = spec.cell_dim();
        let cells = Cells::fit(&[vec![0.0; dim], vec![1.0; dim]].concat(), dim, 2, 0).unwrap();
        let rates = (0..2 * 4 * 3).map(|i| i as f32 / 100.0).collect();
        let rates = RateTable { cells: 2, prefixes: 4, suffixes: 3, rates };
        GatePredictor::new(spec.clone(), paths(), plain(spec.dim(2)), Kind::Cells { cells, rates }).unwrap()
    }

    fn features(so_far: &[usize]) -> Vec<f32> {
        let mut out = Vec::new();
        spec().write(2, &[0.9, 0.1], Some(&[0.5, 0.5]), so_far, &[], &mut out);
        out
    }

    #[test]
    fn networks_see_the_widths_so_far_and_are_calibrated() {
        let mut out = Vec::new();
        let sigmoid = |z: f32| 1.0 / (1.0 + (-z).exp());
        let calibrated = logistic().with_calibration(Calibration::Logit { scale: 2.0, bias: 1.0 }).unwrap();
        for (width, bits) in [(0, 0.5), (1, 1.0)] {
            logistic().predict(&features(&[0, width]), width, &mut out);
            (0..3).for_each(|o| assert!((out[o] - sigmoid(bits * (o + 1) as f32)).abs() < 1e-6, "{out:?}"));
            calibrated.predict(&features(&[0, width]), width, &mut out);
            (0..3).for_each(|o| assert!((out[o] - sigmoid(2.0 * bits * (o + 1) as f32 + 1.0)).abs() < 1e-6));
        }
    }

    #[test]
    fn a_table_reads_the_row_of_cell_and_prefix() {
        let predictor = table();
        let Kind::Cells { cells, rates } = predictor.kind() else { panic!("built from cells") };
        let row = features(&[1, 0]);
        let cell = cells.assign(&row[..spec().cell_dim()]);
        let mut out = Vec::new();
        predictor.predict(&row, 2, &mut out);
        assert_eq!(out, rates.row(cell, 2));
    }

    /// Gate 2: a stump on the last feature (activation bits of segment 2) and one on the cost of the suffix.
    fn trees() -> GatePredictor {
        let dim = spec().dim(2);
        let inputs = dim + spec().suffix_dim(2);
        let trees = Trees {
            inputs,
            base: 0.0,
            roots: vec![0, 3],
            feature: vec![dim as u32 - 1, 0, 0, inputs as u32 - 1, 0, 0],
            value: vec![0.75, 1.0, -1.0, 0.25, 0.5, -0.5],
            child: vec![1, 0, 0, 4, 0, 0],
        };
        GatePredictor::new(spec(), paths(), plain(dim), Kind::Trees { trees, costs: vec![0.0, 0.2, 0.3] }).unwrap()
    }

    fn shared() -> GatePredictor {
        let kind = Kind::Shared { shared: shared::tests::networks(), costs: vec![0.0, 0.2, 0.3] };
        GatePredictor::new(spec(), paths(), plain(spec().dim(2)), kind).unwrap()
    }

    #[test]
    fn trees_see_the_widths_so_far_and_the_suffix() {
        let mut out = Vec::new();
        let sigmoid = |z: f32| 1.0 / (1.0 + (-z).exp());
        for (width, logits) in [(0, [1.5, 1.5, 0.5]), (1, [-0.5, -0.5, -1.5])] {
            trees().predict(&features(&[0, width]), width, &mut out);
            (0..3).for_each(|o| assert!((out[o] - sigmoid(logits[o])).abs() < 1e-6, "{out:?}"));
        }
    }

    #[test]
    fn a_shared_predictor_is_asked_about_every_suffix() {
        let Kind::Shared { shared: inner, costs } = shared().kind().clone() else { panic!("built from a shared one") };
        let mut out = Vec::new();
        shared().predict(&features(&[1, 0]), 2, &mut out);
        let suffixes: [&[usize]; 3] = [&[], &[0], &[1]];
        for ((&found, suffix), cost) in out.iter().zip(suffixes).zip(costs) {
            assert_eq!(found, inner.predict(&features(&[1, 0]), &[1, 0], suffix, cost));
        }
        assert_eq!(shared().macs(), inner.macs(3));
        assert_eq!(shared().parameters(), inner.parameters() + 3 + 2 * spec().dim(2));
    }

    #[test]
    fn a_prefix_is_answered_for_what_may_follow_it() {
        let ways = vec![vec![vec![], vec![1]], vec![vec![], vec![0]]];
        let some = GatePaths::new(vec![vec![1, 0], vec![1, 1]], ways).unwrap();
        let whole = [logistic(), trees(), shared()];
        for all in &whole {
            let GatePredictor(Parts { spec, standardizer, kind, .. }) = all.clone();
            let few = GatePredictor::new(spec, some.clone(), standardizer, kind).unwrap();
            let (mut said, mut expected) = (Vec::new(), Vec::new());
            for (prefix, last) in [(0, 0), (1, 1)] {
                few.predict(&features(&[1, last]), prefix, &mut said);
                all.predict(&features(&[1, last]), 2 + prefix, &mut expected);
                assert_eq!(said, [expected[0], expected[2 - prefix]]);
            }
            assert!(few.macs() <= all.macs());
        }
    }

    #[test]
    fn costs_are_counted() {
        let dim = spec().dim(2);
        assert_eq!(logistic().macs(), (3 * dim + dim) as u64);
        assert_eq!(logistic().parameters(), 3 * dim + 3 + 2 * dim);
        assert_eq!(table().macs(), (2 * spec().cell_dim() + dim) as u64);
        let calibrated = table().with_calibration(Calibration::Logit { scale: 2.0, bias: 1.0 }).unwrap();
        assert_eq!(calibrated.macs(), table().macs() + 3);
        assert_eq!(calibrated.parameters(), table().parameters() + 2);
        assert_eq!(trees().macs(), (3 * 2 + dim) as u64);
        let projected = FeatureSpec { projection: 16, token_dim: 192, ..spec() };
        assert_eq!(projected.macs(), 16 * 192);
    }

    #[test]
    fn predictors_read_back_and_broken_ones_are_refused() {
        for predictor in [logistic(), table(), trees(), shared()] {
            let text = serde_json::to_string(&predictor).unwrap();
            assert_eq!(serde_json::from_str::<GatePredictor>(&text).unwrap(), predictor);
            let elsewhere = text.replacen("[0,0]", "[0,2]", 1);
            assert!(serde_json::from_str::<GatePredictor>(&elsewhere).is_err());
            let flipped = text.replace("\"identity\"", r#"{"logit":{"scale":-1.0,"bias":0.0}}"#);
            assert!(serde_json::from_str::<GatePredictor>(&flipped).is_err());
        }
        let Kind::Cells { cells, rates } = table().kind().clone() else { panic!("built from cells") };
        let fewer = RateTable { prefixes: 2, cells: 4, ..rates };
        let kind = Kind::Cells { cells, rates: fewer };
        assert!(GatePredictor::new(spec(), paths(), plain(spec().dim(2)), kind).is_err());
        let Kind::Shared { shared, costs } = shared().kind().clone() else { panic!("built from a shared one") };
        let two = Kind::Shared { shared: shared.clone(), costs: costs[..2].to_vec() };
        assert!(GatePredictor::new(spec(), paths(), plain(spec().dim(2)), two).is_err());
        let other = FeatureSpec { projection_seed: 1, ..spec() };
        assert!(GatePredictor::new(other, paths(), plain(spec().dim(2)), Kind::Shared { shared, costs }).is_err());
    }
}
