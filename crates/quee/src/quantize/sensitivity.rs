//! Which places lose most: each one alone at a width, all others at w8a8.

use anyhow::Result;
use quee_backbone::{Executor, QuantPlan, Wider};
use quee_heads::softmax;
use quee_quant::Width;
use rayon::prelude::*;

use super::layers::store;
use super::wider::sites;
use super::{calibrate, widths};
use crate::backend::Device;
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::Recipe;
use crate::run::{Options, calibration_pictures};
use crate::stages::prepare::{Prepared, prepare};

/// What one place does to the answers.
struct Row {
    site: String,
    /// Mean Kullback-Leibler divergence of float's probabilities from those with this place at a width, in millinats, by width.
    divergence: Vec<f64>,
}

/// Measures, and gives the text to print.
///
/// # Errors
/// When something from outside is missing or wrong, or on a wish to stop.
pub fn measure(
    recipe: Recipe,
    options: &Options,
    pictures: Option<usize>,
    csv: bool,
    cancel: &Cancel,
) -> Result<String> {
    let prepared = prepare(&recipe, options.data.as_deref(), options.weights.as_deref())?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let rest = Width::new(8, 8).expect("8 bits are a width");
    let mut measured = recipe.quant.widths.clone();
    measured.retain(|width| !width.is_float());
    let mut all = widths(&recipe.quant);
    all.push(rest);
    let chosen = calibration_pictures(&recipe, &prepared);
    let made_with = prepared.images(chosen)?;
    let request = super::Request {
        backbone: prepared.backbone.as_ref(),
        quant: &recipe.quant,
        widths: &all,
        batch: recipe.paths.batch,
    };
    let (mut plan, _) = calibrate(request, &device, &made_with, cancel, &|text| eprintln!("{text}"))?;
    // Rounded once, not for every place anew.
    store(&mut plan, prepared.backbone.as_ref(), &all)?;

    // Of the same split, and not used for anything else here.
    let exit_train = &prepared.splits.exit_train;
    let seen = &exit_train[..exit_train.len().min(pictures.unwrap_or(256))];
    let images = prepared.images(seen)?;
    let sites = sites(&prepared.cost);
    let stage = Stage::start("measure places", sites.len());
    let float = probabilities(&prepared, &device, &plan, Width::FLOAT, &images, recipe.paths.batch)?;
    let base = probabilities(&prepared, &device, &plan, rest, &images, recipe.paths.batch)?;
    let rows = sites.par_iter().map(|site| {
        cancel.check()?;
        let of_width = |&width: &Width| -> Result<f64> {
            let mut wider = Wider::default();
            wider.set(site, rest, width);
            let mut plan = plan.clone();
            plan.set_wider(wider);
            let got = probabilities(&prepared, &device, &plan, rest, &images, recipe.paths.batch)?;
            Ok(divergence(&float, &got, prepared.backbone.classes()))
        };
        let divergence = measured.iter().map(of_width).collect::<Result<_>>()?;
        stage.advance(1);
        Ok(Row { site: site.clone(), divergence })
    });
    let mut rows: Vec<Row> = rows.collect::<Result<_>>()?;
    stage.finish(&format!("{} places, {} widths, {} pictures of exit-train", sites.len(), measured.len(), seen.len()));
    rows.sort_by(|a, b| b.divergence[0].total_cmp(&a.divergence[0]).then_with(|| a.site.cmp(&b.site)));
    let base = divergence(&float, &base, prepared.backbone.classes());
    Ok(if csv { csv_text(&rows, &measured, base) } else { text(&rows, &measured, base, seen.len(), &recipe) })
}

/// Class probabilities of the whole backbone at a width, `[n, classes]`.
fn probabilities(
    prepared: &Prepared,
    device: &Device,
    plan: &QuantPlan,
    width: Width,
    images: &[f32],
    batch: usize,
) -> Result<Vec<f32>> {
    let mut executor = device.engine(plan.clone().into()).executor()?;
    let executor: &mut dyn Executor = executor.as_mut();
    let backbone = prepared.backbone.as_ref();
    let [c, h, w] = backbone.image_shape();
    let mut all = Vec::new();
    for images in images.chunks(batch * c * h * w) {
        let x = executor.input(&[images.len() / (c * h * w), c, h, w], images)?;
        executor.set_width(width)?;
        let tokens = backbone.body(executor, &x)?;
        executor.set_width(Width::FLOAT)?;
        let features = backbone.features(executor, &tokens)?;
        let logits = executor.linear(&features, backbone.head())?;
        all.extend(executor.read(&logits)?.chunks_exact(backbone.classes()).flat_map(softmax));
    }
    Ok(all)
}

/// Mean of `Σ p ln(p / q)` over rows, in millinats.
fn divergence(p: &[f32], q: &[f32], classes: usize) -> f64 {
    let of = |(&p, &q): (&f32, &f32)| {
        let (p, q) = (f64::from(p), f64::from(q).max(1e-12));
        if p > 0.0 { p * (p / q).ln() } else { 0.0 }
    };
    1e3 * p.iter().zip(q).map(of).sum::<f64>() / (p.len() / classes.max(1)).max(1) as f64
}

fn text(rows: &[Row], widths: &[Width], base: f64, pictures: usize, recipe: &Recipe) -> String {
    let mut out = format!(
        "Kullback-Leibler divergence from float in millinats, {pictures} pictures of exit-train, activations {:?}: one place at a width, all others at \
         w8a8 ({base:.3} with none)\n\n  {:28}",
        recipe.quant.activations, "place"
    );
    widths.iter().for_each(|width| out += &format!("  {:>9}", width.to_string()));
    out.push('\n');
    for row in rows {
        out += &format!("  {:28}", row.site);
        row.divergence.iter().for_each(|x| out += &format!("  {x:9.3}"));
        out.push('\n');
    }
    out
}

fn csv_text(rows: &[Row], widths: &[Width], base: f64) -> String {
    let mut out = "place,width,divergence_millinats,divergence_of_w8a8_millinats\n".to_owned();
    for (row, (width, x)) in rows.iter().flat_map(|row| widths.iter().zip(&row.divergence).map(move |pair| (row, pair)))
    {
        out += &format!("{},{width},{x},{base}\n", row.site);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equals_and_known_for_halves() {
        assert_eq!(divergence(&[0.25, 0.75], &[0.25, 0.75], 2), 0.0);
        let known = 1e3 * 2f64.ln();
        assert!((divergence(&[1.0, 0.0, 0.0, 1.0], &[0.5, 0.5, 0.5, 0.5], 2) - known).abs() < 1e-3);
    }
}
