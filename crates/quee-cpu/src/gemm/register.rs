//! Register tiles. One text for all of them: they differ in the vector type and in the inner instruction.

/// Defines a tile: its name, the features that it is compiled with, the instruction sets that it is for, how many vectors of columns it has at most,
/// and the intrinsics that it is made of.
macro_rules! register_tile {
    (
        $(#[$doc:meta])*
        $name:ident in $module:ident: features $features:literal, on $isa:pat, $vectors:literal of [$($sizes:literal)*] vectors,
        vector $vector:ty = $lanes:literal x $group:ty => $sum:ty,
        load $load:expr, splat $splat:expr, splat_sum $splat_sum:expr, dot $dot:expr, store $store:expr
    ) => {
        $(#[$doc])*
        pub(crate) struct $name(());

        impl $name {
            /// The tile, if `cpu` is of the instruction set that it is written for.
            pub fn on(cpu: Cpu) -> Option<Self> {
                matches!(cpu.isa(), $isa).then_some(Self(()))
            }
        }

        impl Tile for $name {
            type Group = $group;
            type Sum = $sum;
            const LANES: usize = $lanes;
            const VECTORS: usize = $vectors;

            fn run(&self, vectors: usize, input: &TileInput<$group, $sum>, out: &mut [$sum], stride: usize) {
                use $module::tile;
                // SAFETY: `self` exists only where a `Cpu` proved these features.
                unsafe { by_size!(input.start.len(), vectors, [$($sizes)*], tile, (input, out, stride)) }
            }
        }

        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn tile<const R: usize, const V: usize>(
                input: &TileInput<$group, $sum>,
                out: &mut [$sum],
                out_stride: usize,
            ) {
                let &TileInput { groups, a, stride, b, start } = input;
                const { assert!(R >= 1 && R <= ROWS) };
                assert!(start.len() == R && a.len() >= (R - 1) * stride + groups);
                assert!(b.len() == groups * V * $lanes && out.len() >= (R - 1) * out_stride + V * $lanes);
                let mut sums: [[$vector; V]; R] = [[$splat_sum(start[0]); V]; R];
                for i in 1..R {
                    sums[i] = [$splat_sum(start[i]); V];
                }
                let (a, b) = (a.as_ptr(), b.as_ptr());
                for g in 0..groups {
                    let mut columns = [$splat_sum(<$sum>::default()); V];
                    for v in 0..V {
                        // SAFETY: `b` holds groups · V · lanes elements, and g < groups, v < V.
                        columns[v] = unsafe { $load(b.add((g * V + v) * $lanes)) };
                    }
                    for i in 0..R {
                        // SAFETY: `a` holds at least (R − 1) · stride + groups elements, and i < R, g < groups.
                        let row = $splat(unsafe { *a.add(i * stride + g) });
                        for v in 0..V {
                            sums[i][v] = $dot(sums[i][v], row, columns[v]);
                        }
                    }
                }
                for (i, row) in sums.iter().enumerate() {
                    for (v, &sums) in row.iter().enumerate() {
                        let to: &mut [$sum; $lanes] =
                            out[i * out_stride + v * $lanes..].first_chunk_mut().expect("checked above");
                        // SAFETY: `to` is as long as a vector.
                        unsafe { $store(to.as_mut_ptr(), sums) };
                    }
                }
            }
        }
    };
}
pub(crate) use register_tile;
