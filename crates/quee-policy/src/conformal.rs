//! Split conformal prediction: sets of classes that hold the true one with probability 1 − α, whatever the backbone, its
//! quantization or its calibration. An option of this project, not part of the paper.
//!
//! A score says how badly a class fits a sample's class probabilities; the threshold is the ⌈(n+1)(1−α)⌉-th smallest score of
//! the true classes of the `n` samples of *cal-b*; a set holds all classes whose score is not above it. Coverage is at least
//! 1 − α on average over calibration sets and samples if calibration and test samples are exchangeable (Vovk, Gammerman and
//! Shafer 2005; Angelopoulos and Bates, arXiv 2107.07511). It is not promised for a given calibration set
//! ([`Threshold::coverage_sd`]), class or path.
//!
//! *Policies.* A policy that was fixed before calibration (trained on *fit*, λ chosen on *cal-a*) is a function of the
//! sample, so the scores on the paths that it chose are exchangeable too, and the promise holds for its mix of paths
//! ([`Conformal::policy_sets`]): with one threshold over all paths, or with one per path from the samples that the policy
//! sent there, which makes it hold on every path by itself (Mondrian). A policy chosen on *cal-b* breaks it. So does a threshold
//! from *all* samples run along a path, used for those that the policy sends there: these aren't like the others.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Slack for the rounding of (n+1)·α, so that α means the decimal that was written.
const SLACK: f64 = 1e-9;

/// How badly a class fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// 1 − probability of the class (Sadinle, Lei and Wasserman 2019): the smallest sets on average as far as probabilities are
    /// right, empty ones among them.
    #[default]
    Lac,
    /// Probability of all likelier classes, and a uniformly random part of the class's own (Romano, Sesia and Candès, arXiv
    /// 2006.02544): sizes follow the difficulty of a sample. The random part keeps sets from being larger than needed by
    /// most of a class; it also makes some of them empty.
    Aps,
}

impl Score {
    /// Scores of all classes of one sample; `u` between 0 and 1 is the sample's random part, which [`Score::Lac`] ignores.
    /// Equal probabilities are ordered by class.
    pub fn of(self, probabilities: &[f32], u: f64) -> Vec<f64> {
        match self {
            Self::Lac => probabilities.iter().map(|p| 1.0 - f64::from(*p)).collect(),
            Self::Aps => {
                // Bits of a float rise with its value from 0 on; sorting them takes half the time of comparing floats.
                let key = |(class, p): (usize, &f32)| (u64::from(!p.max(0.0).to_bits()) << 32) | class as u64;
                let mut order: Vec<u64> = probabilities.iter().enumerate().map(key).collect();
                order.sort_unstable();
                let (mut likelier, mut scores) = (0.0, vec![0.0; order.len()]);
                for key in order {
                    let class = (key & u64::from(u32::MAX)) as usize;
                    let own = f64::from(probabilities[class]);
                    scores[class] = likelier + u * own;
                    likelier += own;
                }
                scores
            }
        }
    }
}

/// Why there are no sets.
#[derive(Debug, Error, PartialEq)]
pub enum ConformalError {
    /// α means nothing.
    #[error("prediction sets need alpha strictly between 0 and 1, got {0}")]
    Alpha(f64),
    /// A list does not fit the labels.
    #[error("{what}: {got} entries, expected {want}")]
    Shape {
        /// Which list.
        what: &'static str,
        /// Its entries.
        got: usize,
        /// What it should have.
        want: usize,
    },
    /// A label that is no class, or a probability outside 0 to 1.
    #[error("sample {sample}: {what}")]
    Value {
        /// Which sample.
        sample: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There are no samples to test on.
    #[error("prediction sets need at least one test sample")]
    Empty,
}

/// Class probabilities of the samples of a split, each along one path, and their true classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answers<'a> {
    probabilities: &'a [f32],
    classes: usize,
    labels: &'a [u16],
}

