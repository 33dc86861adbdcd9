//! Parameters of the kernels, field by field as their `Params` in WGSL.

use bytemuck::{Pod, Zeroable};
use quee_quant::{ActQuant, SiteQuant};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
        pub(crate) struct $name { $(pub $field: $kind),+ })+
    };
}

params! {
    /// `quantize.wgsl`: how values become codes.
    Rule {
        scale: f32, inverse: f32, zero: i32, least: i32,
        most: i32, kind: u32, steps: f32, plane: [i32; 2],
        unused: [u32; 3],
    }
    /// The rules of consecutive groups of rows or samples.
    Rules { ends: [u32; 8], rules: [Rule; 8] }
    /// `rows_codes.wgsl`.
    RowsCodes {
        rows: u32, d: u32, tokens: u32, heads: u32,
        x_at: u32, x_sample: u32, x_head: u32, x_token: u32,
        gain_at: u32, offset_at: u32, eps: f32, code_at: u32,
        code_matrix: u32, code_row: u32, code_chunk: u32, info_at: u32,
        info_matrix: u32, slot: u32, first_row: u32, groups: u32,
        rules: Rules,
    }
    /// `values_codes.wgsl`.
    ValuesCodes {
        matrices: u32, tokens: u32, d: u32, heads: u32,
        x_at: u32, x_sample: u32, x_head: u32, x_token: u32,
        code_at: u32, width: u32, info_at: u32, slot: u32,
        first_sample: u32, groups: u32, unused: [u32; 2],
        rules: Rules,
    }
    /// The rules of the queries, keys, values and probabilities of consecutive groups of samples, as `attention_codes.wgsl` wants them: all fit
    /// into the parameters of one dispatch.
    CompactRules { ends: [u32; 8], scales: [[f32; 8]; 4], inverses: [[f32; 8]; 4], forms: [[u32; 8]; 4] }
    /// `attention_codes.wgsl`.
    AttentionCodes {
        matrices: u32, tokens: u32, d: u32, heads: u32,
        x_at: u32, x_sample: u32, x_head: u32, x_token: u32,
        x_third: u32, out_at: u32, out_sample: u32, out_head: u32,
        out_row: u32, first_sample: u32, groups: u32, factor: f32,
        rows: u32, parts: u32, bias: f32, unused: u32,
        slots: [u32; 4],
        rules: CompactRules,
    }
    /// `rows_float.wgsl`.
    RowsFloat {
        rows: u32, d: u32, tokens: u32, heads: u32,
        x_at: u32, x_sample: u32, x_head: u32, x_token: u32,
        gain_at: u32, offset_at: u32, eps: f32, y_at: u32,
    }
    /// `shared/codes.wgsl`.
    Codes {
        m: u32, n: u32, k: u32, chunks: u32,
        width: u32, batch: u32, heads: u32, factor: f32,
        a_at: u32, a_matrix: u32, a_info_at: u32, a_info_matrix: u32,
        b_at: u32, b_matrix: u32, b_info_at: u32, b_info_matrix: u32,
        out_at: u32, out_sample: u32, out_head: u32, out_row: u32,
        residual_at: u32, has_bias: u32, unused: [u32; 2],
    }
    /// `shared/floats.wgsl`.
    Floats {
        m: u32, n: u32, k: u32, width: u32,
        batch: u32, heads: u32, factor: f32, has_bias: u32,
        a_at: u32, a_sample: u32, a_head: u32, a_row: u32,
        b_at: u32, b_matrix: u32, bias_at: u32, residual_at: u32,
        out_at: u32, out_sample: u32, out_head: u32, out_row: u32,
    }
    /// `pack_float.wgsl`.
    PackFloat {
        count: u32, k: u32, n: u32, width: u32,
        heads: u32, x_at: u32, x_sample: u32, x_head: u32,
        x_column: u32, x_row: u32, y_at: u32, unused: u32,
    }
    /// `expand_codes.wgsl`.
    ExpandCodes { first: u32, count: u32, blocks: u32, width: u32, codes_at: u32, unused: [u32; 3] }
    /// `unfold.wgsl`.
    Unfold {
        count: u32, channels: u32, height: u32, width: u32,
        down: u32, across: u32, kernel: u32, stride: u32,
        padding: u32, x_at: u32, y_at: u32, unused: u32,
    }
    /// `rearrange.wgsl`.
    Rearrange {
        count: u32, rows: u32, columns: u32, gather: u32,
        x_at: u32, x_sample: u32, x_row: u32, x_column: u32,
        samples_at: u32, y_at: u32, y_sample: u32, y_row: u32,
    }
    /// `add.wgsl`.
    Add { count: u32, period: u32, x_at: u32, y_at: u32, z_at: u32, unused: [u32; 3] }
    /// `gelu.wgsl`.
    Gelu { count: u32, x_at: u32, y_at: u32, unused: u32 }
    /// `mean_tokens.wgsl`.
    MeanTokens { count: u32, tokens: u32, d: u32, skip: u32, x_at: u32, y_at: u32, unused: [u32; 2] }
    /// `performer_features.wgsl`.
    PerformerFeatures {
        rows: u32, d: u32, tokens: u32, heads: u32,
        x_at: u32, x_sample: u32, x_head: u32, x_token: u32,
        m: u32, products_at: u32, unused: [u32; 2],
    }
    /// `performer_sums.wgsl`.
    PerformerSums {
        count: u32, tokens: u32, m: u32, d: u32,
        features_at: u32, x_at: u32, x_sample: u32, x_token: u32,
        sums_at: u32, unused: [u32; 3],
    }
    /// `performer_mix.wgsl`.
    PerformerMix {
        count: u32, tokens: u32, m: u32, d: u32,
        features_at: u32, sums_at: u32, y_at: u32, eps: f32,
    }
    /// `peak_dot.wgsl` and `peak_fma.wgsl`.
    PeakChains { rounds: u32, out_at: u32, unused: [u32; 2] }
    /// `peak_copy.wgsl`.
    PeakCopy { count: u32, x_at: u32, y_at: u32, unused: u32 }
}

