//! Integer matrix products on one thread as a share of the peak of their inner instruction.
//!
//! `cargo bench -p quee-cpu --bench gemm`. The peak runs the same instructions on registers alone, in turns with the products; shares are medians
//! over the turns. One multiply-add is two operations.

mod record;

use std::hint::black_box;
use std::time::Instant;

use quee_cpu::Isa;
use quee_cpu::gemm::{FusedLinear, GemmScratch, PackedB, gemm_i8};
use quee_quant::{ActQuant, QuantWeight};

/// M, N and K: layers of ViTs of 192 features on batches, and a larger one.
const SHAPES: [[usize; 3]; 5] =
    [[4160, 576, 192], [4160, 384, 192], [4160, 192, 384], [1576, 576, 192], [788, 768, 768]];
/// Turns.
const ROUNDS: usize = 41;
/// Rows per call: a picture's tokens, as the executor gives them.
const ROWS: usize = 65;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Rounds of the register-only loops.
const PEAK_ROUNDS: usize = 20_000;

#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::PEAK_ROUNDS;

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
        for _ in 0..PEAK_ROUNDS {
            for sum in &mut sums {
                b = opaque(b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
            }
        }
        black_box(sums);
    }

    /// Twelve chains, as many as the kernel has sums.
    #[target_feature(enable = "avx2,avxvnni")]
    pub fn avx_vnni() {
        let (a, b) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..PEAK_ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, b, a);
            }
        }
        black_box(sums);
    }

    /// Twenty-four chains, as many as the kernel has sums.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni() {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); 24];
        for _ in 0..PEAK_ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, b, a);
            }
        }
        black_box(sums);
    }

    /// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Tiles {
        palette: [u8; 16],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Four tiles of sums, as many as the kernel has. They multiply zeros, which take as long as other numbers.
    ///
    /// # Safety
    /// The machine has AMX, and this process may use it.
    pub unsafe fn amx() {
        let mut tiles = Tiles { palette: [0; 16], bytes: [0; 16], rows: [0; 16] };
        tiles.palette[0] = 1;
        tiles.bytes[..8].fill(64);
        tiles.rows[..8].fill(16);
        // SAFETY: the shapes are of palette 1; nothing but registers is written.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const tiles, options(nostack, readonly));
            for _ in 0..PEAK_ROUNDS {
                asm!(
                    "tdpbusd tmm0, tmm4, tmm5",
                    "tdpbusd tmm1, tmm4, tmm5",
                    "tdpbusd tmm2, tmm4, tmm5",
                    "tdpbusd tmm3, tmm4, tmm5",
                    options(nostack, nomem),
                );
            }
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod peak {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::PEAK_ROUNDS;

    /// Twenty-four chains, as many as the kernel has sums.
    #[target_feature(enable = "neon,dotprod")]
    pub fn neon_dot() {
        let (a, b) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(5)));
        let mut sums = [vdupq_n_s32(0); 24];
        for _ in 0..PEAK_ROUNDS {
            for sum in &mut sums {
                // SAFETY: registers alone are used, and the instruction is one of the feature.
                unsafe {
                    asm!(
                        "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                        sum = inout(vreg) *sum, a = in(vreg) a, b = in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        black_box(sums);
    }
}

/// Operations per second of the peak loop; 0 where there is none.
fn peak(isa: Isa) -> f64 {
    let start = Instant::now();
    let operations = match isa {
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => {
            // SAFETY: the machine has the products of NEON.
            unsafe { peak::neon_dot() };
            2 * 16 * 24 * PEAK_ROUNDS
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: the machine has AVX2.
            unsafe { peak::avx2() };
            2 * 16 * 12 * PEAK_ROUNDS
        }
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => {
            // SAFETY: the machine has AVX-VNNI.
            unsafe { peak::avx_vnni() };
            2 * 32 * 12 * PEAK_ROUNDS
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            // SAFETY: the machine has AVX-512 VNNI.
            unsafe { peak::vnni() };
            2 * 64 * 24 * PEAK_ROUNDS
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => {
            // SAFETY: the machine has AMX, and the process has been allowed to use it when it was asked whether it is available.
            unsafe { peak::amx() };
            2 * 16 * 64 * 16 * 4 * PEAK_ROUNDS
        }
        _ => 0,
    };
    operations as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One shape on one instruction set: operations per second of the peak; then of the product into sums of one block of rows after the other (as the
/// executor uses them, in cache), into sums of all rows, and into codes of one block after the other. A is read from all over its memory; outputs
/// begin at a cache line, as the executor's do.
fn measure(isa: Isa, [m, n, k]: [usize; 3]) -> [(f64, f64); 4] {
    let codes = |len: usize, step: usize| (0..len).map(move |i| (i * step % 255) as u8 as i8);
    let a: Vec<i8> = codes(m * k, 7919).collect();
    let bytes: Vec<u8> = a.iter().map(|&code| code as u8 ^ 0x80).collect();
    let weight = QuantWeight::from_codes(n, k, 8, codes(n * k, 104_729).collect(), vec![1e-3; n]);
    let mut b = PackedB::new(isa);
    b.pack(n, k, &weight.codes);
    let quant = ActQuant::new(0.02, 3, 8);
    let bias = vec![0.1; n];
    let layer = FusedLinear::new(isa, &weight, Some(&bias), false, &quant, &quant);
    let (mut sums, mut out, mut scratch) = (vec![0; m * n + LINE], vec![0; ROWS * n], GemmScratch::default());
    let first = sums.as_ptr().align_offset(LINE);
    let sums = &mut sums[first..];
    let operations = (2 * m * n * k) as f64;
    let mut speeds = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        let peak = peak(isa);
        let timed = |run: &mut dyn FnMut(usize, usize)| {
            let start = Instant::now();
            (0..m).step_by(ROWS).for_each(|row| run(row, ROWS.min(m - row)));
            operations / start.elapsed().as_secs_f64()
        };
        let blocks = timed(&mut |row, rows| {
            gemm_i8(rows, &a[row * k..], k, &b, black_box(&mut sums[..rows * n]), &mut scratch);
        });
        let all = timed(&mut |row, rows| {
            gemm_i8(rows, &a[row * k..], k, &b, black_box(&mut sums[row * n..(row + rows) * n]), &mut scratch);
        });
        let codes = layer.as_ref().map_or(0.0, |layer| {
            timed(&mut |row, rows| {
                layer.run(rows, &bytes[row * k..], black_box(&mut out[..rows * n]));
            })
        });
        if round > 0 {
            speeds.iter_mut().zip([peak, blocks, all, codes]).for_each(|(speeds, speed)| speeds.push(speed));
        }
    }
    let share = |i: usize| median(speeds[i].iter().zip(&speeds[0]).map(|(speed, peak)| speed / peak).collect());
    std::array::from_fn(|i| (median(speeds[i].clone()), share(i)))
}

fn main() {
    // `-- best` leaves the slower instruction sets out, `-- NAME` all but one.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_asked = |isa: &Isa| {
        let is = |asked: &String| *asked == isa.to_string() || asked == "best" && *isa == Isa::best();
        asked.is_empty() || asked.iter().any(is)
    };
    println!("Gop/s, share of the peak");
    println!(
        "{:<12} {:>16} {:>8} {:>16} {:>16} {:>16}",
        "", "M x N x K", "peak", "sums in blocks", "all sums", "codes in blocks"
    );
    for isa in Isa::available().into_iter().filter(is_asked) {
        for shape in SHAPES {
            let [peak, results @ ..] = measure(isa, shape);
            let names = ["sums in blocks", "all sums", "codes in blocks"];
            let mut figures = vec![("peak Gop/s", peak.0 / 1e9)];
            figures.extend(names.iter().zip(&results).map(|(name, (_, share))| (*name, *share)));
            record::line(
                "gemm, share of peak",
                &format!("{isa} {}", shape.map(|side| side.to_string()).join("x")),
                &figures,
            );
            let cell = |(speed, share): (f64, f64)| match share > 0.0 && share.is_finite() {
                true => format!("{:.0} {:>6.1}%", speed / 1e9, 100.0 * share),
                false if speed > 0.0 => format!("{:.0}", speed / 1e9),
                false => "-".into(),
            };
            let [blocks, all, codes] = results.map(cell);
            let shape = shape.map(|side| side.to_string()).join("x");
            println!("{:<12} {shape:>16} {:>8.0} {blocks:>16} {all:>16} {codes:>16}", isa.to_string(), peak.0 / 1e9);
        }
    }
}
