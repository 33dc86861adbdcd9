//! Layer normalisation and softmax in floats.

use quee_backbone::Executor as _;

use crate::support::{alone, assert_near, floats, norm, random, values};

#[test]
fn rows_are_normalised() {
    let _alone = alone();
    let mut random = random(6);
    for [b, t, d] in [[1, 1, 1], [2, 5, 3], [3, 33, 16], [7, 31, 50], [20, 65, 193], [1, 300, 1000]] {
        let norm = norm(&mut random, d);
        let x = values(&mut random, b * t * d, 4.0);
        let got = floats("layer_norm", &[b, t, d], &x, |executor, x| executor.layer_norm(x, &norm));
        let Some(got) = got else { return };
        let mut want = Vec::new();
        for row in x.chunks(d) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / d as f64;
            let factor = 1.0 / (variance + f64::from(norm.eps)).sqrt();
            let gains = norm.weight.data.iter().zip(&*norm.bias.data);
            want.extend(
                row.iter()
                    .zip(gains)
                    .map(|(&v, (&gain, &offset))| (f64::from(v) - mean) * factor * f64::from(gain) + f64::from(offset)),
            );
        }
        assert_near(&got, &want, 2e-5, "layer_norm");

        let got = floats("softmax", &[b, t, d], &x, |executor, x| executor.softmax(x)).unwrap();
        let mut want = Vec::new();
        for row in x.chunks(d) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = row.iter().map(|&v| f64::from(v - top).exp()).collect();
            let sum: f64 = powers.iter().sum();
            want.extend(powers.iter().map(|power| power / sum));
        }
        assert_near(&got, &want, 1e-6, "softmax");
    }
}
