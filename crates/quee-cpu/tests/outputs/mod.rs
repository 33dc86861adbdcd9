//! What a backbone gives on an executor.

use quee_backbone::{Backbone, Executor};

use crate::common::input;

/// Tokens behind the last block.
pub fn tokens(backbone: &dyn Backbone, executor: &mut dyn Executor, pictures: &[f32]) -> Vec<f32> {
    let images = input(backbone, executor, pictures);
    let tokens = backbone.body(executor, &images).unwrap();
    executor.read(&tokens).unwrap()
}

/// What the classifier says.
pub fn logits(backbone: &dyn Backbone, executor: &mut dyn Executor, pictures: &[f32]) -> Vec<f32> {
    let images = input(backbone, executor, pictures);
    let logits = backbone.logits(executor, &images).unwrap();
    executor.read(&logits).unwrap()
}
