//! Damaged checkpoints give an error or the right data, never a panic, and never take more than ten times the file's size
//! of memory. The allocator counts, so this file holds a single test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use quee_backbone::checkpoint::{Checkpoint, Dtype};
use quee_backbone::tensor_file::{self, TensorData};

/// Counts the bytes that are in use and their peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator; the counters do not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What may be allocated however short the file is: a read buffer, the least budget of each pickle, messages.
const CONSTANT: usize = 128 << 10;
const FACTOR: usize = 10;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u32>)>;

/// All float tensors, by bits; `None` when the file or one of them is refused.
fn load(bytes: &[u8]) -> Option<Tensors> {
    let mut checkpoint = Checkpoint::parse(bytes, "damaged").ok()?;
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let mut tensors = Tensors::new();
    let mut all = true;
    for name in names.iter().filter(|name| checkpoint.dtype(name).is_some_and(Dtype::converts)).collect::<Vec<_>>() {
        let shape = checkpoint.shape(name).unwrap().to_vec();
        match checkpoint.take(name, &shape) {
            Ok(values) => drop(tensors.insert(name.clone(), (shape, values.iter().map(|x| x.to_bits()).collect()))),
            Err(_) => all = false,
        }
    }
    all.then_some(tensors)
}

/// A small generator of random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }
}

/// Flips bits of a copy, cuts it short, or does both. Most of the damage is among the first bytes, where formats keep
/// their structure.
fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let kind = random.below(4);
    if kind != 0 {
        for _ in 0..=random.below(4) {
            let range = if random.below(2) == 0 { damaged.len() } else { damaged.len().min(2000) };
            let at = random.below(range);
            damaged[at] ^= 1 << random.below(8);
        }
    }
    if kind < 2 {
        damaged.truncate(random.below(damaged.len()));
    }
    damaged
}

/// Damages a file 200 times. `protected` formats have checksums: whatever is read from them is right. In others, an
/// element that was hit is as it stands in the file, and a changed name or shape is found when it is taken.
fn corrupt(name: &str, bytes: &[u8], protected: bool) {
    let whole = load(bytes).expect("the undamaged file is read");
    let mut random = Random(7);
    let (mut errors, mut right) = (0, 0);
    for i in 0..200 {
        let damaged = damage(bytes, &mut random);
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let read = Checkpoint::parse(&damaged, "damaged").is_ok();
        let result = load(&damaged);
        let used = PEAK.load(Relaxed) - before;
        // The comparison's copy of all elements is part of what is counted.
        let limit = FACTOR * damaged.len() + CONSTANT;
        assert!(used <= limit, "{name}, damage {i}: {used} bytes for a file of {}", damaged.len());
        match result {
            None => errors += 1,
            Some(tensors) if protected => {
                for (tensor, values) in &tensors {
                    if let Some(expected) = whole.get(tensor) {
                        assert_eq!(values, expected, "{name}, damage {i}, tensor {tensor}");
                    }
                }
                right += 1;
            }
            Some(_) => {
                assert!(read && damaged.len() == bytes.len(), "{name}, damage {i}: a file that was cut short is read");
                right += 1;
            }
        }
    }
    assert!(errors > 50 && errors + right == 200, "{name}: {errors} errors, {right} read");
    println!("{name}: {errors} of 200 refused, {right} read");
}

#[test]
fn damaged_files_give_an_error_or_the_right_data() {
    let fixture =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap();
    let values = |n: usize| (0..n).map(|i| i as f32 * 0.5);
    let tensors = [
        TensorData::f32("blocks.0.weight", vec![40, 8], values(320)),
        TensorData::f32("blocks.0.bias", vec![40], values(40)),
        TensorData::u16("index", vec![3], [1, 2, 3]),
    ];
    let notes = BTreeMap::from([("dataset".to_owned(), "digits".to_owned())]);
    corrupt("safetensors", &tensor_file::encode(&tensors, &notes), false);
    for name in ["plain.pth", "layouts.pth", "nested.protocol2.pth.tar", "nested.protocol5.pth.tar"] {
        corrupt(name, &fixture(name), true);
    }
    for name in ["plain.legacy.pth", "layouts.legacy.pth", "nested.legacy.pth.tar"] {
        corrupt(name, &fixture(name), false);
    }
    // Large enough that the constant does not matter.
    let large = [TensorData::f32("a", vec![400, 400], values(160_000)), TensorData::f32("b", vec![400], values(400))];
    corrupt("large safetensors", &tensor_file::encode(&large, &notes), false);
    // A pickle as long as the file, of instructions that build something each.
    for part in ["}", "]", ")", "(", "N", "}q\x00", "(NNNNt", "NNN\u{1}"] {
        let mut bytes = b"\x80\x02".to_vec();
        bytes.extend(part.bytes().cycle().take(1 << 20));
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        assert!(Checkpoint::parse(&bytes, "pickle").is_err());
        let used = PEAK.load(Relaxed) - before;
        assert!(used <= FACTOR * bytes.len() + CONSTANT, "{part:?}: {used} bytes");
    }
}
