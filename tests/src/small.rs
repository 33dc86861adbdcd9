//! A slow executor made of the scalar reference, which never fuses.

use std::sync::Arc;

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError, Executor, Linear, Norm, QuantPlan, Value, forward_plain_operations};
use quee_quant::site::quantize_row_plane;
use quee_quant::{ActQuant, Plane, Width, quantize_row_dynamic, reference};

/// Passes the small operations on to another executor and composes the fused ones of them.
///
/// With a plan, the quantizable operations are done by `quee_quant::reference` instead.
pub struct Small {
    inner: Box<dyn Executor>,
    reference: Option<Arc<QuantPlan>>,
    width: Width,
}

impl Small {
    /// Over `inner`; with `reference`, quantizable operations are done here.
    pub fn new(inner: Box<dyn Executor>, reference: Option<Arc<QuantPlan>>) -> Self {
        Self { inner, reference, width: Width::FLOAT }
    }

    fn plan(&self) -> Option<Arc<QuantPlan>> {
        if self.width.is_float() { None } else { self.reference.clone() }
    }

    /// The codes of every plane.
    fn quantize(&self, plan: &QuantPlan, site: &str, rows: &[f32], k: usize) -> Result<Vec<Codes>, ExecError> {
        let bits = plan.width_at(site, self.width).act_bits();
        let fixed = plan.site(site, bits)?;
        let plane = |p: usize| {
            let mut all = Codes { codes: vec![0; rows.len()], quants: Vec::new(), sums: Vec::new() };
            for (row, codes) in rows.chunks(k).zip(all.codes.chunks_mut(k)) {
                let (quant, sum) = match fixed {
                    Some(quant) => {
                        let Plane { scale, zero } = quant.plane(p);
                        (ActQuant::new(scale, zero, 8), quantize_row_plane(row, &quant, p, codes))
                    }
                    None => quantize_row_dynamic(row, bits, codes),
                };
                all.quants.push(quant);
                all.sums.push(sum);
            }
            all
        };
        Ok((0..fixed.map_or(1, |quant| quant.planes())).map(plane).collect())
    }

    fn quantized_linear(&mut self, plan: &QuantPlan, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let (n, k) = (linear.outputs, linear.inputs);
        let layer = plan.weight(linear, plan.width_at(&linear.site, self.width).weight_bits())?;
        let rows = self.inner.read(x)?;
        let mut bias = layer.bias.as_deref();
        let mut out = vec![-0.0; rows.len() / k * n];
        for plane in self.quantize(plan, &linear.site, &rows, k)? {
            let product = reference::linear(rows.len() / k, &plane.codes, &plane.quants, &layer.weight, bias.take());
            out.iter_mut().zip(product).for_each(|(out, x)| *out += x);
        }
        let mut shape = self.inner.shape(x)?;
        *shape.last_mut().expect("rows") = n;
        self.inner.input(&shape, &out)
    }

    /// Rows `[T, d]` of a third of a head.
    fn third(qkv: &[f32], t: usize, attention: &Attention, third: usize, head: usize) -> Vec<f32> {
        let (h, d) = (attention.heads, attention.head_dim);
        let row = |token: usize| &qkv[(token * 3 + third) * h * d + head * d..][..d];
        (0..t).flat_map(row).copied().collect()
    }
}

/// The codes of an operand that has one plane.
fn only(planes: Vec<Codes>) -> Codes {
    let [codes] = <[Codes; 1]>::try_from(planes).ok().expect("uniform codes");
    codes
}

struct Codes {
    codes: Vec<i8>,
    quants: Vec<ActQuant>,
    sums: Vec<i32>,
}

impl Executor for Small {
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        "small".to_owned()
    }
    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.width = width;
        self.inner.set_width(width)
    }
    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let Some(plan) = self.plan() else { return self.inner.linear(x, linear) };
        plan.without_norm(&linear.site)?;
        self.quantized_linear(&plan, x, linear)
    }
    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let Some(plan) = self.plan() else {
            let normed = self.inner.layer_norm(x, norm)?;
            return self.inner.linear(&normed, linear);
        };
        let changed = plan.norm(&linear.site, norm);
        let normed = self.inner.layer_norm(x, changed.as_ref().unwrap_or(norm))?;
        self.quantized_linear(&plan, &normed, linear)
    }
    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let Some(plan) = self.plan() else { return self.inner.attention_scores(qkv, attention) };
        let shape = self.inner.shape(qkv)?;
        let (b, t, d) = (shape[0], shape[1], attention.head_dim);
        let data = self.inner.read(qkv)?;
        let mut out = Vec::new();
        for sample in data.chunks(t * shape[2]) {
            for head in 0..attention.heads {
                let site = |operand| attention.operand_site(operand);
                let rows = |third| Self::third(sample, t, attention, third, head);
                let q = only(self.quantize(&plan, &site(AttentionOperand::Query), &rows(0), d)?);
                let k = only(self.quantize(&plan, &site(AttentionOperand::Key), &rows(1), d)?);
                let acc = reference::matmul_codes(t, t, d, &q.codes, &k.codes);
                for (i, acc) in acc.chunks(t).enumerate() {
                    for (j, &acc) in acc.iter().enumerate() {
                        let (qq, kq) = (q.quants[i], k.quants[j]);
                        let product = reference::product_sum(acc, d, qq.zero, q.sums[i], kq.zero, k.sums[j]);
                        out.push(product as f32 * (qq.scale * kq.scale * attention.scale));
                    }
                }
            }
        }
        self.inner.input(&[b, attention.heads, t, t], &out)
    }
    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let Some(plan) = self.plan() else { return self.inner.attention_values(p, qkv, attention) };
        let shape = self.inner.shape(qkv)?;
        let (b, t, h, d) = (shape[0], shape[1], attention.heads, attention.head_dim);
        let (data, p) = (self.inner.read(qkv)?, self.inner.read(p)?);
        let mut out = vec![-0.0; b * t * h * d];
        for (index, sample) in data.chunks(t * shape[2]).enumerate() {
            for head in 0..h {
                let p = &p[(index * h + head) * t * t..][..t * t];
                let planes = self.quantize(&plan, &attention.operand_site(AttentionOperand::Probabilities), p, t)?;
                let v = Self::third(sample, t, attention, 2, head);
                // One scale and zero point for all tokens of the head.
                let v = only(self.quantize(&plan, &attention.operand_site(AttentionOperand::Value), &v, t * d)?);
                let columns: Vec<i8> = (0..d * t).map(|i| v.codes[i % t * d + i / t]).collect();
                for p in planes {
                    let acc = reference::matmul_codes(t, d, t, &p.codes, &columns);
                    for i in 0..t {
                        for j in 0..d {
                            let sum = columns[j * t..(j + 1) * t].iter().map(|&code| i32::from(code)).sum();
                            let (pq, vq) = (p.quants[i], v.quants[0]);
                            let product = reference::product_sum(acc[i * d + j], t, pq.zero, p.sums[i], vq.zero, sum);
                            out[((index * t + i) * h + head) * d + j] += product as f32 * (pq.scale * vq.scale);
                        }
                    }
                }
            }
        }
        self.inner.input(&[b, t, h * d], &out)
    }
}
