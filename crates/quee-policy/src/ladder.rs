//! A ladder of widths whose neighbours really differ: widths that are equally accurate leave a policy nothing to choose.
//!
//! All of it is a choice of this project (method, section 13), none of it is from the paper.

use serde::Serialize;

/// One width at full depth, by what it costs and which pictures it answers right.
#[derive(Clone, Debug)]
pub struct Rung {
    /// Cost relative to float.
    pub cost: f64,
    /// Whether the answer is right, by picture; the same pictures for all rungs.
    pub correct: Vec<bool>,
}

/// When two widths differ, and which are worth having.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LadderRule {
    /// Most rungs of the ladder.
    pub rungs: usize,
    /// Accuracy, in points, that the top of the ladder may lose against float.
    pub top_loss: f64,
    /// Least difference of neighbours, in points.
    pub least_step: f64,
    /// Least difference of neighbours in standard errors of the paired difference.
    pub least_z: f64,
    /// Share of float's accuracy above chance that the lowest rung must keep.
    pub least_share: f64,
}

impl Default for LadderRule {
    fn default() -> Self {
        Self { rungs: 3, top_loss: 1.0, least_step: 1.0, least_z: 2.0, least_share: 0.4 }
    }
}

/// What became of a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Part of the ladder.
    Chosen,
    /// A cheaper rung is as accurate.
    NoBetterThanCheaper,
    /// Too little is left of the accuracy.
    TooInaccurate,
    /// The ladder was long enough without it.
    NotNeeded,
}

/// Share of right answers.
pub fn accuracy(correct: &[bool]) -> f64 {
    correct.iter().filter(|right| **right).count() as f64 / correct.len().max(1) as f64
}

/// Accuracy of `a` minus that of `b` in points, and the same in standard errors of the paired difference (McNemar, without
/// correction); both zero where no picture tells them apart.
///
/// # Panics
/// When the lists differ in length.
pub fn paired_difference(a: &[bool], b: &[bool]) -> (f64, f64) {
    assert_eq!(a.len(), b.len(), "the same pictures");
    let count = |x: bool, y: bool| a.iter().zip(b).filter(|(a, b)| (**a, **b) == (x, y)).count() as f64;
    let (only_a, only_b) = (count(true, false), count(false, true));
    if only_a + only_b == 0.0 {
        return (0.0, 0.0);
    }
    ((only_a - only_b) / a.len() as f64 * 100.0, (only_a - only_b) / (only_a + only_b).sqrt())
}

impl LadderRule {
    /// Whether `wide` is more accurate than `narrow` by enough to pay for.
    fn differs(&self, wide: &[bool], narrow: &[bool]) -> bool {
        let (points, z) = paired_difference(wide, narrow);
        points >= self.least_step && z >= self.least_z
    }

    /// Chooses among `rungs`, which ascend in cost. The top is the cheapest that loses at most `top_loss` points against
    /// `float` (the most accurate one where none does). Below it stands each time the cheapest of those that are as accurate
    /// as one another and differ from the rung above, as long as it keeps enough accuracy. One verdict per rung.
    ///
    /// # Panics
    /// When there is no rung, costs descend, or the lists differ in length.
    pub fn choose(&self, rungs: &[Rung], float: &[bool], classes: usize) -> Vec<Verdict> {
        assert!(!rungs.is_empty(), "a ladder needs rungs");
        assert!(rungs.windows(2).all(|pair| pair[0].cost <= pair[1].cost), "rungs ascend in cost");
        let good = |rung: &Rung| paired_difference(float, &rung.correct).0 <= self.top_loss;
        let most_accurate = || {
            let better = |best: usize, i: usize| accuracy(&rungs[i].correct) > accuracy(&rungs[best].correct);
            (1..rungs.len()).fold(0, |best, i| if better(best, i) { i } else { best })
        };
        let top = rungs.iter().position(good).unwrap_or_else(most_accurate);
        let chance = 1.0 / classes as f64;
        let least = chance + self.least_share * (accuracy(float) - chance);

        let mut verdicts = vec![Verdict::NoBetterThanCheaper; rungs.len()];
        verdicts[top] = Verdict::Chosen;
        let (mut chosen, mut above) = (1, top);
        for i in (0..top).rev() {
            if accuracy(&rungs[i].correct) < least {
                verdicts[i] = Verdict::TooInaccurate;
            } else if !self.differs(&rungs[above].correct, &rungs[i].correct) {
                // As accurate and cheaper: it takes the place of the one above.
                verdicts[above] = Verdict::NoBetterThanCheaper;
                verdicts[i] = Verdict::Chosen;
                above = i;
            } else if chosen == self.rungs {
                verdicts[i] = Verdict::NotNeeded;
            } else {
                verdicts[i] = Verdict::Chosen;
                above = i;
                chosen += 1;
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `right` of 1,000 pictures are right, the first ones.
    fn rung(cost: f64, right: usize) -> Rung {
        Rung { cost, correct: (0..1000).map(|i| i < right).collect() }
    }

    fn choose(rights: &[usize], float: usize, classes: usize) -> Vec<Verdict> {
        let rungs: Vec<Rung> = rights.iter().enumerate().map(|(i, &right)| rung(i as f64, right)).collect();
        LadderRule::default().choose(&rungs, &rung(0.0, float).correct, classes)
    }

    use Verdict::{Chosen, NoBetterThanCheaper, NotNeeded, TooInaccurate};

    #[test]
    fn widths_that_are_as_accurate_as_a_cheaper_one_are_left_out() {
        let got = choose(&[480, 690, 735, 740, 741, 742], 743, 10);
        assert_eq!(got, [Chosen, Chosen, Chosen, NoBetterThanCheaper, NoBetterThanCheaper, NoBetterThanCheaper]);
    }

    #[test]
    fn a_rung_near_chance_is_left_out_and_a_ladder_has_an_end() {
        assert_eq!(choose(&[120, 500, 740], 745, 10), [TooInaccurate, Chosen, Chosen]);
        assert_eq!(choose(&[400, 500, 600, 740], 745, 10), [NotNeeded, Chosen, Chosen, Chosen]);
    }

    #[test]
    fn the_most_accurate_is_the_top_where_all_lose_too_much() {
        assert_eq!(choose(&[300, 500, 480], 745, 10), [TooInaccurate, Chosen, NoBetterThanCheaper]);
    }

    #[test]
    fn among_equals_below_the_top_the_cheapest_stays() {
        assert_eq!(choose(&[600, 604, 740], 745, 10), [Chosen, NoBetterThanCheaper, Chosen]);
    }

    #[test]
    fn differences_are_paired() {
        let (a, b) = (rung(0.0, 500).correct, rung(0.0, 400).correct);
        let (points, z) = paired_difference(&a, &b);
        assert!((points - 10.0).abs() < 1e-9 && (z - 10.0).abs() < 1e-9);
        // As many wrongs as rights exchanged: no difference, whatever the number.
        let swapped: Vec<bool> = a.iter().map(|x| !x).collect();
        assert_eq!(paired_difference(&a, &swapped), (0.0, 0.0));
    }
}