impl<'a> Answers<'a> {
    /// Joins `probabilities` `[sample][class]` with `labels` `[sample]`.
    ///
    /// # Errors
    /// If a length does not fit, a label is not below `classes`, or a probability is outside 0 to 1 (rounding aside).
    pub fn new(probabilities: &'a [f32], classes: usize, labels: &'a [u16]) -> Result<Self, ConformalError> {
        check_length("class probabilities", probabilities.len(), labels.len() * classes)?;
        if let Some(sample) = labels.iter().position(|label| usize::from(*label) >= classes) {
            return Err(ConformalError::Value { sample, what: "its label is not a class" });
        }
        if let Some(at) = probabilities.iter().position(|p| !(-1e-4..=1.0001).contains(p)) {
            return Err(ConformalError::Value { sample: at / classes, what: "a class probability is outside 0 to 1" });
        }
        Ok(Self { probabilities, classes, labels })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.labels.len()
    }
}

fn check_length(what: &'static str, got: usize, want: usize) -> Result<(), ConformalError> {
    if got == want { Ok(()) } else { Err(ConformalError::Shape { what, got, want }) }
}

/// The place ⌈(n+1)(1−α)⌉ of the threshold among the ascending scores of `samples`, from 1; `None` if it is beyond the
/// last: then there are too few samples for α, and a set must hold all classes.
pub fn rank(samples: usize, alpha: f64) -> Option<usize> {
    let left_out = ((samples + 1) as f64 * alpha + SLACK).floor() as usize;
    Some((samples + 1).saturating_sub(left_out).max(1)).filter(|rank| *rank <= samples)
}

/// What calibration gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// Calibration samples.
    pub samples: usize,
    /// Largest score of a class in the set; `None` if there are too few samples for α, and sets hold all classes.
    pub score: Option<f64>,
    /// Standard deviation of the coverage over calibration sets of this size (a beta distribution; scores without ties). With
    /// [`SetReport::coverage_se`] it says how far a measured coverage may lie from 1 − α.
    pub coverage_sd: f64,
}

impl Threshold {
    /// The threshold from the scores of the true classes of the calibration samples, in any order.
    pub fn new(mut scores: Vec<f64>, alpha: f64) -> Self {
        let samples = scores.len();
        let Some(rank) = rank(samples, alpha) else { return Self { samples, score: None, coverage_sd: 0.0 } };
        let (_, score, _) = scores.select_nth_unstable_by(rank - 1, f64::total_cmp);
        let (n, k) = (samples as f64, rank as f64);
        let variance = k * (n + 1.0 - k) / ((n + 1.0).powi(2) * (n + 2.0));
        Self { samples, score: Some(*score), coverage_sd: variance.sqrt() }
    }

    fn holds(&self, score: f64) -> bool {
        self.score.is_none_or(|largest| score <= largest)
    }
}

/// Prediction sets on test samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SetReport {
    /// Test samples.
    pub n: usize,
    /// Share of samples whose set holds the true class.
    pub coverage: f64,
    /// Its binomial standard error over test samples, the calibration set given.
    pub coverage_se: f64,
    /// Mean number of classes in a set.
    pub mean_size: f64,
    /// Share of empty sets.
    pub empty: f64,
}

/// One test sample's set: whether it holds the true class, and its size.
type Set = (bool, usize);

impl SetReport {
    fn new(sets: &[Set]) -> Self {
        let n = sets.len() as f64;
        let share = |which: fn(&Set) -> bool| sets.iter().filter(|set| which(set)).count() as f64 / n;
        let coverage = share(|set| set.0);
        Self {
            n: sets.len(),
            coverage,
            coverage_se: (coverage * (1.0 - coverage) / n).sqrt(),
            mean_size: sets.iter().map(|set| set.1).sum::<usize>() as f64 / n,
            empty: share(|set| set.1 == 0),
        }
    }
}

/// Samples that a policy sends along one path.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PathSets {
    /// The path, as numbered by the caller.
    pub path: u32,
    /// Its own threshold; without score where the policy sent too few calibration samples there.
    pub threshold: Threshold,
    /// Its test samples under the threshold of all paths together: coverage on a path is not promised.
    pub one: SetReport,
    /// Its test samples under its own threshold.
    pub per_path: SetReport,
}

/// Prediction sets of a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicySets {
    /// The threshold of all paths together.
    pub threshold: Threshold,
    /// All test samples under one threshold.
    pub one: SetReport,
    /// All test samples, each under the threshold of its path.
    pub per_path: SetReport,
    /// Paths that the policy chooses for test samples, ascending.
    pub paths: Vec<PathSets>,
}

