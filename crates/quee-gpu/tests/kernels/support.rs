//! The devices that the tests share, and random operands.

use std::io::Write as _;
use std::sync::{Arc, Mutex, OnceLock};

use quee_backbone::{ExecError, Executor as _, Linear, Norm, Param, QuantPlan, Value};
use quee_gpu::{Gpu, GpuEngine, GpuError, GpuExecutor, GpuOptions, SmallLimits};
use quee_quant::WeightQuantizer;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The kernels for software adapters and those for discrete GPUs, both without and with small limits.
pub struct Devices {
    pub direct: Arc<Gpu>,
    pub tiled: Arc<Gpu>,
    pub small_direct: Arc<Gpu>,
    pub small_tiled: Arc<Gpu>,
}

impl Devices {
    /// Each with a name for messages.
    pub fn all(&self) -> [(&'static str, &Arc<Gpu>); 4] {
        [
            ("direct", &self.direct),
            ("tiled", &self.tiled),
            ("direct, small limits", &self.small_direct),
            ("tiled, small limits", &self.small_tiled),
        ]
    }
}

/// Limits that cut nearly every operation into several dispatches.
pub const SMALL: SmallLimits = SmallLimits { max_binding: 1 << 20, workgroups: 64 };

fn open() -> Result<Devices, GpuError> {
    let gpu = |tiled, limits| Gpu::open(&GpuOptions { tiled: Some(tiled), limits, ..GpuOptions::default() });
    Ok(Devices {
        direct: gpu(false, None)?,
        tiled: gpu(true, None)?,
        small_direct: gpu(false, Some(SMALL))?,
        small_tiled: gpu(true, Some(SMALL))?,
    })
}

/// Devices for all tests, or `None` and a visible line where there is no adapter.
pub fn devices(test: &str) -> Option<&'static Devices> {
    static DEVICES: OnceLock<Result<Devices, GpuError>> = OnceLock::new();
    match DEVICES.get_or_init(open) {
        Ok(devices) => Some(devices),
        Err(error @ (GpuError::NoLoader | GpuError::NoAdapter { .. })) => {
            // Past the test harness, which shows nothing of tests that pass.
            let _ = std::io::stderr().write_fmt(format_args!("SKIPPED: {test}: {error}\n"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One test at a time: they share two cores with the software adapter, which already uses all.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Random numbers that are the same in every run.
pub fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Values between ±`size`.
pub fn values(random: &mut ChaCha8Rng, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-size..size)).collect()
}

/// Codes of `bits` bits, now and then at the ends of their range.
pub fn codes(random: &mut ChaCha8Rng, count: usize, bits: u8) -> Vec<i8> {
    let (least, most) = (-(1i32 << (bits - 1)), (1i32 << (bits - 1)) - 1);
    let code = |random: &mut ChaCha8Rng| match random.random_range(0..8) {
        0 => least,
        1 => most,
        _ => random.random_range(least..=most),
    };
    (0..count).map(|_| code(random) as i8).collect()
}

/// A plan that needs no calibration.
pub fn dynamic() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}

/// Runs `operations` at a width on every device; all must agree bit for bit. `None` where there is no adapter.
///
/// On a GPU the kernels for software adapters are left out: they are never used there, and a driver that fuses multiplications with additions
/// may do so in one kernel and not in the other.
pub fn everywhere<T: PartialEq>(
    test: &str,
    width: &str,
    plan: &Arc<QuantPlan>,
    operations: impl Fn(&mut GpuExecutor) -> Result<T, ExecError>,
) -> Option<T> {
    let devices = devices(test)?;
    let used = |(_, gpu): &(&str, &Arc<Gpu>)| gpu.is_tiled() || gpu.info().is_software();
    let mut results = devices.all().into_iter().filter(used).map(|(device, gpu)| {
        let mut executor = GpuEngine::on(Arc::clone(plan), Arc::clone(gpu)).executor().unwrap();
        executor.set_width(width.parse().unwrap()).unwrap();
        (device, operations(&mut executor).unwrap_or_else(|e| panic!("{test} on {device}: {e}")))
    });
    let (name, first) = results.next().expect("two at least");
    for (device, other) in results {
        assert!(other == first, "{test}: {device} differs from {name}");
    }
    Some(first)
}

/// The same for one operation in floats, on one input.
pub fn floats(
    test: &str,
    shape: &[usize],
    data: &[f32],
    operation: impl Fn(&mut GpuExecutor, &Value) -> Result<Value, ExecError>,
) -> Option<Vec<f32>> {
    everywhere(test, "float", &dynamic(), |executor| {
        let x = executor.input(shape, data)?;
        let y = operation(executor, &x)?;
        executor.read(&y)
    })
}

/// A learned tensor.
pub fn param(id: usize, shape: &[usize], data: Vec<f32>) -> Param {
    assert_eq!(shape.iter().product::<usize>(), data.len());
    Param { id, name: format!("param{id}"), shape: shape.to_vec(), data: data.into(), frozen: false }
}

/// A linear layer of random weights, with a bias.
pub fn linear(random: &mut ChaCha8Rng, n: usize, k: usize) -> Linear {
    let weight = param(0, &[n, k], values(random, n * k, 1.0));
    let bias = Some(param(1, &[n], values(random, n, 1.0)));
    Linear { site: "layer".into(), inputs: k, outputs: n, weight, bias }
}

/// A layer normalisation of random gains.
pub fn norm(random: &mut ChaCha8Rng, d: usize) -> Norm {
    let (weight, bias) = (param(2, &[d], values(random, d, 2.0)), param(3, &[d], values(random, d, 1.0)));
    Norm { site: "norm".into(), weight, bias, eps: 1e-6 }
}

/// GELU in double precision. `erf` as `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms all have one sign.
pub fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    let erf = if z.abs() > 6.0 { z.signum() } else { sum * (-z * z).exp() * std::f64::consts::FRAC_2_SQRT_PI };
    0.5 * x * (1.0 + erf)
}

/// Fails with the place of the largest difference above `tolerance`, relative to the size of the values where that is above 1.
pub fn assert_near(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(got) - want).abs();
        assert!(difference <= tolerance * want.abs().max(1.0), "{what}: {got} at {at}, not {want}");
    }
}
