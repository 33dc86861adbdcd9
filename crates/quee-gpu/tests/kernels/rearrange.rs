//! Operations that only move values.

use quee_backbone::Executor as _;

use crate::support::{alone, floats, param, random, values};

#[test]
fn values_arrive_where_they_belong() {
    let _alone = alone();
    let mut random = random(5);
    // The last is more than the small binding shows, so that samples are gathered one by one.
    for [b, t, d] in [[1, 1, 1], [3, 7, 10], [33, 65, 37], [90, 65, 64]] {
        let x = values(&mut random, b * t * d, 3.0);
        let at = |sample: usize, token: usize, feature: usize| x[(sample * t + token) * d + feature];
        let all = |samples: usize, tokens: usize, features: usize, value: &dyn Fn(usize, usize, usize) -> f32| {
            let place = |i: usize| value(i / features / tokens, i / features % tokens, i % features);
            (0..samples * tokens * features).map(place).collect::<Vec<f32>>()
        };
        let shape = [b, t, d];
        let Some(turned) = floats("transpose", &shape, &x, |executor, x| executor.transpose(x)) else { return };
        assert!(turned == all(b, d, t, &|sample, feature, token| at(sample, token, feature)), "transpose {shape:?}");

        let (start, length) = (d / 3, d - d / 2);
        let slice = floats("slice", &shape, &x, |executor, x| executor.slice_features(x, start, length)).unwrap();
        let want = all(b, t, length, &|sample, token, feature| at(sample, token, start + feature));
        assert!(slice == want, "slice {shape:?}");

        let indices: Vec<usize> = (0..b + 2).map(|i| (i * 7 + 1) % b).collect();
        let picked = floats("select", &shape, &x, |executor, x| executor.select_samples(x, &indices)).unwrap();
        assert!(picked == all(b + 2, t, d, &|i, token, feature| at(indices[i], token, feature)), "select {shape:?}");

        let learned = values(&mut random, 2 * d, 1.0);
        let tokens = param(0, &[1, 2, d], learned.clone());
        let longer = floats("prepend", &shape, &x, |executor, x| executor.prepend(x, &tokens)).unwrap();
        let want = all(b, t + 2, d, &|sample, token, feature| match token.checked_sub(2) {
            Some(token) => at(sample, token, feature),
            None => learned[token * d + feature],
        });
        assert!(longer == want, "prepend {shape:?}");

        let count = t.min(2);
        let first = floats("first_tokens", &shape, &x, |executor, x| executor.first_tokens(x, count)).unwrap();
        assert!(first == all(b, count, d, &at), "first_tokens {shape:?}");
    }
}
