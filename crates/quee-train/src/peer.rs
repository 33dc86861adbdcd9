//! The float product of the tensor library, timed as something to compare our kernels with.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};

use crate::{TrainDevice, TrainError};

/// Operands of a chain of products whose results feed each other: `[m, k]·[k, n]`, then `[m, n]·[n, k]`, and again. Both have `2·m·n·k`
/// operations.
pub struct ProductChain {
    device: TrainDevice,
    start: Tensor<2>,
    there: Tensor<2>,
    back: Tensor<2>,
}

impl ProductChain {
    /// Operands on a device.
    pub fn new(device: &TrainDevice, m: usize, n: usize, k: usize) -> Self {
        // Rows of ±1/√length keep the results of any number of products near the size of the first.
        let tensor = |rows: usize, columns: usize| {
            let size = 1.0 / (rows as f32).sqrt();
            let sign = |i: usize| if (i.wrapping_mul(2_654_435_761) >> 13) & 1 == 0 { size } else { -size };
            let data = TensorData::new((0..rows * columns).map(sign).collect(), [rows, columns]);
            Tensor::from_data(data, device.device())
        };
        Self { device: device.clone(), start: tensor(m, k), there: tensor(k, n), back: tensor(n, k) }
    }

    /// Seconds of `pairs` times two products, from the first call until the device has finished.
    ///
    /// # Errors
    /// When the device fails.
    pub fn time(&self, pairs: usize) -> Result<f64, TrainError> {
        self.device.device().sync().map_err(TrainError::device)?;
        let start = Instant::now();
        let mut x = self.start.clone();
        for _ in 0..pairs {
            x = x.matmul(self.there.clone()).matmul(self.back.clone());
        }
        // As numbers: data that nobody looks into is not waited for.
        let one: Vec<f32> = x.slice([0..1, 0..1]).try_into_vec_as().map_err(TrainError::device)?;
        debug_assert_eq!(one.len(), 1);
        Ok(start.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_close_the_chain() {
        let chain = ProductChain::new(&TrainDevice::cpu(), 5, 7, 3);
        assert!(chain.time(3).unwrap() > 0.0);
        let x = chain.start.clone().matmul(chain.there.clone()).matmul(chain.back.clone());
        assert_eq!(x.dims(), [5, 3]);
    }

    #[test]
    fn results_stay_finite() {
        let chain = ProductChain::new(&TrainDevice::cpu(), 8, 48, 16);
        let mut x = chain.start.clone();
        for _ in 0..32 {
            x = x.matmul(chain.there.clone()).matmul(chain.back.clone());
        }
        let largest = x.abs().max().into_scalar::<f32>();
        assert!(largest.is_finite(), "{largest}");
    }
}
