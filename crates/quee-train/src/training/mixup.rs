//! Mixup (Zhang et al., arXiv 1710.09412): each picture of a batch blended with another one, and its label too.

use rand::distr::Distribution;
use rand_chacha::ChaCha8Rng;
use rand_distr::Beta;

/// The share of a picture in its blend, from Beta(α, α); 1 when `alpha` is 0.
pub(super) fn share(alpha: f64, rng: &mut ChaCha8Rng) -> f32 {
    if alpha <= 0.0 {
        return 1.0;
    }
    match Beta::new(alpha, alpha) {
        Ok(beta) => beta.sample(rng) as f32,
        // An α too small for a distribution: all mass lies on 0 and 1, where nothing is blended.
        Err(_) => 1.0,
    }
}

/// Blends row i of `rows` with row n − 1 − i: `share` of the one, the rest of the other. The batch is in random order, so
/// that these are random pairs.
pub(super) fn blend(rows: &[Vec<f32>], share: f32) -> Vec<Vec<f32>> {
    let mix = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| share * a + (1.0 - share) * b).collect();
    rows.iter().zip(rows.iter().rev()).map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng_for;

    #[test]
    fn pairs_are_blended_and_the_middle_stays() {
        let rows = [vec![0.0, 4.0], vec![7.0, 7.0], vec![8.0, 0.0]];
        assert_eq!(blend(&rows, 0.75), [[2.0, 3.0], [7.0, 7.0], [6.0, 1.0]]);
        assert_eq!(blend(&rows, 1.0), rows);
    }

    #[test]
    fn shares_follow_a_beta_distribution() {
        let mut rng = rng_for(5, &[]);
        for alpha in [0.2, 1.0, 4.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(share(alpha, &mut rng))).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            // Beta(α, α): mean 1/2, variance 1 / (4 (2α + 1)); the seed is fixed, four standard errors are allowed.
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 4.0 * (expected / 20_000.0).sqrt(), "α {alpha}: mean {mean}");
            assert!((variance - expected).abs() < 0.05 * expected, "α {alpha}: variance {variance}");
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)));
        }
        assert_eq!(share(0.0, &mut rng), 1.0);
        assert!((0..1000).all(|_| share(1e-300, &mut rng).is_finite()));
    }
}
