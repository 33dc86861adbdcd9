//! Open-loop control, replanned at each gate: the default policy.

use crate::cost::{Charge, Ledger};
use crate::curve::pareto;
use crate::lambda::Outlook;
use crate::table::{Outcomes, TableError, check_shape};
use crate::tree::{Continuation, NodeId, PathTree, ROOT};

/// Predicted error probabilities at every gate with features, for the samples of one split.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionTable {
    samples: usize,
    /// `[gate node - 1]`, each `[sample][place]`.
    rows: Vec<Vec<f32>>,
    /// Places of every row.
    places: Vec<usize>,
    /// Of gate 0 `[sample][place]`, where it sees something of the samples.
    root: Option<Vec<f32>>,
}

impl PredictionTable {
    /// One list per node of [`PathTree::gate_nodes`], in that order, each `[sample][place]` with one prediction for every
    /// way to go on ([`PathTree::places`]).
    ///
    /// # Errors
    /// If a list has the wrong length, or a value is not a probability.
    pub fn new(tree: &PathTree, samples: usize, rows: Vec<Vec<f32>>) -> Result<Self, TableError> {
        check_shape("predictions: gate nodes", rows.len(), tree.gate_nodes().count(), 1)?;
        let mut places = Vec::with_capacity(rows.len());
        for (row, node) in rows.iter().zip(tree.gate_nodes()) {
            let count = tree.places(node);
            check_shape("predictions", row.len(), count, samples)?;
            if let Some(at) = row.iter().position(|value| !(0.0..=1.0).contains(value)) {
                let (row, sample) = (node - 1, at / count);
                return Err(TableError::Value { what: "predictions", row, sample, range: "0 to 1" });
            }
            places.push(count);
        }
        Ok(Self { samples, rows, places, root: None })
    }

    /// Fills the table from a function of node, sample and place; values are clamped to 0..1 and NaN becomes 1.
    pub fn from_fn(tree: &PathTree, samples: usize, predict: impl Fn(NodeId, usize, usize) -> f32) -> Self {
        let places: Vec<usize> = tree.gate_nodes().map(|node| tree.places(node)).collect();
        let clean = |value: f32| if value.is_nan() { 1.0 } else { value.clamp(0.0, 1.0) };
        let row = |(node, count): (NodeId, &usize)| {
            (0..samples * count).map(|at| clean(predict(node, at / count, at % count))).collect()
        };
        let rows = tree.gate_nodes().zip(&places).map(row).collect();
        Self { samples, rows, places, root: None }
    }

    /// The table with predictions at gate 0, `[sample][place]`.
    ///
    /// # Errors
    /// If the list has the wrong length, or a value is not a probability.
    pub fn with_root(mut self, tree: &PathTree, root: Vec<f32>) -> Result<Self, TableError> {
        let places = tree.places(ROOT);
        check_shape("predictions at gate 0", root.len(), places, self.samples)?;
        if let Some(at) = root.iter().position(|value| !(0.0..=1.0).contains(value)) {
            return Err(TableError::Value {
                what: "predictions at gate 0",
                row: 0,
                sample: at / places,
                range: "0 to 1",
            });
        }
        self.root = Some(root);
        Ok(self)
    }

    /// Predictions of one sample at gate 0 `[place]`, where there are any.
    fn at_root(&self, sample: usize) -> Option<&[f32]> {
        let root = self.root.as_ref()?;
        let places = root.len() / self.samples;
        Some(&root[sample * places..(sample + 1) * places])
    }

    /// Predictions of all samples at one gate node, each `[place]`.
    pub(crate) fn rows_mut(&mut self, node: NodeId) -> impl Iterator<Item = &mut [f32]> {
        self.rows[node - 1].chunks_exact_mut(self.places[node - 1])
    }

    /// What is paid by who decides with these predictions.
    pub(crate) fn charge(&self) -> Charge {
        if self.root.is_some() { Charge::LearnedFromStem } else { Charge::Learned }
    }

    /// The table with the samples of `other` behind its own.
    ///
    /// # Panics
    /// If they belong to different trees, or only one has predictions at gate 0.
    pub fn with(&self, other: &Self) -> Self {
        assert_eq!(self.places, other.places, "tables of one tree");
        let rows = self.rows.iter().zip(&other.rows).map(|(a, b)| [a.as_slice(), b].concat()).collect();
        let root = match (&self.root, &other.root) {
            (Some(a), Some(b)) => Some([a.as_slice(), b].concat()),
            (None, None) => None,
            _ => panic!("gate 0 predicts for all samples or for none"),
        };
        Self { samples: self.samples + other.samples, rows, places: self.places.clone(), root }
    }

