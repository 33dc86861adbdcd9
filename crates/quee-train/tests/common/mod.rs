//! What several tests share: a small transformer and a plain executor to compare with.
#![allow(dead_code, reason = "each test file uses a part")]

use quee_backbone::architecture::{self, Architecture};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::families::t2t::T2tConfig;
use quee_backbone::params::AttentionOperand;
use quee_backbone::vit::{Pool, VitConfig};
use quee_backbone::{
    Attention, Backbone, ExecError, Executor, Linear, Norm, Param, Performer, QuantPlan, Value, Window,
};
use quee_quant::activation::quantize_row;
use quee_quant::{ActQuant, QuantWeight, SiteQuant, Width, quantize_row_dynamic, reference};
use quee_train::random_weights;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 8×8 pictures of one channel, 17 tokens.
pub fn config(pool: Pool) -> VitConfig {
    VitConfig {
        image: 8,
        channels: 1,
        patch: 2,
        dim: 32,
        depth: 3,
        heads: 4,
        hidden: 48,
        qkv_bias: true,
        distilled: false,
        pool,
    }
}

/// Classes of the small backbones.
pub const CLASSES: usize = 5;

/// Random weights as at the start of a training.
pub fn fresh(architecture: &dyn Architecture, seed: u64) -> Box<dyn Backbone> {
    load(architecture, random_weights(&architecture::tensors(architecture, CLASSES), seed))
}

pub fn load(architecture: &dyn Architecture, checkpoint: Checkpoint) -> Box<dyn Backbone> {
    architecture::load(architecture, "small", checkpoint, false).unwrap()
}

/// A transformer with weights five times the usual, so that attention is far from uniform and no part is negligible.
pub fn vit(pool: Pool, seed: u64) -> Box<dyn Backbone> {
    strong(&config(pool), seed)
}

/// A T2T-ViT for 16×16 pictures of one channel, so that windows overlap each other and the edge.
pub fn t2t_config() -> T2tConfig {
    T2tConfig { image: 16, channels: 1, token_dim: 8, dim: 16, depth: 2, heads: 2, hidden: 24, pool: Pool::ClassToken }
}

/// Any architecture with such weights.
pub fn strong(architecture: &dyn Architecture, seed: u64) -> Box<dyn Backbone> {
    let specs = architecture::tensors(architecture, CLASSES);
    let mut checkpoint = random_weights(&specs, seed);
    let tensors = specs.into_iter().map(|spec| {
        let data = checkpoint.take(&spec.name, &spec.shape).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed + data.len() as u64);
        let factor = if spec.init == architecture::Init::Normal { 5.0 } else { 1.0 };
        let data: Vec<f32> = data.iter().map(|x| x * factor + 0.1 * (rng.random::<f32>() - 0.5)).collect();
        (spec.name, spec.shape, data)
    });
    let tensors: Vec<_> = tensors.collect();
    load(architecture, Checkpoint::from_tensors("test", tensors))
}

/// Runs `work` with pools of one and three threads and checks that it gives the same each time.
pub fn same_for_all_threads<T: PartialEq + std::fmt::Debug + Send>(work: impl Fn() -> T + Sync) -> T {
    let run = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&work);
    let first = run(1);
    assert!(run(3) == first, "three threads give other bits than one");
    first
}

/// Random numbers between −1 and 1.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect()
}

/// Runs programs one scalar at a time: in 64-bit floats, or with integers as `quee_quant::reference` defines them.
pub struct Plain {
    pub plan: QuantPlan,
    pub width: Width,
}

#[derive(Clone)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Array {
    fn last(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }
}

fn array(x: &Value) -> &Array {
    x.get::<Array>().unwrap()
}

fn value(shape: &[usize], data: Vec<f64>) -> Result<Value, ExecError> {
    assert_eq!(shape.iter().product::<usize>(), data.len());
    Ok(Value::new(Array { shape: shape.to_vec(), data }))
}

fn map(x: &Value, f: impl Fn(f64) -> f64) -> Result<Value, ExecError> {
    let x = array(x);
    value(&x.shape, x.data.iter().map(|&x| f(x)).collect())
}

/// The error function by its series, and 1 beyond 5 where it differs from 1 by less than 2e-12.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

impl Plain {
    fn codes(&self, row: &[f32], site: &str) -> Result<(Vec<i8>, ActQuant, i32), ExecError> {
        let mut codes = vec![0; row.len()];
        let bits = self.width.act_bits();
        let (quant, sum) = match self.plan.site(site, bits)? {
            Some(SiteQuant::Uniform(quant)) => {
                let sum = quantize_row(row, &quant, &mut codes);
                (quant, sum)
            }
            Some(other) => panic!("{other:?}: not done here"),
            None => quantize_row_dynamic(row, bits, &mut codes),
        };
        Ok((codes, quant, sum))
    }
}

