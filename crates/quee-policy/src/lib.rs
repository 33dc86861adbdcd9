//! Path space, path table, policies, baselines, curves and statistics of QuEE (arXiv 2406.14404).
//!
//! Plain numbers in, plain numbers out: nothing here knows a tensor, a device or a backbone. A bit-width is an index
//! `0..B` in ascending order; a *path* of length `s` runs segments `1..=s` and answers at exit `s`.
//!
//! The way through the crate:
//!
//! 1. [`tree::PathTree`] numbers all paths; [`cost::Ledger`] prices them.
//! 2. [`table::Outcomes`] holds what every path answers for every sample of a split.
//! 3. A policy ([`open_loop`], [`dynamic`], [`fitted`]) or a rule ([`baselines`]) turns a setting (λ, a threshold, …)
//!    into one path per sample, stored as [`outcome::Choices`].
//! 4. [`lambda`] lays out the settings, [`budget`] picks one for a limit on cost, [`curve`] picks the front on *cal-a*
//!    and measures areas, [`risk`] certifies a setting on *cal-b*.
//! 5. [`study::evaluate`] does 3 and 4 for one seed, [`summary::summarise`] joins the seeds with [`bootstrap`]
//!    intervals.
//!
//! [`cross_fit`] lets *fit* take part in 4. Beside the way: [`risk_validation`] checks by resampling what [`risk`] promises, [`conformal`] turns
//! class probabilities into prediction sets, [`gap`] splits the distance from a policy to the oracle into its causes, [`overlay`] puts methods of
//! several studies on one axis.

pub mod baselines;
pub mod bootstrap;
pub mod budget;
pub mod conformal;
pub mod cost;
pub mod cross_fit;
pub mod curve;
pub mod dynamic;
pub mod fitted;
pub mod gap;
pub mod gate_features;
mod gate_fit;
pub mod ladder;
pub mod lambda;
pub mod learned;
pub mod open_loop;
pub mod oracle;
pub mod outcome;
pub mod overlay;
pub mod pooling;
mod ridge;
pub mod risk;
pub mod risk_validation;
pub mod sampling;
pub mod scores;
pub mod study;
#[cfg(test)]
mod study_tests;
pub mod summary;
pub mod table;
pub mod tree;
