//! An executor whose tensors are shapes: it counts what a program would compute (method: bit operations,
//! `BOPs = MACs · weight bits · activation bits`, attention products `MACs · activation bits²`).
//!
//! [`cost_dynn`](crate::cost_dynn) counts otherwise, from the same list of operations.

use quee_quant::Width;

use crate::backbone::Backbone;
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Attention, AttentionOperand, Linear, Norm, Param, Performer, Window};
use crate::quant_plan::Wider;

/// Bits of a 32-bit float.
const FLOAT_BITS: u64 = 32;

/// What kind of arithmetic an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Activations times weights.
    Linear,
    /// Activations times activations.
    Product,
    /// Products that run in 32-bit floats at every width.
    Float,
    /// Layer normalisation.
    Norm,
    /// GELU.
    Gelu,
    /// Other arithmetic that is no product of matrices: softmax, additions, means.
    Elementwise,
    /// Values change their place only.
    Move,
}

impl OpKind {
    /// Whether its operands become integers at widths below float.
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Linear | Self::Product)
    }
}

/// One operation of a program, per picture.
#[derive(Clone, Debug, PartialEq)]
pub struct OpCost {
    /// The operation of [`Executor`], as its method is called.
    pub op: &'static str,
    /// Name of the place in the program, or of the parameter; empty where it has neither.
    pub site: String,
    /// Kind of arithmetic.
    pub kind: OpKind,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Weights that the operation multiplies with.
    pub weights: u64,
    /// Other learned or fixed values that it reads, which stay in floats: biases, gains, tokens, positions.
    pub others: u64,
    /// Shape of what goes in, without the axis of samples.
    pub input: Vec<usize>,
    /// Shape of what comes out, without the axis of samples.
    pub output: Vec<usize>,
}

impl OpCost {
    /// Values that come out.
    pub fn outputs(&self) -> u64 {
        self.output.iter().product::<usize>() as u64
    }
}

/// Cost of a part of a program, per picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartCost {
    /// Its operations, in order.
    pub ops: Vec<OpCost>,
    /// Places that run at other widths.
    pub wider: Wider,
}

impl PartCost {
    /// Multiply-accumulates, attention products included.
    pub fn macs(&self) -> u64 {
        self.ops.iter().map(|op| op.macs).sum()
    }

    /// Bit operations at `width`.
    pub fn bops(&self, width: Width) -> u64 {
        self.ops.iter().map(|op| op.macs * self.bits_per_mac(op, width)).sum()
    }

    /// Bits of one factor times bits of the other.
    fn bits_per_mac(&self, op: &OpCost, width: Width) -> u64 {
        let act = |operand: AttentionOperand| u64::from(self.wider.at(&operand.site(&op.site), width).act_bits());
        match op.kind {
            OpKind::Linear => {
                let width = self.wider.at(&op.site, width);
                u64::from(width.weight_bits()) * u64::from(width.act_bits())
            }
            OpKind::Product if op.op == "attention_scores" => act(AttentionOperand::Query) * act(AttentionOperand::Key),
            OpKind::Product => act(AttentionOperand::Probabilities) * act(AttentionOperand::Value),
            OpKind::Float => FLOAT_BITS * FLOAT_BITS,
            OpKind::Norm | OpKind::Gelu | OpKind::Elementwise | OpKind::Move => 0,
        }
    }

    /// Values of all parameters.
    pub fn parameters(&self) -> u64 {
        self.ops.iter().map(|op| op.weights + op.others).sum()
    }

    /// Bytes of the parameters with weights of `bits` bits: weights that are never quantized and all other parameters are in
    /// 32 bits, scales are not counted.
    pub fn parameter_bytes(&self, bits: u8) -> u64 {
        let of_weights = |kind| if kind == OpKind::Linear { u64::from(bits) } else { FLOAT_BITS };
        self.ops.iter().map(|op| op.weights * of_weights(op.kind) + op.others * FLOAT_BITS).sum::<u64>().div_ceil(8)
    }

    /// Bits of the weights at `width`, averaged over multiply-accumulates; products of activations count like weights.
    pub fn mean_weight_bits(&self, width: Width) -> f64 {
        let float: u64 = self.ops.iter().filter(|op| op.kind == OpKind::Float).map(|op| op.macs).sum();
        let share = float as f64 / self.macs().max(1) as f64;
        share * FLOAT_BITS as f64 + (1.0 - share) * f64::from(width.weight_bits())
    }
}

/// Cost of a backbone, part by part, per picture.
#[derive(Clone, Debug, PartialEq)]
pub struct BackboneCost {
    /// From the picture to the tokens.
    pub stem: PartCost,
    /// Each block.
    pub blocks: Vec<PartCost>,
    /// Final normalisation, pooling and classifier.
    pub head: PartCost,
}

