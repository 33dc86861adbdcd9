//! The executor on burn tensors: float, gradients, and integers simulated in floats.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation, module};
use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError, Executor, Linear, Norm, Param, Performer, QuantPlan, Value, Window};
use quee_quant::{WeightQuantizer, Width};

use crate::fake_quant::{
    ACT_BLOCK, QuantRows, WEIGHT_BLOCK, expect_finite, product, quantize_planes, quantize_rows, transposed,
    weight_codes,
};
use crate::params::ParamStore;
use crate::tensor::{Held, four, held, mismatch, reshaped, same_rank, three, two};

/// The processor, by burn's portable backend.
pub fn flex_device() -> Device {
    Device::flex()
}

/// Runs a backbone's program on burn tensors of one device.
///
/// At integer widths, what enters a quantizable operation is brought to codes that floats hold, with the quantizers of
/// the plan. Such an operation gives what the integer executors give, bit for bit where no sum of products reaches 2^24
/// (see [`fake_quant`](crate::fake_quant)); the operations between them are burn's own, so whole programs agree to
/// rounding only. A sample's result does not depend on the batch it is in.
///
/// NaN and infinity are reported where values are quantized, and pass through float operations.
pub struct BurnExecutor {
    device: Device,
    plan: Arc<QuantPlan>,
    width: Width,
    trained: Option<ParamStore>,
    flat: HashMap<usize, Stored<Tensor<1>>>,
    weights: HashMap<(usize, u8), Stored<Weight>>,
}

/// What was derived from a parameter, and the values it was derived from: while these are kept, no other parameter has
/// their address, which is the key.
struct Stored<T> {
    derived: T,
    _source: Arc<[f32]>,
}

#[derive(Clone)]
struct Weight {
    /// `[K, N]`.
    matrix: Tensor<2>,
    /// `[1, N]` at integer widths.
    scales: Option<Tensor<2>>,
    /// `[1, N]`.
    bias: Option<Tensor<2>>,
}

impl BurnExecutor {
    /// An executor on `device` that quantizes as `plan` says.
    pub fn new(device: Device, plan: Arc<QuantPlan>) -> Self {
        let (flat, weights) = (HashMap::new(), HashMap::new());
        Self { device, plan, width: Width::FLOAT, trained: None, flat, weights }
    }

