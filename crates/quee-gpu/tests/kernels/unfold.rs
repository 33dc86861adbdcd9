//! Windows of pictures.

use quee_backbone::{Executor as _, Window};

use crate::support::{alone, floats, random, values};

#[test]
fn windows_hold_the_pixels_that_they_cover() {
    let _alone = alone();
    let mut random = random(4);
    let window = |kernel, stride, padding| Window { kernel, stride, padding };
    for ([b, c, h, w], window) in [
        ([1, 1, 1, 1], window(1, 1, 0)),
        ([3, 3, 11, 8], window(3, 2, 1)),
        ([40, 3, 32, 32], window(7, 4, 2)),
        ([2, 5, 9, 9], window(3, 3, 0)),
        ([2, 2, 4, 5], window(3, 1, 2)),
    ] {
        let x = values(&mut random, b * c * h * w, 3.0);
        let Some(y) = floats("unfold", &[b, c, h, w], &x, |executor, x| executor.unfold(x, &window)) else { return };
        let mut want = Vec::new();
        for sample in 0..b {
            for place in 0..window.places(h) * window.places(w) {
                let (top, left) = (place / window.places(w) * window.stride, place % window.places(w) * window.stride);
                for channel in 0..c {
                    for at in 0..window.kernel * window.kernel {
                        let row = (top + at / window.kernel).checked_sub(window.padding).filter(|&row| row < h);
                        let column = (left + at % window.kernel).checked_sub(window.padding).filter(|&at| at < w);
                        let pixel = row.zip(column);
                        want.push(pixel.map_or(0.0, |(row, at)| x[((sample * c + channel) * h + row) * w + at]));
                    }
                }
            }
        }
        assert!(y == want, "{window:?} of {:?}", [b, c, h, w]);
    }
}
