//! Prefixes and suffixes as numbers, for predictors that take the continuation as an input.
//!
//! That a predictor may read what it is asked about, and in which form, is a choice of this project.

use crate::FeatureSpec;

/// Numbers per segment in the description of a path: weight bits, activation bits, whether it has been run.
const PER_SEGMENT: usize = 3;

/// What describes a path as a whole: the depth at which it answers and the cost of going there.
const SUMMARIES: usize = 2;

impl FeatureSpec {
    /// Length of [`describe_path`](Self::describe_path); the same at every gate.
    pub fn path_dim(&self) -> usize {
        PER_SEGMENT * self.segments + SUMMARIES
    }

    /// Names of the numbers of [`describe_path`](Self::describe_path), in order.
    pub fn path_names(&self) -> Vec<String> {
        let segment = |s| [format!("path_weight_bits_{s}"), format!("path_act_bits_{s}"), format!("already_run_{s}")];
        (1..=self.segments).flat_map(segment).chain(["depth".to_owned(), "cost".to_owned()]).collect()
    }

    /// Appends the description of a whole path to `out`, at any gate in the same form: per segment weight bits / 8 and
    /// activation bits / 8 (float counts as 10 bits; both 0 where the path does not go) and 1 if it has been run (it
    /// belongs to the prefix), else 0; then the share of segments after which the path answers, and `cost`.
    ///
    /// `prefix` and `suffix` are indices into [`widths`](Self::widths). `cost` is that of going on from here to the
    /// answer, relative to the float reference; 0 or nearly so for the empty suffix.
    ///
    /// # Panics
    /// When the path is longer than the backbone or a width does not exist.
    pub fn describe_path(&self, prefix: &[usize], suffix: &[usize], cost: f32, out: &mut Vec<f32>) {
        let depth = prefix.len() + suffix.len();
        assert!(depth <= self.segments, "a path of {depth} of {} segments", self.segments);
        for (segment, &width) in prefix.iter().chain(suffix).enumerate() {
            out.extend(self.bits(width));
            out.push(if segment < prefix.len() { 1.0 } else { 0.0 });
        }
        out.extend(std::iter::repeat_n(0.0, PER_SEGMENT * (self.segments - depth)));
        out.extend([depth as f32 / self.segments as f32, cost]);
    }

    /// Length of [`describe_suffix`](Self::describe_suffix) at `gate`.
    pub fn suffix_dim(&self, gate: usize) -> usize {
        2 * (self.segments - gate) + SUMMARIES
    }

    /// Names of the numbers of [`describe_suffix`](Self::describe_suffix), in order.
    pub fn suffix_names(&self, gate: usize) -> Vec<String> {
        let segment = |s| [format!("path_weight_bits_{s}"), format!("path_act_bits_{s}")];
        (gate + 1..=self.segments).flat_map(segment).chain(["depth".to_owned(), "cost".to_owned()]).collect()
    }

    /// Appends to `out` what [`describe_path`](Self::describe_path) says of the segments behind `gate` and of the path
    /// as a whole: what the features of the gate, widths so far included, do not say.
    ///
    /// # Panics
    /// When the suffix is longer than what is left of the backbone or a width does not exist.
    pub fn describe_suffix(&self, gate: usize, suffix: &[usize], cost: f32, out: &mut Vec<f32>) {
        let depth = gate + suffix.len();
        assert!(depth <= self.segments, "a path of {depth} of {} segments", self.segments);
        suffix.iter().for_each(|&width| out.extend(self.bits(width)));
        out.extend(std::iter::repeat_n(0.0, 2 * (self.segments - depth)));
        out.extend([depth as f32 / self.segments as f32, cost]);
    }
}

#[cfg(test)]
mod tests {
    use quee_quant::Width;

    use super::*;

    fn spec() -> FeatureSpec {
        let widths = vec![Width::new(4, 8).unwrap(), Width::FLOAT];
        FeatureSpec { classes: 2, widths, segments: 4, projection: 0, token_dim: 0, projection_seed: 0 }
    }

    #[test]
    fn paths_worked_by_hand() {
        let mut out = vec![9.0];
        spec().describe_path(&[0], &[1, 0], 0.25, &mut out);
        let expected = [9.0, 0.5, 1.0, 1.0, 1.25, 1.25, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.75, 0.25];
        assert_eq!(out, expected);
        assert_eq!((spec().path_dim(), spec().path_names().len()), (14, 14));
        out.clear();
        spec().describe_suffix(1, &[1, 0], 0.25, &mut out);
        assert_eq!(out, [1.25, 1.25, 0.5, 1.0, 0.0, 0.0, 0.75, 0.25]);
        assert_eq!((spec().suffix_dim(1), spec().suffix_names(1).len()), (8, 8));
        assert_eq!(spec().suffix_names(3), ["path_weight_bits_4", "path_act_bits_4", "depth", "cost"]);
    }

    #[test]
    fn paths_are_told_apart_at_every_gate() {
        let mut seen = Vec::new();
        for gate in 1..4 {
            let paths = crate::GatePaths::all(2, 4, gate).unwrap();
            for (prefix, suffix) in paths.prefixes().iter().flat_map(|p| paths.suffixes().iter().map(move |q| (p, q))) {
                let mut out = Vec::new();
                spec().describe_path(prefix, suffix, 0.0, &mut out);
                assert_eq!(out.len(), spec().path_dim());
                assert!(!seen.contains(&out), "gate {gate}, prefix {prefix:?}, suffix {suffix:?}");
                seen.push(out);
            }
        }
    }
}
