//! Tensors whose number of axes is known at run time.

use burn::tensor::{Device, Tensor, TensorData};
use quee_backbone::{ExecError, Value};

/// The tensor inside a [`Value`] of the burn executor.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// `[B, D]`.
    Two(Tensor<2>),
    /// `[B, T, D]`.
    Three(Tensor<3>),
    /// `[B, C, H, W]` or `[B, H, T, T]`.
    Four(Tensor<4>),
}

/// Applies an operation that keeps the number of axes.
macro_rules! same_rank {
    ($held:expr, $x:ident => $result:expr) => {
        match $held {
            Held::Two($x) => Held::Two($result),
            Held::Three($x) => Held::Three($result),
            Held::Four($x) => Held::Four($result),
        }
    };
}
pub(crate) use same_rank;

/// A tensor of any number of axes in another shape.
macro_rules! reshaped {
    ($held:expr, $shape:expr) => {
        match $held {
            Held::Two(x) => x.reshape($shape),
            Held::Three(x) => x.reshape($shape),
            Held::Four(x) => x.reshape($shape),
        }
    };
}
pub(crate) use reshaped;

impl Held {
    /// Data of two to four axes.
    pub fn from_slice(shape: &[usize], data: &[f32], device: &Device) -> Result<Self, ExecError> {
        let elements = shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
        if elements != Some(data.len()) {
            let expected =
                format!("{} values of shape {shape:?}", elements.map_or("too many".into(), |n| n.to_string()));
            return Err(ExecError::Shape { op: "input".into(), expected, got: vec![data.len()] });
        }
        let data = TensorData::new(data.to_vec(), shape.to_vec());
        match shape.len() {
            2 => Ok(Self::Two(Tensor::from_data(data, device))),
            3 => Ok(Self::Three(Tensor::from_data(data, device))),
            4 => Ok(Self::Four(Tensor::from_data(data, device))),
            _ => Err(mismatch("input", "two to four axes", shape)),
        }
    }

    /// Length of each axis.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Two(x) => x.dims().to_vec(),
            Self::Three(x) => x.dims().to_vec(),
            Self::Four(x) => x.dims().to_vec(),
        }
    }

    /// All axes but the last as one: `[rows, last]`.
    pub fn rows(self) -> Tensor<2> {
        let shape = self.shape();
        let last = shape[shape.len() - 1];
        let rows = shape[..shape.len() - 1].iter().product();
        match self {
            Self::Two(x) => x,
            Self::Three(x) => x.reshape([rows, last]),
            Self::Four(x) => x.reshape([rows, last]),
        }
    }

    /// Undoes [`rows`](Self::rows): the leading axes of `self`, with another last axis.
    pub fn shaped_like(&self, rows: Tensor<2>) -> Self {
        let last = rows.dims()[1];
        match self {
            Self::Two(_) => Self::Two(rows),
            Self::Three(x) => {
                let [a, b, _] = x.dims();
                Self::Three(rows.reshape([a, b, last]))
            }
            Self::Four(x) => {
                let [a, b, c, _] = x.dims();
                Self::Four(rows.reshape([a, b, c, last]))
            }
        }
    }

    /// Copies the values out, row-major.
    pub fn read(self) -> Result<Vec<f32>, ExecError> {
        let values = match self {
            Self::Two(x) => x.try_into_vec_as::<f32>(),
            Self::Three(x) => x.try_into_vec_as::<f32>(),
            Self::Four(x) => x.try_into_vec_as::<f32>(),
        };
        values.map_err(device_error)
    }
}

/// The tensor of a value that this executor made.
pub(crate) fn held(x: &Value) -> Result<&Held, ExecError> {
    x.get::<Held>()
}

/// A value of two axes.
pub(crate) fn two(op: &str, x: &Value) -> Result<Tensor<2>, ExecError> {
    match held(x)? {
        Held::Two(x) => Ok(x.clone()),
        other => Err(mismatch(op, "[B, D]", &other.shape())),
    }
}

/// A value of three axes.
pub(crate) fn three(op: &str, x: &Value) -> Result<Tensor<3>, ExecError> {
    match held(x)? {
        Held::Three(x) => Ok(x.clone()),
        other => Err(mismatch(op, "[B, T, D]", &other.shape())),
    }
}

/// A value of four axes.
pub(crate) fn four(op: &str, expected: &str, x: &Value) -> Result<Tensor<4>, ExecError> {
    match held(x)? {
        Held::Four(x) => Ok(x.clone()),
        other => Err(mismatch(op, expected, &other.shape())),
    }
}

/// Operands that do not fit together.
pub(crate) fn mismatch(op: &str, expected: &str, got: &[usize]) -> ExecError {
    ExecError::Shape { op: op.to_owned(), expected: expected.to_owned(), got: got.to_vec() }
}

/// A failure of the tensor library.
pub(crate) fn device_error(error: impl std::fmt::Display) -> ExecError {
    ExecError::Device(error.to_string())
}
