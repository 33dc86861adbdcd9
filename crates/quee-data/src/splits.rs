//! Which picture serves which purpose.
//!
//! Six disjoint parts, fixed by a seed of their own and stored by index with a run, so that neither the seed of an
//! experiment nor another version of the program moves a picture.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Indices into a data set, each part in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// Pictures that the backbone was trained on; may be empty.
    pub backbone_train: Vec<usize>,
    /// Trains the exits.
    pub exit_train: Vec<usize>,
    /// Path table, cells and predictors.
    pub fit: Vec<usize>,
    /// Calibration, fronts and the choice of λ.
    pub cal_a: Vec<usize>,
    /// Risk control only.
    pub cal_b: Vec<usize>,
    /// Figures that are reported; nothing is chosen on it.
    pub test: Vec<usize>,
}

/// Shares of the pictures that are neither seen by the backbone nor kept for *test*.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fractions {
    /// Share of *exit-train*; default 0.40.
    pub exit_train: f64,
    /// Share of *fit*; default 0.35.
    pub fit: f64,
    /// Share of *cal-a*; default 0.125.
    pub cal_a: f64,
    /// Share of *cal-b*; default 0.125.
    pub cal_b: f64,
}

impl Default for Fractions {
    fn default() -> Self {
        Self { exit_train: 0.40, fit: 0.35, cal_a: 0.125, cal_b: 0.125 }
    }
}

/// Where the *test* part comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestPart {
    /// These pictures: the official test part of a data set.
    Given(Vec<usize>),
    /// This many pictures that the backbone hasn't seen, drawn like the other parts.
    Drawn(usize),
}

/// How many pictures are used at most, for experiments on a part of a large data set; 0 is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Pictures that are divided among *exit-train*, *fit*, *cal-a* and *cal-b*.
    pub train: usize,
    /// Pictures of *test*.
    pub test: usize,
}

/// What [`Splits::draw`] needs to know.
#[derive(Debug, Clone)]
pub struct SplitRequest<'a> {
    /// Class of every picture of the pool.
    pub labels: &'a [u16],
    /// Pictures that the backbone was trained on; empty when it has seen none of the pool.
    pub backbone_train: &'a [usize],
    /// Pictures that serve no purpose at all; empty as a rule.
    pub unused: &'a [usize],
    /// Where the *test* part comes from.
    pub test: TestPart,
    /// Shares of what is left.
    pub fractions: Fractions,
    /// How many pictures are used at most.
    pub limits: Limits,
    /// Blocks in the order of the pool instead of random draws, for sources in which neighbours are alike (the house
    /// numbers of SVHN are in photograph order). A drawn *test* part is then the end of the pool.
    pub contiguous: bool,
    /// The split seed.
    pub seed: u64,
}

/// Pictures set aside before a backbone is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSplit {
    /// Pictures to train the backbone on, in ascending order.
    pub train: Vec<usize>,
    /// Pictures kept for *test*, in ascending order.
    pub test: Vec<usize>,
}

/// Splits that cannot be made or that contradict themselves.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// A share that is negative or not a number.
    #[error("impossible split: the share of {part} is {value}; hint: write a number from 0 to 1")]
    Fraction {
        /// The part.
        part: &'static str,
        /// Its share.
        value: f64,
    },
    /// Shares of more than everything.
    #[error(
        "impossible split: the shares of exit-train, fit, cal-a and cal-b add up to {sum}; hint: they may add up to 1 at most"
    )]
    FractionSum {
        /// Sum of the shares.
        sum: f64,
    },
    /// A part without pictures.
    #[error(
        "impossible split: no picture for {part} ({available} of the pool's {pool} are left to divide); hint: larger shares, a smaller test part, a backbone trained on fewer pictures, or more data"
    )]
    Empty {
        /// The part.
        part: &'static str,
        /// Pictures that are neither seen by the backbone nor *test*.
        available: usize,
        /// Pictures in all.
        pool: usize,
    },
    /// More pictures asked for than there are.
    #[error("impossible split: {wanted} pictures wanted for {part}, {available} are available; hint: ask for fewer")]
    TooMany {
        /// The part.
        part: &'static str,
        /// Pictures wanted.
        wanted: usize,
        /// Pictures available.
        available: usize,
    },
    /// An index that is not in the pool.
    #[error(
        "impossible split: {part} holds picture {index}, but the pool has {pool} pictures; hint: the indices belong to another data set"
    )]
    OutOfRange {
        /// The part.
        part: &'static str,
        /// The index.
        index: usize,
        /// Pictures in all.
        pool: usize,
    },
    /// A picture that serves two purposes, or one purpose twice.
    #[error(
        "impossible split: picture {index} is in {first} and again in {second}; hint: every picture may serve one purpose only"
    )]
    Overlap {
        /// The index.
        index: usize,
        /// Part that holds it first.
        first: &'static str,
        /// Part that holds it again; may be the same.
        second: &'static str,
    },
}

