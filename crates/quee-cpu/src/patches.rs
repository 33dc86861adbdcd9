//! Cuts pictures into patches.

/// Pictures `[B, C, H, W]` to `[B, T, C·patch·patch]`: patches in reading order, inside a patch channel by channel in reading order.
/// H and W are multiples of `patch`.
pub(crate) fn cut_patches(pictures: &[f32], [b, c, h, w]: [usize; 4], patch: usize, out: &mut [f32]) {
    let mut out = out.chunks_exact_mut(patch);
    for sample in 0..b {
        for (row, column) in (0..h / patch).flat_map(|row| (0..w / patch).map(move |column| (row, column))) {
            for (channel, line) in (0..c).flat_map(|channel| (0..patch).map(move |line| (channel, line))) {
                let from = ((sample * c + channel) * h + row * patch + line) * w + column * patch;
                let to = out.next().expect("as many lines as the output holds");
                to.copy_from_slice(&pictures[from..from + patch]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_the_layout_says() {
        let (b, c, h, w, p) = (2, 3, 6, 4, 2);
        let at = |s: usize, ch: usize, y: usize, x: usize| (((s * c + ch) * h + y) * w + x) as f32;
        let pictures: Vec<f32> = (0..b * c * h * w).map(|i| i as f32).collect();
        let mut out = vec![-1.0; pictures.len()];
        cut_patches(&pictures, [b, c, h, w], p, &mut out);
        for (i, &value) in out.iter().enumerate() {
            let (x, y, ch) = (i % p, i / p % p, i / (p * p) % c);
            let patch = i / (p * p * c);
            let (px, py, s) = (patch % (w / p), patch / (w / p) % (h / p), patch / (w / p * (h / p)));
            assert_eq!(value, at(s, ch, py * p + y, px * p + x));
        }
    }
}
