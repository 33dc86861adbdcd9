//! Means over tokens.

use quee_backbone::Executor as _;

use crate::support::{alone, assert_near, floats, random, values};

#[test]
fn means_are_those_of_the_tokens_behind_the_skipped() {
    let _alone = alone();
    let mut random = random(3);
    for ([b, t, d], skip) in [([1, 1, 1], 0), ([5, 17, 21], 1), ([40, 65, 130], 2), ([3, 4, 7], 3)] {
        let x = values(&mut random, b * t * d, 3.0);
        let mean = floats("mean_tokens", &[b, t, d], &x, |executor, x| executor.mean_tokens(x, skip));
        let Some(mean) = mean else { return };
        let of = |at: usize| {
            let (sample, feature) = (at / d, at % d);
            let tokens = (skip..t).map(|token| f64::from(x[(sample * t + token) * d + feature]));
            tokens.sum::<f64>() / (t - skip) as f64
        };
        let want: Vec<f64> = (0..b * d).map(of).collect();
        assert_near(&mean, &want, 1e-5, "mean_tokens");
    }
}