    /// An executor for float programs.
    pub fn float(device: Device) -> Self {
        Self::new(device, Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)))
    }

    /// An executor whose parameters are those of `params`, looked up by [`Param::id`], on the device they are on. It runs
    /// in float only.
    pub fn with_params(device: Device, params: ParamStore) -> Self {
        Self { trained: Some(params), ..Self::float(device) }
    }

    /// The burn tensor of a value of two axes, for losses and gradients.
    ///
    /// # Errors
    /// When the value is foreign or has other axes.
    pub fn matrix(x: &Value) -> Result<Tensor<2>, ExecError> {
        two("matrix", x)
    }

    /// A parameter with all its values in one row.
    fn param(&mut self, param: &Param) -> Result<Tensor<1>, ExecError> {
        if let Some(trained) = &self.trained {
            return trained
                .get(param.id)
                .ok_or_else(|| mismatch(&param.name, &format!("an id below {}", trained.len()), &[param.id]));
        }
        let device = &self.device;
        let stored = self.flat.entry(address(&param.data)).or_insert_with(|| Stored {
            derived: Tensor::from_data(TensorData::new(param.data.to_vec(), [param.data.len()]), device),
            _source: param.data.clone(),
        });
        Ok(stored.derived.clone())
    }

    /// The weight of a linear layer at `width`.
    fn weight(&mut self, linear: &Linear, width: Width) -> Result<Weight, ExecError> {
        let (n, k) = (linear.outputs, linear.inputs);
        if linear.weight.data.len() != n * k {
            return Err(mismatch(&linear.weight.name, &format!("{n} x {k} values"), &[linear.weight.data.len()]));
        }
        if width.is_float() {
            let bias = linear.bias.as_ref().map(|bias| Ok::<_, ExecError>(self.param(bias)?.reshape([1, n])));
            let bias = bias.transpose()?;
            if self.trained.is_some() {
                let matrix = self.param(&linear.weight)?.reshape([n, k]).transpose();
                return Ok(Weight { matrix, scales: None, bias });
            }
            let device = &self.device;
            let data = &linear.weight.data;
            let stored = self.weights.entry((address(data), width.weight_bits())).or_insert_with(|| Stored {
                derived: Weight { matrix: transposed(data, n, k, device), scales: None, bias },
                _source: data.clone(),
            });
            return Ok(stored.derived.clone());
        }
        let key = (address(&linear.weight.data), width.weight_bits());
        if let Some(stored) = self.weights.get(&key) {
            return Ok(stored.derived.clone());
        }
        let layer = self.plan.weight(linear, width.weight_bits())?;
        let (matrix, scales) = weight_codes(&layer.weight, &self.device);
        let bias = layer.bias.as_ref().map(|bias| {
            let data = TensorData::new(bias.to_vec(), [1, n]);
            Tensor::from_data(data, &self.device)
        });
        let derived = Weight { matrix, scales: Some(scales), bias };
        self.weights.insert(key, Stored { derived: derived.clone(), _source: linear.weight.data.clone() });
        Ok(derived)
    }

    /// Brings rows to codes, with the static quantizer of the site or each row's own range: one set of codes for each plane.
    fn quantize(&self, rows: Tensor<2>, site: &str) -> Result<Vec<QuantRows>, ExecError> {
        let bits = self.plan.width_at(site, self.width).act_bits();
        let quant = self.plan.site(site, bits)?;
        expect_finite(&rows, || site.to_owned())?;
        match quant {
            Some(quant) => quantize_planes(rows, &quant),
            None => Ok(vec![quantize_rows(rows, bits)]),
        }
    }

    /// A linear layer at the width of its site.
    fn run_linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let x = held(x)?.clone();
        let shape = x.shape();
        if shape[shape.len() - 1] != linear.inputs {
            return Err(mismatch(&linear.site, &format!("[.., {}]", linear.inputs), &shape));
        }
        let weight = self.weight(linear, self.plan.width_at(&linear.site, self.width))?;
        let with_bias = |out: Tensor<2>| match &weight.bias {
            Some(bias) => out + bias.clone(),
            None => out,
        };
        let out = match &weight.scales {
            None => with_bias(product(x.clone().rows(), weight.matrix, WEIGHT_BLOCK)),
            Some(scales) => {
                let planes = self.quantize(x.clone().rows(), &linear.site)?;
                let plane = |QuantRows { codes, scale }: QuantRows| {
                    product(codes, weight.matrix.clone(), WEIGHT_BLOCK) * (scale * scales.clone())
                };
                sum_planes(planes.into_iter().map(plane), with_bias)
            }
        };
        Ok(Value::new(x.shaped_like(out)))
    }

    /// One operand of attention `[B, H, T, d]` as codes, one range per token or, for values, per head.
    fn quantize_operand(
        &self,
        x: Tensor<4>,
        attention: &Attention,
        operand: AttentionOperand,
    ) -> Result<Vec<(Tensor<4>, Tensor<4>)>, ExecError> {
        let [b, h, t, d] = x.dims();
        // A sum over tokens can only be scaled at its end if all tokens of the head share one scale.
        let tokens = if operand == AttentionOperand::Value { t } else { 1 };
        let rows = x.reshape([b * h * t / tokens, tokens * d]);
        let planes = self.quantize(rows, &attention.operand_site(operand))?;
        let shaped =
            |QuantRows { codes, scale }: QuantRows| (codes.reshape([b, h, t, d]), scale.reshape([b, h, t / tokens, 1]));
        Ok(planes.into_iter().map(shaped).collect())
    }

    /// The same of an operand that takes uniform codes only.
    fn quantize_uniform(
        &self,
        x: Tensor<4>,
        attention: &Attention,
        operand: AttentionOperand,
    ) -> Result<(Tensor<4>, Tensor<4>), ExecError> {
        let mut planes = self.quantize_operand(x, attention, operand)?;
        match planes.len() {
            1 => Ok(planes.remove(0)),
            _ => Err(ExecError::Device(format!("{}: takes uniform codes only", attention.operand_site(operand)))),
        }
    }
}