// Kinds of rules, as in `quantize.wgsl`; 0 is uniform.
const DYNAMIC: u32 = 1;
const TWIN: u32 = 2;
const SIGNED_TWIN: u32 = 3;
const LOG: u32 = 4;

impl Rule {
    /// Scale and zero point from each row's own range, at so many bits.
    pub fn dynamic(bits: u8) -> Self {
        Self { kind: DYNAMIC, ..Self::uniform(ActQuant::new(1.0, 0, bits)) }
    }

    /// The same for every row: the numbers of plane `p`, all 0 where there are fewer planes.
    pub fn fixed(quant: &SiteQuant, p: usize) -> Self {
        if p >= quant.planes() {
            return Self::default();
        }
        let plane = quant.plane(p);
        let uneven = Self { scale: plane.scale, zero: plane.zero, ..Self::default() };
        match quant {
            SiteQuant::Uniform(quant) => Self::uniform(*quant),
            SiteQuant::Twin(twin) => Self {
                inverse: 1.0 / twin.small,
                steps: 1.0 / twin.large(),
                least: if twin.signed { -twin.half() } else { 0 },
                most: twin.half(),
                kind: if twin.signed { SIGNED_TWIN } else { TWIN },
                plane: twin.factors(p),
                ..uneven
            },
            SiteQuant::LogSqrt2(log) => Self {
                inverse: log.factor(),
                most: log.codes(),
                kind: LOG,
                plane: [p as i32 % 2, p as i32 / 2],
                ..uneven
            },
        }
    }

    fn uniform(quant: ActQuant) -> Self {
        Self {
            scale: quant.scale,
            inverse: quant.inv_scale,
            zero: quant.zero,
            least: quant.qmin,
            most: quant.qmax,
            steps: (quant.qmax - quant.qmin) as f32,
            ..Self::default()
        }
    }

    /// Whether the general kernels are needed.
    pub fn is_uneven(&self) -> bool {
        self.kind > DYNAMIC
    }
}

impl CompactRules {
    /// The rules of four operands, unless one is uneven or has a zero point beyond the codes of 8 bits.
    pub fn new(operands: &[Rules; 4]) -> Option<Self> {
        let mut compact = Self { ends: operands[0].ends, ..Self::default() };
        for (at, rules) in operands.iter().enumerate() {
            for (g, rule) in rules.rules.iter().enumerate() {
                if rule.is_uneven() {
                    return None;
                }
                let byte = |number: i32| i8::try_from(number).ok().map(|number| number as u8);
                let form = [byte(rule.zero)?, byte(rule.least)?, byte(rule.most)?, rule.kind as u8];
                compact.scales[at][g] = rule.scale;
                compact.inverses[at][g] = rule.inverse;
                compact.forms[at][g] = u32::from_le_bytes(form);
            }
        }
        Some(compact)
    }
}
