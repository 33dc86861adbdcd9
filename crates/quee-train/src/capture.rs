//! What goes into the quantized operations of the float program, and how much the loss depends on what comes out: what quantizers are searched
//! with.
//!
//! The loss is the cross-entropy with an answer that is drawn from the backbone's own probabilities, so no labels are needed, and the expected
//! square of its gradient is the diagonal of the Fisher information: a small change `δ` of an output costs about `½ E[(gradient · δ)²]` of
//! Kullback-Leibler divergence.

use burn::tensor::{Gradients, Tensor, activation};
use quee_backbone::{Attention, Backbone, ExecError, Executor, Linear, Norm, Value, forward_plain_operations};
use quee_quant::Width;
use rand::RngExt;

use crate::TrainError;
use crate::data::{expect_finite, expect_len, rng_for};
use crate::executor::{BurnExecutor, flex_device};
use crate::optimizer::{cross_entropy, soft_labels};
use crate::tensor::{Held, held, two};

/// Pictures that are worked on at a time.
const PIECE: usize = 8;
/// Pictures whose attention is kept; it grows with the square of the tokens.
const ATTENTION_PICTURES: usize = 16;

/// How much is kept of the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureConfig {
    /// Rows of each picture that are kept of a linear layer; the class token is always one of them.
    pub rows: usize,
    /// Seed of the answers and rows that are drawn.
    pub seed: u64,
}

/// What was seen of all quantized operations, in the order of the program.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Linear layers.
    pub layers: Vec<LayerSample>,
    /// Attentions.
    pub attentions: Vec<AttentionSample>,
}

/// Rows of a linear layer.
#[derive(Clone, Debug)]
pub struct LayerSample {
    /// The layer.
    pub linear: Linear,
    /// The normalisation right before it.
    pub norm: Option<Norm>,
    /// Whether what goes in comes from GELU.
    pub after_gelu: bool,
    /// Inputs `[rows, K]` of the rows that were kept.
    pub inputs: Vec<f32>,
    /// Gradients of the loss by the outputs, `[rows, N]`; those of rows that stand for several are larger accordingly.
    pub gradients: Vec<f32>,
    /// Sums over all rows.
    pub moments: Moments,
}

/// Sums over all rows `x` of a layer's inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Rows.
    pub count: usize,
    /// `Σ x`, `[K]`.
    pub sum: Vec<f64>,
    /// `Σ x xᵀ`, `[K, K]`.
    pub gram: Vec<f64>,
    /// Least values, `[K]`.
    pub lo: Vec<f32>,
    /// Largest values, `[K]`.
    pub hi: Vec<f32>,
}

/// An attention of the first pictures.
#[derive(Clone, Debug)]
pub struct AttentionSample {
    /// The attention.
    pub attention: Attention,
    /// Pictures B.
    pub pictures: usize,
    /// Tokens T.
    pub tokens: usize,
    /// Queries, keys and values `[B, T, 3·H·d]`.
    pub qkv: Vec<f32>,
    /// Softmax outputs `[B, H, T, T]`.
    pub probabilities: Vec<f32>,
    /// Gradients by the scores `[B, H, T, T]`.
    pub score_gradients: Vec<f32>,
    /// Gradients by the outputs `[B, T, H·d]`.
    pub output_gradients: Vec<f32>,
}

