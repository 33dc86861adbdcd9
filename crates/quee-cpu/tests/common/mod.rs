//! A random transformer, a slow executor made of the scalar reference, and one that never fuses.

use std::sync::Arc;

use quee_backbone::architecture;
use quee_backbone::architecture::TensorSpec;
use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::families::t2t::T2tConfig;
use quee_backbone::params::AttentionOperand;
use quee_backbone::vit::{Pool, VitConfig};
use quee_backbone::{
    Architecture, Attention, Backbone, ExecError, Executor, Linear, QuantPlan, Value, forward_plain_operations,
};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::activation::quantize_row;
use quee_quant::{ActQuant, ActQuantizer, QuantWeight, WeightQuantizer, Width, quantize_row_dynamic, reference};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform numbers around 0.
pub fn numbers(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-size..size)).collect()
}

/// A transformer with random weights. `tokens` 65 takes two blocks of query rows; odd dimensions leave remainders everywhere.
pub fn vit(pool: Pool, qkv_bias: bool) -> Box<dyn Backbone> {
    random(&config(pool, qkv_bias))
}

fn config(pool: Pool, qkv_bias: bool) -> VitConfig {
    VitConfig {
        image: 24,
        channels: 3,
        patch: 3,
        dim: 20,
        depth: 2,
        heads: 4,
        hidden: 33,
        qkv_bias,
        distilled: false,
        pool,
    }
}

/// A backbone of another family for the same pictures.
pub fn t2t() -> Box<dyn Backbone> {
    let config = T2tConfig {
        image: 32,
        channels: 3,
        token_dim: 10,
        dim: 20,
        depth: 2,
        heads: 4,
        hidden: 33,
        pool: Pool::ClassToken,
    };
    random(&config)
}

/// Random weights for an architecture of seven classes.
pub fn random(architecture: &dyn Architecture) -> Box<dyn Backbone> {
    let tensors =
        architecture::tensors(architecture, 7).into_iter().enumerate().map(|(id, TensorSpec { name, shape, .. })| {
            let len: usize = shape.iter().product();
            let inputs = len / shape[0].max(1);
            let size = if name.contains("norm") || shape.len() == 1 { 1.0 } else { 2.0 / (inputs as f32).sqrt() };
            (name, shape, numbers(len, size, id as u64))
        });
    let checkpoint = Checkpoint::from_tensors("random", tensors.collect::<Vec<_>>());
    architecture::load(architecture, "random", checkpoint, false)
        .expect("the checkpoint has the architecture's tensors")
}

/// Pictures for it, `[count, C, H, W]`.
pub fn pictures(backbone: &dyn Backbone, count: usize) -> Vec<f32> {
    numbers(count * backbone.image_shape().iter().product::<usize>(), 2.0, 77)
}

pub fn widths() -> Vec<Width> {
    ["w2a2", "w3a7", "w4a4", "w6a6", "w8a3", "w8a8"].iter().map(|w| w.parse().expect("a width")).collect()
}

/// A plan of each kind: dynamic and static.
pub fn plans(backbone: &dyn Backbone) -> Vec<Arc<QuantPlan>> {
    let dynamic = QuantPlan::dynamic(WeightQuantizer::Absmax);
    let mut cpu = CpuExecutor::new(Arc::new(dynamic.clone()), Isa::Portable);
    let mut calibrator = Calibrator::new(&mut cpu).expect("the executor runs in float");
    let [c, h, w] = backbone.image_shape();
    let images = calibrator.input(&[3, c, h, w], &pictures(backbone, 3)).expect("input");
    backbone.forward(&mut calibrator, &images).expect("float run");
    let observers = calibrator.finish();
    let percentile = QuantPlan::calibrated(WeightQuantizer::Mse, ActQuantizer::Percentile, &observers, &widths());
    vec![Arc::new(dynamic), Arc::new(percentile)]
}

