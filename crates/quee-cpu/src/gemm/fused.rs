//! A linear layer from codes to codes, on its own: what an encoder block does between two of its quantizers.

use quee_quant::{ActQuant, QuantWeight};

#[cfg(target_arch = "x86_64")]
use crate::avx512::codes::Encoder;
#[cfg(target_arch = "x86_64")]
use crate::avx512::linear::LinearPlan;
use crate::isa::{Cpu, Isa};

/// Product, scales, bias, GELU where asked for, and codes, while the sums are in registers. AVX-512 VNNI alone has it.
#[derive(Debug)]
pub struct FusedLinear {
    #[cfg(target_arch = "x86_64")]
    cpu: Cpu,
    #[cfg(target_arch = "x86_64")]
    plan: LinearPlan,
    #[cfg(target_arch = "x86_64")]
    encoder: Encoder,
    gelu: bool,
}

impl FusedLinear {
    /// A layer whose inputs were quantized by `input` and whose outputs are by `output`. `None` on other instruction sets, where inputs or
    /// outputs do not come in 64s, and where outputs might be too large for the quantizer.
    pub fn new(
        isa: Isa,
        weight: &QuantWeight,
        bias: Option<&[f32]>,
        gelu: bool,
        input: &ActQuant,
        output: &ActQuant,
    ) -> Option<Self> {
        let cpu = Cpu::new(isa);
        let fits = [weight.n, weight.k].iter().all(|features| *features > 0 && features.is_multiple_of(64));
        if !cpu.isa().has_avx512() || !fits {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        {
            let plan = LinearPlan::new(isa, weight.k, &weight.codes, &weight.scales, bias, input);
            let encoder = plan.encoder(output)?;
            Some(Self { cpu, plan, encoder, gelu })
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (bias, gelu, input, output);
            None
        }
    }

    /// Runs the layer on `m` rows of codes with 128 added, `[m, k]`, into the like, `[m, n]`.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn run(&self, m: usize, codes: &[u8], out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        self.plan.run_to_codes(self.cpu, m, codes, self.gelu, self.encoder, out);
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{} rows of {} and {}: never made", m, codes.len(), out.len() + usize::from(self.gelu));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gelu::gelu;
    use quee_quant::WeightQuantizer;
    use quee_quant::reference::linear;

    #[test]
    fn outputs_equal_the_reference() {
        let value = |i: usize| ((i * 7919 + 13) % 2003) as f32 / 1000.0 - 1.0;
        for (m, n, k, bits) in [(1, 64, 64, 8), (7, 128, 192, 8), (13, 64, 64, 5), (40, 192, 128, 2)] {
            let weight: Vec<f32> = (0..n * k).map(value).collect();
            let weight = QuantWeight::quantize(&weight, n, k, 8, WeightQuantizer::Absmax);
            let bias: Vec<f32> = (0..n).map(|i| value(i + 5)).collect();
            let (input, output) = (ActQuant::new(0.01, -7, 8), ActQuant::new(0.03, 1, bits));
            let codes: Vec<i8> = (0..m * k).map(|i| (i * 7919 % 256) as u8 as i8).collect();
            let bytes: Vec<u8> = codes.iter().map(|&code| code as u8 ^ 0x80).collect();
            for with_gelu in [false, true] {
                for isa in Isa::available() {
                    let layer = FusedLinear::new(isa, &weight, Some(&bias), with_gelu, &input, &output);
                    assert_eq!(layer.is_some(), isa.has_avx512());
                    let Some(layer) = layer else { continue };
                    let mut want = linear(m, &codes, &vec![input; m], &weight, Some(&bias));
                    if with_gelu {
                        gelu(Cpu::new(Isa::Portable), &mut want);
                    }
                    let want: Vec<u8> = want.iter().map(|&y| output.code(y) as u8 ^ 0x80).collect();
                    let mut out = vec![0; m * n];
                    layer.run(m, &bytes, &mut out);
                    assert_eq!(out, want);
                }
            }
        }
    }
}
