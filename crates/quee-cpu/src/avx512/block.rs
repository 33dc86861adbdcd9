//! An encoder block at one width: whether it is one that this module runs, and which of its two forms.

use std::sync::Arc;

use quee_backbone::encoder::EncoderBlock;
use quee_backbone::{LayerWeight, Linear};
use quee_quant::{ActQuant, Width};

use super::COLUMNS;
use super::attention::HEAD;
use super::fixed::FixedBlock;
use super::linear::LinearPlan;
use super::rows::RowBlock;
use super::run::{BlockScratch, Refused, Samples, deal};
use super::timer::Timer;
use crate::engine::CpuEngine;
use crate::isa::Cpu;

/// An encoder block at one width.
#[derive(Debug)]
pub(crate) struct BlockPlan {
    cpu: Cpu,
    dim: usize,
    quantizers: Quantizers,
    /// The weights that this was made of.
    sources: [Arc<[f32]>; 4],
}

#[derive(Debug)]
enum Quantizers {
    /// Static and uniform.
    Fixed(Box<FixedBlock>),
    /// Each row makes its own scale.
    Rows(Box<RowBlock>),
}

/// Features of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// Of a token.
    pub dim: usize,
    /// Of a token inside the MLP.
    pub hidden: usize,
}

fn sources(block: &EncoderBlock) -> [&Arc<[f32]>; 4] {
    [&block.qkv, &block.proj, &block.fc1, &block.fc2].map(|linear| &linear.weight.data)
}

/// The features of `block` where its shapes are those that this module is written for.
fn dims(block: &EncoderBlock) -> Option<Dims> {
    let EncoderBlock { norm1, qkv, attention, proj, norm2, fc1, fc2 } = block;
    let (dim, hidden) = (qkv.inputs, fc1.outputs);
    let fits = attention.head_dim == HEAD
        && [dim, hidden].iter().all(|features| *features > 0 && features % COLUMNS == 0)
        && dim == attention.heads * HEAD
        && [(proj.inputs, proj.outputs), (fc1.inputs, hidden), (fc2.inputs, fc2.outputs)]
            == [(dim, dim), (dim, hidden), (hidden, dim)]
        && qkv.outputs == 3 * dim
        && [norm1, norm2].iter().all(|norm| norm.weight.data.len() == dim && norm.bias.data.len() == dim);
    fits.then_some(Dims { dim, hidden })
}

impl BlockPlan {
    /// The block at `width`; `None` where something about it is not what this module is written for. What is wrong with it is then
    /// found by the operations one by one.
    pub fn new(engine: &CpuEngine, block: &EncoderBlock, width: Width) -> Option<Self> {
        if !engine.isa().has_avx512() || width.is_float() {
            return None;
        }
        let dims = dims(block)?;
        for linear in [&block.proj, &block.fc2] {
            engine.plan().without_norm(&linear.site).ok()?;
        }
        let source = Source { engine, block, width, dims };
        let quantizers = match FixedBlock::new(&source) {
            Some(block) => Quantizers::Fixed(Box::new(block)),
            None => Quantizers::Rows(Box::new(RowBlock::new(&source)?)),
        };
        Some(Self { cpu: engine.cpu(), dim: dims.dim, quantizers, sources: sources(block).map(Arc::clone) })
    }

    /// Whether it was made of the weights of `block`.
    pub fn is_of(&self, block: &EncoderBlock) -> bool {
        self.sources.iter().zip(sources(block)).all(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// Runs the block on `samples`, on as many threads as there are scratches. Results do not depend on how many.
    pub fn run(&self, samples: Samples, scratch: &mut [BlockScratch], timer: &mut Timer) -> Result<(), Refused> {
        assert!(self.cpu.isa().has_avx512() && samples.dim == self.dim);
        match &self.quantizers {
            Quantizers::Fixed(block) => deal(&**block, samples, scratch, timer),
            Quantizers::Rows(block) => deal(&**block, samples, scratch, timer),
        }
    }
}

/// What the plan of a block is made from.
pub(crate) struct Source<'a> {
    pub engine: &'a CpuEngine,
    pub block: &'a EncoderBlock,
    pub width: Width,
    pub dims: Dims,
}

impl Source<'_> {
    fn layer(&self, linear: &Linear) -> Option<Arc<LayerWeight>> {
        let plan = self.engine.plan();
        plan.weight(linear, plan.width_at(&linear.site, self.width).weight_bits()).ok()
    }

    /// A layer behind codes of `quant`.
    pub fn linear(&self, linear: &Linear, quant: &ActQuant) -> Option<LinearPlan> {
        let layer = self.layer(linear)?;
        let bias = layer.bias.as_deref();
        Some(LinearPlan::new(self.engine.isa(), linear.inputs, &layer.weight.codes, &layer.weight.scales, bias, quant))
    }

    /// The layers of queries, keys and values behind codes of `quant`.
    pub fn thirds(&self, quant: &ActQuant) -> Option<[LinearPlan; 3]> {
        let layer = self.layer(&self.block.qkv)?;
        let d = self.dims.dim;
        Some(std::array::from_fn(|i| {
            let rows = i * d..(i + 1) * d;
            let codes = &layer.weight.codes[i * d * d..(i + 1) * d * d];
            let bias = layer.bias.as_deref().map(|bias| &bias[rows.clone()]);
            LinearPlan::new(self.engine.isa(), d, codes, &layer.weight.scales[rows], bias, quant)
        }))
    }
}