impl BackboneCost {
    /// Counts `backbone` by running it on shapes.
    ///
    /// # Errors
    /// When the program's shapes do not fit together.
    pub fn count(backbone: &dyn Backbone) -> Result<Self, ExecError> {
        let mut counter = CostExecutor::default();
        let [c, h, w] = backbone.image_shape();
        let images = counter.input(&[1, c, h, w], &[])?;
        let mut tokens = backbone.stem(&mut counter, &images)?;
        let stem = counter.take();
        let mut blocks = Vec::with_capacity(backbone.depth());
        for index in 0..backbone.depth() {
            tokens = backbone.block(index, &mut counter, &tokens)?;
            blocks.push(counter.take());
        }
        let features = backbone.features(&mut counter, &tokens)?;
        counter.linear(&features, backbone.head())?;
        Ok(Self { stem, blocks, head: counter.take() })
    }

    /// Charges single places at other widths from now on.
    pub fn set_wider(&mut self, wider: &Wider) {
        for part in std::iter::once(&mut self.stem).chain(&mut self.blocks).chain([&mut self.head]) {
            part.wider = wider.clone();
        }
    }

    /// Multiply-accumulates of the whole backbone.
    pub fn macs(&self) -> u64 {
        self.parts().map(PartCost::macs).sum()
    }

    /// Outputs of the classifier.
    pub fn classes(&self) -> usize {
        let classifier = self.head.ops.iter().rfind(|op| op.kind == OpKind::Linear);
        classifier.and_then(|op| op.output.last()).copied().unwrap_or(0)
    }

    /// Values of all parameters.
    pub fn parameters(&self) -> u64 {
        self.parts().map(PartCost::parameters).sum()
    }

    /// Stem, blocks and head, in this order.
    pub fn parts(&self) -> impl Iterator<Item = &PartCost> {
        std::iter::once(&self.stem).chain(&self.blocks).chain([&self.head])
    }

    /// Bit operations of the whole backbone in float: the reference cost 1.0.
    pub fn float_bops(&self) -> u64 {
        self.macs() * FLOAT_BITS * FLOAT_BITS
    }
}

/// Counts the operations that run through it.
#[derive(Default)]
pub struct CostExecutor {
    part: PartCost,
}

type Shape = Vec<usize>;

impl CostExecutor {
    /// What was counted since the last call.
    pub fn take(&mut self) -> PartCost {
        std::mem::take(&mut self.part)
    }

    fn record(&mut self, op: &'static str, site: &str, kind: OpKind, counts: Counts, shapes: [&[usize]; 2]) -> Value {
        let Counts { macs, weights, others } = counts;
        let [input, output] = shapes.map(|shape| shape.get(1..).unwrap_or_default().to_vec());
        let [macs, weights, others] = [macs, weights, others].map(|count| count as u64);
        self.part.ops.push(OpCost { op, site: site.to_owned(), kind, macs, weights, others, input, output });
        Value::new(shapes[1].to_vec())
    }

    /// Records an operation without weights and products that keeps the shape.
    fn same_shape(
        &mut self,
        op: &'static str,
        site: &str,
        kind: OpKind,
        x: &Value,
        others: usize,
    ) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        Ok(self.record(op, site, kind, Counts { others, ..Counts::default() }, [shape, shape]))
    }

    /// Records an operation that only changes places.
    fn moved(&mut self, op: &'static str, x: &Value, to: &[usize]) -> Result<Value, ExecError> {
        Ok(self.record(op, "", OpKind::Move, Counts::default(), [x.get::<Shape>()?, to]))
    }
}

/// Counts of one operation.
#[derive(Default)]
struct Counts {
    macs: usize,
    weights: usize,
    others: usize,
}

fn values(param: &Param) -> usize {
    param.shape.iter().product()
}

fn mismatch(op: &str, expected: &str, got: &[usize]) -> ExecError {
    ExecError::Shape { op: op.to_owned(), expected: expected.to_owned(), got: got.to_vec() }
}

impl Executor for CostExecutor {
    fn name(&self) -> String {
        "cost".into()
    }

    fn set_width(&mut self, _: Width) -> Result<(), ExecError> {
        Ok(())
    }

