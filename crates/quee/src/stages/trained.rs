//! Exits and gates of one seed, and what they say of every split.

use anyhow::Result;
use quee_heads::FeatureSpec;
use quee_policy::cross_fit::Folds;
use quee_policy::dynamic::Cells as CellTable;
use quee_policy::gate_features::GateFeatures;
use quee_policy::open_loop::{PredictionTable, root_rates};
use quee_policy::table::Outcomes;
use quee_policy::tree::{PathTree, ROOT};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::backbone_runs::PerSplit;
use super::exits::{self, TrainedExits};
use super::gates::{self, Chosen, Gate, GateInput, GateRows, Gates};
use super::prepare::Prepared;
use super::said::Speakers;
use super::study::Shared;
use super::walk::exit_dim;
use crate::recipe::{Methods, Recipe};

/// Trained exits and gates of one seed, and the tables made with them.
pub struct Trained {
    /// Exits.
    pub exits: TrainedExits,
    /// Positions in *fit* that cells and predictors learn from, where not all do.
    pub fit_pictures: Option<Vec<usize>>,
    /// Folds of *fit*, for cross-fitting.
    pub folds: Option<Folds>,
    /// Gates 1 to segments − 1.
    pub gates: Vec<Gate>,
    /// Gate 0 for policies that look at the stem; none with few methods.
    pub gate_zero: Option<Gate>,
    /// Predictions at gate 0 for the others: rates on *fit*, `[place]`.
    pub root_rates: Vec<f32>,
    /// Answers of every path.
    pub outcomes: PerSplit<Outcomes>,
    /// Class probabilities of every path on *cal-b* and *test*, `[node][picture · class]`, the root's empty; nothing where no sets are made.
    pub probabilities: [Vec<Vec<f32>>; 2],
}

/// Trains exits and gates.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(shared: Shared, seed: u64) -> Result<(Trained, Predictions)> {
    let Shared { recipe, prepared, tree, runs, training, cancel, cache, keys, say, .. } = shared;
    let made =
        cache.stage(&keys.exits(seed)?, cancel, say, |_| exits::train(recipe, prepared, runs, training, seed, cancel));
    let (exits, _) = made?;
    let splits = &prepared.splits;
    let labels = PerSplit {
        fit: prepared.data.labels_of(prepared.fit()),
        cal_a: prepared.data.labels_of(&splits.cal_a),
        cal_b: prepared.data.labels_of(&splits.cal_b),
        test: prepared.data.labels_of(&splits.test),
    };
    let spec = feature_spec(recipe, prepared);
    let (heads, probe) = (&exits.heads, &exits.probe);
    let listen = |features, keep_probabilities| {
        Speakers { tree, spec: &spec, heads: |_| heads, probe: |_| probe, keep_probabilities }.listen(features)
    };
    // Prediction sets are made of class probabilities.
    let sets = recipe.policy.makes_sets();
    let (for_fit, probe_for_fit) = (|picture| exits.for_fit(picture), |picture| exits.probe_for_fit(picture));
    let on_fit = Speakers { tree, spec: &spec, heads: for_fit, probe: probe_for_fit, keep_probabilities: false };
    let said = PerSplit {
        fit: on_fit.listen(&runs.tree.fit)?,
        cal_a: listen(&runs.tree.cal_a, false)?,
        cal_b: listen(&runs.tree.cal_b, sets)?,
        test: listen(&runs.tree.test, sets)?,
    };
    let all_of_fit = GateInput { said: &said.fit, labels: &labels.fit, pictures: None };
    let chosen = chosen_of_fit(recipe, labels.fit.len());
    let limited = chosen.as_ref().map(|chosen| all_of_fit.choose(chosen));
    let fit = limited.as_ref().map_or(all_of_fit, Chosen::input);
    let folds = exits.fold_of_picture().map(|of_picture| match &chosen {
        None => Folds::new(of_picture.to_vec()),
        Some(chosen) => Folds::new(chosen.iter().map(|&picture| of_picture[picture]).collect()),
    });
    let inputs = PerSplit {
        fit,
        cal_a: GateInput { said: &said.cal_a, labels: &labels.cal_a, pictures: None },
        cal_b: GateInput { said: &said.cal_b, labels: &labels.cal_b, pictures: None },
        test: GateInput { said: &said.test, labels: &labels.test, pictures: None },
    };
    let outcomes = |input: &GateInput| input.said.outcomes(tree, input.pictures, input.labels);
    let tables = PerSplit {
        fit: outcomes(&inputs.fit)?,
        cal_a: outcomes(&inputs.cal_a)?,
        cal_b: outcomes(&inputs.cal_b)?,
        test: outcomes(&inputs.test)?,
    };
    let costs = shared.counted.relative_segments(&recipe.quant.widths);
    let setup = gates::Setup { recipe, tree, spec: &spec, costs: &costs, on: training };
    let made = cache.stage(&keys.gates(seed, &costs)?, cancel, say, |_| {
        let gates = gates::train(setup, inputs.fit, inputs.cal_a, folds.as_ref(), seed, cancel)?;
        let zero = match recipe.policy.methods {
            Methods::Few => None,
            Methods::All => Some(gates::train_zero(setup, inputs.fit, inputs.cal_a, folds.as_ref(), seed, cancel)?),
        };
        Ok((gates, zero))
    });
    let ((gates, zero), _) = made?;
    let mut predictions = Predictions::compute(tree, &spec, &gates, &inputs, folds.as_ref())?;
    predictions.from_stem = match &zero {
        None => None,
        Some(zero) => Some(from_stem(tree, &spec, zero, &inputs, folds.as_ref(), &predictions.predicted)?),
    };
    let gate_zero = zero.and_then(|mut zero| zero.whole.pop());
    let root_rates = root_rates(tree, &tables.fit);
    let probabilities = [said.cal_b.probabilities, said.test.probabilities];
    Ok((
        Trained {
            exits,
            fit_pictures: chosen,
            folds,
            gates: gates.whole,
            gate_zero,
            root_rates,
            outcomes: tables,
            probabilities,
        },
        predictions,
    ))
}