/// What enters every block, the last block's output, and the logits.
pub fn record(
    backbone: &dyn Backbone,
    executor: &mut dyn Executor,
    images: &[f32],
) -> Result<Vec<Vec<f32>>, ExecError> {
    let [c, h, w] = backbone.image_shape();
    let images = executor.input(&[images.len() / (c * h * w), c, h, w], images)?;
    let mut tokens = backbone.stem(executor, &images)?;
    let mut record = vec![executor.read(&tokens)?];
    for index in 0..backbone.depth() {
        tokens = backbone.block(index, executor, &tokens)?;
        record.push(executor.read(&tokens)?);
    }
    let features = backbone.features(executor, &tokens)?;
    let logits = executor.linear(&features, backbone.head())?;
    record.push(executor.read(&logits)?);
    Ok(record)
}

/// Passes the small operations on to another executor and composes the fused ones of them.
///
/// With a plan, the quantizable operations are done by `quee_quant::reference` instead.
pub struct Small {
    pub inner: CpuExecutor,
    pub reference: Option<Arc<QuantPlan>>,
    width: Width,
}

impl Small {
    pub fn new(inner: CpuExecutor, reference: Option<Arc<QuantPlan>>) -> Self {
        Self { inner, reference, width: Width::FLOAT }
    }

    fn plan(&self) -> Option<Arc<QuantPlan>> {
        if self.width.is_float() { None } else { self.reference.clone() }
    }

    fn quantize(&self, plan: &QuantPlan, site: &str, rows: &[f32], k: usize) -> Result<Codes, ExecError> {
        let bits = self.width.act_bits();
        let fixed = plan.act(site, bits)?;
        let mut all = Codes { codes: vec![0; rows.len()], quants: Vec::new(), sums: Vec::new() };
        for (row, codes) in rows.chunks(k).zip(all.codes.chunks_mut(k)) {
            let (quant, sum) = match fixed {
                Some(quant) => (quant, quantize_row(row, &quant, codes)),
                None => quantize_row_dynamic(row, bits, codes),
            };
            all.quants.push(quant);
            all.sums.push(sum);
        }
        Ok(all)
    }

    /// Rows `[T, d]` of a third of a head.
    fn third(qkv: &[f32], t: usize, attention: &Attention, third: usize, head: usize) -> Vec<f32> {
        let (h, d) = (attention.heads, attention.head_dim);
        let row = |token: usize| &qkv[(token * 3 + third) * h * d + head * d..][..d];
        (0..t).flat_map(row).copied().collect()
    }
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
        let (n, k) = (linear.outputs, linear.inputs);
        let weight = QuantWeight::quantize(&linear.weight.data, n, k, self.width.weight_bits(), plan.weights);
        let rows = self.inner.read(x)?;
        let q = self.quantize(&plan, &linear.site, &rows, k)?;
        let bias = linear.bias.as_ref().map(|b| &*b.data);
        let out = reference::linear(rows.len() / k, &q.codes, &q.quants, &weight, bias);
        let mut shape = self.inner.shape(x)?;
        *shape.last_mut().expect("rows") = n;
        self.inner.input(&shape, &out)
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
                let q = self.quantize(&plan, &site(AttentionOperand::Query), &rows(0), d)?;
                let k = self.quantize(&plan, &site(AttentionOperand::Key), &rows(1), d)?;
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
        let mut out = vec![0.0; b * t * h * d];
        for (index, sample) in data.chunks(t * shape[2]).enumerate() {
            for head in 0..h {
                let p = &p[(index * h + head) * t * t..][..t * t];
                let p = self.quantize(&plan, &attention.operand_site(AttentionOperand::Probabilities), p, t)?;
                let v = Self::third(sample, t, attention, 2, head);
                // One scale and zero point for all tokens of the head.
                let v = self.quantize(&plan, &attention.operand_site(AttentionOperand::Value), &v, t * d)?;
                let columns: Vec<i8> = (0..d * t).map(|i| v.codes[i % t * d + i / t]).collect();
                let acc = reference::matmul_codes(t, d, t, &p.codes, &columns);
                for i in 0..t {
                    for j in 0..d {
                        let sum = columns[j * t..(j + 1) * t].iter().map(|&code| i32::from(code)).sum();
                        let (pq, vq) = (p.quants[i], v.quants[0]);
                        let product = reference::product_sum(acc[i * d + j], t, pq.zero, p.sums[i], vq.zero, sum);
                        out[((index * t + i) * h + head) * d + j] = product as f32 * (pq.scale * vq.scale);
                    }
                }
            }
        }
        self.inner.input(&[b, t, h * d], &out)
    }
}
