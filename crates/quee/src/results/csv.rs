//! `curve.csv` and `predictor.csv`.

use std::fmt::Write;

use super::Study;

/// A cell; one with a comma stands in double quotes. No name has a double quote.
fn cell(text: &str) -> String {
    if text.contains(',') { format!("\"{text}\"") } else { text.to_owned() }
}

/// One row per method, seed and setting of its curve. The oracle, which needs no choice on *cal*, has no *cal* figures
/// and no interval. The column of absolute costs is called by its unit; that of times says so where they are no GPU's.
pub fn curve(study: &Study) -> String {
    let mut text = format!(
        "method,seed,setting,cal_accuracy,cal_relative_cost,accuracy,accuracy_low,accuracy_high,{},relative_cost,\
         {},mean_exit,mean_weight_bits\n",
        study.counted.model().column(),
        if study.time_caveat.is_some() { "ms_per_image_on_software_adapter" } else { "ms_per_image" }
    );
    let total = study.counted.float_total();
    for method in &study.summary.methods {
        for point in &method.front {
            let seed = study.seeds[point.seed].seed;
            let mean_exit: f64 = point.exit_shares.iter().enumerate().map(|(i, share)| (i + 1) as f64 * share).sum();
            let ms = point.ms.map_or(String::new(), |ms| format!("{ms:.5}"));
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{},{seed},{},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{ms},{mean_exit:.4},{:.4}",
                cell(&method.name),
                cell(&point.name),
                point.cal_accuracy,
                point.cal_cost,
                point.accuracy.value,
                point.accuracy.low,
                point.accuracy.high,
                point.cost.value * total,
                point.cost.value,
                point.weight_bits,
            );
        }
    }
    for seed in &study.seeds {
        for (at, (cost, accuracy)) in seed.result.oracle.corners(|_| 1.0).into_iter().enumerate() {
            let _ =
                writeln!(text, "oracle,{},corner {at},,,{accuracy:.6},,,{:.6},{cost:.6},,,", seed.seed, cost * total);
        }
    }
    text
}

/// One row per seed, gate and continuation.
pub fn predictor(study: &Study) -> String {
    let mut text = String::from("seed,gate,continuation,n,base_rate,brier,log_loss,ece,ece_floor,auroc\n");
    for seed in &study.seeds {
        for row in seed.quality.iter().flat_map(|gate| &gate.rows) {
            let auroc = row.auroc.map_or(String::new(), |a| format!("{a:.6}"));
            let _ = writeln!(
                text,
                "{},{},{},{},{:.6},{:.6},{:.6},{:.6},{:.6},{auroc}",
                seed.seed,
                row.gate,
                row.continuation,
                row.n,
                row.base_rate,
                row.brier,
                row.log_loss,
                row.ece,
                row.ece_floor,
            );
        }
    }
    text
}
