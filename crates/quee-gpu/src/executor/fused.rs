//! Attention in one dispatch: `attention_codes.wgsl`, where it suits the device, the shape and the quantizers.

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError};

use super::GpuExecutor;
use super::attention::Sizes;
use crate::heads::Strides;
use crate::kernels::{ATTENTION_CODES, Variant};
use crate::memory::Tensor;
use crate::params::{AttentionCodes, CompactRules, Rules};

/// Workgroups that keep a large GPU busy: about two for each of its multiprocessors.
const ENOUGH: usize = 256;
/// The smallest blocks of query tokens: with less, most invocations have nothing to do in the softmax. Larger ones gain less than the
/// workgroups are worth that no longer run beside each other: of 65 tokens of 64 features, blocks of 12 take 18% less time on an H100
/// than blocks of 36, and 13% less than one of 65.
const LEAST: usize = 12;
/// Query tokens of a block where heads are shared out among workgroups: each quantizes the keys and values once more.
const SHARED_BLOCK: usize = 16;

/// A variant of the kernel, and the most query tokens of a block that its shared memory has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fused {
    pub variant: &'static Variant,
    rows: usize,
}

impl Fused {
    /// The variant for heads of `tokens` tokens and `dim` features on a device with so much shared memory, if there is one. The choice depends on
    /// nothing else: how a driver fuses float operations may differ from variant to variant, and a picture must not depend on those beside it.
    pub fn choose(tokens: usize, dim: usize, shared_memory: u32) -> Option<Self> {
        Self::fitting(tokens, dim, shared_memory).next()
    }

    /// All variants that would do, from small to large.
    pub fn fitting(tokens: usize, dim: usize, shared_memory: u32) -> impl Iterator<Item = Self> {
        let aligned = f64::from(u8::from(dim.is_multiple_of(4)));
        let suits = move |variant: &&Variant| variant.constant("ALIGNED").unwrap_or(0.0) == aligned;
        let variants = ATTENTION_CODES.variants.iter().filter(suits);
        variants.filter(move |variant| variant.shared <= shared_memory).filter_map(move |variant| {
            let words = variant.constant("WORDS")? as usize;
            let rows = most_rows(tokens, dim, words);
            (rows >= LEAST.min(tokens)).then_some(Self { variant, rows })
        })
    }

    /// Tokens of a block and workgroups of a head, where there are so many heads.
    fn shares(self, tokens: usize, heads: usize) -> (usize, usize) {
        let wanted = ENOUGH.div_ceil(heads.max(1));
        let most = if wanted > 1 { SHARED_BLOCK.max(tokens.div_ceil(wanted)) } else { tokens };
        let most = most.next_multiple_of(4).min(self.rows);
        let rows = tokens.div_ceil(tokens.div_ceil(most)).next_multiple_of(4);
        (rows, tokens.div_ceil(rows).min(wanted))
    }
}

/// The most query tokens of a block that fit into `words` words, in fours: `places` of `shared/attention_places.wgsl` counts the same.
fn most_rows(tokens: usize, dim: usize, words: usize) -> usize {
    let (long, quads) = (dim.div_ceil(4), tokens.div_ceil(4));
    let keys = long * (4 * quads + 1) + 12 * quads;
    let values = quads * dim + dim;
    let row = (4 * quads + 1) + (long.max(16) | 1) + 6;
    words.saturating_sub(keys + values) / row / 4 * 4
}

impl GpuExecutor {
    /// Attention in one dispatch, or `None` where it takes several.
    pub(super) fn run_fused(&mut self, qkv: &Tensor, attention: &Attention) -> Result<Option<Tensor>, ExecError> {
        let gpu = self.gpu();
        if self.is_float() || !gpu.is_tiled() || !gpu.options().fused_attention {
            return Ok(None);
        }
        let sizes = Sizes::of(qkv, attention)?;
        let limit = gpu.limits().max_compute_workgroup_storage_size;
        if sizes.samples * sizes.heads * sizes.tokens * sizes.dim == 0 {
            return Ok(None);
        }
        match Fused::choose(sizes.tokens, sizes.dim, limit) {
            Some(fused) => self.fused_by(fused, qkv, attention),
            None => Ok(None),
        }
    }

