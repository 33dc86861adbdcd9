//! Accuracy of the static backbone with each quantizer.

use anyhow::{Result, ensure};
use quee_policy::ladder::accuracy;
use quee_quant::{ActQuantizer, Width};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{calibrate, needs_pictures, widths};
use crate::backend::Device;
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::{Quant, Recipe};
use crate::run::{Options, program};
use crate::stages::answers::{NodeAnswers, own_head};
use crate::stages::prepare::{Prepared, prepare};
use crate::stages::walk::Drive;

/// What to measure.
pub struct Request<'a> {
    /// Quantizers.
    pub quantizers: &'a [ActQuantizer],
    /// Draws of the calibration pictures.
    pub draws: usize,
    /// Most pictures of test.
    pub pictures: Option<usize>,
    /// Print CSV.
    pub csv: bool,
}

/// One quantizer at one width, over all draws.
struct Cell {
    quantizer: &'static str,
    width: Width,
    /// Share of right answers of each draw.
    accuracies: Vec<f64>,
    /// Difference to float of the first draw in points, and its standard error over pictures.
    loss: (f64, f64),
    /// Share of answers that are those of float, first draw.
    same: f64,
    /// Mean seconds of a calibration, all widths together.
    seconds: f64,
}

/// Measures, and gives the text to print.
///
/// # Errors
/// When something from outside is missing or wrong, or on a wish to stop.
pub fn measure(recipe: &Recipe, options: &Options, request: &Request<'_>, cancel: &Cancel) -> Result<String> {
    ensure!(request.draws > 0, "--draws 0 measures nothing; hint: 1 or more");
    let prepared = prepare(recipe, options.data.as_deref(), options.weights.as_deref())?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let all = &prepared.splits.test;
    let chosen = &all[..all.len().min(request.pictures.unwrap_or(usize::MAX))];
    let quantizers = request.quantizers;
    let labels = prepared.data.labels_of(chosen);
    let mut measured = recipe.quant.widths.clone();
    measured.retain(|width| !width.is_float());
    let stage = Stage::start("measure quantizers", 0);
    let plain = Quant { activations: ActQuantizer::DynamicToken, ..recipe.quant.clone() };
    let float = answers(recipe, &prepared, &device, &plain, 0, &[Width::FLOAT], chosen, cancel, &stage)?.0.remove(0);
    let right = |answers: &[u16]| -> Vec<bool> { answers.iter().zip(&labels).map(|(a, label)| a == label).collect() };
    let float_right = right(&float);

    let mut cells: Vec<Cell> = Vec::new();
    for quantizer in quantizers {
        let quant = Quant { activations: *quantizer, ..recipe.quant.clone() };
        // Without pictures all draws are alike.
        let draws = if needs_pictures(&quant) { request.draws } else { 1 };
        let first = cells.len();
        for draw in 0..draws {
            stage.say(&format!("{}, draw {}", quantizer.name(), draw + 1));
            let (all, seconds) = answers(recipe, &prepared, &device, &quant, draw, &measured, chosen, cancel, &stage)?;
            for (at, (&width, answers)) in measured.iter().zip(&all).enumerate() {
                let right = right(answers);
                if draw == 0 {
                    let same = answers.iter().zip(&float).filter(|(a, b)| a == b).count() as f64 / float.len() as f64;
                    let loss = paired_loss(&float_right, &right);
                    let name = quantizer.name();
                    cells.push(Cell { quantizer: name, width, accuracies: Vec::new(), loss, same, seconds: 0.0 });
                }
                let cell = &mut cells[first + at];
                cell.accuracies.push(accuracy(&right));
                cell.seconds += seconds / draws as f64;
            }
        }
    }
    stage.finish(&format!("{} quantizers, {} widths", quantizers.len(), measured.len()));
    let float = accuracy(&float_right);
    let head = format!(
        "{} on {}, {} pictures of test, {} for calibration, {} draws, backend {}; weights {:?}, rounding {:?}, bias correction {}; float {:.2}%\n",
        prepared.backbone.name(),
        prepared.data.name,
        chosen.len(),
        recipe.quant.calibration_pictures,
        request.draws,
        device.describe(),
        recipe.quant.weights,
        recipe.quant.rounding,
        recipe.quant.bias_correction,
        100.0 * float
    );
    Ok(if request.csv { csv(&prepared, &cells, float) } else { head + &text(&cells) })
}