    /// Whether the table has one row for every gate node of the tree, with all its places.
    pub(crate) fn check_tree(&self, tree: &PathTree) -> Result<(), TableError> {
        check_shape("predictions: gate nodes", self.rows.len(), tree.gate_nodes().count(), 1)?;
        tree.gate_nodes()
            .zip(&self.places)
            .try_for_each(|(node, count)| check_shape("predictions: places", *count, tree.places(node), 1))
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Predictions of one sample at one gate node `[place]`.
    ///
    /// # Panics
    /// For the root, a node at the last exit, or an unknown sample.
    pub fn get(&self, node: NodeId, sample: usize) -> &[f32] {
        let count = self.places[node - 1];
        &self.rows[node - 1][sample * count..(sample + 1) * count]
    }
}

/// Gate 0 has no features: its predictions are the error rates on *fit*, `[place]`, with 1.0 in place of "exit here".
pub fn root_rates(tree: &PathTree, fit: &Outcomes) -> Vec<f32> {
    let mut rates = vec![1.0; tree.places(ROOT)];
    for way in tree.continuations(ROOT) {
        rates[way.place] = fit.error_rate(way.end) as f32;
    }
    rates
}

/// All ways to go on from every node with their remaining relative costs, under the charge of a learned policy.
fn all_ways(tree: &PathTree, ledger: &Ledger) -> Vec<Vec<(Continuation, f64)>> {
    let prices = ledger.prices(tree, Charge::Learned);
    let ways_from = |node: NodeId| match tree.node(node).children.is_empty() {
        true => Vec::new(),
        false => {
            let remaining = |way: &Continuation| match way.first {
                Some(_) => prices[way.end].cost - prices[node].cost,
                None => 0.0,
            };
            tree.continuations(node).iter().map(|way| (*way, remaining(way))).collect()
        }
    };
    tree.nodes().map(ways_from).collect()
}

/// Places worth considering at every node, ascending: those that no cheaper one beats in error rate on *fit*.
///
/// The least of many noisy predictions is too low by luck. Leaving out what is worse on average both in cost and in
/// error keeps the number of predictions that compete small. Exiting here is always among them, since it costs nothing.
pub fn candidates(tree: &PathTree, ledger: &Ledger, fit: &Outcomes) -> Vec<Vec<usize>> {
    let front = |ways: &Vec<(Continuation, f64)>| {
        let points: Vec<(f64, f64)> = ways.iter().map(|(way, cost)| (*cost, 1.0 - fit.error_rate(way.end))).collect();
        let mut kept: Vec<usize> = pareto(&points).into_iter().map(|at| ways[at].0.place).collect();
        kept.sort_unstable();
        kept
    };
    all_ways(tree, ledger).iter().map(front).collect()
}

/// Places of the ways that go one segment further at most, ascending, at every node: the one-step *value of computation*.
///
/// With [`OpenLoop::with_candidates`] the policy answers at a gate unless a single further segment, at some width,
/// lowers `predicted error + λ·cost`, and takes the one that lowers it most; gate 0 takes the best path of one segment.
/// It is myopic: where only two segments together pay, it stops. An ablation of this project, with the single-step
/// assumption of Russell and Wefald, Principles of Metareasoning (Artificial Intelligence 49, 1991).
pub fn one_step_candidates(tree: &PathTree) -> Vec<Vec<usize>> {
    let places = |node: NodeId| match tree.node(node).children.is_empty() {
        true => Vec::new(),
        false => {
            let near = tree.node(node).depth + 1;
            let ways = tree.continuations(node).iter();
            ways.take_while(|way| tree.node(way.end).depth <= near).map(|way| way.place).collect()
        }
    };
    tree.nodes().map(places).collect()
}

/// The policy: take the continuation with the least `predicted error + λ·remaining cost`, do its first step, decide
/// again at the next gate.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// `[node]`: ways to go on and the relative cost of each; empty at the last exit.
    ways: Vec<Vec<(Continuation, f64)>>,
    root_rates: Vec<f32>,
    /// `[node]`: relative cost of answering there, stem included.
    total: Vec<f64>,
}

