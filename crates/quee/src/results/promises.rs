//! `risk.csv` and `sets.csv`: what was promised with a probability, and what was kept.

use std::fmt::Write;

use quee_policy::risk_validation::{RiskCheck, RuleOutcome};

use super::Study;

/// One row per seed, size of the calibration set, ε and δ. `naive` is the largest λ whose loss rate in the calibration set is within ε.
pub fn risk(study: &Study) -> String {
    let mut text = String::from(
        "seed,calibration_pictures,epsilon,delta,resamplings,violations,violations_se,certified,relative_cost,relative_cost_where_certified,\
         loss_where_certified,p_value,relative_cost_of_endless_calibration,naive_violations,naive_violations_se,naive_chosen,naive_relative_cost\n",
    );
    let maybe = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
    for seed in &study.seeds {
        for check in &seed.guarantees.risk {
            let RiskCheck { target, certified, naive, .. } = check;
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},{:.6},{:.6},{:.6},{:.6},{},{},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6}",
                seed.seed,
                check.samples,
                target.epsilon,
                target.delta,
                check.resamplings,
                certified.violations,
                certified.violations_se,
                certified.chosen,
                certified.mean_cost,
                maybe(certified.chosen_cost),
                maybe(certified.chosen_loss),
                check.p_value,
                check.ideal_cost,
                naive.violations,
                naive.violations_se,
                naive.chosen,
                naive.mean_cost,
            );
        }
    }
    text
}

/// One row per seed and path, and one for the policy's setting with a threshold of its own for every path it takes; `None` where no sets were
/// asked for.
pub fn sets(study: &Study) -> Option<String> {
    let mut text = String::from(
        "seed,path,alpha,calibration_pictures,threshold,coverage,coverage_se,coverage_sd_of_calibration,mean_size,empty_share,pictures\n",
    );
    for seed in &study.seeds {
        let sets = seed.guarantees.sets.as_ref()?;
        let (setting, policy) = &sets.policy;
        let all = (format!("policy at {setting}"), policy.threshold, policy.one);
        let each = (format!("policy at {setting} by path"), policy.threshold, policy.per_path);
        let paths = sets.paths.iter().map(|set| (set.path.clone(), set.threshold, set.report));
        for (path, threshold, report) in paths.chain([all, each]) {
            let _ = writeln!(
                text,
                "{},\"{path}\",{},{},{},{:.6},{:.6},{:.6},{:.4},{:.6},{}",
                seed.seed,
                sets.alpha,
                threshold.samples,
                threshold.score.map_or(String::new(), |score| format!("{score:.6}")),
                report.coverage,
                report.coverage_se,
                threshold.coverage_sd,
                report.mean_size,
                report.empty,
                report.n,
            );
        }
    }
    Some(text)
}

/// The checks with as many calibration pictures as *cal-b* has, means over seeds: ε, δ, then violations, share certified and cost of risk control,
/// violations and cost of the naive rule, and the cost that endless calibration would allow.
pub fn risk_rows(study: &Study) -> Vec<[f64; 8]> {
    let pictures = study.prepared.splits.cal_b.len();
    let mut rows: Vec<[f64; 8]> = Vec::new();
    let seeds = study.seeds.len() as f64;
    for seed in &study.seeds {
        for check in seed.guarantees.risk.iter().filter(|check| check.samples == pictures) {
            let RiskCheck { target, certified, naive, .. } = check;
            let place = rows.iter().position(|row| row[0] == target.epsilon && row[1] == target.delta);
            let place = place.unwrap_or_else(|| {
                rows.push([target.epsilon, target.delta, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
                rows.len() - 1
            });
            let of = |rule: &RuleOutcome| (rule.violations, rule.mean_cost);
            let ((kept, cost), (missed, naive_cost)) = (of(certified), of(naive));
            let figures = [kept, certified.chosen, cost, missed, naive_cost, check.ideal_cost];
            rows[place][2..].iter_mut().zip(figures).for_each(|(mean, figure)| *mean += figure / seeds);
        }
    }
    rows
}
