//! An executor that has run once asks for no more memory.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use common::{backbone, dynamic, input, pictures, plan, widths};
use quee_backbone::{Backbone, Executor};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::Width;

/// The system's allocator, counting what each thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pictures to logits.
fn run(backbone: &dyn Backbone, executor: &mut CpuExecutor, pictures: &[f32]) {
    let images = input(backbone, executor, pictures);
    backbone.forward(executor, &images).unwrap();
    backbone.logits(executor, &images).unwrap();
}

#[test]
fn nothing_is_allocated_once_everything_has_run() {
    let backbone = &*backbone(8, 128, false, 1.0);
    let pictures = pictures(backbone, 3);
    for plan in [plan(backbone), dynamic()] {
        for isa in Isa::available() {
            let mut executor = CpuExecutor::new(Arc::clone(&plan), isa);
            for width in [widths()[0], Width::FLOAT] {
                executor.set_width(width).unwrap();
                for _ in 0..3 {
                    run(backbone, &mut executor, &pictures);
                }
                let before = COUNT.get();
                run(backbone, &mut executor, &pictures);
                // A batch that is smaller takes no more than one that is larger.
                run(backbone, &mut executor, &pictures[..pictures.len() / 3]);
                assert_eq!(COUNT.get() - before, 0, "{isa}, {width}, static {}", plan.activations.is_static());
            }
        }
    }
}