/// The sum of what the planes give, in their order; `first` is done to the first one.
fn sum_planes<const D: usize>(
    planes: impl Iterator<Item = Tensor<D>>,
    first: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let mut planes = planes;
    let start = first(planes.next().expect("one plane at least"));
    planes.fold(start, |sum, plane| sum + plane)
}

fn address(data: &Arc<[f32]>) -> usize {
    data.as_ptr() as usize
}

/// For each place and pixel of a window, the number of the pixel that lies there, or `h · w` outside of the picture.
fn window_pixels(window: &Window, h: usize, w: usize) -> Vec<i64> {
    let Window { kernel, stride, padding } = *window;
    let mut numbers = Vec::with_capacity(window.places(h) * window.places(w) * kernel * kernel);
    for (row, column) in (0..window.places(h)).flat_map(|row| (0..window.places(w)).map(move |column| (row, column))) {
        for (dy, dx) in (0..kernel).flat_map(|dy| (0..kernel).map(move |dx| (dy, dx))) {
            let inside = |place: usize, offset: usize, side: usize| {
                (place * stride + offset).checked_sub(padding).filter(|&at| at < side)
            };
            let number = inside(row, dy, h).zip(inside(column, dx, w)).map_or(h * w, |(y, x)| y * w + x);
            numbers.push(number as i64);
        }
    }
    numbers
}

/// Queries (0), keys (1) or values (2) of `[B, T, 3·H·d]`, as `[B, H, T, d]`.
fn third(qkv: &Value, attention: &Attention, index: usize) -> Result<Tensor<4>, ExecError> {
    let qkv = three(&attention.site, qkv)?;
    let Attention { heads, head_dim, .. } = *attention;
    let [b, t, width] = qkv.dims();
    if width != 3 * heads * head_dim {
        return Err(mismatch(&attention.site, &format!("[B, T, {}]", 3 * heads * head_dim), &[b, t, width]));
    }
    let part = qkv.narrow(2, index * heads * head_dim, heads * head_dim);
    Ok(part.reshape([b, t, heads, head_dim]).swap_dims(1, 2))
}

