//! Training of gradient-boosted trees (Friedman 2001) on pairs of sample and continuation, by `forust-ml`.

use forust_ml::Matrix;
use forust_ml::gradientbooster::GradientBooster;
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use forust_ml::tree::Tree;
use serde::{Deserialize, Serialize};

use crate::rows::{PooledRows, RowBlock, pooled_rows};
use crate::{HeadsError, Trees};

/// How trees are trained. The defaults are choices of this project: small trees in small steps, since what is to be
/// predicted is mostly noise. On synthetic gates, results hardly depended on any of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TreeConfig {
    /// Most trees; default 400.
    pub trees: usize,
    /// What each tree's leaves are multiplied by; default 0.05.
    pub learning_rate: f32,
    /// Most comparisons from root to leaf, 1 to 16; default 3.
    pub depth: usize,
    /// Least Σ p·(1 − p) of the rows of a leaf; default 20. A sample counts with every pair that is drawn of it.
    pub min_leaf_weight: f32,
    /// Quadratic penalty on the logits of leaves; default 1.
    pub l2: f32,
    /// Thresholds that are tried per input, 2 to 1,024; default 64.
    pub bins: u16,
    /// Share of rows that each tree is grown on, above 0 and at most 1; default 0.5.
    pub subsample: f32,
    /// Trees without a lower held-out log loss after which training ends; default 30.
    pub patience: usize,
    /// Most pairs of sample and continuation, drawn by [`pooled_rows`](crate::pooled_rows) when there are more;
    /// the same limit holds for held-out pairs; default 100,000.
    pub max_rows: usize,
    /// Seed of both draws; default 0.
    pub seed: u64,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self {
            trees: 400,
            learning_rate: 0.05,
            depth: 3,
            min_leaf_weight: 20.0,
            l2: 1.0,
            bins: 64,
            subsample: 0.5,
            patience: 30,
            max_rows: 100_000,
            seed: 0,
        }
    }
}

/// Trained trees and how they came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Boosted {
    /// The trees up to the one with the least held-out log loss; none when no tree was better than the mean target.
    pub trees: Trees,
    /// That log loss, in nats per held-out pair.
    pub log_loss: f64,
}

/// Trains trees that read `inputs` features and `described` numbers of a continuation, and give its probability of
/// error: those of one gate (features of the gate, widths so far included, and
/// [`describe_suffix`](crate::FeatureSpec::describe_suffix); one block), or of all gates
/// ([`cell_dim`](crate::FeatureSpec::cell_dim) features and [`describe_path`](crate::FeatureSpec::describe_path); a
/// block per gate and prefix).
///
/// The loss is logistic. A soft target `t` counts as a wrong answer of weight `t` and a right one of weight `1 − t`.
/// The first logit is that of the mean target. Runs on one thread and gives the same bits for the same input.
///
/// # Errors
/// As [`pooled_rows`](crate::pooled_rows) for `train` and `held_out`, or when a setting is outside its range.
pub fn train_trees(
    inputs: usize,
    described: usize,
    train: &[RowBlock],
    held_out: &[RowBlock],
    config: &TreeConfig,
) -> Result<Boosted, HeadsError> {
    check(config)?;
    let train = pooled_rows(inputs, described, train, config.max_rows, config.seed)?;
    let held_out = pooled_rows(inputs, described, held_out, config.max_rows, config.seed)?;
    let booster = fit(inputs + described, &train, &held_out, config)?;
    let base = booster.base_score as f32;
    let no_trees = held_out.targets.iter().map(|&t| cross_entropy(f64::from(base), f64::from(t))).sum::<f64>()
        / held_out.targets.len() as f64;
    let best = booster.best_iteration.unwrap_or(0);
    let best_loss = booster.evaluation_history.as_ref().map_or(f64::INFINITY, |history| *history.get(best, 0));
    let (kept, log_loss) = if best_loss < no_trees { (best + 1, best_loss) } else { (0, no_trees) };
    Ok(Boosted { trees: flatten(inputs + described, base, &booster.trees[..kept]), log_loss })
}

