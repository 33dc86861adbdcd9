//! Which backbone a name or a file stands for.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use quee_backbone::Variant;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::cost::BackboneCost;
use quee_backbone::fit::{self, Fit};
use quee_backbone::presets::{Preset, PresetError};

/// A backbone to be inspected.
pub struct Subject {
    /// Presets that it may be; their operations are the same.
    pub presets: Vec<Preset>,
    /// The file it comes from.
    pub file: Option<String>,
    /// What it computes.
    pub cost: BackboneCost,
    /// Channels, height and width of a picture.
    pub image: [usize; 3],
}

/// Side of a picture from which data sets usually have a thousand classes.
const LARGE: usize = 64;
/// Presets that are shown for a file that fits none.
const NEAREST: usize = 3;
/// Tensors that are shown where several differ in the same way.
const SHOWN: usize = 3;

/// Classes of most data sets with pictures of `side` pixels.
pub fn usual_classes(side: usize) -> usize {
    if side < LARGE { 10 } else { 1000 }
}

/// A preset with its usual number of classes, unless `classes` says.
///
/// # Errors
/// When it cannot be had for pictures of `image` pixels.
pub fn of_preset(preset: &Preset, image: Option<usize>, classes: Option<usize>) -> Result<Subject> {
    let preset = preset.varied(&Variant { image, pool: None })?;
    let image = preset.architecture.image_shape();
    let classes = classes.unwrap_or(usual_classes(image[1]));
    let cost = BackboneCost::count(&*preset.skeleton(classes))?;
    Ok(Subject { presets: vec![preset], file: None, cost, image })
}

/// The preset that the file at `path` fits. `unknown` is why it is no preset's name.
///
/// # Errors
/// When there is no such file, it is damaged, or it fits no preset or several with different operations.
pub fn of_file(path: &Path, unknown: PresetError, image: Option<usize>, classes: Option<usize>) -> Result<Subject> {
    if !path.exists() {
        bail!("{}: no such file, and {unknown}", path.display());
    }
    let checkpoint = Checkpoint::read(path)?;
    let origin = checkpoint.origin().to_owned();
    ensure!(
        classes.is_none(),
        "{origin}: a file has its own number of classes; hint: leave --classes away, or inspect a preset by name"
    );
    let (fits, others): (Vec<Fit>, Vec<Fit>) = fit::rank(&checkpoint, image).into_iter().partition(Fit::is_exact);
    let Some(best) = fits.first() else { bail!(nearest(&origin, &others)) };
    let cost = best.cost(&checkpoint)?;
    for other in &fits[1..] {
        if other.cost(&checkpoint)? != cost {
            let names: Vec<&str> = fits.iter().map(|fit| fit.preset.name).collect();
            bail!(
                "{origin}: its tensors fit {}, which compute different things; hint: inspect these presets by name",
                names.join(", ")
            );
        }
    }
    let image = best.preset.architecture.image_shape();
    Ok(Subject { presets: fits.into_iter().map(|fit| fit.preset).collect(), file: Some(origin), cost, image })
}

/// The message for a file that fits none.
fn nearest(origin: &str, fits: &[Fit]) -> String {
    let mut message = format!("{origin}: its tensors fit no preset");
    let near = fits.iter().enumerate().filter(|(rank, fit)| *rank == 0 || fit.agreeing >= fit.differences());
    for (_, fit) in near.take(NEAREST) {
        message += &format!("\n  {}: {} tensors agree{}", fit.preset.name, fit.agreeing, differences(fit));
    }
    message
        + "\nhint: positions of another picture size need --image; docs/adding-a-backbone.md tells how to add an architecture"
}

fn differences(fit: &Fit) -> String {
    let list = |label: &str, names: Vec<String>| match names.len() {
        0 => String::new(),
        count => {
            let more = if count > SHOWN { ", …" } else { "" };
            format!("; {count} {label}: {}{more}", names.into_iter().take(SHOWN).collect::<Vec<_>>().join(", "))
        }
    };
    let misshapen = fit.misshapen.iter().map(|(name, want, got)| format!("{name} {got:?} instead of {want:?}"));
    list("missing", fit.missing.clone())
        + &list("unknown", fit.surplus.clone())
        + &list("of another shape", misshapen.collect())
}
