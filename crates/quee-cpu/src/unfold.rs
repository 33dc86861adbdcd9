//! Cuts windows out of pictures.

use quee_backbone::Window;

/// Pictures `[B, C, H, W]` to `[B, T, C·k·k]`: windows in reading order, inside a window channel by channel in reading order.
pub(crate) fn unfold(pictures: &[f32], [b, c, h, w]: [usize; 4], window: &Window, out: &mut [f32]) {
    let Window { kernel, stride, padding } = *window;
    let mut out = out.chunks_exact_mut(kernel);
    let places = (0..window.places(h)).flat_map(|row| (0..window.places(w)).map(move |column| (row, column)));
    for (sample, (row, column)) in (0..b).flat_map(|sample| places.clone().map(move |place| (sample, place))) {
        // Columns of the window that lie on the picture.
        let left = column * stride;
        let (first, end) = (padding.saturating_sub(left).min(kernel), (w + padding).saturating_sub(left).min(kernel));
        for (channel, line) in (0..c).flat_map(|channel| (0..kernel).map(move |line| (channel, line))) {
            let to = out.next().expect("as many lines as the output holds");
            match (row * stride + line).checked_sub(padding) {
                Some(y) if y < h && first < end => {
                    let from = ((sample * c + channel) * h + y) * w + left + first - padding;
                    to[..first].fill(0.0);
                    to[first..end].copy_from_slice(&pictures[from..from + end - first]);
                    to[end..].fill(0.0);
                }
                _ => to.fill(0.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_the_layout_says() {
        let (b, c) = (2, 3);
        for (h, w, kernel, stride, padding) in
            [(6, 4, 2, 2, 0), (8, 8, 7, 4, 2), (5, 7, 3, 2, 1), (5, 5, 2, 3, 0), (1, 2, 3, 1, 3)]
        {
            let window = Window { kernel, stride, padding };
            let pictures: Vec<f32> = (1..=b * c * h * w).map(|i| i as f32).collect();
            let at = |s: usize, ch: usize, y: usize, x: usize| {
                let inside = (padding..h + padding).contains(&y) && (padding..w + padding).contains(&x);
                if inside { pictures[((s * c + ch) * h + y - padding) * w + x - padding] } else { 0.0 }
            };
            let (down, across) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
            assert_eq!((window.places(h), window.places(w)), (down, across));
            let mut out = vec![-1.0; b * down * across * c * kernel * kernel];
            unfold(&pictures, [b, c, h, w], &window, &mut out);
            for (i, &value) in out.iter().enumerate() {
                let (x, y, ch) = (i % kernel, i / kernel % kernel, i / (kernel * kernel) % c);
                let place = i / (kernel * kernel * c);
                let (column, row, s) = (place % across, place / across % down, place / (across * down));
                assert_eq!(value, at(s, ch, row * stride + y, column * stride + x), "{window:?} at {i}");
            }
        }
    }
}