impl Splits {
    /// Divides a pool: *test* first, then *exit-train*, *fit*, *cal-a* and *cal-b* by their shares of what neither
    /// *test* nor the backbone uses. Random draws keep the proportions of the classes; so do limits, or they keep the first
    /// pictures of each part where the split is contiguous. What a limit leaves out of *test* serves no purpose at all. The
    /// same request gives the same splits. With the seed and size of [`draw_backbone_split`], and the backbone trained on its `train`, the test
    /// part is its `test`.
    ///
    /// # Errors
    /// When an index is outside the pool or in two parts, a part would be empty, more pictures are wanted than there
    /// are, or the shares are impossible.
    pub fn draw(request: &SplitRequest) -> Result<Self, SplitError> {
        let SplitRequest { labels, backbone_train, unused, test, fractions, limits, contiguous, seed } = request;
        fractions.check()?;
        let pool = labels.len();
        let backbone = sorted(backbone_train.to_vec());
        let mut owner = vec![None; pool];
        claim(&mut owner, "backbone-train", &backbone)?;
        claim(&mut owner, "the unused pictures", unused)?;

        let mut test = match test {
            TestPart::Given(indices) => sorted(indices.clone()),
            TestPart::Drawn(wanted) => {
                let order = if *contiguous { (0..pool).rev().collect() } else { pool_order(labels, *seed) };
                let free: Vec<usize> = order.into_iter().filter(|&index| owner[index].is_none()).collect();
                sorted(take("test", &free, *wanted)?.to_vec())
            }
        };
        claim(&mut owner, "test", &test)?;
        if limits.test > 0 && limits.test < test.len() {
            let order = if *contiguous { test } else { stratified_order(labels, &test, &mut stream(*seed, 2)) };
            test = sorted(order[..limits.test].to_vec());
        }

        let rest: Vec<usize> = (0..pool).filter(|&index| owner[index].is_none()).collect();
        let mut order = if *contiguous { rest } else { stratified_order(labels, &rest, &mut stream(*seed, 1)) };
        if limits.train > 0 {
            order.truncate(limits.train);
        }
        let mut parts = fractions.cut(&order).map(|part| sorted(part.to_vec())).into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let splits =
            Self { backbone_train: backbone, exit_train: next(), fit: next(), cal_a: next(), cal_b: next(), test };
        splits.check(pool)?;
        Ok(splits)
    }

    /// Checks splits that were stored: every index below `pool`, no picture twice, no part empty but *backbone-train*.
    ///
    /// # Errors
    /// Names the part and the picture.
    pub fn check(&self, pool: usize) -> Result<(), SplitError> {
        let mut owner = vec![None; pool];
        for (part, indices) in self.parts() {
            claim(&mut owner, part, indices)?;
        }
        let available = pool - self.backbone_train.len() - self.test.len();
        match self.parts()[1..].iter().find(|(_, indices)| indices.is_empty()) {
            Some((part, _)) => Err(SplitError::Empty { part, available, pool }),
            None => Ok(()),
        }
    }

