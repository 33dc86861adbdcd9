//! Learning rates and losses that several trainings share.

use burn::tensor::{Tensor, activation};

/// Linear warm-up over the first `warmup` of `steps` steps, then half a cosine down to zero.
pub(crate) fn learning_rate(peak: f64, step: usize, warmup: usize, steps: usize) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let share = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
}

/// Sum over samples of the cross-entropy between `targets` `[B, classes]` (probabilities) and the softmax of `logits`.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (activation::log_softmax(logits, 1) * targets).sum().neg()
}

/// Labels as probabilities `[B, classes]`, row-major: `1 − smoothing` on the class, the rest spread evenly over all.
pub fn soft_labels(labels: impl Iterator<Item = u16>, classes: usize, smoothing: f32) -> Vec<f32> {
    let mut targets = Vec::new();
    for label in labels {
        let start = targets.len();
        targets.resize(start + classes, smoothing / classes as f32);
        targets[start + usize::from(label)] += 1.0 - smoothing;
    }
    targets
}

/// Position of the largest logit of each row; the first of equal ones.
pub(crate) fn argmax_rows(logits: &[f32], classes: usize) -> impl Iterator<Item = usize> {
    logits
        .chunks_exact(classes)
        .map(move |row| (1..classes).fold(0, |best, i| if row[i] > row[best] { i } else { best }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_zero() {
        let rate = |step| learning_rate(2.0, step, 4, 20);
        assert_eq!((rate(0), rate(3), rate(4)), (0.5, 2.0, 2.0));
        assert!((rate(12) - 1.0).abs() < 1e-12);
        assert!((1..20).all(|step| step <= 4 || rate(step) < rate(step - 1)));
        assert!(rate(19) > 0.0 && rate(19) < 0.05);
    }

    #[test]
    fn soft_labels_sum_to_one() {
        assert_eq!(soft_labels([1, 0].into_iter(), 2, 0.5), [0.25, 0.75, 0.75, 0.25]);
    }
}
