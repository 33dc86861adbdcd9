//! Which tile computes a product fastest.

use quee_backbone::ExecError;

use super::{Bench, Case, chain};
use crate::engine::columns;
use crate::tiles::{Operands, Shape, Tile, candidates, usual};
use crate::tuning::Choice;

/// Tiles that are so many times slower than the fastest at the first look are not timed further.
const HOPELESS: f64 = 3.0;
/// The usual tile stays when the fastest takes more than this share of its time: less is noise.
const GAIN: f64 = 0.97;

/// The fastest tile beside the one that is taken where nothing was measured.
#[derive(Clone, Debug)]
pub struct Fastest {
    /// The shape that was measured.
    pub shape: Shape,
    /// The fastest.
    pub choice: Choice,
    /// The usual tile.
    pub usual: &'static Tile,
    /// Its seconds.
    pub usual_seconds: f64,
}

impl Bench {
    /// Whether the operands of a product fit the bindings of this adapter: a longer one is cut by the executor.
    pub fn holds(&self, shape: Shape) -> bool {
        let Shape { operands, m, n, k, batch } = shape;
        let each = match operands {
            Operands::Codes => 16 * k.div_ceil(16),
            Operands::Floats => 16 * k.div_ceil(4),
        };
        let largest = (each * m.max(columns(n))).max(4 * m * n).max(16 * m);
        batch <= self.executor.gpu().limits().max_compute_workgroups_per_dimension as usize
            && batch.saturating_mul(largest) <= self.executor.gpu().binding()
    }

    /// Times every tile that can compute a product, in turns.
    ///
    /// # Errors
    /// When the device fails.
    pub fn fastest(&mut self, shape: Shape) -> Result<Fastest, ExecError> {
        let abilities = self.executor.gpu().abilities();
        let usual = usual(shape, abilities);
        let cases = self.tiles(shape)?;
        let mut field = Vec::new();
        for (tile, case) in candidates(shape, abilities).zip(&cases) {
            // The first one warms up.
            self.run(case, 1)?;
            field.push((tile, case, self.run(case, 1)?));
        }
        let best = field.iter().map(|(_, _, seconds)| *seconds).fold(f64::INFINITY, f64::min);
        field.retain(|(tile, _, seconds)| *seconds <= HOPELESS * best || *tile == usual);
        let mut times: Vec<(&'static Tile, &Case, usize, Vec<f64>)> = field
            .into_iter()
            .map(|(tile, case, once)| (tile, case, chain(self.effort.seconds, once), Vec::new()))
            .collect();
        self.warm_up(|bench| times.iter().try_for_each(|(_, case, chain, _)| bench.run(case, *chain).map(drop)))?;
        for _ in 0..self.effort.runs {
            for (_, case, chain, times) in &mut times {
                times.push(self.run(case, *chain)? / *chain as f64);
            }
        }
        // The shortest run, not the median: whatever else the machine does makes runs longer only.
        let least = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
        let shortest: Vec<(&'static Tile, f64)> =
            times.into_iter().map(|(tile, _, _, times)| (tile, least(times))).collect();
        let of_usual = shortest.iter().find(|(tile, _)| *tile == usual).expect("never dropped").1;
        let fastest = shortest.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("the usual one at least");
        let (tile, seconds) = if fastest.1 < GAIN * of_usual { fastest } else { (usual, of_usual) };
        let choice = Choice { class: shape.class(), tile, seconds };
        Ok(Fastest { shape, choice, usual, usual_seconds: of_usual })
    }
}
