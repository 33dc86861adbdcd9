//! The path table: prefixes are shared, and sharing changes no bit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quee::backend::{Device, Engine};
use quee::cache::Pieces;
use quee::cancel::Cancel;
use quee::progress::Stage;
use quee::recipe::{self, Recipe};
use quee::run::path_tree;
use quee::stages::prepare::{Prepared, prepare};
use quee::stages::tables::{Scratch, Table};
use quee::stages::walk::{Drive, Program};
use quee_backbone::{Backbone, ExecError, Executor, QuantPlan, presets};
use quee_quant::{WeightQuantizer, Width};
use quee_tests::counting::{Counting, Counts};
use quee_tests::{DIGITS, workspace};
use quee_train::random_weights;

/// Counts what its executors run.
struct CountingEngine {
    inner: Arc<dyn Engine>,
    counts: Counts,
}

impl Engine for CountingEngine {
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(Counting { inner: self.inner.executor()?, counts: Arc::clone(&self.counts) }))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn digits() -> (Recipe, Prepared) {
    let recipe = recipe::load(&workspace().join(DIGITS), None, &[]).unwrap();
    let prepared = prepare(&recipe, None, None).unwrap();
    (recipe, prepared)
}

#[test]
fn the_tree_takes_one_segment_run_per_prefix_and_equals_every_path_on_its_own() {
    let (recipe, prepared) = digits();
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Mse));
    let inner = Device::open(recipe.backend, &recipe.gpu).unwrap().engine(plan);
    let counting = CountingEngine { inner: Arc::clone(&inner), counts: Counts::default() };
    let tree = path_tree(&recipe).unwrap();
    let widths = &recipe.quant.widths;
    let program = Program::new(prepared.backbone.as_ref(), &recipe);
    let samples = 16;
    let chosen = &prepared.splits.test[..samples];
    let (pixels, pictures) = (prepared.images(chosen).unwrap(), prepared.pictures(chosen));
    let (cancel, progress) = (Cancel::default(), Stage::start("test", 0));
    // Batches of 5: the last one is smaller.
    let drive = |engine| Drive::new(engine, 5, &cancel, &progress);

    // With no memory for it the table lies in a file.
    let scratch = Arc::new(Scratch::within(0, None));
    let table = program.tree_features(&drive(&counting).in_scratch(scratch), &pictures, &tree, widths).unwrap();
    assert!(table.is_in_a_file());
    let table = all_lists(&table);

    let counts = counting.counts.lock().unwrap().clone();
    let mut first_block = 0;
    let mut runs = 0;
    for (segment, blocks) in recipe.paths.segments.iter().enumerate() {
        let of_segment = counts[&format!("blocks.{first_block}.attn.qkv")];
        assert_eq!(of_segment, samples * widths.len().pow(segment as u32 + 1), "segment {segment}");
        runs += of_segment;
        first_block += blocks;
    }
    assert_eq!(runs, samples * 120, "3 + 9 + 27 + 81 segment runs per picture");
    assert_eq!(counts["patch_embed.proj"], samples, "the stem runs once");

    let mut executor = inner.executor().unwrap();
    let picture = pixels.len() / samples;
    for node in tree.paths() {
        let path: Vec<Width> = tree.widths_of(node).into_iter().map(|w| widths[w]).collect();
        for sample in 0..samples {
            let alone = &pixels[sample * picture..(sample + 1) * picture];
            let features = program.run_path(executor.as_mut(), alone, &path).unwrap();
            let (alone, dim) = (&features[path.len() - 1], program.exit_dim(path.len() - 1));
            let shared = &table[node][sample * dim..(sample + 1) * dim];
            let equal = alone.iter().zip(shared).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(equal && alone.len() == dim, "path {path:?}, picture {sample}");
        }
    }
}

/// All lists of a table.
fn all_lists(table: &Table) -> Vec<Vec<f32>> {
    let lists = table.lists();
    (0..lists.len()).map(|list| lists.get(list).unwrap().into_owned()).collect()
}

/// What is kept of a batch, by pass and batch.
type Batches = BTreeMap<(u64, usize), Vec<Vec<f32>>>;

/// Batches that are kept in memory, and the passes of the run that keeps them.
#[derive(Default)]
struct Kept(Mutex<Batches>, AtomicU64);

impl Pieces for Kept {
    fn begin_pass(&self) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed)
    }

    fn piece(&self, pass: u64, number: usize) -> Option<Vec<Vec<f32>>> {
        self.0.lock().unwrap().get(&(pass, number)).cloned()
    }

    fn keep(&self, pass: u64, number: usize, piece: &[Vec<f32>]) {
        self.0.lock().unwrap().insert((pass, number), piece.to_vec());
    }
}

