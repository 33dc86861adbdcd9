//! Weights that stay packed on the device: less memory, the same results.

use std::sync::Arc;

use quee_backbone::Executor as _;
use quee_gpu::{Gpu, GpuEngine, GpuOptions};

use crate::support::{SMALL, alone, devices, dynamic, linear, random, values};

#[test]
fn packed_weights_take_their_bits_and_give_the_same_results() {
    let _alone = alone();
    let Some(devices) = devices("packed weights") else { return };
    let options = |tiled, limits| GpuOptions { packed_weights: true, tiled: Some(tiled), limits, ..Default::default() };
    let packed = [options(false, None), options(true, None), options(true, Some(SMALL))];
    let packed = packed.map(|options| Gpu::open(&options).unwrap());
    let mut random = random(41);
    // The last has more columns than a small binding shows.
    for ([m, n, k], widths) in
        [([3, 1, 1], 2..=8), ([5, 37, 75], 2..=8), ([7, 128, 96], 2..=8), ([2, 1000, 2100], 5..=5)]
    {
        let layer = linear(&mut random, n, k);
        let x = values(&mut random, m * k, 1.0);
        let outputs = |gpu: &Arc<Gpu>, bits: u8| {
            let engine = GpuEngine::on(dynamic(), Arc::clone(gpu));
            let mut executor = engine.executor().unwrap();
            executor.set_width(bits.to_string().parse().unwrap()).unwrap();
            let x = executor.input(&[1, m, k], &x).unwrap();
            let y = executor.linear(&x, &layer).unwrap();
            (executor.read(&y).unwrap(), engine.weight_bytes())
        };
        let width = n.next_multiple_of(4);
        for bits in widths {
            let (want, plain_bytes) = outputs(&devices.direct, bits);
            assert_eq!(plain_bytes as usize, 16 * width + width * k.next_multiple_of(16));
            for gpu in &packed {
                let (got, bytes) = outputs(gpu, bits);
                assert!(got == want, "[{m}, {n}, {k}] at {bits} bits on {:?}", gpu.options());
                let codes = if bits == 8 {
                    width * k.next_multiple_of(16)
                } else {
                    width * k.next_multiple_of(32) * usize::from(bits) / 8
                };
                // Every panel is rounded up to 16 bytes.
                assert!((bytes as usize).abs_diff(16 * width + codes) < 16 * 4, "{bytes} bytes at {bits} bits");
            }
        }
    }
}