impl Executor for BurnExecutor {
    fn name(&self) -> String {
        "burn".into()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        if self.trained.is_some() && !width.is_float() {
            return Err(ExecError::Device(format!("parameters in training run in float, not at {width}")));
        }
        self.width = width;
        Ok(())
    }

    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError> {
        Ok(Value::new(Held::from_slice(shape, data, &self.device)?))
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        held(x)?.clone().read()
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(held(x)?.shape())
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        let x = held(x)?.clone();
        let samples = x.shape()[0];
        if let Some(&wrong) = indices.iter().find(|&&index| index >= samples) {
            return Err(mismatch("select_samples", &format!("indices below {samples}"), &[wrong]));
        }
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let count = indices.len();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &self.device);
        Ok(Value::new(same_rank!(x, x => x.select(0, indices))))
    }

    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError> {
        let x = four("unfold", "[B, C, H, W]", x)?;
        let [b, c, h, w] = x.dims();
        let (down, across, k) = (window.places(h), window.places(w), window.kernel);
        if down * across == 0 {
            return Err(mismatch("unfold", &format!("room for {window:?}"), &[b, c, h, w]));
        }
        let cut = if *window == Window::patch(k) && h % k == 0 && w % k == 0 {
            x.reshape([b, c, down, k, across, k]).permute([0, 2, 4, 1, 3, 5])
        } else {
            // Pixels are picked by number; the last one is the zero that stands for everything outside.
            let pixels = x.reshape([b, c, h * w]);
            let zero = Tensor::zeros([b, c, 1], &self.device);
            let places = window_pixels(window, h, w);
            let places = Tensor::<1, Int>::from_data(TensorData::new(places, [k * k * down * across]), &self.device);
            let picked = Tensor::cat(vec![pixels, zero], 2).select(2, places);
            picked.reshape([b, c, down, across, k, k]).permute([0, 2, 3, 1, 4, 5])
        };
        Ok(Value::new(Held::Three(cut.reshape([b, down * across, c * k * k]))))
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        let x = held(x)?.clone();
        let shape = x.shape();
        if shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
            return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), &shape));
        }
        let b = shape[0];
        Ok(Value::new(match *sample {
            [d] => Held::Two(reshaped!(x, [b, d])),
            [t, d] => Held::Three(reshaped!(x, [b, t, d])),
            [c, h, w] => Held::Four(reshaped!(x, [b, c, h, w])),
            _ => return Err(mismatch("reshape", "one to three axes after the samples", sample)),
        }))
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        Ok(Value::new(Held::Three(three("transpose", x)?.swap_dims(1, 2))))
    }

    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        let x = three("slice_features", x)?;
        if start.checked_add(length).is_none_or(|end| end > x.dims()[2]) {
            return Err(mismatch("slice_features", &format!("{length} features from {start} on"), &x.dims()));
        }
        Ok(Value::new(Held::Three(x.narrow(2, start, length))))
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        if !self.width.is_float() {
            self.plan.without_norm(&linear.site)?;
        }
        self.run_linear(x, linear)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let changed = if self.width.is_float() { None } else { self.plan.norm(&linear.site, norm) };
        let normed = self.layer_norm(x, changed.as_ref().unwrap_or(norm))?;
        self.run_linear(&normed, linear)
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        let x = held(x)?.clone();
        let shape = x.shape();
        if shape[shape.len() - 1] != norm.weight.data.len() {
            return Err(mismatch(&norm.site, &format!("[.., {}]", norm.weight.data.len()), &shape));
        }
        let (gain, offset) = (self.param(&norm.weight)?, self.param(&norm.bias)?);
        let eps = f64::from(norm.eps);
        Ok(Value::new(same_rank!(x, x => module::layer_norm(x, gain, Some(offset), eps))))
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        Ok(Value::new(same_rank!(held(x)?.clone(), x => activation::gelu(x))))
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        let (a, b) = (held(a)?.clone(), held(b)?.clone());
        if a.shape() != b.shape() {
            return Err(mismatch("add", &format!("{:?}", a.shape()), &b.shape()));
        }
        Ok(Value::new(match (a, b) {
            (Held::Two(a), Held::Two(b)) => Held::Two(a + b),
            (Held::Three(a), Held::Three(b)) => Held::Three(a + b),
            (Held::Four(a), Held::Four(b)) => Held::Four(a + b),
            (_, b) => return Err(mismatch("add", "operands of one shape", &b.shape())),
        }))
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        let x = three(&tokens.name, x)?;
        let [b, _, d] = x.dims();
        let &[1, p, width] = tokens.shape.as_slice() else {
            return Err(mismatch(&tokens.name, "[1, P, D]", &tokens.shape));
        };
        if width != d {
            return Err(mismatch(&tokens.name, &format!("[1, P, {d}]"), &tokens.shape));
        }
        let tokens = self.param(tokens)?.reshape([1, p, d]).expand([b, p, d]);
        Ok(Value::new(Held::Three(Tensor::cat(vec![tokens, x], 1))))
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        let x = three(&position.name, x)?;
        let [_, t, d] = x.dims();
        if position.shape != [1, t, d] {
            return Err(mismatch(&position.name, &format!("[1, {t}, {d}]"), &position.shape));
        }
        Ok(Value::new(Held::Three(x + self.param(position)?.reshape([1, t, d]))))
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let (q, k) = (third(qkv, attention, 0)?, third(qkv, attention, 1)?);
        let scores = if self.width.is_float() {
            // Scaling queries instead of scores touches d instead of T values per query.
            q.mul_scalar(attention.scale).matmul(k.swap_dims(2, 3))
        } else {
            let (q, q_scale) = self.quantize_uniform(q, attention, AttentionOperand::Query)?;
            let (k, k_scale) = self.quantize_uniform(k, attention, AttentionOperand::Key)?;
            let scale = (q_scale * k_scale.swap_dims(2, 3)).mul_scalar(attention.scale);
            product(q, k.swap_dims(2, 3), ACT_BLOCK) * scale
        };
        Ok(Value::new(Held::Four(scores)))
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        let x = held(x)?.clone();
        let last = x.shape().len() - 1;
        Ok(Value::new(same_rank!(x, x => activation::softmax(x, last))))
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        let p = four(&attention.site, "[B, H, T, T]", probabilities)?;
        let v = third(qkv, attention, 2)?;
        let [b, h, t, d] = v.dims();
        if p.dims() != [b, h, t, t] {
            return Err(mismatch(&attention.site, &format!("[{b}, {h}, {t}, {t}]"), &p.dims()));
        }
        let mixed = if self.width.is_float() {
            p.matmul(v)
        } else {
            let planes = self.quantize_operand(p, attention, AttentionOperand::Probabilities)?;
            let (v, v_scale) = self.quantize_uniform(v, attention, AttentionOperand::Value)?;
            let plane =
                |(p, p_scale): (Tensor<4>, Tensor<4>)| product(p, v.clone(), ACT_BLOCK) * (p_scale * v_scale.clone());
            sum_planes(planes.into_iter().map(plane), |first| first)
        };
        Ok(Value::new(Held::Three(mixed.swap_dims(1, 2).reshape([b, t, h * d]))))
    }

    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        let kqv = three(&performer.site, kqv)?;
        let (e, m) = (performer.projection.inputs, performer.projection.outputs);
        let [b, t, width] = kqv.dims();
        if width != 3 * e {
            return Err(mismatch(&performer.site, &format!("[B, T, {}]", 3 * e), &[b, t, width]));
        }
        let directions = self.weight(&performer.projection, Width::FLOAT)?.matrix;
        let features = |part: usize| {
            let x = kqv.clone().narrow(2, part * e, e).reshape([b * t, e]);
            let half = x.clone().square().sum_dim(1).mul_scalar(0.5);
            let products = product(x, directions.clone(), WEIGHT_BLOCK) - half;
            products.exp().div_scalar((m as f32).sqrt()).reshape([b, t, m])
        };
        let (keys, queries, values) = (features(0), features(1), kqv.clone().narrow(2, 2 * e, e));
        let total = (queries.clone() * keys.clone().sum_dim(1)).sum_dim(2).add_scalar(Performer::EPS);
        let mixed = queries.matmul(keys.swap_dims(1, 2).matmul(values));
        Ok(Value::new(Held::Three(mixed / total)))
    }

    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        let x = three("first_tokens", x)?;
        let [b, t, d] = x.dims();
        if t < count {
            return Err(mismatch("first_tokens", &format!("at least {count} tokens"), &[b, t, d]));
        }
        Ok(Value::new(Held::Two(x.narrow(1, 0, count).reshape([b, count * d]))))
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        let x = three("mean_tokens", x)?;
        let [b, t, d] = x.dims();
        if skip >= t {
            return Err(mismatch("mean_tokens", &format!("more than {skip} tokens"), &[b, t, d]));
        }
        Ok(Value::new(Held::Two(x.narrow(1, skip, t - skip).mean_dim(1).reshape([b, d]))))
    }
}
