//! Performer attention: performer_features, performer_features_wide, performer_sums and performer_mix.

use proptest::prelude::*;
use quee_backbone::{Executor as _, Linear, Performer};

use crate::support::{alone, assert_near, floats, param, random, values};

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queries_get_the_mixture_of_their_features(b in 1usize..4, t in 1usize..90, e in 1usize..70, m in 1usize..40, seed: u64) {
        let _alone = alone();
        let mut random = random(seed);
        let weight = param(0, &[m, e], values(&mut random, m * e, 1.0));
        let projection = Linear { site: "performer".into(), inputs: e, outputs: m, weight, bias: None };
        let performer = Performer { site: "performer".into(), projection };
        let x = values(&mut random, b * t * 3 * e, 0.5);
        let got = floats("performer", &[b, t, 3 * e], &x, |executor, x| executor.performer(x, &performer));
        let Some(got) = got else { return Ok(()) };
        let directions = &performer.projection.weight.data;
        let mut want = Vec::new();
        for sample in x.chunks(t * 3 * e) {
            let part = |part: usize, token: usize| &sample[token * 3 * e + part * e..][..e];
            let features = |x: &[f32]| -> Vec<f64> {
                let square: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
                let product = |w: &[f32]| -> f64 { w.iter().zip(x).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum() };
                directions.chunks(e).map(|w| (product(w) - square / 2.0).exp() / (m as f64).sqrt()).collect()
            };
            let keys: Vec<Vec<f64>> = (0..t).map(|token| features(part(0, token))).collect();
            for token in 0..t {
                let query = features(part(1, token));
                let weights: Vec<f64> = keys.iter().map(|key| key.iter().zip(&query).map(|(k, q)| k * q).sum()).collect();
                let sum: f64 = weights.iter().sum::<f64>() + f64::from(Performer::EPS);
                want.extend((0..e).map(|i| {
                    weights.iter().enumerate().map(|(token, weight)| weight * f64::from(part(2, token)[i])).sum::<f64>() / sum
                }));
            }
        }
        assert_near(&got, &want, 2e-5, "performer");
    }
}
