//! Where a training stands, so that it can go on after it was stopped or killed.

use std::collections::BTreeMap;

use quee_backbone::Backbone;
use quee_backbone::checkpoint::{Checkpoint, CheckpointError};
use quee_backbone::tensor_file::{TensorData, encode};

use super::EpochReport;
use super::settings::TrainConfig;
use super::update::moments_of;

/// Value of the note `format`; another layout gets another number.
const FORMAT: &str = "quee training state 1";
/// Names of the moments in a file.
const MOMENTS: [&str; 2] = ["moment0", "moment1"];

/// Everything that decides how a training goes on. Two trainings in equal states end in equal bits.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// What the epochs so far have brought, the first first.
    pub history: Vec<EpochReport>,
    /// Steps done of the epoch that is under way.
    pub step: usize,
    /// Sum of the losses of this epoch's pictures so far.
    pub(super) loss: f64,
    /// Pictures of this epoch answered right so far.
    pub(super) right: usize,
    /// Present parameters, by id.
    pub(super) params: Vec<Vec<f32>>,
    /// What the optimizer remembers, by moment and then in the order of the trained parameters.
    pub(super) moments: Vec<Vec<Vec<f32>>>,
    /// Parameters after the best epoch, by id; none before the end of the first, and none without validation.
    pub(super) best: Option<Vec<Vec<f32>>>,
}

/// Why a file is not the state of this training.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Damaged, or of another backbone.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A note that is missing or makes no sense.
    #[error("{origin}: the note `{note}` is missing or damaged; hint: is this the state of a training?")]
    Note {
        /// File.
        origin: String,
        /// The note.
        note: &'static str,
    },
}

impl TrainState {
    pub(super) fn at_start(backbone: &dyn Backbone) -> Self {
        let params = backbone.params().iter().map(|p| p.data.to_vec()).collect();
        Self { history: Vec::new(), step: 0, loss: 0.0, right: 0, params, moments: Vec::new(), best: None }
    }

    /// The epoch of the best accuracy on validation pictures, from 1; the first of equal ones.
    pub fn chosen_epoch(&self) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for report in &self.history {
            let accuracy = report.validation_accuracy?;
            if best.is_none_or(|(highest, _)| accuracy > highest) {
                best = Some((accuracy, report.epoch));
            }
        }
        best.map(|(_, epoch)| epoch)
    }

    /// The bytes of a safetensors file with this state. `notes` are stored with it; the names `format`, `history` and
    /// `step` are taken.
    pub fn encode(&self, backbone: &dyn Backbone, config: &TrainConfig, notes: &BTreeMap<String, String>) -> Vec<u8> {
        let params = backbone.params();
        let tensor = |kind: &str, id: usize, values: &[f32]| {
            TensorData::f32(format!("{kind}.{}", params[id].name), params[id].shape.clone(), values.iter().copied())
        };
        let mut tensors: Vec<TensorData> = Vec::new();
        tensors.extend(self.params.iter().enumerate().map(|(id, values)| tensor("param", id, values)));
        for (kind, moment) in MOMENTS.iter().zip(&self.moments) {
            tensors.extend(trained(backbone, config).zip(moment).map(|(id, values)| tensor(kind, id, values)));
        }
        tensors.extend(self.best.iter().flatten().enumerate().map(|(id, values)| tensor("best", id, values)));
        let mut notes = notes.clone();
        notes.insert("format".into(), FORMAT.into());
        notes.insert("step".into(), format!("{} {:?} {}", self.step, self.loss, self.right));
        // The shortest text from which a float reads back is exact.
        let epoch = |r: &EpochReport| {
            let validation = r.validation_accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:?}"));
            format!("{:?} {:?} {validation}", r.loss, r.train_accuracy)
        };
        notes.insert("history".into(), self.history.iter().map(epoch).collect::<Vec<_>>().join("\n"));
        encode(&tensors, &notes)
    }

    /// Reads what [`encode`](Self::encode) wrote for the same backbone and settings.
    ///
    /// # Errors
    /// When a tensor or note is missing, surplus or misshapen.
    pub fn decode(mut file: Checkpoint, backbone: &dyn Backbone, config: &TrainConfig) -> Result<Self, StateError> {
        let origin = file.origin().to_owned();
        let wrong = |note| StateError::Note { origin: origin.clone(), note };
        let note = |name: &'static str| file.metadata().get(name).cloned().ok_or_else(|| wrong(name));
        if note("format")? != FORMAT {
            return Err(wrong("format"));
        }
        let history: Option<Vec<EpochReport>> = note("history")?.lines().enumerate().map(report).collect();
        let history = history.filter(|h| h.len() <= config.epochs).ok_or_else(|| wrong("history"))?;
        let (step, loss, right) = running(&note("step")?).ok_or_else(|| wrong("step"))?;
        let params = backbone.params();
        let mut take = |kind: &str, id: usize| -> Result<Vec<f32>, CheckpointError> {
            Ok(file.take(&format!("{kind}.{}", params[id].name), &params[id].shape)?.to_vec())
        };
        let all = 0..params.len();
        let state = Self {
            params: all.clone().map(|id| take("param", id)).collect::<Result<_, _>>()?,
            moments: MOMENTS[..moments_of(config.rule)]
                .iter()
                .map(|kind| trained(backbone, config).map(|id| take(kind, id)).collect())
                .collect::<Result<_, _>>()?,
            best: match history.first().and_then(|report| report.validation_accuracy) {
                None => None,
                Some(_) => Some(all.map(|id| take("best", id)).collect::<Result<_, _>>()?),
            },
            history,
            step,
            loss,
            right,
        };
        file.finish()?;
        Ok(state)
    }
}

/// Ids of the parameters that are trained.
pub(super) fn trained(backbone: &dyn Backbone, config: &TrainConfig) -> impl Iterator<Item = usize> {
    config.rates(backbone).into_iter().enumerate().filter(|(_, rate)| *rate > 0.0).map(|(id, _)| id)
}

fn report((at, line): (usize, &str)) -> Option<EpochReport> {
    let parts: Vec<&str> = line.split(' ').collect();
    let &[loss, train, validation] = parts.as_slice() else { return None };
    let validation_accuracy = if validation == "-" { None } else { Some(validation.parse().ok()?) };
    Some(EpochReport {
        epoch: at + 1,
        loss: loss.parse().ok()?,
        train_accuracy: train.parse().ok()?,
        validation_accuracy,
    })
}

fn running(note: &str) -> Option<(usize, f64, usize)> {
    let parts: Vec<&str> = note.split(' ').collect();
    let &[step, loss, right] = parts.as_slice() else { return None };
    Some((step.parse().ok()?, loss.parse().ok()?, right.parse().ok()?))
}