fn fit(
    dim: usize,
    train: &PooledRows,
    held_out: &PooledRows,
    config: &TreeConfig,
) -> Result<GradientBooster, HeadsError> {
    let refused = |error: forust_ml::errors::ForustError| HeadsError::Boosting { reason: error.to_string() };
    // One imagined error and one imagined success keep the logit finite.
    let wrong: f64 = train.targets.iter().map(|&t| f64::from(t)).sum();
    let rate = (wrong + 1.0) / (train.targets.len() as f64 + 2.0);
    let mut booster = GradientBooster::default()
        .set_objective_type(ObjectiveType::LogLoss)
        .set_iterations(config.trees)
        .set_learning_rate(config.learning_rate)
        .set_max_depth(config.depth)
        .set_l2(config.l2)
        .set_min_leaf_weight(config.min_leaf_weight)
        .set_nbins(config.bins)
        .set_subsample(config.subsample)
        .set_sample_method(if config.subsample < 1.0 { SampleMethod::Random } else { SampleMethod::None })
        .set_early_stopping_rounds(Some(config.patience))
        // Rounded, so that stored trees start from the same number.
        .set_base_score(f64::from((rate / (1.0 - rate)).ln() as f32))
        .set_initialize_base_score(false)
        .set_allow_missing_splits(false)
        .set_seed(config.seed)
        .set_parallel(false);
    let (x, y, w) = columns(dim, train);
    let (held_x, held_y, held_w) = columns(dim, held_out);
    let evaluation = vec![(Matrix::new(&held_x, held_y.len(), dim), &held_y[..], &held_w[..])];
    booster.fit(&Matrix::new(&x, y.len(), dim), &y, &w, Some(evaluation)).map_err(refused)?;
    Ok(booster)
}

/// Columns `[dim, pairs]`, targets and unit weights.
fn columns(dim: usize, pooled: &PooledRows) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let n = pooled.targets.len();
    let x = (0..dim).flat_map(|column| (0..n).map(move |row| f64::from(pooled.rows[row * dim + column]))).collect();
    (x, pooled.targets.iter().map(|&t| f64::from(t)).collect(), vec![1.0; n])
}

/// Trees in our own arrays, breadth first.
fn flatten(inputs: usize, base: f32, trees: &[Tree]) -> Trees {
    let mut flat = Trees { inputs, base, roots: vec![], feature: vec![], value: vec![], child: vec![] };
    for tree in trees {
        let start = flat.child.len();
        flat.roots.push(start as u32);
        let mut order = vec![0];
        let mut next = 0;
        while next < order.len() {
            let node = &tree.nodes[order[next]];
            next += 1;
            if node.is_leaf {
                flat.feature.push(0);
                flat.value.push(node.weight_value);
                flat.child.push(0);
            } else {
                flat.feature.push(node.split_feature as u32);
                flat.value.push(rounded_up(node.split_value));
                flat.child.push((start + order.len()) as u32);
                order.extend([node.left_child, node.right_child]);
            }
        }
    }
    flat
}

/// The least finite `f32` that is not below `threshold`: exactly the same `f32` lie below it.
fn rounded_up(threshold: f64) -> f32 {
    let near = threshold as f32;
    let up = if f64::from(near) < threshold { near.next_up() } else { near };
    up.clamp(f32::MIN, f32::MAX)
}

/// `−t·ln σ(z) − (1 − t)·ln(1 − σ(z))`.
fn cross_entropy(z: f64, t: f64) -> f64 {
    z.max(0.0) - z * t + (-z.abs()).exp().ln_1p()
}

