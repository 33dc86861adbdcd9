//! Attention in floats, whose keys and values are laid out as columns first.

use proptest::prelude::*;
use quee_backbone::{Attention, Executor as _};

use crate::support::{alone, assert_near, floats, random, values};

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_attend_to_their_own_samples(
        b in 1usize..4, t in 1usize..80, heads in 1usize..4, dim in 1usize..40, seed: u64,
    ) {
        let _alone = alone();
        check([b, t, heads, dim], seed);
    }
}

/// Under small limits, one sample's scores take more than a binding.
#[test]
fn samples_may_be_larger_than_a_binding() {
    let _alone = alone();
    check([2, 210, 7, 11], 1);
}

fn check([b, t, heads, dim]: [usize; 4], seed: u64) {
    let attention = Attention { site: "attn".into(), heads, head_dim: dim, scale: 0.3 };
    let stride = 3 * heads * dim;
    let mut random = random(seed);
    let x = values(&mut random, b * t * stride, 2.0);
    let value = |third: usize, sample: usize, head: usize, token: usize, i: usize| {
        f64::from(x[(sample * t + token) * stride + (third * heads + head) * dim + i])
    };
    let scores =
        floats("attention_scores", &[b, t, stride], &x, |executor, x| executor.attention_scores(x, &attention));
    let Some(scores) = scores else { return };
    let (mut want, mut mixed) = (Vec::new(), vec![0.0; b * t * heads * dim]);
    for (sample, head, token) in (0..b * heads * t).map(|at| (at / t / heads, at / t % heads, at % t)) {
        let product =
            |key| -> f64 { (0..dim).map(|i| value(0, sample, head, token, i) * value(1, sample, head, key, i)).sum() };
        let row: Vec<f64> = (0..t).map(|key| product(key) * f64::from(attention.scale)).collect();
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|score| (score - top).exp()).sum();
        for i in 0..dim {
            let weighted =
                row.iter().enumerate().map(|(key, score)| (score - top).exp() / sum * value(2, sample, head, key, i));
            mixed[((sample * t + token) * heads + head) * dim + i] = weighted.sum();
        }
        want.extend(row);
    }
    assert_near(&scores, &want, 1e-5, "attention_scores");
    let got = floats("attention", &[b, t, stride], &x, |executor, x| executor.attention(x, &attention));
    assert_near(&got.unwrap(), &mixed, 2e-5, "attention");
}
