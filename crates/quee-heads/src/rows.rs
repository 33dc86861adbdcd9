//! Training rows of predictors that take the continuation as an input: features times continuations, drawn to size.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::HeadsError;
use crate::error::{expect_finite, expect_len};

/// Samples that face the same continuations: those of a gate, or of one prefix at a gate.
#[derive(Clone, Copy, Debug)]
pub struct RowBlock<'a> {
    /// Features `[samples, inputs]`.
    pub features: &'a [f32],
    /// Descriptions of the continuations `[continuations, described]`, as
    /// [`describe_path`](crate::FeatureSpec::describe_path) or
    /// [`describe_suffix`](crate::FeatureSpec::describe_suffix) write them.
    pub descriptions: &'a [f32],
    /// Probabilities of error, or outcomes (0 right, 1 wrong), `[samples, continuations]`; NaN where there is none.
    pub targets: &'a [f32],
}

/// Pairs of sample and continuation, written out.
#[derive(Clone, Debug, PartialEq)]
pub struct PooledRows {
    /// Features and description of each pair `[pairs, inputs + described]`.
    pub rows: Vec<f32>,
    /// Its target, 0 to 1.
    pub targets: Vec<f32>,
}

/// Writes out the pairs of sample and continuation of `blocks` that have a target: block by block, sample by sample.
///
/// Of more than `most` pairs, that many are drawn without replacement by `seed`, each with the same chance whatever its
/// block, sample and continuation; their order stays. Pairs of one sample have much in common, so that a draw loses far
/// less than its share suggests.
///
/// # Errors
/// When `most` is 0, there is no target at all, a length does not fit `inputs` features and `described` numbers, a
/// feature or description is not finite, or a target is outside 0 to 1.
pub fn pooled_rows(
    inputs: usize,
    described: usize,
    blocks: &[RowBlock],
    most: usize,
    seed: u64,
) -> Result<PooledRows, HeadsError> {
    for block in blocks {
        check(inputs, described, block)?;
    }
    let known: usize = blocks.iter().map(|b| b.targets.iter().filter(|t| !t.is_nan()).count()).sum();
    if known == 0 || most == 0 {
        return Err(HeadsError::Empty { what: "targets of the continuations" });
    }
    let chosen = (known > most).then(|| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut chosen = vec![false; known];
        rand::seq::index::sample(&mut random, known, most).iter().for_each(|pair| chosen[pair] = true);
        chosen
    });
    let dim = inputs + described;
    let mut pooled =
        PooledRows { rows: Vec::with_capacity(known.min(most) * dim), targets: Vec::with_capacity(known.min(most)) };
    let mut pair = 0;
    for block in blocks {
        let continuations = block.descriptions.len() / described;
        for (features, targets) in block.features.chunks_exact(inputs).zip(block.targets.chunks_exact(continuations)) {
            for (description, &target) in block.descriptions.chunks_exact(described).zip(targets) {
                if target.is_nan() {
                    continue;
                }
                if chosen.as_ref().is_none_or(|chosen| chosen[pair]) {
                    pooled.rows.extend_from_slice(features);
                    pooled.rows.extend_from_slice(description);
                    pooled.targets.push(target);
                }
                pair += 1;
            }
        }
    }
    Ok(pooled)
}

fn check(inputs: usize, described: usize, block: &RowBlock) -> Result<(), HeadsError> {
    if inputs == 0 || described == 0 || block.features.is_empty() || block.descriptions.is_empty() {
        return Err(HeadsError::Empty { what: "features and descriptions" });
    }
    let (samples, continuations) = (block.features.len() / inputs, block.descriptions.len() / described);
    expect_len("features of the samples", samples.max(1) * inputs, block.features.len())?;
    expect_len("descriptions of the continuations", continuations.max(1) * described, block.descriptions.len())?;
    expect_len("targets of the continuations", samples * continuations, block.targets.len())?;
    expect_finite("features of the samples", block.features)?;
    expect_finite("descriptions of the continuations", block.descriptions)?;
    match block.targets.iter().find(|t| !t.is_nan() && !(0.0..=1.0).contains(*t)) {
        Some(t) => Err(HeadsError::Setting {
            what: "target",
            value: t.to_string(),
            hint: "targets lie between 0 and 1, or are NaN where there is none",
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: f32 = f32::NAN;

    fn blocks() -> [RowBlock<'static>; 2] {
        let first = RowBlock { features: &[1.0, 2.0], descriptions: &[10.0, 20.0], targets: &[0.0, X, 0.25, 1.0] };
        [first, RowBlock { features: &[3.0], descriptions: &[30.0], targets: &[0.5] }]
    }

    #[test]
    fn pairs_are_written_out_in_order_without_absent_ones() {
        let pooled = pooled_rows(1, 1, &blocks(), 4, 0).unwrap();
        assert_eq!(pooled.rows, [1.0, 10.0, 2.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        assert_eq!(pooled.targets, [0.0, 0.25, 1.0, 0.5]);
    }

    #[test]
    fn a_draw_is_seeded_fair_and_in_order() {
        let features: Vec<f32> = (0..50).map(|i| i as f32).collect();
        let targets = vec![0.5; 200];
        let block = RowBlock { features: &features, descriptions: &[0.0, 1.0, 2.0, 3.0], targets: &targets };
        let mut times = [0usize; 200];
        for seed in 0..400 {
            let pooled = pooled_rows(1, 1, &[block], 50, seed).unwrap();
            assert_eq!((pooled.targets.len(), pooled.rows.len()), (50, 100));
            let pairs: Vec<usize> = pooled.rows.chunks_exact(2).map(|r| (4.0 * r[0] + r[1]) as usize).collect();
            assert!(pairs.is_sorted_by(|a, b| a < b));
            pairs.into_iter().for_each(|pair| times[pair] += 1);
            assert_eq!(pooled, pooled_rows(1, 1, &[block], 50, seed).unwrap());
        }
        // Each pair is expected 100 times of 400, with a deviation of 8.7.
        assert!(times.iter().all(|&n| (60..140).contains(&n)), "{times:?}");
    }

    #[test]
    fn broken_blocks_are_refused() {
        let [good, _] = blocks();
        for (what, block) in [
            ("an incomplete row", RowBlock { features: &[1.0, 2.0, 3.0], ..good }),
            ("a missing target", RowBlock { targets: &[0.0, 1.0, 0.0], ..good }),
            ("a target above 1", RowBlock { targets: &[0.0, 1.0, 0.0, 1.5], ..good }),
            ("no targets", RowBlock { targets: &[X, X, X, X], ..good }),
            ("a broken feature", RowBlock { features: &[1.0, X], ..good }),
            ("no continuations", RowBlock { descriptions: &[], targets: &[], ..good }),
        ] {
            assert!(pooled_rows(1, 1, &[block], 10, 0).is_err(), "{what}");
        }
        assert!(pooled_rows(1, 1, &[good], 0, 0).is_err());
        assert!(pooled_rows(1, 1, &[], 9, 0).is_err());
    }
}
