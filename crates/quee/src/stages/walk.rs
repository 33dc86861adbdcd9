//! Running the backbone along paths: the tree with shared prefixes, and single paths.
//!
//! A path is a list of widths, one per segment. What is kept of a run is what an exit sees: the features behind each
//! segment. Exits, predictors and policies need nothing else, so any number of them can reuse one set of runs.

use std::sync::Arc;

use quee_backbone::{Backbone, ExecError, Executor, Value};
use quee_policy::tree::{PathTree, ROOT};
use quee_quant::Width;

use crate::backend::Engine;
use crate::cache::Pieces;
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::{ExitTokens, Recipe};
use crate::stages::attempts::Room;
use crate::stages::shards::{ShardWriter, Shards};
use crate::stages::source::{Neighbours, Pictures, over_batches};
use crate::stages::tables::{Scratch, Table};

/// A backbone cut into segments.
pub struct Program<'a> {
    /// The backbone.
    pub backbone: &'a dyn Backbone,
    /// Blocks of each segment; their sum is the depth.
    pub segments: &'a [usize],
    /// Width of the stem on quantized paths.
    pub stem: Width,
    /// Which tokens exits read.
    pub tokens: ExitTokens,
}

/// Numbers that the exit behind segment `index` (from 0) sees of a picture; its classifier's inputs, but for what a cascade reads besides. A
/// token's mean has as many as the features of the backbone's own classifier, which is the last exit and sees these alone.
pub fn exit_dim(backbone: &dyn Backbone, recipe: &Recipe, index: usize) -> usize {
    Program::new(backbone, recipe).exit_dim(index)
}

/// Rows of `dim` numbers of `first`, each followed by that of `second`.
fn side_by_side(first: &[f32], second: &[f32], dim: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(first.len() + second.len());
    for (first, second) in first.chunks_exact(dim).zip(second.chunks_exact(dim)) {
        rows.extend_from_slice(first);
        rows.extend_from_slice(second);
    }
    rows
}

/// What keeps a long stage polite: where to run, when to stop, whom to tell.
pub struct Drive<'a> {
    /// Makes executors.
    pub engine: &'a dyn Engine,
    /// Pictures per batch.
    pub batch: usize,
    /// Checked between batches.
    pub cancel: &'a Cancel,
    /// Advanced by the pictures done.
    pub progress: &'a Stage,
    /// What the memory of the device holds.
    pub room: Room,
    /// Keeps batches that are done.
    pub checkpoint: Option<&'a dyn Pieces>,
    /// Where features lie.
    pub scratch: Arc<Scratch>,
    /// Which batches are run.
    pub share: Share<'a>,
}