impl OpenLoop {
    /// Prepares the policy. `root_rates` `[place]` are the predictions at gate 0, see [`root_rates`].
    ///
    /// # Errors
    /// If `root_rates` does not have one entry per place of the root.
    pub fn new(tree: &PathTree, ledger: &Ledger, root_rates: Vec<f32>) -> Result<Self, TableError> {
        check_shape("rates at gate 0", root_rates.len(), tree.places(ROOT), 1)?;
        let total = ledger.prices(tree, Charge::Learned).iter().map(|price| price.cost).collect();
        Ok(Self { ways: all_ways(tree, ledger), root_rates, total })
    }

    /// The same policy, considering at every gate only the places listed in `candidates` `[node]` (see
    /// [`candidates`]).
    ///
    /// # Errors
    /// If there is not one list per node, or a list leaves a gate without a way on.
    pub fn with_candidates(mut self, candidates: &[Vec<usize>]) -> Result<Self, TableError> {
        check_shape("candidates", candidates.len(), self.ways.len(), 1)?;
        for (ways, kept) in self.ways.iter_mut().zip(candidates).filter(|(ways, _)| !ways.is_empty()) {
            ways.retain(|(way, _)| kept.contains(&way.place));
            if ways.is_empty() {
                return Err(TableError::Empty { what: "candidates of a gate" });
            }
        }
        Ok(self)
    }

    /// Ways to go on from a node, the one that answers here among them, and the relative cost of each; none at the last
    /// exit.
    pub fn ways(&self, node: NodeId) -> &[(Continuation, f64)] {
        &self.ways[node]
    }

    /// The way that the policy takes from a gate: the least `predicted error + λ·remaining cost`, given predictions
    /// `[place]`. `None` at the last exit. Ties go to the cheaper, then to the lower place.
    pub fn choose(&self, node: NodeId, predictions: &[f32], lambda: f64) -> Option<Continuation> {
        self.choose_within(node, predictions, lambda, f64::INFINITY)
    }

    /// The same among the ways whose total relative cost, stem, exits and gates included, is within `cap`; `None` if there are none.
    pub fn choose_within(&self, node: NodeId, predictions: &[f32], lambda: f64, cap: f64) -> Option<Continuation> {
        let outlook =
            |(way, cost): &(Continuation, f64)| Outlook { error: f64::from(predictions[way.place]), cost: *cost };
        let affordable = self.ways[node].iter().filter(|(way, _)| self.total[way.end] <= cap);
        let best = affordable.min_by(|a, b| outlook(a).compare(&outlook(b), lambda));
        best.map(|(way, _)| *way)
    }