fn check(config: &TreeConfig) -> Result<(), HeadsError> {
    let TreeConfig { trees, learning_rate, depth, min_leaf_weight, l2, bins, subsample, patience, .. } = *config;
    for (fits, what, value, hint) in [
        (trees > 0, "trees", trees as f64, "at least 1"),
        (learning_rate > 0.0 && learning_rate <= 1.0, "learning rate", learning_rate.into(), "above 0, at most 1"),
        ((1..=16).contains(&depth), "depth", depth as f64, "1 to 16"),
        (min_leaf_weight >= 0.0 && min_leaf_weight.is_finite(), "min leaf weight", min_leaf_weight.into(), "0 or more"),
        (l2 >= 0.0 && l2.is_finite(), "l2", l2.into(), "0 or more"),
        ((2..=1024).contains(&bins), "bins", bins.into(), "2 to 1024"),
        (subsample > 0.0 && subsample <= 1.0, "subsample", subsample.into(), "above 0, at most 1"),
        (patience > 0, "patience", patience as f64, "at least 1"),
    ] {
        if !fits {
            return Err(HeadsError::Setting { what, value: value.to_string(), hint });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Two features, one of them constant, two continuations; the error rate is 0.8 where feature and continuation
    /// agree in sign, else 0.2.
    struct Data {
        features: Vec<f32>,
        targets: Vec<f32>,
    }

    const DESCRIPTIONS: [f32; 2] = [-1.0, 1.0];

    fn data(samples: usize, seed: u64) -> Data {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut features, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..samples {
            let feature: f32 = random.random_range(-1.0..1.0);
            features.extend([feature, 3.0]);
            for description in DESCRIPTIONS {
                let rate = if feature * description > 0.0 { 0.8 } else { 0.2 };
                targets.push(f32::from(u8::from(random.random::<f32>() < rate)));
            }
        }
        Data { features, targets }
    }

    impl Data {
        fn block(&self) -> RowBlock<'_> {
            RowBlock { features: &self.features, descriptions: &DESCRIPTIONS, targets: &self.targets }
        }
    }

    fn train(train: &Data, held_out: &Data, config: &TreeConfig) -> Result<Boosted, HeadsError> {
        train_trees(2, 1, &[train.block()], &[held_out.block()], config)
    }

    #[test]
    fn an_interaction_of_feature_and_continuation_is_learnt() {
        let found = train(&data(2000, 1), &data(500, 2), &TreeConfig::default()).unwrap();
        for (feature, description, rate) in [(-0.5, -1.0, 0.8), (-0.5, 1.0, 0.2), (0.5, -1.0, 0.2), (0.5, 1.0, 0.8)] {
            let p = found.trees.probability(&[feature, 3.0, description]);
            assert!((p - rate).abs() < 0.06, "{feature} {description}: {p}, expected {rate}");
        }
        // −0.8·ln 0.8 − 0.2·ln 0.2 = 0.5004.
        assert!((0.45..0.55).contains(&found.log_loss), "{}", found.log_loss);
        assert!(found.trees.check(3).is_ok());
        assert!(found.trees.feature.iter().all(|&f| f != 1), "a constant input has no thresholds");
    }

    #[test]
    fn flattened_trees_agree_with_the_library_to_the_last_bit() {
        let (train, held_out) = (data(800, 3), data(200, 4));
        let config = TreeConfig { patience: 300, trees: 60, ..TreeConfig::default() };
        let pooled = |d: &Data| pooled_rows(2, 1, &[d.block()], 5000, 0).unwrap();
        let mut booster = fit(3, &pooled(&train), &pooled(&held_out), &config).unwrap();
        booster.prediction_iteration = Some(booster.trees.len());
        let trees = flatten(3, booster.base_score as f32, &booster.trees);
        assert_eq!((trees.len(), trees.check(3)), (60, Ok(())));
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut rows: Vec<[f32; 3]> = (0..500).map(|_| [0; 3].map(|_: i32| random.random_range(-2.0..2.0))).collect();
        // Values that equal a threshold, and their neighbours.
        let inner = || (0..trees.child.len()).filter(|&node| trees.child[node] != 0).take(200);
        for (node, near) in inner().flat_map(|node| [f32::next_down, |v| v, f32::next_up].map(|near| (node, near))) {
            let mut row = [0.1, 3.0, 1.0];
            row[trees.feature[node] as usize] = near(trees.value[node]);
            rows.push(row);
        }
        let columns: Vec<f64> = (0..3).flat_map(|c| rows.iter().map(move |row| f64::from(row[c]))).collect();
        let expected = booster.predict(&Matrix::new(&columns, rows.len(), 3), false);
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(trees.logit(row), expected, "{row:?}");
        }
    }

    #[test]
    fn the_reported_loss_is_that_of_the_kept_trees() {
        let (rows, held_out) = (data(400, 6), data(300, 7));
        let found = train(&rows, &held_out, &TreeConfig { patience: 5, ..TreeConfig::default() }).unwrap();
        assert!(!found.trees.is_empty());
        let pooled = pooled_rows(2, 1, &[held_out.block()], 5000, 0).unwrap();
        let losses = pooled
            .rows
            .chunks_exact(3)
            .zip(&pooled.targets)
            .map(|(row, &t)| cross_entropy(found.trees.logit(row), f64::from(t)));
        let mean = losses.sum::<f64>() / pooled.targets.len() as f64;
        assert!((mean - found.log_loss).abs() < 1e-9, "{mean}, reported {}", found.log_loss);
    }

    #[test]
    fn nothing_is_learnt_from_labels_that_mislead() {
        let rows = data(500, 8);
        let mut turned = data(500, 9);
        turned.targets.iter_mut().for_each(|t| *t = 1.0 - *t);
        let found = train(&rows, &turned, &TreeConfig::default()).unwrap();
        assert!(found.trees.is_empty());
        let mean = rows.targets.iter().sum::<f32>() / 1000.0;
        assert!((found.trees.probability(&[0.3, 3.0, 1.0]) - mean).abs() < 1e-2);
    }

    #[test]
    fn soft_targets_are_weights() {
        let mut rows = data(1000, 10);
        let sign = |t: f32| if t > 0.5 { 0.9 } else { 0.3 };
        for (pair, target) in rows.targets.iter_mut().enumerate() {
            *target = sign(f32::from(u8::from((rows.features[pair / 2 * 2] > 0.0) == (pair % 2 == 1))));
        }
        let found = train(&rows, &rows, &TreeConfig { trees: 100, ..TreeConfig::default() }).unwrap();
        for (row, expected) in [([0.5, 3.0, 1.0], 0.9), ([0.5, 3.0, -1.0], 0.3)] {
            let p = found.trees.probability(&row);
            assert!((p - expected).abs() < 0.01, "{p}, expected {expected}");
        }
    }

    #[test]
    fn the_seed_decides_and_threads_do_not() {
        let (rows, held_out) = (data(1000, 11), data(300, 12));
        let config = TreeConfig { max_rows: 1500, ..TreeConfig::default() };
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(&rows, &held_out, &config)).unwrap()
        };
        assert_eq!(with(1), with(3));
        assert_ne!(with(1), train(&rows, &held_out, &TreeConfig { seed: 1, ..config.clone() }).unwrap());
    }

    #[test]
    fn equal_outcomes_and_constant_inputs() {
        let targets = [0.0; 4];
        let block = RowBlock { features: &[1.0, 1.0], descriptions: &[0.0, 0.0], targets: &targets };
        let found = train_trees(1, 1, &[block], &[block], &TreeConfig::default()).unwrap();
        let p = found.trees.probability(&[1.0, 0.0]);
        assert!(p > 0.0 && p <= 1.0 / 6.0 + 1e-6, "{p}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let rows = data(20, 13);
        let good = TreeConfig::default();
        for broken in [
            TreeConfig { trees: 0, ..good.clone() },
            TreeConfig { learning_rate: 0.0, ..good.clone() },
            TreeConfig { learning_rate: f32::NAN, ..good.clone() },
            TreeConfig { depth: 17, ..good.clone() },
            TreeConfig { min_leaf_weight: -1.0, ..good.clone() },
            TreeConfig { l2: f32::INFINITY, ..good.clone() },
            TreeConfig { bins: 1, ..good.clone() },
            TreeConfig { subsample: 1.5, ..good.clone() },
            TreeConfig { patience: 0, ..good.clone() },
            TreeConfig { max_rows: 0, ..good.clone() },
        ] {
            assert!(train(&rows, &rows, &broken).is_err(), "{broken:?}");
        }
    }
}