/// Which batches are run.
#[derive(Clone, Copy, Default)]
pub enum Share<'a> {
    /// All.
    #[default]
    All,
    /// Those of one part, which keeps them. Tables stay empty.
    Part(&'a ShardWriter),
    /// Those of parts that are not there.
    Missing(&'a Shards),
}

impl<'a> Drive<'a> {
    /// Nothing is known yet about the memory of the device, and nothing is kept.
    pub fn new(engine: &'a dyn Engine, batch: usize, cancel: &'a Cancel, progress: &'a Stage) -> Self {
        Self {
            engine,
            batch,
            cancel,
            progress,
            room: Room::default(),
            checkpoint: None,
            scratch: Arc::default(),
            share: Share::All,
        }
    }

    /// The same for some batches.
    pub fn sharing(self, share: Share<'a>) -> Self {
        Self { share, ..self }
    }

    /// The same with features in `scratch`.
    pub fn in_scratch(self, scratch: Arc<Scratch>) -> Self {
        Self { scratch, ..self }
    }

    /// The same, keeping batches in `checkpoint`.
    pub fn keeping(self, checkpoint: &'a dyn Pieces) -> Self {
        Self { checkpoint: Some(checkpoint), ..self }
    }
}

impl<'a> Program<'a> {
    /// `backbone` cut as the recipe says.
    pub fn new(backbone: &'a dyn Backbone, recipe: &'a Recipe) -> Self {
        let (segments, stem) = (&recipe.paths.segments, recipe.quant.stem);
        Self { backbone, segments, stem, tokens: recipe.exits.tokens }
    }
}

impl Program<'_> {
    /// Whether the exit behind segment `index` sees the mean token besides.
    fn sees_mean(&self, index: usize) -> bool {
        self.tokens == ExitTokens::ClassAndMean && index + 1 < self.segments.len()
    }

    /// [Numbers that an exit sees of a picture](exit_dim).
    pub fn exit_dim(&self, index: usize) -> usize {
        self.backbone.feature_dim() * if self.sees_mean(index) { 2 } else { 1 }
    }

    /// Numbers behind every segment.
    fn exit_dims(&self) -> Vec<usize> {
        (0..self.segments.len()).map(|index| self.exit_dim(index)).collect()
    }

    /// Runs the stem at `width` on one batch of pictures.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn stem(&self, executor: &mut dyn Executor, images: &[f32], width: Width) -> Result<Value, ExecError> {
        let [c, h, w] = self.backbone.image_shape();
        let input = executor.input(&[images.len() / (c * h * w), c, h, w], images)?;
        executor.set_width(width)?;
        self.backbone.stem(executor, &input)
    }

    /// Runs segment `index` (from 0) at `width`. Behind the last one nothing follows but [`features`](Self::features), so its last block is computed
    /// [for the tokens that they read](Backbone::last_block) alone; cost models count it in full.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn segment(
        &self,
        executor: &mut dyn Executor,
        index: usize,
        width: Width,
        tokens: &Value,
    ) -> Result<Value, ExecError> {
        executor.set_width(width)?;
        self.blocks(executor, index, tokens)
    }

    /// The same for a batch whose first so many pictures run at one width, the next at another, and so on.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn segment_of_groups(
        &self,
        executor: &mut dyn Executor,
        index: usize,
        groups: &[(usize, Width)],
        tokens: &Value,
    ) -> Result<Value, ExecError> {
        executor.set_groups(groups)?;
        self.blocks(executor, index, tokens)
    }

    /// The blocks of a segment at the widths that the executor stands at.
    fn blocks(&self, executor: &mut dyn Executor, index: usize, tokens: &Value) -> Result<Value, ExecError> {
        let first: usize = self.segments[..index].iter().sum();
        let mut tokens = tokens.clone();
        for block in first..first + self.segments[index] {
            tokens = match block + 1 == self.backbone.depth() {
                true => self.backbone.last_block(executor, &tokens)?,
                false => self.backbone.block(block, executor, &tokens)?,
            };
        }
        Ok(tokens)
    }

    /// What the exit behind segment `index` (from 0) sees, in float: `[batch, exit_dim]`: what the backbone's own classifier would
    /// see, then the mean of all tokens where the exit sees that.
    ///
    /// # Errors
    /// What the executor reports, or NaN or infinity: integer operations find them on their own, floats carry them here.
    pub fn features(&self, executor: &mut dyn Executor, index: usize, tokens: &Value) -> Result<Vec<f32>, ExecError> {
        executor.set_width(Width::FLOAT)?;
        let own = self.backbone.features(executor, tokens)?;
        // Recorded before anything is read, so that a device computes both at once.
        let mean = match self.sees_mean(index) {
            true => Some(executor.mean_tokens(tokens, 0)?),
            false => None,
        };
        let own = executor.read(&own)?;
        let mean = mean.map(|mean| executor.read(&mean)).transpose()?;
        if own.iter().chain(mean.iter().flatten()).any(|x| !x.is_finite()) {
            return Err(ExecError::NotFinite { site: format!("exit {0} behind segment {0}", index + 1) });
        }
        Ok(match mean {
            Some(mean) => side_by_side(&own, &mean, self.backbone.feature_dim()),
            None => own,
        })
    }

    /// What gate 0 sees, in float: the mean token behind the stem, `[batch, feature_dim]`.
    ///
    /// # Errors
    /// What the executor reports, or NaN or infinity.
    pub fn stem_features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Vec<f32>, ExecError> {
        executor.set_width(Width::FLOAT)?;
        let mean = executor.mean_tokens(tokens, 0)?;
        let mean = executor.read(&mean)?;
        if mean.iter().any(|x| !x.is_finite()) {
            return Err(ExecError::NotFinite { site: "gate 0 behind the stem".into() });
        }
        Ok(mean)
    }

    /// Width of the stem on a path: float where everything is float.
    fn stem_width(&self, path: &[Width]) -> Width {
        if path.iter().all(|width| width.is_float()) { Width::FLOAT } else { self.stem }
    }

    /// Runs one batch along `path`; features behind every segment of it.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run_path(
        &self,
        executor: &mut dyn Executor,
        images: &[f32],
        path: &[Width],
    ) -> Result<Vec<Vec<f32>>, ExecError> {
        let mut tokens = self.stem(executor, images, self.stem_width(path))?;
        let mut features = Vec::with_capacity(path.len());
        for (index, &width) in path.iter().enumerate() {
            tokens = self.segment(executor, index, width, &tokens)?;
            features.push(self.features(executor, index, &tokens)?);
        }
        Ok(features)
    }

    /// Runs one batch along every path of `tree`, each prefix once, depth first: at most one activation per segment is alive.
    /// `visit(node, features)` is called for every node; the root's features are [those of the stem](Self::stem_features).
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run_tree(
        &self,
        executor: &mut dyn Executor,
        images: &[f32],
        tree: &PathTree,
        widths: &[Width],
        visit: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), ExecError> {
        let tokens = self.stem(executor, images, self.stem)?;
        visit(ROOT, self.stem_features(executor, &tokens)?);
        self.descend(executor, &tokens, tree, widths, ROOT, visit)
    }

    fn descend(
        &self,
        executor: &mut dyn Executor,
        tokens: &Value,
        tree: &PathTree,
        widths: &[Width],
        node: usize,
        visit: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), ExecError> {
        let (depth, children) = (tree.node(node).depth, tree.node(node).children.clone());
        for child in children {
            let width = widths[tree.node(child).width.expect("only the root has no width")];
            let next = self.segment(executor, depth, width, tokens)?;
            visit(child, self.features(executor, depth, &next)?);
            self.descend(executor, &next, tree, widths, child, visit)?;
        }
        Ok(())
    }

    /// Features at every node of the tree for all pictures: by node `[picture][exit_dim]`, at the root `[picture][feature_dim]`.
    ///
    /// # Errors
    /// What the executor reports, when features cannot be put anywhere, or a wish to stop.
    pub fn tree_features(
        &self,
        drive: &Drive,
        images: &dyn Pictures,
        tree: &PathTree,
        widths: &[Width],
    ) -> anyhow::Result<Table> {
        let dim = |node: usize| match tree.node(node).depth {
            0 => self.backbone.feature_dim(),
            depth => self.exit_dim(depth - 1),
        };
        let dims: Vec<usize> = (0..tree.node_count()).map(dim).collect();
        self.over_batches(drive, images, &dims, |_, batch| {
            let run = |executor: &mut dyn Executor, pictures: &[f32]| {
                let mut nodes = vec![Vec::new(); tree.node_count()];
                self.run_tree(executor, pictures, tree, widths, &mut |node, features| nodes[node] = features)?;
                Ok(nodes)
            };
            Ok(drive.attempt(batch, self.picture(), &run)?)
        })
    }

    /// [What gate 0 sees](Self::stem_features) of all pictures: one list `[picture][feature_dim]`.
    ///
    /// # Errors
    /// As [`tree_features`](Self::tree_features).
    pub fn all_stem_features(&self, drive: &Drive, images: &dyn Pictures) -> anyhow::Result<Table> {
        self.over_batches(drive, images, &[self.backbone.feature_dim()], |_, batch| {
            let run = |executor: &mut dyn Executor, pictures: &[f32]| {
                let tokens = self.stem(executor, pictures, self.stem)?;
                Ok(vec![self.stem_features(executor, &tokens)?])
            };
            Ok(drive.attempt(batch, self.picture(), &run)?)
        })
    }

    /// Features behind every segment of `path` for all pictures: by segment `[picture][exit_dim]`.
    ///
    /// # Errors
    /// As [`tree_features`](Self::tree_features).
    pub fn path_features(&self, drive: &Drive, images: &dyn Pictures, path: &[Width]) -> anyhow::Result<Table> {
        self.paths_features(drive, images, 1, |_, _| path.to_vec())
    }

    /// As [`path_features`](Self::path_features) for `runs` passes over the pictures, which are prepared once; the path is
    /// that of pass and batch, in this order. The result has the lists of the first pass, then those of the next, and so on.
    ///
    /// # Errors
    /// As [`tree_features`](Self::tree_features).
    pub fn paths_features(
        &self,
        drive: &Drive,
        images: &dyn Pictures,
        runs: usize,
        path_of: impl Fn(usize, usize) -> Vec<Width> + Sync,
    ) -> anyhow::Result<Table> {
        let dims = self.exit_dims().repeat(runs);
        self.over_batches(drive, images, &dims, |index, batch| {
            let mut lists = Vec::with_capacity(dims.len());
            for run in 0..runs {
                drive.cancel.check()?;
                let path = path_of(run, index);
                let work = |executor: &mut dyn Executor, pictures: &[f32]| self.run_path(executor, pictures, &path);
                lists.extend(drive.attempt(batch, self.picture(), &work)?);
            }
            Ok(lists)
        })
    }

    /// Numbers of a picture.
    fn picture(&self) -> usize {
        self.backbone.image_shape().iter().product()
    }

    /// Runs `work` on every batch, several at a time, and puts its lists of `[picture][dim]`, one for each of `dims`, together. What a killed
    /// run has kept is not run again.
    fn over_batches(
        &self,
        drive: &Drive,
        images: &dyn Pictures,
        dims: &[usize],
        work: impl Fn(usize, &[f32]) -> anyhow::Result<Vec<Vec<f32>>> + Sync,
    ) -> anyhow::Result<Table> {
        let batches = images.len().div_ceil(drive.batch);
        let pass = drive.checkpoint.map(|kept| (kept, kept.begin_pass()));
        let known = |index: usize| pass.and_then(|(kept, pass)| kept.piece(pass, index));
        let features = |index: usize, known: Option<Vec<Vec<f32>>>, batch: &[f32]| -> anyhow::Result<Vec<Vec<f32>>> {
            if let Some(features) = known {
                drive.progress.advance(batch.len() / self.picture());
                return Ok(features);
            }
            let features = work(index, batch)?;
            if let Some((kept, pass)) = pass {
                kept.keep(pass, index, &features);
            }
            Ok(features)
        };
        let (side_by_side, cancel) = (drive.engine.batches_at_a_time(), drive.cancel);
        if let Share::Part(writer) = drive.share {
            let (range, pass) = (writer.part.batches(batches), writer.begin_pass());
            let first = range.start;
            let pictures = first * drive.batch..(range.end * drive.batch).min(images.len());
            let some = Neighbours { all: images, first: pictures.start, count: pictures.len() };
            over_batches(&some, drive.batch, side_by_side, cancel, |index, batch| {
                let index = first + index;
                writer.keep(pass, index, &features(index, known(index), batch)?)
            })?;
            return Ok(vec![Vec::new(); dims.len()].into());
        }
        let table = drive.scratch.table(dims, images.len());
        let parts = if let Share::Missing(parts) = drive.share { Some((parts, parts.begin_pass())) } else { None };
        over_batches(images, drive.batch, side_by_side, cancel, |index, batch| {
            let stored = parts.map_or(Ok(None), |(parts, pass)| parts.piece(pass, index, batches))?;
            let known = stored.or_else(|| known(index));
            table.put(index * drive.batch, images.len(), &features(index, known, batch)?)
        })?;
        table.finish()
    }
}
