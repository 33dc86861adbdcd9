//! What runs on paths need: data, splits, backbone, tree, and quantizers.

use std::sync::Arc;

use anyhow::Result;
use quee_policy::tree::PathTree;
use quee_train::TrainDevice;

use crate::backend::{Device, Engine};
use crate::cache::keys::Keys;
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::experiment::Runner;
use crate::quantize::file::Quantizers;
use crate::recipe::Recipe;
use crate::run::{Options, Quality, calibrate, path_tree};
use crate::stages::prepare::{Prepared, prepare};

/// What is known before anything is computed.
pub struct Ready {
    /// What runs the backbone.
    pub device: Device,
    /// What trains exits and gates.
    pub training: TrainDevice,
    /// Data, splits, backbone.
    pub prepared: Arc<Prepared>,
    /// Paths.
    pub tree: Arc<PathTree>,
    /// What stages depend on.
    pub keys: Arc<Keys>,
}

impl Ready {
    /// Loads what a recipe names.
    ///
    /// # Errors
    /// When something from outside is missing or wrong.
    pub async fn load(recipe: &Arc<Recipe>, options: &Options, runner: &mut Runner) -> Result<Self> {
        let device = Device::open(recipe.backend, &recipe.gpu)?;
        let training = device.training()?;
        let (r, o, d, t) = (Arc::clone(recipe), options.clone(), device.clone(), training.name().to_owned());
        let loaded = runner.stage("prepare", 0, move |_| {
            let prepared = prepare(&r, o.data.as_deref(), o.weights.as_deref())?;
            let keys = Keys::new(&r, &prepared, &d, &t)?;
            let outcome = format!("{} pictures, backbone {}", prepared.data.len(), prepared.backbone.name());
            Ok(((Arc::new(prepared), Arc::new(keys)), outcome))
        });
        let (prepared, keys) = loaded.await?;
        let tree = Arc::new(path_tree(recipe)?);
        Ok(Self { device, training, prepared, tree, keys })
    }
}

/// Data, backbone and quantizers.
pub struct Calibrated {
    /// What it was made of.
    pub ready: Ready,
    /// Quantizers.
    pub quantizers: Arc<Quantizers>,
    /// Makes executors with them.
    pub engine: Arc<dyn Engine>,
    /// Program and machine.
    pub environment: Environment,
}

impl Calibrated {
    /// Loads what a recipe names, and makes its quantizers or finds them.
    ///
    /// # Errors
    /// When something from outside is missing or wrong, or a wish to stop.
    pub async fn compute(
        recipe: &Arc<Recipe>,
        options: &Options,
        runner: &mut Runner,
        cancel: &Cancel,
    ) -> Result<Self> {
        let ready = Ready::load(recipe, options, runner).await?;
        let Ready { device, training, prepared, keys, .. } = &ready;
        let cache = Arc::clone(&runner.cache);

        let (r, p, d, c) = (Arc::clone(recipe), Arc::clone(prepared), device.clone(), cancel.clone());
        let (k, store) = (Arc::clone(keys), Arc::clone(&cache));
        let made = runner.stage("calibrate quantizers", 0, move |stage| {
            let mut fresh = None;
            let (bytes, stored) = store.stage(&k.quantizers()?, &c, &|text| stage.say(text), |_| {
                let (made, outcome) = calibrate(&r, &p, &d, Quality::Measured, &c, &|text| stage.say(text))?;
                let bytes = made.encode()?;
                fresh = Some((made, outcome.clone()));
                Ok((bytes, outcome))
            })?;
            let (made, outcome) = match fresh {
                Some(fresh) => fresh,
                None => (Quantizers::parse(&bytes.0, "the stored quantizers")?, bytes.1),
            };
            Ok((Arc::new(made), told(outcome, stored)))
        });
        let quantizers = made.await?;
        let engine = device.engine(Arc::new(quantizers.plan.clone()));
        let threads = runner.pool.current_num_threads();
        let environment = Environment::detect(recipe.backend, device, training, threads, &recipe.seeds);
        Ok(Self { ready, quantizers, engine, environment })
    }
}

/// The outcome of a stage, and whether that is of an earlier run.
pub fn told(outcome: String, stored: bool) -> String {
    if stored { outcome + " (stored)" } else { outcome }
}