#[test]
fn what_a_killed_run_has_kept_is_not_run_again() {
    let (recipe, prepared) = digits();
    let inner =
        Device::open(recipe.backend, &recipe.gpu).unwrap().engine(Arc::new(QuantPlan::dynamic(WeightQuantizer::Mse)));
    let counting = CountingEngine { inner, counts: Counts::default() };
    let (tree, widths) = (path_tree(&recipe).unwrap(), &recipe.quant.widths);
    let program = Program::new(prepared.backbone.as_ref(), &recipe);
    let pictures = prepared.pictures(&prepared.splits.test[..16]);
    let (cancel, progress) = (Cancel::default(), Stage::start("test", 0));
    let run = |kept: &Kept| {
        counting.counts.lock().unwrap().clear();
        kept.1.store(0, Ordering::Relaxed);
        let drive = Drive::new(&counting, 5, &cancel, &progress).keeping(kept);
        let stem = program.all_stem_features(&drive, &pictures).unwrap();
        let table = all_lists(&program.tree_features(&drive, &pictures, &tree, widths).unwrap());
        assert_eq!(stem.list(0).unwrap(), table[0], "the root holds what is behind the stem");
        (table, counting.counts.lock().unwrap().get("patch_embed.proj").copied().unwrap_or(0))
    };
    let whole = Kept::default();
    let (expected, stems) = run(&whole);
    assert_eq!(stems, 32, "two passes over 16 pictures");
    // Batches of 5, 5, 5 and 1 in either pass: a run that died had the second of the first pass, and the first and last of the second.
    let some = Kept::default();
    for place in [(0, 1), (1, 0), (1, 3)] {
        some.0.lock().unwrap().insert(place, whole.0.lock().unwrap()[&place].clone());
    }
    let (found, stems) = run(&some);
    assert_eq!(stems, 32 - 11);
    assert!(found == expected, "the same bits");
    assert_eq!(run(&some).1, 0, "everything is there now");
}

/// Features behind every segment, where every block is computed in full.
fn features_in_full(program: &Program, executor: &mut dyn Executor, pixels: &[f32], width: Width) -> Vec<Vec<f32>> {
    let stem = if width.is_float() { width } else { program.stem };
    let mut tokens = program.stem(executor, pixels, stem).unwrap();
    let (mut block, mut features) = (0, Vec::new());
    for (index, &blocks) in program.segments.iter().enumerate() {
        executor.set_width(width).unwrap();
        for _ in 0..blocks {
            tokens = program.backbone.block(block, executor, &tokens).unwrap();
            block += 1;
        }
        features.push(program.features(executor, index, &tokens).unwrap());
    }
    assert_eq!(block, program.backbone.depth());
    features
}

#[test]
fn what_the_last_exit_sees_does_not_depend_on_tokens_that_it_does_not_read() {
    let (recipe, prepared) = digits();
    // Heads of 13 features, which run operation by operation, and of 64, which need not.
    let preset = presets::find("vit_d7_w192_p4_32").unwrap();
    let wide = preset.load(&Default::default(), random_weights(&preset.tensors(10), 5)).unwrap();
    let pixels = prepared.images(&prepared.splits.test[..6]).unwrap();
    let noise: Vec<f32> = pixels.iter().copied().cycle().take(2 * 3 * 32 * 32).collect();
    let subjects: [(&dyn Backbone, &[usize], &[f32]); 2] =
        [(prepared.backbone.as_ref(), &recipe.paths.segments, &pixels), (&*wide, &[2, 2, 2, 1], &noise)];
    for (backbone, segments, pixels) in subjects {
        let program = Program { segments, ..Program::new(backbone, &recipe) };
        let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Mse));
        let engine = Device::open(recipe.backend, &recipe.gpu).unwrap().engine(plan);
        let mut executor = engine.executor().unwrap();
        for &width in recipe.quant.widths.iter().chain([&Width::FLOAT]) {
            let path = vec![width; segments.len()];
            let features = program.run_path(executor.as_mut(), pixels, &path).unwrap();
            let full = features_in_full(&program, executor.as_mut(), pixels, width);
            let bits = |features: &[Vec<f32>]| features.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert!(bits(&features) == bits(&full), "{}, {width}", backbone.name());
        }
    }
}

#[test]
fn splits_keep_the_backbone_s_own_pictures_out() {
    let (_, prepared) = digits();
    let seen = &prepared.splits.backbone_train;
    assert_eq!(seen.len(), 800);
    for (name, part) in &prepared.splits.parts()[1..] {
        assert!(part.iter().all(|index| !seen.contains(index)), "{name}");
    }
}