    /// The same by a variant of the kernel; `None` where the quantizers are not its.
    pub(crate) fn fused_by(
        &mut self,
        fused: Fused,
        qkv: &Tensor,
        attention: &Attention,
    ) -> Result<Option<Tensor>, ExecError> {
        use AttentionOperand::{Key, Probabilities, Query, Value};
        let sizes = Sizes::of(qkv, attention)?;
        let Sizes { samples, tokens, heads, dim } = sizes;
        let sites = [Query, Key, Value, Probabilities].map(|operand| attention.operand_site(operand));
        let mut list = [Rules::default(); 4];
        let mut groups = 0;
        for (rules, site) in list.iter_mut().zip(&sites) {
            (groups, *rules) = self.rules(site, 1, 0)?;
        }
        let Some(rules) = CompactRules::new(&list) else { return Ok(None) };
        let slots = sites.each_ref().map(|site| self.recorder_mut().slot(site));
        self.recorder_mut().at(&attention.site);
        let out = self.tensor(&[samples, tokens, heads * dim])?;
        let [x_sample, x_head, x_token] = sizes.strides();
        let x_strides = Strides { sample: x_sample, head: x_head };
        let out_strides = Strides { sample: tokens * heads * dim, head: dim };
        let (rows, parts) = fused.shares(tokens, samples * heads);
        let most = self.most(1) / parts;
        let recorder = self.recorder();
        for run in recorder.head_runs(&attention.site, [samples, heads], &[], &[x_strides, out_strides], most)? {
            let recorder = self.recorder();
            let (x, x_first) = run.part(recorder, qkv.data.buffer(), x_strides);
            let (target, out_first) = run.part(recorder, out.data.buffer(), out_strides);
            let flags = recorder.flags();
            let matrices = run.heads.len();
            let params = AttentionCodes {
                matrices: matrices as u32,
                tokens: tokens as u32,
                d: dim as u32,
                heads: heads as u32,
                x_at: x.at() + x_first,
                x_sample: x_sample as u32,
                x_head: x_head as u32,
                x_token: x_token as u32,
                x_third: sizes.third(1) as u32,
                out_at: target.at() + out_first,
                out_sample: out_strides.sample as u32,
                out_head: out_strides.head as u32,
                out_row: (heads * dim) as u32,
                first_sample: run.samples().start as u32,
                groups,
                factor: attention.scale,
                rows: rows as u32,
                parts: parts as u32,
                bias: 0.0,
                unused: 0,
                slots,
                rules,
            };
            let size = self.grid(matrices * parts, 1);
            let operands = [x.clone(), x, target, flags];
            self.recorder_mut().dispatch(&ATTENTION_CODES, fused.variant.constants, &params, &operands, size)?;
        }
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_suit_shape_and_device() {
        let name = |tokens, dim, kib: u32| Fused::choose(tokens, dim, kib << 10).map(|fused| fused.variant.name);
        assert_eq!(name(65, 64, 48), Some("16_aligned"));
        assert_eq!(name(69, 64, 48), Some("25_aligned"));
        assert_eq!(name(65, 64, 16), Some("16_aligned"));
        assert_eq!(name(240, 64, 48), Some("48_aligned"));
        assert_eq!(name(241, 64, 48), None);
        assert_eq!(name(68, 64, 16), Some("16_aligned"));
        assert_eq!(name(69, 64, 16), None);
        assert_eq!(name(96, 128, 48), Some("48_aligned"));
        assert_eq!(name(150, 32, 25), Some("25_aligned"));
        assert_eq!(name(65, 63, 48), Some("16"));
        assert_eq!(name(197, 64, 16), None);
        assert_eq!(name(65, 64, 15), None);
    }

    #[test]
    fn every_token_has_its_block() {
        for (tokens, heads) in [(1, 1), (4, 3), (17, 1000), (65, 3), (65, 3072), (197, 1), (197, 12), (197, 1200)] {
            let fused = Fused::choose(tokens, 64, 48 << 10).unwrap();
            let (rows, parts) = fused.shares(tokens, heads);
            assert!(rows % 4 == 0 && rows <= fused.rows, "{tokens} {heads}: {rows} of {fused:?}");
            assert!(parts >= 1 && parts <= tokens.div_ceil(rows), "{tokens} {heads}: {parts}");
            assert!(heads < ENOUGH || parts == 1, "{tokens} {heads}: {parts}");
        }
    }

    /// The kernel is run without checks of its indices.
    #[test]
    fn a_block_and_no_more_fits() {
        for variant in ATTENTION_CODES.variants {
            let words = variant.constant("WORDS").unwrap() as usize;
            // The words, and two for each invocation.
            assert_eq!(variant.shared as usize, 4 * (words + 2 * 256), "{}", variant.name);
        }
    }
}