    fn input(&mut self, shape: &[usize], _: &[f32]) -> Result<Value, ExecError> {
        Ok(Value::new(shape.to_vec()))
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        Ok(vec![0.0; x.get::<Shape>()?.iter().product()])
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(x.get::<Shape>()?.clone())
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        let mut shape = x.get::<Shape>()?.clone();
        shape[0] = indices.len();
        Ok(Value::new(shape))
    }

    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, c, h, w] if window.places(h) * window.places(w) > 0 => {
                let to = [b, window.places(h) * window.places(w), c * window.kernel * window.kernel];
                self.moved("unfold", x, &to)
            }
            other => Err(mismatch("unfold", &format!("[B, C, H, W] with room for {window:?}"), other)),
        }
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        if shape.is_empty() || shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
            return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), shape));
        }
        let to = [&shape[..1], sample].concat();
        self.moved("reshape", x, &to)
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, m, n] => self.moved("transpose", x, &[b, n, m]),
            other => Err(mismatch("transpose", "[B, M, N]", other)),
        }
    }

    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, t, d] if start + length <= d => self.moved("slice_features", x, &[b, t, length]),
            other => Err(mismatch("slice_features", &format!("[B, T, {} or more]", start + length), other)),
        }
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        let Some((&inputs, rows)) = shape.split_last().filter(|(inputs, _)| **inputs == linear.inputs) else {
            return Err(mismatch(&linear.site, &format!("[.., {}]", linear.inputs), shape));
        };
        let weights = inputs * linear.outputs;
        let others = linear.bias.as_ref().map_or(0, values);
        let counts = Counts { macs: rows.iter().product::<usize>() * weights, weights, others };
        let to = [rows, &[linear.outputs]].concat();
        Ok(self.record("linear", &linear.site, OpKind::Linear, counts, [shape, &to]))
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        self.same_shape("layer_norm", &norm.site, OpKind::Norm, x, values(&norm.weight) + values(&norm.bias))
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.same_shape("gelu", "", OpKind::Gelu, x, 0)
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        let (first, second) = (a.get::<Shape>()?, b.get::<Shape>()?);
        if first != second {
            return Err(mismatch("add", &format!("{first:?}"), second));
        }
        self.same_shape("add", "", OpKind::Elementwise, a, 0)
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        match (shape.as_slice(), tokens.shape.as_slice()) {
            (&[b, t, d], &[1, p, width]) if d == width => {
                let counts = Counts { others: p * d, ..Counts::default() };
                Ok(self.record("prepend", &tokens.name, OpKind::Move, counts, [shape, &[b, p + t, d]]))
            }
            (other, _) => Err(mismatch(&tokens.name, "[B, T, D]", other)),
        }
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        if shape.len() != 3 || shape[1..] != position.shape[1..] {
            return Err(mismatch(&position.name, &format!("[B, {:?}]", &position.shape[1..]), shape));
        }
        self.same_shape("add_position", &position.name, OpKind::Elementwise, x, values(position))
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let Attention { heads, head_dim, .. } = *attention;
        let shape = qkv.get::<Shape>()?;
        match shape.as_slice() {
            &[b, t, width] if width == 3 * heads * head_dim => {
                let counts = Counts { macs: b * heads * t * t * head_dim, ..Counts::default() };
                let (site, to) = (&attention.site, [b, heads, t, t]);
                Ok(self.record("attention_scores", site, OpKind::Product, counts, [shape, &to]))
            }
            other => Err(mismatch(&attention.site, &format!("[B, T, {}]", 3 * heads * head_dim), other)),
        }
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.same_shape("softmax", "", OpKind::Elementwise, x, 0)
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        _: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        let Attention { heads, head_dim, .. } = *attention;
        let shape = probabilities.get::<Shape>()?;
        match shape.as_slice() {
            &[b, h, t, keys] if h == heads => {
                let counts = Counts { macs: b * heads * t * keys * head_dim, ..Counts::default() };
                let (site, to) = (&attention.site, [b, t, heads * head_dim]);
                Ok(self.record("attention_values", site, OpKind::Product, counts, [shape, &to]))
            }
            other => Err(mismatch(&attention.site, "[B, H, T, T]", other)),
        }
    }

    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        let Performer { site, projection } = performer;
        let (e, m) = (projection.inputs, projection.outputs);
        let shape = kqv.get::<Shape>()?;
        match shape.as_slice() {
            &[b, t, width] if width == 3 * e => {
                // Kernel features of keys and queries, keys times values, queries times both, and the normalisation.
                let counts = Counts { macs: b * t * m * (4 * e + 1), weights: m * e, others: 0 };
                Ok(self.record("performer", site, OpKind::Float, counts, [shape, &[b, t, e]]))
            }
            other => Err(mismatch(site, &format!("[B, T, {}]", 3 * e), other)),
        }
    }

    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, t, d] if count <= t => self.moved("first_tokens", x, &[b, count * d]),
            other => Err(mismatch("first_tokens", &format!("[B, {count} or more, D]"), other)),
        }
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        match shape.as_slice() {
            &[b, t, d] if skip < t => {
                Ok(self.record("mean_tokens", "", OpKind::Elementwise, Counts::default(), [shape, &[b, d]]))
            }
            other => Err(mismatch("mean_tokens", &format!("[B, more than {skip}, D]"), other)),
        }
    }
}
