//! A stored policy at work on batches, whose pictures part ways.
//!
//! Behind each gate the pictures that go on are sorted by their next width, those that stay are dropped, and the rest runs on as one
//! batch whose parts have different widths. A picture's result is the same as alone, whatever the pictures beside it.

use anyhow::{Context, Result};
use quee_backbone::{Executor, Value};
use quee_policy::tree::{NodeId, ROOT};
use quee_quant::Width;

use super::answers::NodeAnswers;
use super::walk::Program;
use crate::artefact::StoredPolicy;

/// Where a picture was answered, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Node of the tree.
    pub node: NodeId,
    /// Class.
    pub class: u16,
}

/// A policy at one setting.
pub struct Router<'a> {
    policy: &'a StoredPolicy,
    program: Program<'a>,
    lambda: f64,
    /// The path that all pictures run, where gate 0 commits to one.
    commit: Option<NodeId>,
}

/// A picture under way.
struct Traveller {
    /// Position in the batch.
    picture: usize,
    node: NodeId,
    /// Class probabilities of the exit before.
    said: Vec<f32>,
    class: u16,
    /// Predicted errors at the gate here.
    predicted: Vec<f32>,
}

impl<'a> Router<'a> {
    /// `policy` at price `lambda`; all pictures run the path of `commit`, where there is one.
    pub fn new(policy: &'a StoredPolicy, lambda: f64, commit: Option<NodeId>) -> Self {
        let recipe = &policy.recipe;
        let program = Program::new(policy.backbone.as_ref(), recipe);
        Self { policy, program, lambda, commit }
    }

    /// Runs a batch of pictures; results in their order.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run(&self, executor: &mut dyn Executor, images: &[f32]) -> Result<Vec<Routed>> {
        let (tree, widths) = (&self.policy.tree, &self.policy.recipe.quant.widths);
        let count = images.len() / self.policy.backbone.image_shape().iter().product::<usize>();
        let mut tokens = self.program.stem(executor, images, self.policy.recipe.quant.stem)?;
        let traveller = |picture| Traveller {
            picture,
            node: ROOT,
            said: Vec::new(),
            class: 0,
            predicted: self.policy.root_rates.clone(),
        };
        let mut under_way: Vec<Traveller> = (0..count).map(traveller).collect();
        let mut routed = vec![Routed { node: ROOT, class: 0 }; count];
        for segment in 0..tree.segments() {
            // Position among the tokens, next node.
            let mut going: Vec<(usize, NodeId)> = Vec::with_capacity(under_way.len());
            for (at, traveller) in under_way.iter().enumerate() {
                match self.next(traveller) {
                    Some(next) => going.push((at, next)),
                    None => routed[traveller.picture] = Routed { node: traveller.node, class: traveller.class },
                }
            }
            let width = |node: NodeId| tree.node(node).width.expect("only the root has no width");
            going.sort_by_key(|&(_, node)| width(node));
            let stay_in_place = going.len() == under_way.len() && going.iter().enumerate().all(|(at, way)| at == way.0);
            if !stay_in_place {
                let order: Vec<usize> = going.iter().map(|way| way.0).collect();
                tokens = executor.select_samples(&tokens, &order)?;
            }
            let mut places: Vec<Option<Traveller>> = under_way.into_iter().map(Some).collect();
            under_way = going
                .iter()
                .map(|&(at, node)| {
                    let traveller = places[at].take().expect("every picture goes one way");
                    Traveller { node, ..traveller }
                })
                .collect();
            if under_way.is_empty() {
                break;
            }
            let groups: Vec<(usize, Width)> = under_way
                .chunk_by(|a, b| width(a.node) == width(b.node))
                .map(|group| (group.len(), widths[width(group[0].node)]))
                .collect();
            tokens = self.program.segment_of_groups(executor, segment, &groups, &tokens)?;
            self.look(executor, segment, &tokens, &mut under_way)?;
        }
        for traveller in under_way {
            routed[traveller.picture] = Routed { node: traveller.node, class: traveller.class };
        }
        Ok(routed)
    }

    /// The next node of a picture, if it goes on.
    fn next(&self, traveller: &Traveller) -> Option<NodeId> {
        let tree = &self.policy.tree;
        match self.commit {
            Some(end) if end == traveller.node => None,
            Some(end) => tree.way(traveller.node, end)?.first,
            None => self.policy.policy.choose(traveller.node, &traveller.predicted, self.lambda)?.first,
        }
    }

    /// Exit and gate behind a segment. A picture on a path that gate 0 has committed to passes exits that it needs and no gates.
    fn look(
        &self,
        executor: &mut dyn Executor,
        segment: usize,
        tokens: &Value,
        under_way: &mut [Traveller],
    ) -> Result<()> {
        let (tree, head) = (&self.policy.tree, &self.policy.heads.0[segment]);
        let cascade = self.policy.heads.0.iter().any(quee_heads::ExitHead::is_cascade);
        if self.commit.is_some_and(|end| !cascade && tree.node(end).depth != segment + 1) {
            return Ok(());
        }
        let features = self.program.features(executor, segment, tokens)?;
        let before = (segment > 0 && !under_way[0].said.is_empty()).then(|| NodeAnswers {
            probabilities: under_way.iter().flat_map(|traveller| &traveller.said).copied().collect(),
            ..NodeAnswers::default()
        });
        let said = NodeAnswers::compute_after(head, &features, before.as_ref().filter(|_| head.is_cascade()));
        let gate = self.policy.gates.get(segment).filter(|_| self.commit.is_none());
        let (classes, dim) = (head.classes(), features.len() / under_way.len());
        let mut row = Vec::new();
        for (at, traveller) in under_way.iter_mut().enumerate() {
            let probabilities = &said.probabilities[at * classes..(at + 1) * classes];
            if let Some(gate) = gate {
                row.clear();
                let previous = (segment > 0).then_some(traveller.said.as_slice());
                let so_far = tree.widths_of(traveller.node);
                let token = &features[at * dim..(at + 1) * dim];
                gate.spec().write(segment + 1, probabilities, previous, &so_far, token, &mut row);
                self.policy.predict(traveller.node, &row, &mut traveller.predicted);
            }
            traveller.said.clear();
            traveller.said.extend_from_slice(probabilities);
            traveller.class = *said.answers.get(at).context("one answer per picture")?;
        }
        Ok(())
    }
}
