//! Products on AMX: a register holds a tile of 16 rows of 64 bytes, and one instruction multiplies two of them.
//!
//! The layout of the operands is that of [`matrix`](super::matrix), and sums are whole numbers: the results are those of AVX-512 VNNI to the last
//! bit. Rust has no stable intrinsics for it yet, so a tile's products are a block of assembly.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::LANES;
use super::matrix::{Epilogue, GROUP, Line, Panel, Rows};

/// Rows of a tile, and groups of four codes in one of its rows.
const TILE: usize = 16;
/// Bytes of a row.
const ROW: usize = TILE * GROUP;
/// Products of fewer rows, or fewer groups, are faster without: what tiles cost beside their products is the same for all.
const FEWEST: (usize, usize) = (10, 32);

/// Whether this machine has AMX with products of bytes, and the system lets this process use it.
pub(crate) fn is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| is_there() && is_allowed())
}

/// Whether the processor has it, and the system saves its registers.
fn is_there() -> bool {
    const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
    const SAVES_EXTENDED_STATE: u32 = 1 << 27;
    const STATE: u64 = 1 << 17 | 1 << 18;

    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: the caller has seen that the system has turned it on.
        unsafe { _xgetbv(0) }
    }

    if __cpuid(0).eax < 7 || __cpuid(1).ecx & SAVES_EXTENDED_STATE == 0 {
        return false;
    }
    // SAFETY: a processor whose system saves extended state has the instruction.
    __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES && unsafe { saved() } & STATE == STATE
}

/// Asks Linux for the registers, which a process does not have from the start.
#[cfg(target_os = "linux")]
fn is_allowed() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call changes nothing but what registers this process may use.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// How other systems let a process have the registers has not been tried.
#[cfg(not(target_os = "linux"))]
fn is_allowed() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Registers 0 to 3 hold sums of `rows` rows; 4 and 5 the operands, 6 and 7 those of the last `rest` groups.
    fn of(rows: usize, rest: usize) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut set = |tile: usize, rows: usize, bytes: usize| {
            (shapes.rows[tile], shapes.bytes[tile]) = (rows as u8, bytes as u16);
        };
        (0..=4).for_each(|tile| set(tile, rows, ROW));
        set(5, TILE, ROW);
        if rest > 0 {
            set(6, rows, rest * GROUP);
            set(7, rest, ROW);
        }
        shapes
    }
}

/// Registers in shape for products with some rows; given back when it is dropped.
pub(crate) struct Tiles {
    /// Rows of a tile.
    rows: usize,
}

