//! Prediction sets on synthetic samples and by hand.

use super::*;
use proptest::prelude::*;

const CLASSES: usize = 5;

/// Probabilities that say too much: labels come from their square root, normalised. Path 1 is where no class has more
/// than half.
fn draw(rng: &mut ChaCha8Rng, samples: usize) -> (Vec<f32>, Vec<u16>, Vec<u32>) {
    let (mut rows, mut labels, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..samples {
        let mut row: Vec<f64> = (0..CLASSES).map(|_| rng.random::<f64>().powi(6) + 1e-3).collect();
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= sum);
        let mut left = rng.random::<f64>() * row.iter().map(|p| p.sqrt()).sum::<f64>();
        let passed = |p: &&f64| {
            left -= p.sqrt();
            left > 0.0
        };
        labels.push((row.iter().take_while(passed).count() as u16).min(CLASSES as u16 - 1));
        paths.push(u32::from(row.iter().all(|p| *p < 0.5)));
        rows.extend(row.iter().map(|p| *p as f32));
    }
    (rows, labels, paths)
}

fn sets(conformal: &Conformal, rng: &mut ChaCha8Rng, cal: usize, test: usize) -> PolicySets {
    let (cal, test) = (draw(rng, cal), draw(rng, test));
    let on_cal = Answers::new(&cal.0, CLASSES, &cal.1).unwrap();
    let on_test = Answers::new(&test.0, CLASSES, &test.1).unwrap();
    conformal.policy_sets(&on_cal, &cal.2, &on_test, &test.2).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Five standard errors of the mean over calibration sets, each with its own coverage and test samples.
    #[test]
    fn coverage_is_what_was_asked_for(seed: u64, alpha in 0.05f64..0.5, n in 20usize..80, aps: bool) {
        let conformal = Conformal::new(if aps { Score::Aps } else { Score::Lac }, alpha, seed).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (trials, test) = (300, 40);
        let all: Vec<PolicySets> = (0..trials)
            .map(|trial| sets(&Conformal { seed: seed ^ trial, ..conformal }, &mut rng, n, test))
            .collect();
        let mean = all.iter().map(|sets| sets.one.coverage).sum::<f64>() / trials as f64;
        let se = |n: usize| {
            let spread = alpha * (1.0 - alpha) * (1.0 / test as f64 + 1.0 / (n as f64 + 2.0));
            (spread / trials as f64).sqrt()
        };
        let exact = rank(n, alpha).map_or(1.0, |rank| rank as f64 / (n + 1) as f64);
        prop_assert!(exact >= 1.0 - alpha - 1e-9 && exact <= 1.0 - alpha + 1.0 / (n + 1) as f64);
        prop_assert!((mean - exact).abs() < 5.0 * se(n), "{mean} instead of {exact}");
        let per_path = all.iter().map(|sets| sets.per_path.coverage).sum::<f64>() / trials as f64;
        prop_assert!(per_path > 1.0 - alpha - 5.0 * se(n / 4), "{per_path}");
    }

    #[test]
    fn sets_grow_with_the_level(seed: u64, alpha in 0.01f64..0.9, more in 0.0f64..0.09, aps: bool) {
        let score = if aps { Score::Aps } else { Score::Lac };
        let report = |alpha| {
            let conformal = Conformal::new(score, alpha, seed).unwrap();
            sets(&conformal, &mut ChaCha8Rng::seed_from_u64(seed), 60, 60)
        };
        let (small, large) = (report(alpha + more), report(alpha));
        prop_assert!(small.threshold.score.unwrap() <= large.threshold.score.unwrap_or(f64::INFINITY));
        for (small, large) in [(small.one, large.one), (small.per_path, large.per_path)] {
            prop_assert!(small.mean_size <= large.mean_size && small.coverage <= large.coverage);
            prop_assert!(small.empty >= large.empty);
        }
    }

    #[test]
    fn rank_is_the_least_that_covers(n in 0usize..3000, thousandth in 1usize..1000) {
        let least = ((n + 1) * (1000 - thousandth)).div_ceil(1000);
        prop_assert_eq!(rank(n, thousandth as f64 / 1000.0), (least <= n).then_some(least));
    }
}

