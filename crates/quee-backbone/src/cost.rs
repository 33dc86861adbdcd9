//! An executor whose tensors are shapes: it counts what a program would compute (method: bit operations,
//! `BOPs = MACs · weight bits · activation bits`, attention products `MACs · activation bits²`).

use quee_quant::Width;

use crate::backbone::Backbone;
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Attention, Linear, Norm, Param, Performer, Window};

/// Bits of a 32-bit float.
const FLOAT_BITS: u64 = 32;

/// What kind of arithmetic an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Activations times weights.
    Linear,
    /// Activations times activations.
    Product,
    /// Products that run in 32-bit floats at every width.
    Float,
    /// No multiply-accumulates: normalisation, softmax, GELU, additions.
    Elementwise,
}

/// One operation of a program, per picture.
#[derive(Clone, Debug, PartialEq)]
pub struct OpCost {
    /// Place in the program.
    pub site: String,
    /// Kind of arithmetic.
    pub kind: OpKind,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Weights that the operation reads.
    pub weights: u64,
    /// Activations that the operation writes.
    pub outputs: u64,
}

/// Cost of a part of a program, per picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartCost {
    /// Its operations, in order.
    pub ops: Vec<OpCost>,
}

impl PartCost {
    /// Multiply-accumulates, attention products included.
    pub fn macs(&self) -> u64 {
        self.ops.iter().map(|op| op.macs).sum()
    }

    /// Bit operations at `width`.
    pub fn bops(&self, width: Width) -> u64 {
        let (weight, act) = (u64::from(width.weight_bits()), u64::from(width.act_bits()));
        let per_mac = |kind| match kind {
            OpKind::Linear => weight * act,
            OpKind::Product => act * act,
            OpKind::Float => FLOAT_BITS * FLOAT_BITS,
            OpKind::Elementwise => 0,
        };
        self.ops.iter().map(|op| op.macs * per_mac(op.kind)).sum()
    }

    /// Bytes of the weights at `width`, biases and scales not counted.
    pub fn weight_bytes(&self, width: Width) -> u64 {
        let bits = |kind| if kind == OpKind::Float { FLOAT_BITS } else { u64::from(width.weight_bits()) };
        self.ops.iter().map(|op| op.weights * bits(op.kind)).sum::<u64>() / 8
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

    /// Multiply-accumulates of the whole backbone.
    pub fn macs(&self) -> u64 {
        self.stem.macs() + self.blocks.iter().map(PartCost::macs).sum::<u64>() + self.head.macs()
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

    fn record(&mut self, site: &str, kind: OpKind, macs: usize, weights: usize, shape: Shape) -> Value {
        let outputs = shape.iter().product::<usize>() as u64;
        self.part.ops.push(OpCost { site: site.to_owned(), kind, macs: macs as u64, weights: weights as u64, outputs });
        Value::new(shape)
    }
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
                Ok(Value::new(vec![b, window.places(h) * window.places(w), c * window.kernel * window.kernel]))
            }
            other => Err(mismatch("unfold", &format!("[B, C, H, W] with room for {window:?}"), other)),
        }
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?;
        if shape.is_empty() || shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
            return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), shape));
        }
        Ok(Value::new([&shape[..1], sample].concat()))
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, m, n] => Ok(Value::new(vec![b, n, m])),
            other => Err(mismatch("transpose", "[B, M, N]", other)),
        }
    }

    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, t, d] if start + length <= d => Ok(Value::new(vec![b, t, length])),
            other => Err(mismatch("slice_features", &format!("[B, T, {} or more]", start + length), other)),
        }
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let mut shape = x.get::<Shape>()?.clone();
        if shape.last() != Some(&linear.inputs) {
            return Err(mismatch(&linear.site, &format!("[.., {}]", linear.inputs), &shape));
        }
        let rows: usize = shape[..shape.len() - 1].iter().product();
        *shape.last_mut().expect("a tensor has an axis") = linear.outputs;
        let weights = linear.inputs * linear.outputs;
        Ok(self.record(&linear.site, OpKind::Linear, rows * weights, weights, shape))
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?.clone();
        Ok(self.record(&norm.site, OpKind::Elementwise, 0, 0, shape))
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?.clone();
        Ok(self.record("gelu", OpKind::Elementwise, 0, 0, shape))
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        let (a, b) = (a.get::<Shape>()?, b.get::<Shape>()?);
        if a != b {
            return Err(mismatch("add", &format!("{a:?}"), b));
        }
        Ok(self.record("add", OpKind::Elementwise, 0, 0, a.clone()))
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        match (x.get::<Shape>()?.as_slice(), tokens.shape.as_slice()) {
            (&[b, t, d], &[1, p, width]) if d == width => Ok(Value::new(vec![b, p + t, d])),
            (other, _) => Err(mismatch(&tokens.name, "[B, T, D]", other)),
        }
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?.clone();
        if shape.len() != 3 || shape[1..] != position.shape[1..] {
            return Err(mismatch(&position.name, &format!("[B, {:?}]", &position.shape[1..]), &shape));
        }
        Ok(self.record(&position.name, OpKind::Elementwise, 0, 0, shape))
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let Attention { heads, head_dim, .. } = *attention;
        match qkv.get::<Shape>()?.as_slice() {
            &[b, t, width] if width == 3 * heads * head_dim => {
                let macs = b * heads * t * t * head_dim;
                Ok(self.record(&format!("{}.qk", attention.site), OpKind::Product, macs, 0, vec![b, heads, t, t]))
            }
            other => Err(mismatch(&attention.site, &format!("[B, T, {}]", 3 * heads * head_dim), other)),
        }
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        let shape = x.get::<Shape>()?.clone();
        Ok(self.record("softmax", OpKind::Elementwise, 0, 0, shape))
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        _: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        let Attention { heads, head_dim, .. } = *attention;
        match probabilities.get::<Shape>()?.as_slice() {
            &[b, h, t, keys] if h == heads => {
                let macs = b * heads * t * keys * head_dim;
                Ok(self.record(
                    &format!("{}.pv", attention.site),
                    OpKind::Product,
                    macs,
                    0,
                    vec![b, t, heads * head_dim],
                ))
            }
            other => Err(mismatch(&attention.site, "[B, H, T, T]", other)),
        }
    }

    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        let Performer { site, projection } = performer;
        let (e, m) = (projection.inputs, projection.outputs);
        match kqv.get::<Shape>()?.as_slice() {
            &[b, t, width] if width == 3 * e => {
                let float = OpKind::Float;
                self.record(&format!("{site}.features"), float, 2 * b * t * m * e, m * e, vec![b, t, 2 * m]);
                self.record(&format!("{site}.kv"), float, b * t * m * e, 0, vec![b, m, e]);
                self.record(&format!("{site}.norm"), float, b * t * m, 0, vec![b, t]);
                Ok(self.record(&format!("{site}.qkv"), float, b * t * m * e, 0, vec![b, t, e]))
            }
            other => Err(mismatch(site, &format!("[B, T, {}]", 3 * e), other)),
        }
    }

    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, t, d] if count <= t => Ok(Value::new(vec![b, count * d])),
            other => Err(mismatch("first_tokens", &format!("[B, {count} or more, D]"), other)),
        }
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        match x.get::<Shape>()?.as_slice() {
            &[b, t, d] if skip < t => Ok(Value::new(vec![b, d])),
            other => Err(mismatch("mean_tokens", &format!("[B, more than {skip}, D]"), other)),
        }
    }
}