impl Tiles {
    /// For products of `rows` rows of `groups` groups, where AMX is `wanted` and faster.
    ///
    /// # Panics
    /// When it is wanted and not [ready](is_ready).
    pub fn where_faster(wanted: bool, rows: usize, groups: usize) -> Option<Self> {
        if !wanted || rows < FEWEST.0 || groups < FEWEST.1 {
            return None;
        }
        assert!(is_ready());
        // Tiles of about the same size.
        let rows = rows.div_ceil(rows.div_ceil(TILE));
        let shapes = Shapes::of(rows, groups % TILE);
        // SAFETY: the shapes are of palette 1, none beyond 16 rows of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
        Some(Self { rows })
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: nothing but registers is given back.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Sums of a tile of up to 16 rows, by vector of columns.
type Sums<const V: usize> = [[__m512i; TILE]; V];

/// Sums of products of a tile of rows `$a` with some vectors of columns `$b`, stored at `$to`. What it takes in brackets: a register of sums, and the
/// bytes in front of its vector among the operand's lines and among the sums.
macro_rules! tile {
    ($a:expr, $stride:expr, $b:expr, $vectors:expr, $steps:expr, $rest:expr, $to:expr, $([$sum:literal, $from:literal, $at:literal]),+) => {
        asm!(
            $(concat!("tilezero ", $sum),)+
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{a} + {stride}]",
            $(
                concat!("tileloadd tmm5, [{b} + {line} + ", $from, "]"),
                concat!("tdpbusd ", $sum, ", tmm4, tmm5"),
            )+
            "add {a}, 64",
            "add {b}, {step}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 4f",
            "tileloadd tmm6, [{a} + {stride}]",
            $(
                concat!("tileloadd tmm7, [{b} + {line} + ", $from, "]"),
                concat!("tdpbusd ", $sum, ", tmm6, tmm7"),
            )+
            "4:",
            $(concat!("tilestored [{to} + {row} + ", $at, "], ", $sum),)+
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            stride = in(reg) $stride,
            line = in(reg) $vectors * ROW,
            step = in(reg) $vectors * ROW * TILE,
            rest = in(reg) $rest,
            to = in(reg) $to,
            row = in(reg) ROW,
            options(nostack),
        )
    };
}

/// `sums[i, j] = start[j] + Σ_k (a[i, k] + 128) · b[j, k]` of all rows and the columns of a panel, handed to `epilogue` row by row. `tiles` are for as
/// many rows and groups.
///
/// # Panics
/// When lengths do not fit.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn panel_tiles<const V: usize, E: Epilogue>(
    tiles: &Tiles,
    a: Rows,
    groups: usize,
    panel: &Panel,
    start: &[i32],
    epilogue: &mut E,
) {
    assert!(panel.lines.len() == groups * V && a.rows() >= tiles.rows);
    let start = &start[panel.column..panel.column + V * LANES];
    let (steps, rest) = (groups / TILE, groups % TILE);
    // While the sums of a tile are read, the next one is on its way.
    let mut sums = [const { MaybeUninit::<Sums<V>>::uninit() }; 2];
    let count = a.rows().div_ceil(tiles.rows);
    // The last tile may begin before the one before it ends.
    let first = |tile: usize| (tile * tiles.rows).min(a.rows() - tiles.rows);
    let multiply = |tile: usize, sums: &mut [MaybeUninit<Sums<V>>; 2]| {
        let row = first(tile);
        if panel.column == 0 {
            let next = row + tiles.rows;
            a.fetch(next..a.rows().min(next + tiles.rows), groups * GROUP);
        }
        // SAFETY: `Rows` holds whole groups of the tile's rows, the panel lines for all groups, `sums` V tiles.
        unsafe {
            let to = sums[tile % 2].as_mut_ptr().cast();
            products::<V>(a.row(row), a.stride(), panel.lines.as_ptr(), steps, rest, to);
        }
    };
    multiply(0, &mut sums);
    for tile in 0..count {
        if tile + 1 < count {
            multiply(tile + 1, &mut sums);
        }
        let (begin, sums) = (first(tile), sums[tile % 2].as_ptr().cast::<__m512i>());
        for i in tile * tiles.rows - begin..tiles.rows {
            let mut of_row = [_mm512_setzero_si512(); V];
            for (v, sum) in of_row.iter_mut().enumerate() {
                // SAFETY: of every vector, the rows of the tile have been stored; `start` has V vectors.
                *sum = unsafe {
                    let products = _mm512_load_si512(sums.add(v * TILE + i));
                    _mm512_add_epi32(products, _mm512_loadu_si512(start.as_ptr().add(v * LANES).cast()))
                };
            }
            // SAFETY: the features of `Epilogue::row` are enabled here.
            unsafe { epilogue.row(a.number(begin + i), panel.column, of_row) };
        }
    }
}

/// Stores the sums of one tile of rows, `[V]` tiles of 16 rows.
///
/// # Safety
/// AMX is ready and shaped; `a` has the rows, `stride` bytes apart, with `steps · 16 + rest` groups; `b` has as many groups of `V` lines.
#[inline]
unsafe fn products<const V: usize>(
    a: *const u8,
    stride: usize,
    b: *const Line,
    steps: usize,
    rest: usize,
    to: *mut i32,
) {
    macro_rules! store {
        ($($sums:tt),+) => { tile!(a, stride, b, V, steps, rest, to, $($sums),+) };
    }
    // SAFETY: as the caller promises; the labels are local, and no other register is written.
    unsafe {
        match V {
            1 => store!(["tmm0", "0", "0"]),
            2 => store!(["tmm0", "0", "0"], ["tmm1", "64", "1024"]),
            3 => store!(["tmm0", "0", "0"], ["tmm1", "64", "1024"], ["tmm2", "128", "2048"]),
            _ => store!(["tmm0", "0", "0"], ["tmm1", "64", "1024"], ["tmm2", "128", "2048"], ["tmm3", "192", "3072"]),
        }
        if V > 4 {
            store!(["tmm0", "256", "4096"]);
        }
    }
}