/// Index of sample b, token t, head h, feature d in queries (0), keys (1) or values (2).
fn at(a: &Attention, tokens: usize, part: usize, [b, t, h, d]: [usize; 4]) -> usize {
    (b * tokens + t) * 3 * a.heads * a.head_dim + part * a.heads * a.head_dim + h * a.head_dim + d
}

fn dot(a: &(Vec<i8>, ActQuant, i32), b: &(Vec<i8>, ActQuant, i32)) -> i32 {
    let acc: i32 = a.0.iter().zip(&b.0).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
    reference::product_sum(acc, a.0.len(), a.1.zero, a.2, b.1.zero, b.2)
}

impl Executor for Plain {
    fn name(&self) -> String {
        "plain".into()
    }
    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.width = width;
        Ok(())
    }
    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError> {
        value(shape, data.iter().map(|&x| f64::from(x)).collect())
    }
    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        Ok(array(x).data.iter().map(|&x| x as f32).collect())
    }
    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(array(x).shape.clone())
    }
    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        let x = array(x);
        let size = x.data.len() / x.shape[0];
        let mut shape = x.shape.clone();
        shape[0] = indices.len();
        value(&shape, indices.iter().flat_map(|&i| x.data[i * size..(i + 1) * size].to_vec()).collect())
    }
    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError> {
        let x = array(x);
        let &[b, c, h, w] = x.shape.as_slice() else { panic!("pictures") };
        let (down, across, k) = (window.places(h), window.places(w), window.kernel);
        let mut data = Vec::new();
        for b in 0..b {
            for (row, column) in
                (0..down).flat_map(|y| (0..across).map(move |x| (y * window.stride, x * window.stride)))
            {
                for c0 in 0..c {
                    for (dy, dx) in (0..k).flat_map(|dy| (0..k).map(move |dx| (dy, dx))) {
                        let (y, x0) =
                            ((row + dy).wrapping_sub(window.padding), (column + dx).wrapping_sub(window.padding));
                        data.push(if y < h && x0 < w { x.data[((b * c + c0) * h + y) * w + x0] } else { 0.0 });
                    }
                }
            }
        }
        value(&[b, down * across, c * k * k], data)
    }
    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        value(&[&array(x).shape[..1], sample].concat(), array(x).data.clone())
    }
    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        let x = array(x);
        let (b, m, n) = (x.shape[0], x.shape[1], x.shape[2]);
        value(&[b, n, m], (0..b * m * n).map(|i| x.data[i / (m * n) * m * n + i % m * n + i / m % n]).collect())
    }
    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        let x = array(x);
        let data = x.data.chunks_exact(x.last()).flat_map(|row| row[start..start + length].to_vec()).collect();
        value(&[x.shape[0], x.shape[1], length], data)
    }
    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let x = array(x);
        let (n, k) = (linear.outputs, linear.inputs);
        let mut data = Vec::new();
        let weight = (!self.width.is_float())
            .then(|| QuantWeight::quantize(&linear.weight.data, n, k, self.width.weight_bits(), self.plan.weights));
        for row in x.data.chunks_exact(k) {
            match &weight {
                None => data.extend((0..n).map(|j| {
                    let products = row.iter().zip(&linear.weight.data[j * k..]).map(|(x, &w)| x * f64::from(w));
                    products.sum::<f64>() + linear.bias.as_ref().map_or(0.0, |b| f64::from(b.data[j]))
                })),
                Some(weight) => {
                    let row: Vec<f32> = row.iter().map(|&x| x as f32).collect();
                    let (codes, quant, _) = self.codes(&row, &linear.site)?;
                    let bias = linear.bias.as_ref().map(|b| &*b.data);
                    data.extend(reference::linear(1, &codes, &[quant], weight, bias).into_iter().map(f64::from));
                }
            }
        }
        let mut shape = x.shape.clone();
        *shape.last_mut().unwrap() = n;
        value(&shape, data)
    }
    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        let x = array(x);
        let rows = x.data.chunks_exact(x.last()).flat_map(|row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let inverse = 1.0 / (variance + f64::from(norm.eps)).sqrt();
            let parts = row.iter().zip(norm.weight.data.iter().zip(&*norm.bias.data));
            parts.map(|(x, (&w, &b))| (x - mean) * inverse * f64::from(w) + f64::from(b)).collect::<Vec<_>>()
        });
        value(&x.shape, rows.collect())
    }
    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        map(x, |x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)))
    }
    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        value(&array(a).shape, array(a).data.iter().zip(&array(b).data).map(|(a, b)| a + b).collect())
    }
    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        let x = array(x);
        let (b, d) = (x.shape[0], x.shape[2]);
        let first = || tokens.data.iter().map(|&x| f64::from(x));
        let data = x.data.chunks_exact(x.data.len() / b).flat_map(|s| first().chain(s.iter().copied())).collect();
        value(&[b, x.shape[1] + tokens.data.len() / d, d], data)
    }
    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        let x = array(x);
        value(&x.shape, x.data.iter().zip(position.data.iter().cycle()).map(|(x, &p)| x + f64::from(p)).collect())
    }
    fn attention_scores(&mut self, qkv: &Value, a: &Attention) -> Result<Value, ExecError> {
        let qkv = array(qkv);
        let (b, t) = (qkv.shape[0], qkv.shape[1]);
        let mut data = Vec::new();
        for (b, h) in (0..b).flat_map(|b| (0..a.heads).map(move |h| (b, h))) {
            let row =
                |part, t0| -> Vec<f64> { (0..a.head_dim).map(|d| qkv.data[at(a, t, part, [b, t0, h, d])]).collect() };
            for (i, j) in (0..t).flat_map(|i| (0..t).map(move |j| (i, j))) {
                let (q, k) = (row(0, i), row(1, j));
                data.push(if self.width.is_float() {
                    q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * f64::from(a.scale)
                } else {
                    let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
                    let q = self.codes(&single(&q), &a.operand_site(AttentionOperand::Query))?;
                    let k = self.codes(&single(&k), &a.operand_site(AttentionOperand::Key))?;
                    f64::from(dot(&q, &k) as f32 * (q.1.scale * k.1.scale * a.scale))
                });
            }
        }
        value(&[b, a.heads, t, t], data)
    }
    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        let x = array(x);
        let rows = x.data.chunks_exact(x.last()).flat_map(|row| {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
            row.iter().map(|x| (x - top).exp() / sum).collect::<Vec<_>>()
        });
        value(&x.shape, rows.collect())
    }
    fn attention_values(&mut self, p: &Value, qkv: &Value, a: &Attention) -> Result<Value, ExecError> {
        let (p, qkv) = (array(p), array(qkv));
        let (b, t) = (qkv.shape[0], qkv.shape[1]);
        let mut data = vec![0.0; b * t * a.heads * a.head_dim];
        for (b, h) in (0..b).flat_map(|b| (0..a.heads).map(move |h| (b, h))) {
            let v = |j, d| qkv.data[at(a, t, 2, [b, j, h, d])];
            let all: Vec<f32> = (0..t).flat_map(|j| (0..a.head_dim).map(move |d| v(j, d) as f32)).collect();
            let head = (!self.width.is_float()).then(|| self.codes(&all, &a.operand_site(AttentionOperand::Value)));
            let head = head.transpose()?;
            for i in 0..t {
                let row = &p.data[((b * a.heads + h) * t + i) * t..][..t];
                let single: Vec<f32> = row.iter().map(|&p| p as f32).collect();
                for d in 0..a.head_dim {
                    data[((b * t + i) * a.heads + h) * a.head_dim + d] = match &head {
                        None => (0..t).map(|j| row[j] * v(j, d)).sum(),
                        Some((codes, quant, _)) => {
                            let codes: Vec<i8> = (0..t).map(|j| codes[j * a.head_dim + d]).collect();
                            let sum = codes.iter().map(|&c| i32::from(c)).sum();
                            let p = self.codes(&single, &a.operand_site(AttentionOperand::Probabilities))?;
                            f64::from(dot(&p, &(codes, *quant, sum)) as f32 * (p.1.scale * quant.scale))
                        }
                    };
                }
            }
        }
        value(&[b, t, a.heads * a.head_dim], data)
    }
    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        let kqv = array(kqv);
        let (b, t) = (kqv.shape[0], kqv.shape[1]);
        let (e, m, w) = (performer.projection.inputs, performer.projection.outputs, &performer.projection.weight.data);
        let mut data = Vec::new();
        for sample in kqv.data.chunks_exact(t * 3 * e) {
            let part = |token: usize, part: usize| &sample[(token * 3 + part) * e..][..e];
            let feature = |x: &[f64], j: usize| {
                let product: f64 = x.iter().zip(&w[j * e..]).map(|(x, &w)| x * f64::from(w)).sum();
                (product - x.iter().map(|x| x * x).sum::<f64>() / 2.0).exp() / (m as f64).sqrt()
            };
            for i in 0..t {
                let weight = |o| (0..m).map(|j| feature(part(i, 1), j) * feature(part(o, 0), j)).sum::<f64>();
                let weights: Vec<f64> = (0..t).map(weight).collect();
                let total: f64 = weights.iter().sum::<f64>() + 1e-8;
                data.extend((0..e).map(|n| (0..t).map(|o| weights[o] * part(o, 2)[n]).sum::<f64>() / total));
            }
        }
        value(&[b, t, e], data)
    }
    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        let x = array(x);
        let (b, d) = (x.shape[0], x.shape[2]);
        value(&[b, count * d], x.data.chunks_exact(x.shape[1] * d).flat_map(|s| s[..count * d].to_vec()).collect())
    }
    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        let x = array(x);
        let (b, t, d) = (x.shape[0], x.shape[1], x.shape[2]);
        let mean = |s: &[f64], j: usize| (skip..t).map(|i| s[i * d + j]).sum::<f64>() / (t - skip) as f64;
        value(&[b, d], x.data.chunks_exact(t * d).flat_map(|s| (0..d).map(move |j| mean(s, j))).collect())
    }
}
