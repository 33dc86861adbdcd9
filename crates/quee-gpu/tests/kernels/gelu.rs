//! GELU of every value.

use quee_backbone::Executor as _;

use crate::support::{alone, assert_near, floats, gelu, random, values};

#[test]
fn gelu_is_within_its_error() {
    let _alone = alone();
    let mut random = random(2);
    let mut x: Vec<f32> = (-6_000..6_000).map(|i| i as f32 * 1e-3).collect();
    x.extend(values(&mut random, 300_000, 8.0));
    x.extend([0.0, -0.0, 1e-30, -1e-30, 1e10, -1e10]);
    let Some(y) = floats("gelu", &[1, x.len()], &x, |executor, x| executor.gelu(x)) else { return };
    let want: Vec<f64> = x.iter().map(|&x| gelu(f64::from(x))).collect();
    // erf is within 2.5e-7, and x up to 8 multiplies it.
    assert_near(&y, &want, 2e-6, "gelu");
}