/// Sure answers say too much: one threshold covers them too seldom and the unsure too often, own thresholds both.
#[test]
fn own_thresholds_cover_every_path() {
    let conformal = Conformal::new(Score::Lac, 0.2, 0).unwrap();
    let all = sets(&conformal, &mut ChaCha8Rng::seed_from_u64(1), 20_000, 20_000);
    let [sure, unsure] = all.paths[..] else { panic!("two paths: {all:?}") };
    assert!((sure.path, unsure.path) == (0, 1) && sure.one.n + unsure.one.n == 20_000);
    assert!(sure.one.coverage < 0.79 && unsure.one.coverage > 0.85, "{all:?}");
    for coverage in [all.one, all.per_path, sure.per_path, unsure.per_path].map(|report| report.coverage) {
        // Three standard errors, of test samples and calibration set, on the rarer path.
        assert!((coverage - 0.8).abs() < 0.027, "{all:?}");
    }
}

#[test]
fn too_few_samples_give_all_classes() {
    assert_eq!((rank(8, 0.1), rank(9, 0.1), rank(0, 0.5)), (None, Some(9), None));
    let conformal = Conformal::new(Score::Aps, 0.1, 0).unwrap();
    let rows = [0.7, 0.2, 0.1].repeat(8);
    let answers = Answers::new(&rows, 3, &[0; 8]).unwrap();
    let (threshold, report) = conformal.path_sets(&answers, &answers).unwrap();
    assert_eq!(threshold, Threshold { samples: 8, score: None, coverage_sd: 0.0 });
    assert_eq!((report.coverage, report.mean_size, report.empty), (1.0, 3.0, 0.0));
    // A path that no calibration sample took.
    let sets = conformal.policy_sets(&answers, &[4; 8], &answers, &[9; 8]).unwrap();
    assert_eq!((sets.paths.len(), sets.paths[0].path, sets.paths[0].threshold.samples), (1, 9, 0));
}

#[test]
fn scores_by_hand() {
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near(&Score::Lac.of(&[0.2, 0.5, 0.3], 0.9), &[0.8, 0.5, 0.7]));
    assert!(near(&Score::Aps.of(&[0.2, 0.5, 0.3], 0.5), &[0.9, 0.25, 0.65]));
    assert!(near(&Score::Aps.of(&[0.5, 0.5], 1.0), &[0.5, 1.0]), "ties by class");
}

#[test]
fn random_parts_are_seeded_and_free_of_threads() {
    let run = |seed| {
        let conformal = Conformal::new(Score::Aps, 0.3, seed).unwrap();
        sets(&conformal, &mut ChaCha8Rng::seed_from_u64(2), 200, 300)
    };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(|| run(5)), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn refuses_what_does_not_fit() {
    assert_eq!(Conformal::new(Score::Lac, 1.0, 0), Err(ConformalError::Alpha(1.0)));
    assert!(matches!(Answers::new(&[0.5; 3], 2, &[0, 1]), Err(ConformalError::Shape { want: 4, .. })));
    assert!(matches!(Answers::new(&[0.5; 4], 2, &[0, 2]), Err(ConformalError::Value { sample: 1, .. })));
    assert!(matches!(Answers::new(&[0.5, f32::NAN], 2, &[0]), Err(ConformalError::Value { sample: 0, .. })));
    let conformal = Conformal::new(Score::Lac, 0.1, 0).unwrap();
    let (some, none) = (Answers::new(&[0.5; 2], 2, &[0]).unwrap(), Answers::new(&[], 2, &[]).unwrap());
    assert_eq!(conformal.path_sets(&some, &none), Err(ConformalError::Empty));
    assert!(conformal.policy_sets(&some, &[], &some, &[0]).is_err());
}