/// Split conformal prediction with a score and a level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conformal {
    score: Score,
    alpha: f64,
    seed: u64,
}

impl Conformal {
    /// Sets that miss the true class with probability `alpha`; `seed` draws the random parts of [`Score::Aps`], with one
    /// stream for calibration and one for test samples.
    ///
    /// # Errors
    /// If α is not strictly between 0 and 1.
    pub fn new(score: Score, alpha: f64, seed: u64) -> Result<Self, ConformalError> {
        if alpha > 0.0 && alpha < 1.0 { Ok(Self { score, alpha, seed }) } else { Err(ConformalError::Alpha(alpha)) }
    }

    /// `figure` of every sample's scores and true class, in order.
    fn map<T: Send>(
        &self,
        answers: &Answers<'_>,
        stream: u64,
        figure: impl Fn(usize, &[f64], usize) -> T + Sync,
    ) -> Vec<T> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        let parts: Vec<f64> = (0..answers.samples()).map(|_| rng.random()).collect();
        let rows = answers.probabilities.par_chunks_exact(answers.classes.max(1));
        rows.enumerate()
            .map(|(i, row)| figure(i, &self.score.of(row, parts[i]), usize::from(answers.labels[i])))
            .collect()
    }

    /// Calibrates on the answers of one path on *cal-b* and measures its sets on *test*.
    ///
    /// # Errors
    /// Without test samples.
    pub fn path_sets(&self, cal: &Answers<'_>, test: &Answers<'_>) -> Result<(Threshold, SetReport), ConformalError> {
        let sets = self.policy_sets(cal, &vec![0; cal.samples()], test, &vec![0; test.samples()])?;
        Ok((sets.threshold, sets.one))
    }

    /// Calibrates on *cal-b* along the paths that a policy chose, one threshold for all and one for each, and measures
    /// both on *test*. `cal_paths` and `test_paths` `[sample]` name the chosen path, along which `cal` and `test` hold the
    /// sample's probabilities.
    ///
    /// # Errors
    /// Without test samples, or if the lists of paths don't fit.
    pub fn policy_sets(
        &self,
        cal: &Answers<'_>,
        cal_paths: &[u32],
        test: &Answers<'_>,
        test_paths: &[u32],
    ) -> Result<PolicySets, ConformalError> {
        check_length("paths of calibration samples", cal_paths.len(), cal.samples())?;
        check_length("paths of test samples", test_paths.len(), test.samples())?;
        if test.samples() == 0 {
            return Err(ConformalError::Empty);
        }
        let scores = self.map(cal, 0, |_, scores, label| scores[label]);
        let mut by_path: BTreeMap<u32, Vec<f64>> = test_paths.iter().map(|path| (*path, Vec::new())).collect();
        for (path, score) in cal_paths.iter().zip(&scores) {
            by_path.entry(*path).or_default().push(*score);
        }
        let own: BTreeMap<u32, Threshold> =
            by_path.into_iter().map(|(path, scores)| (path, Threshold::new(scores, self.alpha))).collect();
        let threshold = Threshold::new(scores, self.alpha);
        let sets: Vec<[Set; 2]> = self.map(test, 1, |sample, scores, label| {
            [threshold, own[&test_paths[sample]]].map(|threshold| {
                (threshold.holds(scores[label]), scores.iter().filter(|score| threshold.holds(**score)).count())
            })
        });
        let report = |rule: usize, path: Option<u32>| {
            let here = sets.iter().zip(test_paths).filter(|(_, other)| path.is_none_or(|path| path == **other));
            SetReport::new(&here.map(|(sets, _)| sets[rule]).collect::<Vec<_>>())
        };
        let used = own.iter().filter(|(path, _)| test_paths.contains(path));
        let paths = used.map(|(path, threshold)| PathSets {
            path: *path,
            threshold: *threshold,
            one: report(0, Some(*path)),
            per_path: report(1, Some(*path)),
        });
        Ok(PolicySets { threshold, one: report(0, None), per_path: report(1, None), paths: paths.collect() })
    }
}

#[cfg(test)]
#[path = "conformal_tests.rs"]
mod tests;