    /// Node at which a sample is answered that gate 0 sent to `start`.
    fn answer(&self, start: NodeId, predictions: &PredictionTable, sample: usize, lambda: f64, cap: f64) -> NodeId {
        let mut node = start;
        while !self.ways[node].is_empty() {
            match self.choose_within(node, predictions.get(node, sample), lambda, cap).and_then(|way| way.first) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// Where gate 0 sends samples of which it knows `predictions`, or nothing but the rates; `None` if it has no way within `cap`.
    fn start(&self, predictions: Option<&[f32]>, lambda: f64, cap: f64) -> Option<NodeId> {
        self.choose_within(ROOT, predictions.unwrap_or(&self.root_rates), lambda, cap).and_then(|way| way.first)
    }

    /// Runs the policy on a split; returns the node at which every sample is answered.
    ///
    /// # Panics
    /// If the predictions belong to another tree.
    pub fn run(&self, predictions: &PredictionTable, lambda: f64) -> Vec<NodeId> {
        let common = self.start(None, lambda, f64::INFINITY).unwrap_or(ROOT);
        let answer = |sample| {
            let own = predictions.at_root(sample);
            let start = own.map_or(common, |own| self.start(Some(own), lambda, f64::INFINITY).unwrap_or(ROOT));
            self.answer(start, predictions, sample, lambda, f64::INFINITY)
        };
        (0..predictions.samples()).map(answer).collect()
    }

    /// Runs the policy with a hard cap on each sample's own total relative cost, stem, exits and gates included: at
    /// every gate, gate 0 too, only the ways compete that end within it, so what a sample pays never exceeds its cap; a
    /// gate whose candidates are all too dear answers. `None` for a sample whose cap is below every way from gate 0.
    /// Caps by request are a choice of this project.
    ///
    /// Gate 0 decides by its rates, whatever it may know of the samples: its price is not among those that caps are held against.
    ///
    /// λ still prices what is below the cap; at 0 every sample spends up to its cap whatever lowers its predicted
    /// error.
    ///
    /// # Errors
    /// If there is not one cap per sample. A cap that is not a number is one that nothing meets.
    ///
    /// # Panics
    /// If the predictions belong to another tree.
    pub fn run_capped(
        &self,
        predictions: &PredictionTable,
        lambda: f64,
        caps: &[f64],
    ) -> Result<Vec<Option<NodeId>>, TableError> {
        check_shape("caps on cost", caps.len(), 1, predictions.samples())?;
        let run = |(sample, cap): (usize, &f64)| {
            self.start(None, lambda, *cap).map(|start| self.answer(start, predictions, sample, lambda, *cap))
        };
        Ok(caps.iter().enumerate().map(run).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{BitTable, CostTable};
    use crate::tree::Monotone;

    fn setup(rule: Monotone) -> (PathTree, Ledger) {
        let tree = PathTree::new(2, 2, rule, 100).unwrap();
        let cost = CostTable {
            stem: 0.0,
            segment: vec![vec![10.0, 20.0], vec![10.0, 20.0]],
            exit: vec![1.0, 1.0],
            gate: vec![1.0],
            gate_zero: 0.0,
            float_total: 100.0,
            cascade: false,
        };
        let bits = BitTable { stem_macs: 0.0, stem_bits: 8.0, segment_macs: vec![1.0; 2], width_bits: vec![4.0, 8.0] };
        let ledger = Ledger::new(&tree, cost, bits, None).unwrap();
        (tree, ledger)
    }

    #[test]
    fn follows_predictions_at_free_cost_and_the_cheapest_path_at_infinite() {
        let (tree, ledger) = setup(Monotone::Free);
        // Places at the root: 0 unused, 1..=2 one segment, 3..=6 two; at gate 1: exit, low, high.
        let policy = OpenLoop::new(&tree, &ledger, vec![1.0, 0.5, 0.4, 0.4, 0.4, 0.3, 0.2]).unwrap();
        let table = PredictionTable::from_fn(&tree, 3, |_, sample, place| match (sample, place) {
            (0, 0) | (1, 1) | (2, 2) => 0.1,
            _ => 0.4,
        });
        let ends = |lambda| policy.run(&table, lambda).iter().map(|n| tree.widths_of(*n)).collect::<Vec<_>>();
        assert_eq!(ends(0.0), [vec![1], vec![1, 0], vec![1, 1]], "the root goes for the second width");
        assert_eq!(ends(f64::INFINITY), [vec![0], vec![0], vec![0]]);
        // At gate 1 going on costs 0.11 or 0.21 for 0.3 fewer errors: worth it below λ = 2.73 and 1.43.
        let step = OpenLoop::new(&tree, &ledger, vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
        let ends = |lambda| step.run(&table, lambda).iter().map(|n| tree.node(*n).depth).collect::<Vec<_>>();
        assert_eq!(ends(1.4), [1, 2, 2]);
        assert_eq!(ends(2.7), [1, 2, 1]);
        assert_eq!(ends(2.8), [1, 1, 1]);
    }

    #[test]
    fn candidates_are_the_front_of_error_on_fit_against_cost() {
        let (tree, ledger) = setup(Monotone::Free);
        // Nodes: 1, 2 answer after one segment; 3, 4 behind 1; 5, 6 behind 2. Errors on four samples:
        let errors = [3, 2, 2, 1, 2, 3];
        let answers = errors.iter().flat_map(|wrong| (0..4).map(move |sample| u16::from(sample < *wrong)));
        let fit = Outcomes::new(&tree, answers.collect(), vec![0.5; 24], vec![0; 4]).unwrap();
        let kept = candidates(&tree, &ledger, &fit);
        // From the root, ascending cost: [0] 3 errors, [1] 2, [0,0] 2, [0,1] 1, [1,0] 2, [1,1] 3: of equal errors the
        // cheaper stays.
        assert_eq!(kept[ROOT], [1, 2, 4]);
        assert_eq!(kept[1], [0, 1, 2], "each step from node 1 is better than the one before");
        assert_eq!(kept[2], [0], "nothing behind node 2 is better than answering there");
        let policy = OpenLoop::new(&tree, &ledger, vec![0.0; 7]).unwrap().with_candidates(&kept).unwrap();
        assert_eq!(policy.ways(2).len(), 1);
        assert_eq!(policy.choose(2, &[0.9, 0.0, 0.0], 0.0).map(|way| way.place), Some(0));
        let empty = vec![Vec::new(); tree.node_count()];
        assert!(OpenLoop::new(&tree, &ledger, vec![0.0; 7]).unwrap().with_candidates(&empty).is_err());
    }

    #[test]
    fn one_step_is_myopic() {
        let (tree, ledger) = setup(Monotone::NonIncreasing);
        let kept = one_step_candidates(&tree);
        // The cheaper first width forbids the dearer second.
        assert_eq!(kept, [vec![1, 2], vec![0, 1], vec![0, 1, 2], vec![], vec![], vec![], vec![]][..tree.node_count()]);
        // Gate 0 knows the pair of the dearer widths to be right always; one step sees single segments alone.
        let policy = OpenLoop::new(&tree, &ledger, vec![1.0, 0.6, 0.5, 0.6, 0.6, 0.0]).unwrap();
        let table = PredictionTable::from_fn(&tree, 2, |_, sample, place| match (sample, place) {
            (1, 2) => 0.0,
            _ => 0.5,
        });
        let run = |policy: &OpenLoop, lambda| {
            policy.run(&table, lambda).iter().map(|n| tree.widths_of(*n)).collect::<Vec<_>>()
        };
        assert_eq!(run(&policy, 1.5), [vec![1], vec![1, 1]]);
        let myopic = policy.with_candidates(&kept).unwrap();
        assert_eq!(run(&myopic, 1.5), [[0], [0]], "0.1 fewer errors are not worth 0.1 of cost at 1.5");
        assert_eq!(run(&myopic, 0.9), [vec![1], vec![1, 1]], "with the exit and gate behind it");
    }

    #[test]
    fn ties_go_to_the_cheaper_and_the_rule_is_obeyed() {
        let (tree, ledger) = setup(Monotone::NonDecreasing);
        let policy = OpenLoop::new(&tree, &ledger, vec![0.5; 6]).unwrap();
        let known = |node, _, place| if (node, place) == (1, 1) { 0.0 } else { 0.5 };
        let table = PredictionTable::from_fn(&tree, 1, known);
        assert_eq!(tree.widths_of(policy.run(&table, 0.0)[0]), [0, 0]);
        let high = OpenLoop::new(&tree, &ledger, vec![1.0, 0.5, 0.0, 0.5, 0.5, 0.5]).unwrap();
        assert_eq!(tree.widths_of(high.run(&table, 0.0)[0]), [1], "[1, 0] is forbidden, staying ties with [1, 1]");
    }

    #[test]
    fn gate_zero_sends_every_sample_its_own_way_where_it_sees_something() {
        let (tree, ledger) = setup(Monotone::Free);
        let policy = OpenLoop::new(&tree, &ledger, vec![1.0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]).unwrap();
        let table = PredictionTable::from_fn(&tree, 2, |_, _, place| if place == 0 { 0.0 } else { 0.5 });
        assert_eq!((policy.run(&table, 0.0), table.charge()), (vec![1, 1], Charge::Learned), "by the rates");
        let root = [[1.0, 0.2, 0.1, 0.4, 0.4, 0.4, 0.4], [1.0, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4]].concat();
        let seeing = table.clone().with_root(&tree, root).unwrap();
        assert_eq!((policy.run(&seeing, 0.0), seeing.charge()), (vec![2, 1], Charge::LearnedFromStem));
        assert_eq!(policy.run(&seeing, 2.0), [1, 1], "0.1 of cost at a price of 2 is not worth 0.1 of error");
        assert_eq!(policy.run(&seeing.with(&seeing), 0.0), [2, 1, 2, 1]);
        assert_eq!(policy.run_capped(&seeing, 0.0, &[1.0; 2]).unwrap(), [Some(1), Some(1)], "caps: by the rates");
        assert!(table.clone().with_root(&tree, vec![0.5; 13]).is_err());
        assert!(table.with_root(&tree, vec![1.5; 14]).is_err());
        let cost = CostTable { gate_zero: 4.0, ..ledger.cost().clone() };
        assert_eq!(cost.overhead(1, Charge::LearnedFromStem), cost.overhead(1, Charge::Learned) + 4.0);
        assert_eq!(cost.overhead(0, Charge::LearnedFromStem), 0.0, "the root is never paid for alone");
    }

    #[test]
    fn refuses_what_is_no_probability() {
        let (tree, ledger) = setup(Monotone::Free);
        assert!(PredictionTable::new(&tree, 1, vec![vec![0.1, 0.2, 0.3], vec![0.1, f32::NAN, 0.3]]).is_err());
        assert!(PredictionTable::new(&tree, 2, vec![vec![0.1; 3]; 2]).is_err());
        assert!(OpenLoop::new(&tree, &ledger, vec![0.5; 6]).is_err());
    }
}
