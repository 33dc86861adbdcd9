//! What a method does with a split at one setting: one priced option per sample.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cost::Price;
use crate::table::Outcomes;
use crate::tree::NodeId;

/// One option per sample, and whether its answer is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choices {
    #[serde(serialize_with = "as_list", deserialize_with = "of_list")]
    prices: Arc<[Price]>,
    option: Vec<u32>,
    correct: Vec<bool>,
}

fn as_list<S: Serializer>(prices: &Arc<[Price]>, serializer: S) -> Result<S::Ok, S::Error> {
    prices.as_ref().serialize(serializer)
}

fn of_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[Price]>, D::Error> {
    Vec::deserialize(deserializer).map(Into::into)
}

impl Choices {
    /// Joins `option` `[sample]` (indices into `prices`) with `correct` `[sample]`.
    ///
    /// # Panics
    /// If the lists differ in length or an option has no price.
    pub fn new(prices: Arc<[Price]>, option: Vec<u32>, correct: Vec<bool>) -> Self {
        assert_eq!(option.len(), correct.len(), "one option and one outcome per sample");
        assert!(option.iter().all(|option| (*option as usize) < prices.len()), "every option needs a price");
        Self { prices, option, correct }
    }

    /// The choices of a policy that ends at `nodes` `[sample]` of the tree; `prices` by node.
    ///
    /// # Panics
    /// If a node is the root or unknown, or the samples differ in number.
    pub fn at_nodes(prices: &Arc<[Price]>, outcomes: &Outcomes, nodes: &[NodeId]) -> Self {
        assert_eq!(nodes.len(), outcomes.samples(), "one path per sample");
        let correct = nodes.iter().enumerate().map(|(sample, node)| outcomes.correct(*node, sample)).collect();
        Self::new(Arc::clone(prices), nodes.iter().map(|node| *node as u32).collect(), correct)
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.option.len()
    }

    /// Whether the answer is right, by sample.
    pub fn correct(&self) -> &[bool] {
        &self.correct
    }

    /// Chosen option by sample: an index into [`Choices::prices`]; for policies on the tree the node.
    pub fn options(&self) -> &[u32] {
        &self.option
    }

    /// Price of every option.
    pub fn prices(&self) -> &[Price] {
        &self.prices
    }

    /// What a sample pays.
    pub fn price(&self, sample: usize) -> &Price {
        &self.prices[self.option[sample] as usize]
    }

    fn mean(&self, figure: impl Fn(&Price) -> f64) -> f64 {
        self.option.iter().map(|option| figure(&self.prices[*option as usize])).sum::<f64>() / self.samples() as f64
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        self.correct.iter().filter(|correct| **correct).count() as f64 / self.samples() as f64
    }

    /// Mean relative cost.
    pub fn mean_cost(&self) -> f64 {
        self.mean(|price| price.cost)
    }

    /// Mean over samples of the mean weight bits.
    pub fn mean_weight_bits(&self) -> f64 {
        self.mean(|price| price.weight_bits)
    }

    /// Mean milliseconds per sample; `None` if some chosen option has no measured time.
    pub fn mean_ms(&self) -> Option<f64> {
        let mean = self.mean(|price| price.ms.unwrap_or(f64::NAN));
        (!mean.is_nan()).then_some(mean)
    }

    /// Share of samples that leave at each exit; index `s - 1` for exit `s`.
    pub fn exit_shares(&self, segments: usize) -> Vec<f64> {
        let mut shares = vec![0.0; segments];
        for option in &self.option {
            if let Some(share) = self.prices[*option as usize].exit.checked_sub(1).and_then(|at| shares.get_mut(at)) {
                *share += 1.0 / self.samples() as f64;
            }
        }
        shares
    }
}

/// One setting of a method, run on both splits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Name for people, such as `lambda 0.5`.
    pub name: String,
    /// The number behind the name: λ, threshold, exit probability, node of a static path.
    pub parameter: f64,
    /// On *cal-a*.
    pub cal: Choices,
    /// On *test*.
    pub test: Choices,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_over_samples() {
        let price = |exit, cost, ms| Price { exit, cost, weight_bits: 4.0 * exit as f64, ms };
        let prices: Arc<[Price]> = vec![price(1, 0.1, Some(1.0)), price(2, 0.4, None)].into();
        let choices = Choices::new(prices, vec![0, 1, 0, 0], vec![true, false, true, false]);
        assert_eq!(choices.accuracy(), 0.5);
        assert!((choices.mean_cost() - 0.175).abs() < 1e-12);
        assert_eq!(choices.mean_weight_bits(), 5.0);
        assert_eq!(choices.exit_shares(2), [0.75, 0.25]);
        assert_eq!(choices.mean_ms(), None);
    }
}
