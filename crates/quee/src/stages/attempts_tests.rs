//! Devices that are lost or too small, made up and real.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quee_backbone::{Attention, Backbone, ExecError, Executor, Linear, QuantPlan, Value, forward_plain_operations};
use quee_cpu::{CpuEngine, Isa};
use quee_gpu::{Gpu, GpuEngine, GpuOptions};
use quee_quant::{WeightQuantizer, Width};

use super::attempts::{Room, whole};
use crate::backend::{Engine, OnGpu};
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::ExitTokens;
use crate::stages::source::Pictures;
use crate::stages::walk::{Drive, Program};

/// Executors of the processor that lose their device in some of the linear layers, counted from 0, and whose memory holds so many pictures.
struct Troubled {
    inner: Arc<CpuEngine>,
    holds: usize,
    losses: Vec<usize>,
    at_a_time: usize,
    calls: Arc<AtomicUsize>,
    trims: AtomicUsize,
    /// Pictures in all executors that exist.
    inside: Arc<AtomicUsize>,
}

struct TroubledExecutor {
    inner: Box<dyn Executor>,
    holds: usize,
    losses: Vec<usize>,
    calls: Arc<AtomicUsize>,
    inside: Arc<AtomicUsize>,
    mine: usize,
}

impl Troubled {
    fn new(holds: usize, losses: &[usize], at_a_time: usize) -> Self {
        let inner = CpuEngine::new(plan(), Isa::best());
        let losses = losses.to_vec();
        Self {
            inner,
            holds,
            losses,
            at_a_time,
            calls: Arc::default(),
            trims: AtomicUsize::new(0),
            inside: Arc::default(),
        }
    }
}

impl Engine for Troubled {
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(TroubledExecutor {
            inner: Box::new(self.inner.executor()),
            holds: self.holds,
            losses: self.losses.clone(),
            calls: Arc::clone(&self.calls),
            inside: Arc::clone(&self.inside),
            mine: 0,
        }))
    }

    fn describe(&self) -> String {
        "troubled".into()
    }

    fn batches_at_a_time(&self) -> Option<usize> {
        Some(self.at_a_time)
    }

    fn trim(&self) {
        self.trims.fetch_add(1, Ordering::SeqCst);
    }
}

impl Executor for TroubledExecutor {
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        "troubled".into()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let (device, reason) = ("troubled".to_owned(), "on purpose".to_owned());
        if self.mine == 0 {
            self.mine = self.inner.shape(x)?[0];
            let inside = self.inside.fetch_add(self.mine, Ordering::SeqCst) + self.mine;
            if inside > self.holds {
                return Err(ExecError::OutOfMemory { device, reason });
            }
        }
        if self.losses.contains(&self.calls.fetch_add(1, Ordering::SeqCst)) {
            return Err(ExecError::DeviceLost { device, reason });
        }
        self.inner.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.inner.attention_values(p, qkv, attention)
    }
}

impl Drop for TroubledExecutor {
    fn drop(&mut self) {
        self.inside.fetch_sub(self.mine, Ordering::SeqCst);
    }
}

struct Digits(Vec<f32>);

impl Pictures for Digits {
    fn len(&self) -> usize {
        self.0.len() / 64
    }

    fn batch(&self, range: std::ops::Range<usize>) -> Result<Vec<f32>, quee_data::DataError> {
        Ok(self.0[64 * range.start..64 * range.end].to_vec())
    }

    fn is_costly(&self) -> bool {
        false
    }
}

fn plan() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}

/// Embedded backbone and some pictures.
fn digits(count: usize) -> (Box<dyn Backbone>, Digits) {
    let preset = quee_backbone::presets::find("vit_d6_w80_p2_8").unwrap();
    let checkpoint = crate::assets::checkpoint(preset.name, "digits").unwrap().unwrap();
    let backbone = preset.load(&quee_backbone::Variant::default(), checkpoint).unwrap();
    let data = quee_data::Dataset::digits().unwrap();
    let transform = crate::stages::prepare::transform_of(&preset, backbone.image_shape());
    let pictures = data.batch(&(0..count).collect::<Vec<_>>(), &transform).unwrap();
    (backbone, Digits(pictures))
}

/// Runs a path of two segments with batches of `batch` pictures; the features, and what was taken to fit.
fn features(engine: &dyn Engine, pictures: usize, batch: usize) -> anyhow::Result<(Vec<Vec<f32>>, Room)> {
    let (backbone, pictures) = digits(pictures);
    let width = Width::new(4, 4).unwrap();
    let program = Program { backbone: backbone.as_ref(), segments: &[1, 5], stem: width, tokens: ExitTokens::Class };
    let (cancel, progress) = (Cancel::default(), Stage::start("test", 0));
    let drive = Drive::new(engine, batch, &cancel, &progress);
    let features = program.path_features(&drive, &pictures, &[width, width])?;
    let lists = features.lists();
    let lists = (0..lists.len()).map(|list| Ok(lists.get(list)?.into_owned())).collect::<anyhow::Result<_>>()?;
    Ok((lists, drive.room))
}

fn undisturbed(pictures: usize, batch: usize) -> Vec<Vec<f32>> {
    features(&Troubled::new(usize::MAX, &[], 1), pictures, batch).unwrap().0
}

/// Linear layers that one batch passes: stem, and four in each of six blocks.
const LAYERS: usize = 25;

