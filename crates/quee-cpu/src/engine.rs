//! Weights packed once and shared by the executors of several threads.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

#[cfg(target_arch = "x86_64")]
use quee_backbone::encoder::EncoderBlock;
use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError, Linear, QuantPlan};
use quee_quant::{SiteQuant, Width};

use crate::attention::AttentionRules;
#[cfg(target_arch = "x86_64")]
use crate::avx512::block::BlockPlan;
use crate::executor::CpuExecutor;
use crate::gemm::PackedB;
use crate::gemm::float::PackedF32;
use crate::isa::{Cpu, Isa};
use crate::quantize::{RowRule, SiteRule};

/// Quantizers, instruction set and packed weights of one backbone.
///
/// Weights are quantized and packed when they are first used at a width, and kept. The key is the parameter's id and
/// the weight's bits, so one engine serves one backbone: exits with parameters of their own need ids of their own.
#[derive(Debug)]
pub struct CpuEngine {
    plan: Arc<QuantPlan>,
    cpu: Cpu,
    cache: RwLock<HashMap<(usize, u8), Arc<Entry>>>,
    /// Encoder blocks; `None` for those that run operation by operation.
    #[cfg(target_arch = "x86_64")]
    blocks: RwLock<Blocks>,
}

/// Blocks by the id of their first weight and by width.
#[cfg(target_arch = "x86_64")]
type Blocks = HashMap<(usize, Width), Option<Arc<BlockPlan>>>;

#[derive(Debug)]
struct Entry {
    /// What was packed; another parameter under the same id is refused.
    source: Arc<[f32]>,
    packed: OnceLock<Result<PackedLinear, ExecError>>,
}

/// A linear layer's weight, ready for the product.
#[derive(Debug)]
pub(crate) enum PackedLinear {
    Float(PackedF32),
    Codes(PackedCodes),
}

/// A quantized weight.
#[derive(Debug)]
pub(crate) struct PackedCodes {
    pub codes: PackedB,
    /// Scale of each output channel.
    pub scales: Vec<f32>,
    /// Sum of each channel's codes.
    pub sums: Vec<i32>,
    /// The bias that belongs to these codes.
    pub bias: Option<Arc<[f32]>>,
}

impl CpuEngine {
    /// An engine with no weights packed yet.
    ///
    /// # Panics
    /// When this machine does not have `isa`.
    pub fn new(plan: Arc<QuantPlan>, isa: Isa) -> Arc<Self> {
        Arc::new(Self {
            plan,
            cpu: Cpu::new(isa),
            cache: RwLock::default(),
            #[cfg(target_arch = "x86_64")]
            blocks: RwLock::default(),
        })
    }

    /// An executor over these weights. Each thread needs its own.
    pub fn executor(self: &Arc<Self>) -> CpuExecutor {
        CpuExecutor::over(Arc::clone(self))
    }

    /// Which quantizer runs where.
    pub fn plan(&self) -> &QuantPlan {
        &self.plan
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// How rows are quantized at a site.
    pub(crate) fn rule(&self, site: &str, width: Width) -> Result<SiteRule, ExecError> {
        let bits = self.plan.width_at(site, width).act_bits();
        Ok(match self.plan.site(site, bits)? {
            Some(SiteQuant::Uniform(quant)) => SiteRule::Uniform(RowRule::Static(quant)),
            Some(uneven) => SiteRule::Uneven(uneven),
            None => SiteRule::Uniform(RowRule::Dynamic(bits)),
        })
    }

    /// The same at a site that takes steps of one size only.
    fn uniform_rule(&self, site: &str, width: Width) -> Result<RowRule, ExecError> {
        match self.rule(site, width)? {
            SiteRule::Uniform(rule) => Ok(rule),
            SiteRule::Uneven(_) => Err(ExecError::Device(format!("{site}: takes uniform codes only"))),
        }
    }

    /// How the operands of attention are quantized, or `None` in float.
    pub(crate) fn attention_rules(
        &self,
        attention: &Attention,
        width: Width,
    ) -> Result<Option<AttentionRules>, ExecError> {
        if width.is_float() {
            return Ok(None);
        }
        let uniform = |operand| self.uniform_rule(&attention.operand_site(operand), width);
        Ok(Some(AttentionRules {
            query: uniform(AttentionOperand::Query)?,
            key: uniform(AttentionOperand::Key)?,
            value: uniform(AttentionOperand::Value)?,
            probabilities: self.rule(&attention.operand_site(AttentionOperand::Probabilities), width)?,
        }))
    }

    /// The whole block at `width`, where it is one that can run at once.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn block(&self, block: &EncoderBlock, width: Width) -> Option<Arc<BlockPlan>> {
        let key = (block.qkv.weight.id, width);
        let found = self.blocks.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let plan = found.unwrap_or_else(|| {
            let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
            blocks.entry(key).or_insert_with(|| BlockPlan::new(self, block, width).map(Arc::new)).clone()
        });
        plan.filter(|plan| plan.is_of(block))
    }

    /// Runs `f` on the packed weight of `linear` at `width`, which is that of its site.
    pub(crate) fn with_weight<R>(
        &self,
        linear: &Linear,
        width: Width,
        f: impl FnOnce(&PackedLinear) -> Result<R, ExecError>,
    ) -> Result<R, ExecError> {
        let key = (linear.weight.id, width.weight_bits());
        let found = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let entry = match found {
            Some(entry) => entry,
            None => {
                let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
                let new = || Arc::new(Entry { source: Arc::clone(&linear.weight.data), packed: OnceLock::new() });
                Arc::clone(cache.entry(key).or_insert_with(new))
            }
        };
        if !Arc::ptr_eq(&entry.source, &linear.weight.data) {
            return Err(ExecError::Device(format!(
                "{}: parameter id {} already belongs to another weight of this engine; hint: use one engine per backbone, \
                 and ids of their own for added layers",
                linear.site, linear.weight.id
            )));
        }
        match entry.packed.get_or_init(|| self.pack(linear, width)) {
            Ok(packed) => f(packed),
            Err(error) => Err(error.clone()),
        }
    }

    fn pack(&self, linear: &Linear, width: Width) -> Result<PackedLinear, ExecError> {
        let (n, k) = (linear.outputs, linear.inputs);
        if width.is_float() {
            let mut packed = PackedF32::on(self.cpu);
            packed.pack(n, k, &linear.weight.data, k);
            return Ok(PackedLinear::Float(packed));
        }
        let layer = self.plan.weight(linear, width.weight_bits())?;
        let mut codes = PackedB::on(self.cpu);
        codes.pack(n, k, &layer.weight.codes);
        let (scales, sums, bias) = (layer.weight.scales.clone(), layer.weight.sums.clone(), layer.bias.clone());
        Ok(PackedLinear::Codes(PackedCodes { codes, scales, sums, bias }))
    }
}