/// The pictures of *fit* that `predictor.share` leaves, where it leaves some out.
fn chosen_of_fit(recipe: &Recipe, pictures: usize) -> Option<Vec<usize>> {
    let most = fit_pictures(recipe, pictures);
    (most < pictures).then(|| {
        let mut chosen: Vec<usize> = (0..pictures).collect();
        chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(recipe.data.split_seed));
        chosen.truncate(most);
        chosen.sort_unstable();
        chosen
    })
}

/// How many of the `pictures` of *fit* cells and predictors learn from.
pub fn fit_pictures(recipe: &Recipe, pictures: usize) -> usize {
    ((pictures as f64 * recipe.predictor.share).round() as usize).clamp(1, pictures)
}

/// Which features gates have.
pub fn feature_spec(recipe: &Recipe, prepared: &Prepared) -> FeatureSpec {
    FeatureSpec {
        classes: prepared.backbone.classes(),
        widths: recipe.quant.widths.clone(),
        segments: recipe.paths.segments.len(),
        projection: recipe.features.projection,
        token_dim: exit_dim(prepared.backbone.as_ref(), recipe, 0),
        projection_seed: recipe.data.split_seed,
    }
}

/// Predicted errors and cells of every split at every gate node.
pub struct Predictions {
    /// Predicted errors.
    pub predicted: PerSplit<PredictionTable>,
    /// The same with those of gate 0, where it looks at the stem.
    pub from_stem: Option<PerSplit<PredictionTable>>,
    /// Cells.
    pub cells: PerSplit<CellTable>,
    /// Standardised features.
    pub features: PerSplit<GateFeatures>,
    /// Features and outcomes of *test*, by gate.
    pub test_rows: Vec<GateRows>,
}

impl Predictions {
    fn compute(
        tree: &PathTree,
        spec: &FeatureSpec,
        gates: &Gates,
        inputs: &PerSplit<GateInput>,
        folds: Option<&Folds>,
    ) -> Result<Self> {
        let counts: Vec<usize> = gates.whole.iter().map(|gate| gate.cells.k()).collect();
        let mut test_rows = Vec::new();
        let mut of_split = |input: &GateInput, keep: bool| -> Result<(PredictionTable, CellTable, GateFeatures)> {
            let samples = input.samples();
            let (mut predicted, mut cells, mut features) = (Vec::new(), Vec::new(), Vec::new());
            for (index, gate) in gates.whole.iter().enumerate() {
                let rows = gates::rows(tree, spec, index + 1, *input);
                predicted.extend(gates::predict(tree, &gate.predictor, &rows, samples));
                let standard = gates::standardised(gate, &rows);
                cells.extend(gates::assign_cells(gate, &rows, &standard, spec));
                features.extend(standard.chunks_exact(samples * rows.dim).map(<[f32]>::to_vec));
                if keep {
                    test_rows.push(rows);
                }
            }
            let predicted = PredictionTable::new(tree, samples, predicted)?;
            let features = GateFeatures::new(tree, samples, features)?;
            Ok((predicted, CellTable::new(tree, samples, counts.clone(), cells)?, features))
        };
        let (mut fit, cal_a) = (of_split(&inputs.fit, false)?, of_split(&inputs.cal_a, false)?);
        let (cal_b, test) = (of_split(&inputs.cal_b, false)?, of_split(&inputs.test, true)?);
        if let Some(folds) = folds {
            fit.0 = out_of_fold(tree, spec, gates, inputs.fit, folds)?;
        }
        Ok(Self {
            predicted: PerSplit { fit: fit.0, cal_a: cal_a.0, cal_b: cal_b.0, test: test.0 },
            from_stem: None,
            cells: PerSplit { fit: fit.1, cal_a: cal_a.1, cal_b: cal_b.1, test: test.1 },
            features: PerSplit { fit: fit.2, cal_a: cal_a.2, cal_b: cal_b.2, test: test.2 },
            test_rows,
        })
    }
}

