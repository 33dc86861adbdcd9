//! Sums of tensors, and position embeddings.

use quee_backbone::Executor as _;

use crate::support::{alone, floats, param, random, values};

#[test]
fn sums_are_those_of_the_processor() {
    let _alone = alone();
    let mut random = random(1);
    for shape in [[1, 1, 1], [3, 17, 23], [70, 65, 96]] {
        let count = shape.iter().product();
        let (x, y) = (values(&mut random, count, 3.0), values(&mut random, count, 3.0));
        let sum = floats("add", &shape, &x, |executor, x| {
            let y = executor.input(&shape, &y)?;
            executor.add(x, &y)
        });
        let Some(sum) = sum else { return };
        assert!(sum.iter().zip(x.iter().zip(&y)).all(|(&sum, (&x, &y))| sum == x + y), "{shape:?}");
        let [_, t, d] = shape;
        let position = param(0, &[1, t, d], y[..t * d].to_vec());
        let sum = floats("add_position", &shape, &x, |executor, x| executor.add_position(x, &position)).unwrap();
        let want = x.iter().zip(y[..t * d].iter().cycle()).map(|(x, y)| x + y);
        assert!(sum.into_iter().eq(want), "{shape:?}");
    }
}