/// Accuracy that `a` has and `b` lacks, and the standard error of the paired difference, in points.
fn paired_loss(a: &[bool], b: &[bool]) -> (f64, f64) {
    let n = a.len().max(1) as f64;
    let differences = || a.iter().zip(b).map(|(&a, &b)| f64::from(u8::from(a)) - f64::from(u8::from(b)));
    let mean = differences().sum::<f64>() / n;
    let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
    (100.0 * mean, 100.0 * (variance / n).sqrt())
}

/// The answers at full depth at each of `measured`, and the seconds that calibration took.
#[allow(clippy::too_many_arguments)]
fn answers(
    recipe: &Recipe,
    prepared: &Prepared,
    device: &Device,
    quant: &Quant,
    draw: usize,
    measured: &[Width],
    chosen: &[usize],
    cancel: &Cancel,
    stage: &Stage,
) -> Result<(Vec<Vec<u16>>, f64)> {
    let mut pool = prepared.splits.exit_train.clone();
    // The first draw is the one that a run takes.
    if draw > 0 {
        pool.shuffle(&mut ChaCha8Rng::seed_from_u64(draw as u64));
    }
    pool.truncate(if needs_pictures(quant) { quant.calibration_pictures } else { 0 });
    let pictures = prepared.images(&pool)?;
    let start = std::time::Instant::now();
    let widths = widths(quant);
    let backbone = prepared.backbone.as_ref();
    let request = super::Request { backbone, quant, widths: &widths, batch: recipe.paths.batch };
    let (plan, _) = calibrate(request, device, &pictures, cancel, &|text| stage.say(text))?;
    let seconds = start.elapsed().as_secs_f64();
    let engine = device.engine(plan.into());
    let drive = Drive::new(engine.as_ref(), recipe.paths.batch, cancel, stage);
    let head = own_head(backbone.head());
    let of_width = |&width: &Width| -> Result<Vec<u16>> {
        let path = vec![width; recipe.paths.segments.len()];
        // The reference is in float from its first operation on.
        let mut program = program(recipe, prepared);
        if width.is_float() {
            program.stem = width;
        }
        let features = program.path_features(&drive, &prepared.pictures(chosen), &path)?;
        let last = features.lists().last()?;
        Ok(NodeAnswers::compute(&head, &last).answers)
    };
    Ok((measured.iter().map(of_width).collect::<Result<_>>()?, seconds))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Largest less least.
fn spread(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max) - values.iter().copied().fold(f64::MAX, f64::min)
}

fn text(cells: &[Cell]) -> String {
    let mut out =
        "\n  quantizer      width   accuracy   spread  loss (paired 95%), points  as float  seconds\n".to_owned();
    for cell in cells {
        let (loss, error) = cell.loss;
        out += &format!(
            "  {:13}  {:6}  {:7.2}%  {:7.2}  {:8.2} [{:6.2}, {:6.2}]   {:8.3}  {:7.2}\n",
            cell.quantizer,
            cell.width.to_string(),
            100.0 * mean(&cell.accuracies),
            100.0 * spread(&cell.accuracies),
            loss,
            loss - 1.96 * error,
            loss + 1.96 * error,
            cell.same,
            cell.seconds
        );
    }
    out
}

fn csv(prepared: &Prepared, cells: &[Cell], float: f64) -> String {
    let mut out =
        "dataset,quantizer,width,accuracy,spread,loss_points,loss_standard_error,same_as_float,calibration_s\n"
            .to_owned();
    let name = &prepared.data.name;
    out += &format!("{name},float,float,{float},0,0,0,1,0\n");
    for cell in cells {
        let (loss, error) = cell.loss;
        out += &format!(
            "{name},{},{},{},{},{loss},{error},{},{:.3}\n",
            cell.quantizer,
            cell.width,
            mean(&cell.accuracies),
            spread(&cell.accuracies),
            cell.same,
            cell.seconds
        );
    }
    out
}