/// Runs `backbone` on `pictures`, `[count, C, H, W]`, and back. `check` is asked before every piece of pictures whether to go on.
///
/// # Errors
/// On pictures that do not fit, values that are not finite, a failing device, or what `check` says.
pub fn capture<E: From<TrainError>>(
    backbone: &dyn Backbone,
    pictures: &[f32],
    config: &CaptureConfig,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Captured, E> {
    let size: usize = backbone.image_shape().iter().product();
    if pictures.is_empty() {
        return Err(TrainError::Empty { what: "pictures for calibration" }.into());
    }
    expect_len("pictures for calibration", pictures.len() / size.max(1) * size, pictures.len())?;
    expect_finite("pictures for calibration", pictures)?;
    let mut all = Captured::default();
    for (index, piece) in pictures.chunks(PIECE * size).enumerate() {
        check()?;
        let records = run(backbone, piece, piece.len() / size, config.seed, index)?;
        keep(&mut all, records, index * PIECE, config)?;
    }
    Ok(all)
}

struct Seen {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Seen {
    fn of(x: &Value) -> Result<Self, ExecError> {
        let x = held(x)?.clone();
        Ok(Self { shape: x.shape(), values: x.read()? })
    }
}

fn run(
    backbone: &dyn Backbone,
    pictures: &[f32],
    count: usize,
    seed: u64,
    piece: usize,
) -> Result<Vec<Record>, TrainError> {
    let device = flex_device().autodiff();
    let mut watch = Watch { inner: BurnExecutor::float(device.clone()), seen: Vec::new(), last_gelu: None };
    let [c, h, w] = backbone.image_shape();
    let images = watch.input(&[count, c, h, w], pictures)?;
    let logits = two("logits", &backbone.forward(&mut watch, &images)?)?;
    let classes = logits.dims()[1];
    let probabilities: Vec<f32> =
        activation::softmax(logits.clone(), 1).try_into_vec_as().map_err(TrainError::device)?;
    let mut rng = rng_for(seed, &[1, piece as u64]);
    let answers = probabilities.chunks_exact(classes).map(|row| drawn(row, rng.random::<f32>()));
    let targets = soft_labels(answers, classes, 0.0);
    let targets = two("targets", &watch.inner.input(&[count, classes], &targets)?)?;
    let gradients = cross_entropy(logits, targets).backward();
    watch.seen.into_iter().map(|seen| Ok((seen.kind, seen.probe.read(&gradients)?))).collect()
}

/// The class at `at`, in 0..1, on the line of cumulated probabilities.
fn drawn(probabilities: &[f32], at: f32) -> u16 {
    let mut sum = 0.0;
    for (class, p) in probabilities.iter().enumerate() {
        sum += p;
        if at < sum {
            return class as u16;
        }
    }
    probabilities.len() as u16 - 1
}

/// A zero that was added to an output: its gradient is the output's.
enum Probe {
    Two(Tensor<2>),
    Three(Tensor<3>),
    Four(Tensor<4>),
}

impl Probe {
    fn read(&self, gradients: &Gradients) -> Result<Vec<f32>, TrainError> {
        let read = match self {
            Self::Two(x) => x.grad(gradients).map(|x| x.try_into_vec_as()),
            Self::Three(x) => x.grad(gradients).map(|x| x.try_into_vec_as()),
            Self::Four(x) => x.grad(gradients).map(|x| x.try_into_vec_as()),
        };
        // No gradient: the loss does not depend on the operation at all.
        let length = match self {
            Self::Two(x) => x.dims().iter().product(),
            Self::Three(x) => x.dims().iter().product(),
            Self::Four(x) => x.dims().iter().product(),
        };
        read.map_or_else(|| Ok(vec![0.0; length]), |read| read.map_err(TrainError::device))
    }
}

fn probed(out: &Value) -> Result<(Value, Probe), ExecError> {
    Ok(match held(out)?.clone() {
        Held::Two(x) => {
            let probe = x.zeros_like().require_grad();
            (Value::new(Held::Two(x + probe.clone())), Probe::Two(probe))
        }
        Held::Three(x) => {
            let probe = x.zeros_like().require_grad();
            (Value::new(Held::Three(x + probe.clone())), Probe::Three(probe))
        }
        Held::Four(x) => {
            let probe = x.zeros_like().require_grad();
            (Value::new(Held::Four(x + probe.clone())), Probe::Four(probe))
        }
    })
}

/// An operation that was run, with its probe.
struct Operation {
    kind: Kind,
    probe: Probe,
}

/// What went into it, on the host.
enum Kind {
    Linear(Box<SeenLayer>),
    Scores { attention: Attention, qkv: Seen },
    Values { probabilities: Seen },
}

struct SeenLayer {
    linear: Linear,
    norm: Option<Norm>,
    after_gelu: bool,
    input: Seen,
}

/// What went into an operation, and the gradient by what came out.
type Record = (Kind, Vec<f32>);

/// Watches the operations of a float program.
struct Watch {
    inner: BurnExecutor,
    seen: Vec<Operation>,
    last_gelu: Option<Value>,
}

impl Watch {
    fn watch(&mut self, out: &Value, kind: Kind) -> Result<Value, ExecError> {
        let (out, probe) = probed(out)?;
        self.seen.push(Operation { kind, probe });
        Ok(out)
    }

    fn watch_linear(&mut self, x: &Value, norm: Option<&Norm>, linear: &Linear) -> Result<Value, ExecError> {
        let after_gelu = self.last_gelu.as_ref().is_some_and(|gelu| gelu.is(x));
        let (input, out) = (Seen::of(x)?, self.inner.linear(x, linear)?);
        let layer = SeenLayer { linear: linear.clone(), norm: norm.cloned(), after_gelu, input };
        self.watch(&out, Kind::Linear(Box::new(layer)))
    }
}

impl Executor for Watch {
    forward_plain_operations!(inner, but gelu);

    fn name(&self) -> String {
        "capture on burn".into()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        let out = self.inner.gelu(x)?;
        self.last_gelu = Some(out.clone());
        Ok(out)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.watch_linear(x, None, linear)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let normed = self.inner.layer_norm(x, norm)?;
        self.watch_linear(&normed, Some(norm), linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let (seen, out) = (Seen::of(qkv)?, self.inner.attention_scores(qkv, attention)?);
        self.watch(&out, Kind::Scores { attention: attention.clone(), qkv: seen })
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        let (seen, out) = (Seen::of(probabilities)?, self.inner.attention_values(probabilities, qkv, attention)?);
        self.watch(&out, Kind::Values { probabilities: seen })
    }
}

/// Adds what a piece of pictures, the first one being `first`, has shown.
fn keep(all: &mut Captured, records: Vec<Record>, first: usize, config: &CaptureConfig) -> Result<(), TrainError> {
    let (mut layer, mut attention) = (0, 0);
    for (kind, gradient) in records {
        match kind {
            Kind::Linear(seen) => {
                let SeenLayer { linear, norm, after_gelu, input } = *seen;
                expect_finite("activations in calibration", &input.values)?;
                expect_finite("gradients in calibration", &gradient)?;
                if all.layers.len() == layer {
                    let moments = Moments::new(linear.inputs);
                    let (inputs, gradients) = (Vec::new(), Vec::new());
                    all.layers.push(LayerSample { linear, norm, after_gelu, inputs, gradients, moments });
                }
                let sample = &mut all.layers[layer];
                sample.moments.add(&input.values);
                sample.keep(&input, &gradient, first, config, layer as u64);
                layer += 1;
            }
            Kind::Scores { attention: of, qkv } => {
                if all.attentions.len() == attention {
                    let tokens = qkv.shape[1];
                    all.attentions.push(AttentionSample {
                        attention: of,
                        pictures: 0,
                        tokens,
                        qkv: Vec::new(),
                        probabilities: Vec::new(),
                        score_gradients: Vec::new(),
                        output_gradients: Vec::new(),
                    });
                }
                let sample = &mut all.attentions[attention];
                if first < ATTENTION_PICTURES {
                    sample.pictures += qkv.shape[0];
                    sample.qkv.extend(qkv.values);
                    sample.score_gradients.extend(gradient);
                }
                attention += 1;
            }
            // The products of an attention follow one another.
            Kind::Values { probabilities } => {
                let sample = &mut all.attentions[attention - 1];
                if first < ATTENTION_PICTURES {
                    sample.probabilities.extend(probabilities.values);
                    sample.output_gradients.extend(gradient);
                }
            }
        }
    }
    Ok(())
}

impl LayerSample {
    /// Rows that were kept.
    pub fn rows(&self) -> usize {
        self.inputs.len() / self.linear.inputs.max(1)
    }

    /// Keeps the first row of each picture and some of the others, which stand for all of them.
    fn keep(&mut self, input: &Seen, gradient: &[f32], first: usize, config: &CaptureConfig, layer: u64) {
        let (k, n) = (self.linear.inputs, self.linear.outputs);
        let pictures = input.shape[0];
        let rows = input.values.len() / (k * pictures).max(1);
        let others = config.rows.max(1).min(rows) - 1;
        let weight = if others == 0 { 0.0 } else { ((rows - 1) as f32 / others as f32).sqrt() };
        for picture in 0..pictures {
            let mut rng = rng_for(config.seed, &[2, layer, (first + picture) as u64]);
            let mut chosen: Vec<usize> = (1..rows).collect();
            for i in 0..others {
                chosen.swap(i, rng.random_range(i..rows - 1));
            }
            for (row, weight) in
                std::iter::once((0, 1.0)).chain(chosen.into_iter().take(others).map(|row| (row, weight)))
            {
                let row = picture * rows + row;
                self.inputs.extend(&input.values[row * k..(row + 1) * k]);
                self.gradients.extend(gradient[row * n..(row + 1) * n].iter().map(|g| g * weight));
            }
        }
    }
}

impl Moments {
    /// Of no rows of `k` values.
    pub fn new(k: usize) -> Self {
        Self {
            count: 0,
            sum: vec![0.0; k],
            gram: vec![0.0; k * k],
            lo: vec![f32::INFINITY; k],
            hi: vec![f32::NEG_INFINITY; k],
        }
    }

    /// Adds rows `[m, K]`.
    pub fn add(&mut self, rows: &[f32]) {
        let k = self.sum.len();
        for row in rows.chunks_exact(k.max(1)) {
            self.count += 1;
            for (i, &x) in row.iter().enumerate() {
                self.sum[i] += f64::from(x);
                self.lo[i] = self.lo[i].min(x);
                self.hi[i] = self.hi[i].max(x);
                let line = &mut self.gram[i * k..(i + 1) * k];
                for (sum, &y) in line.iter_mut().zip(row) {
                    *sum += f64::from(x) * f64::from(y);
                }
            }
        }
    }
}