#[test]
fn a_batch_that_loses_its_device_is_run_once_more() {
    let expected = undisturbed(20, 8);
    for losses in [vec![0], vec![LAYERS - 1], vec![LAYERS + 3], vec![7, 8 + LAYERS]] {
        let engine = Troubled::new(usize::MAX, &losses, 1);
        assert_eq!(features(&engine, 20, 8).unwrap().0, expected, "{losses:?}");
        assert!(engine.calls.load(Ordering::SeqCst) > 3 * LAYERS);
    }
}

#[test]
fn a_second_loss_of_one_batch_ends_the_run() {
    let error = features(&Troubled::new(usize::MAX, &[3, 4 + 10], 1), 20, 8).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ExecError::DeviceLost { .. })), "{error}");
}

#[test]
fn a_batch_that_does_not_fit_is_halved_until_it_does() {
    let expected = undisturbed(50, 16);
    for (holds, fits) in [(15, 8), (7, 4), (1, 1)] {
        for at_a_time in [1, 2, 3] {
            let engine = Troubled::new(holds, &[], at_a_time);
            let (found, room) = features(&engine, 50, 16).unwrap();
            assert_eq!(found, expected, "{holds} pictures, {at_a_time} at a time");
            assert_eq!(room.pictures.load(Ordering::SeqCst), fits);
            assert!(engine.trims.load(Ordering::SeqCst) > 0);
        }
    }
}

#[test]
fn batches_that_fit_alone_but_not_together_run_alone() {
    let engine = Troubled::new(16, &[], 4);
    let (found, room) = features(&engine, 160, 16).unwrap();
    assert_eq!(found, undisturbed(160, 16));
    assert_eq!(room.pictures.load(Ordering::SeqCst), usize::MAX, "nothing is halved");
}

#[test]
fn a_picture_that_does_not_fit_is_the_error() {
    let error = features(&Troubled::new(0, &[], 2), 20, 8).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ExecError::OutOfMemory { .. })), "{error}");
}

#[test]
fn whole_work_begins_again_with_half_as_much() {
    let engine = Troubled::new(usize::MAX, &[], 1);
    let (device, reason) = ("d".to_owned(), "r".to_owned());
    let lost = ExecError::DeviceLost { device: device.clone(), reason: reason.clone() };
    let full = ExecError::OutOfMemory { device, reason };
    let mut sizes = Vec::new();
    let done = whole(&engine, 16, &|_| {}, |size| {
        sizes.push(size);
        match sizes.len() {
            1 | 3 => Err(full.clone().into()),
            2 => Err(lost.clone().into()),
            _ => Ok(size),
        }
    });
    assert_eq!((done.unwrap(), sizes), (4, vec![16, 8, 8, 4]));
    assert!(whole(&engine, 16, &|_| {}, |_| Err::<(), _>(full.clone().into())).is_err());
    assert!(whole(&engine, 16, &|_| {}, |_| Err::<(), _>(lost.clone().into())).is_err());
    assert_eq!(whole(&engine, 1, &|_| {}, |_| Ok(())).unwrap(), ());
}

/// An engine on the first adapter, or a line that says why there is none.
fn gpu(options: &GpuOptions) -> Option<Arc<GpuEngine>> {
    match Gpu::open(options) {
        Ok(gpu) => Some(GpuEngine::on(plan(), gpu)),
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {error}\n"));
            None
        }
    }
}

#[test]
fn a_gpu_with_little_memory_gives_the_same_bits() {
    let Some(engine) = gpu(&GpuOptions::default()) else { return };
    let plenty = OnGpu(engine);
    let (expected, room) = features(&plenty, 150, 64).unwrap();
    assert_eq!(room.pictures.load(Ordering::SeqCst), usize::MAX);
    let limit = plenty.0.gpu().allocated();
    drop(plenty);
    let options = GpuOptions { memory: Some(limit / 4), ..GpuOptions::default() };
    let little = OnGpu(gpu(&options).expect("it could be opened before"));
    let (found, room) = features(&little, 150, 64).unwrap();
    assert!(found == expected);
    let fits = room.pictures.load(Ordering::SeqCst);
    assert!((1..64).contains(&fits), "{fits} pictures fit");
    assert!(little.0.gpu().allocated() <= limit / 4);
}

/// Gives its device up once, in the middle of the work.
struct Losing {
    inner: OnGpu,
    executors: AtomicUsize,
}

impl Engine for Losing {
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError> {
        let executor = self.inner.executor()?;
        if self.executors.fetch_add(1, Ordering::SeqCst) == 2 {
            self.inner.0.gpu().lose();
        }
        Ok(executor)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn batches_at_a_time(&self) -> Option<usize> {
        self.inner.batches_at_a_time()
    }
}

#[test]
fn a_gpu_that_is_lost_in_the_middle_gives_the_same_bits() {
    let Some(engine) = gpu(&GpuOptions::default()) else { return };
    let first = engine.gpu();
    let losing = Losing { inner: OnGpu(engine), executors: AtomicUsize::new(0) };
    let (found, _) = features(&losing, 60, 8).unwrap();
    assert!(!Arc::ptr_eq(&first, &losing.inner.0.gpu()), "another device was opened");
    let whole = OnGpu(gpu(&GpuOptions::default()).expect("it could be opened before"));
    assert!(found == features(&whole, 60, 8).unwrap().0);
}