/// Predictions on *fit*, for every picture by the gates that were trained without its fold.
fn out_of_fold(
    tree: &PathTree,
    spec: &FeatureSpec,
    gates: &Gates,
    fit: GateInput,
    folds: &Folds,
) -> Result<PredictionTable> {
    let counts: Vec<usize> = tree.gate_nodes().map(|node| tree.places(node)).collect();
    let mut predicted: Vec<Vec<f32>> = counts.iter().map(|count| vec![0.0; count * folds.samples()]).collect();
    for (fold, of_fold) in gates.without.iter().enumerate() {
        let members = folds.members(fold);
        let part = fit.choose(&members);
        let mut nodes = predicted.iter_mut().zip(&counts);
        for (index, gate) in of_fold.iter().enumerate() {
            let rows = gates::rows(tree, spec, index + 1, part.input());
            for said in gates::predict(tree, &gate.predictor, &rows, members.len()) {
                let (all, &count) = nodes.next().expect("gates predict at every gate node");
                for (said, &member) in said.chunks_exact(count).zip(&members) {
                    all[member * count..(member + 1) * count].copy_from_slice(said);
                }
            }
        }
    }
    Ok(PredictionTable::new(tree, folds.samples(), predicted)?)
}

/// Adds what gate 0 says of every picture; of *fit*, the gates that were trained without its fold.
fn from_stem(
    tree: &PathTree,
    spec: &FeatureSpec,
    zero: &Gates,
    inputs: &PerSplit<GateInput>,
    folds: Option<&Folds>,
    predicted: &PerSplit<PredictionTable>,
) -> Result<PerSplit<PredictionTable>> {
    let places = tree.places(ROOT);
    // Nobody can answer at gate 0: the first place is never read.
    let said = |gate: &Gate, input: GateInput| -> Vec<f32> {
        let rows = gates::rows(tree, spec, 0, input);
        let said = gates::predict(tree, &gate.predictor, &rows, input.samples()).swap_remove(0);
        said.chunks_exact(places - 1).flat_map(|row| std::iter::once(1.0).chain(row.iter().copied())).collect()
    };
    let whole = |input: &GateInput, predicted: &PredictionTable| -> Result<PredictionTable> {
        Ok(predicted.clone().with_root(tree, said(&zero.whole[0], *input))?)
    };
    let fit = match folds {
        None => whole(&inputs.fit, &predicted.fit)?,
        Some(folds) => {
            let mut root = vec![0.0; folds.samples() * places];
            for (fold, gate) in zero.without.iter().enumerate() {
                let members = folds.members(fold);
                let part = inputs.fit.choose(&members);
                for (said, &member) in said(&gate[0], part.input()).chunks_exact(places).zip(&members) {
                    root[member * places..(member + 1) * places].copy_from_slice(said);
                }
            }
            predicted.fit.clone().with_root(tree, root)?
        }
    };
    Ok(PerSplit {
        fit,
        cal_a: whole(&inputs.cal_a, &predicted.cal_a)?,
        cal_b: whole(&inputs.cal_b, &predicted.cal_b)?,
        test: whole(&inputs.test, &predicted.test)?,
    })
}

/// Predictions mixed with the true outcomes (`share` above 0), or with the error rates of *fit* (below): how much depends on the predictor's
/// quality, from the prior to the oracle.
pub fn foreseen(
    tree: &PathTree,
    predicted: &PerSplit<PredictionTable>,
    tables: &PerSplit<Outcomes>,
    share: f64,
) -> PerSplit<PredictionTable> {
    let rates: Vec<f32> =
        tree.nodes().map(|node| if node == ROOT { 1.0 } else { tables.fit.error_rate(node) as f32 }).collect();
    let weight = share.abs() as f32;
    let mixed = |predicted: &PredictionTable, outcomes: &Outcomes| {
        PredictionTable::from_fn(tree, predicted.samples(), |node, sample, place| {
            let (own, end) = (predicted.get(node, sample)[place], tree.continuations(node)[place].end);
            let other = match share > 0.0 {
                true => f32::from(u8::from(!outcomes.correct(end, sample))),
                false => rates[end],
            };
            own + weight * (other - own)
        })
    };
    PerSplit {
        fit: mixed(&predicted.fit, &tables.fit),
        cal_a: mixed(&predicted.cal_a, &tables.cal_a),
        cal_b: mixed(&predicted.cal_b, &tables.cal_b),
        test: mixed(&predicted.test, &tables.test),
    }
}
