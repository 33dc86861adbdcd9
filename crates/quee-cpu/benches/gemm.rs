//! Throughput of the integer matrix product on one thread, next to the peak of its inner instruction.
//!
//! `cargo bench -p quee-cpu`. One element is one operation: 2 · M · N · K per product. The `peak` of an instruction set runs
//! the same instructions on registers alone.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quee_cpu::Isa;
use quee_cpu::gemm::{GemmScratch, PackedB, gemm_i8};

/// Rows per call, as the executor gives them.
const ROWS: usize = 48;

fn product(m: usize, a: &[i8], sums: &[i32], b: &PackedB, out: &mut [i32], scratch: &mut GemmScratch) {
    let (n, k) = (b.n(), b.k());
    for row in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - row);
        gemm_i8(rows, &a[row * k..], k, &sums[row..row + rows], b, &mut out[row * n..(row + rows) * n], scratch);
    }
}

fn products(criterion: &mut Criterion) {
    for (m, n, k) in [(788, 768, 768), (4160, 576, 192)] {
        let a: Vec<i8> = (0..m * k).map(|i| (i * 7919 % 255) as u8 as i8).collect();
        let sums: Vec<i32> = a.chunks_exact(k).map(|row| row.iter().map(|&x| i32::from(x)).sum()).collect();
        let codes: Vec<i8> = (0..n * k).map(|i| (i * 104_729 % 255) as u8 as i8).collect();
        let mut out = vec![0; m * n];
        let mut group = criterion.benchmark_group(format!("{m}x{n}x{k}"));
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        for isa in Isa::available() {
            let mut b = PackedB::new(isa);
            b.pack(n, k, &codes);
            let mut scratch = GemmScratch::default();
            group.bench_function(isa.to_string(), |bench| {
                bench.iter(|| product(m, &a, &sums, &b, black_box(&mut out), &mut scratch));
            });
        }
        group.finish();
    }
}

/// Rounds of the register-only loops.
const ROUNDS: usize = 10_000;

#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::ROUNDS;

    /// The same vector in another register as far as the compiler can tell, at no cost: otherwise it would take the product out of
    /// the loop.
    #[target_feature(enable = "avx2")]
    fn opaque(mut vector: __m256i) -> __m256i {
        // SAFETY: no instruction is added.
        unsafe {
            asm!("/* {0} */", inout(ymm_reg) vector, options(pure, nomem, nostack, preserves_flags));
        }
        vector
    }

    /// Twelve chains of multiply-add and addition, as many as the kernel has sums.
    #[target_feature(enable = "avx2")]
    pub fn avx2() {
        let (a, mut b) = (black_box(_mm256_set1_epi16(3)), black_box(_mm256_set1_epi16(5)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                b = opaque(b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
            }
        }
        black_box(sums);
    }

    /// Twenty-four chains, as many as the kernel has sums.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni() {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); 24];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, b, a);
            }
        }
        black_box(sums);
    }
}

fn peaks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peak");
    for isa in Isa::available() {
        match isa {
            Isa::Portable => {}
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                group.throughput(Throughput::Elements((2 * 16 * 12 * ROUNDS) as u64));
                // SAFETY: the machine has AVX2.
                group.bench_function("avx2", |bench| bench.iter(|| unsafe { peak::avx2() }));
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                group.throughput(Throughput::Elements((2 * 64 * 24 * ROUNDS) as u64));
                // SAFETY: the machine has AVX-512 VNNI.
                group.bench_function("avx512-vnni", |bench| bench.iter(|| unsafe { peak::vnni() }));
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512Vnni => {}
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = peaks, products
}
criterion_main!(benches);