    /// The parts with their names, in the order of their use.
    pub fn parts(&self) -> [(&'static str, &[usize]); 6] {
        [
            ("backbone-train", &self.backbone_train),
            ("exit-train", &self.exit_train),
            ("fit", &self.fit),
            ("cal-a", &self.cal_a),
            ("cal-b", &self.cal_b),
            ("test", &self.test),
        ]
    }
}

impl Fractions {
    fn named(&self) -> [(&'static str, f64); 4] {
        [("exit-train", self.exit_train), ("fit", self.fit), ("cal-a", self.cal_a), ("cal-b", self.cal_b)]
    }

    fn check(&self) -> Result<(), SplitError> {
        if let Some((part, value)) = self.named().into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(SplitError::Fraction { part, value });
        }
        let sum = self.named().iter().map(|(_, value)| value).sum::<f64>();
        // Decimal shares such as 0.4 + 0.35 + 0.125 + 0.125 may miss 1 by the rounding of their binary forms.
        if sum > 1.0 + 1e-9 { Err(SplitError::FractionSum { sum }) } else { Ok(()) }
    }

    /// Consecutive blocks whose bounds are the rounded running sums of the shares.
    fn cut<'a>(&self, order: &'a [usize]) -> [&'a [usize]; 4] {
        let (mut sum, mut start) = (0.0, 0);
        self.named().map(|(_, share)| {
            sum += share;
            let end = ((sum * order.len() as f64).round() as usize).min(order.len());
            let part = &order[start..end];
            start = end;
            part
        })
    }
}

/// Draws the *test* part and the pictures to train a backbone on, in the proportions of the classes. Pretraining and
/// experiments that share a seed agree on the test pictures; see [`Splits::draw`].
///
/// # Errors
/// When more pictures are wanted than there are, or either part would be empty.
pub fn draw_backbone_split(
    labels: &[u16],
    backbone_size: usize,
    test_size: usize,
    seed: u64,
) -> Result<BackboneSplit, SplitError> {
    let order = pool_order(labels, seed);
    let test = take("test", &order, test_size)?;
    let train = take("backbone-train", &order[test_size..], backbone_size)?;
    Ok(BackboneSplit { train: sorted(train.to_vec()), test: sorted(test.to_vec()) })
}

/// The order in which test and backbone pictures are taken from the whole pool.
pub(crate) fn pool_order(labels: &[u16], seed: u64) -> Vec<usize> {
    let all: Vec<usize> = (0..labels.len()).collect();
    stratified_order(labels, &all, &mut stream(seed, 0))
}

/// The candidates in a random order every block of which has the classes in nearly the proportions of the whole: each
/// class is shuffled and its pictures spread evenly, with a random offset per class.
pub(crate) fn stratified_order(labels: &[u16], candidates: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let classes = candidates.iter().map(|&index| usize::from(labels[index]) + 1).max().unwrap_or(0);
    let mut by_class = vec![Vec::new(); classes];
    for &index in candidates {
        by_class[usize::from(labels[index])].push(index);
    }
    let mut placed = Vec::with_capacity(candidates.len());
    for members in &mut by_class {
        members.shuffle(rng);
        let offset: f64 = rng.random();
        let count = members.len() as f64;
        placed.extend(members.iter().enumerate().map(|(rank, &index)| ((rank as f64 + offset) / count, index)));
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    placed.into_iter().map(|(_, index)| index).collect()
}

pub(crate) fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

pub(crate) fn take<'a>(part: &'static str, free: &'a [usize], wanted: usize) -> Result<&'a [usize], SplitError> {
    match free.get(..wanted) {
        Some([]) => Err(SplitError::Empty { part, available: free.len(), pool: free.len() }),
        Some(taken) => Ok(taken),
        None => Err(SplitError::TooMany { part, wanted, available: free.len() }),
    }
}

/// Notes in `owner` that `part` holds `indices`.
pub(crate) fn claim(
    owner: &mut [Option<&'static str>],
    part: &'static str,
    indices: &[usize],
) -> Result<(), SplitError> {
    let pool = owner.len();
    for &index in indices {
        let slot = owner.get_mut(index).ok_or(SplitError::OutOfRange { part, index, pool })?;
        if let Some(first) = *slot {
            return Err(SplitError::Overlap { index, first, second: part });
        }
        *slot = Some(part);
    }
    Ok(())
}

pub(crate) fn sorted(mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_unstable();
    indices
}
