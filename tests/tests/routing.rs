//! A stored policy on batches: pictures that part ways are answered as each would be alone.

use std::path::PathBuf;

use quee::artefact;
use quee::backend::Device;
use quee::stages::prepare::prepare;
use quee::stages::route::Router;
use quee_policy::tree::ROOT;
use quee_tests::{DIGITS, QUICK, quee, stderr};

#[test]
fn pictures_that_part_ways_are_answered_as_alone() {
    let out = tempfile::tempdir().unwrap();
    for more in [&[][..], &["--set", "exits.cascade=true"]] {
        let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--set", "timing.measure=false"];
        args.extend(QUICK);
        args.extend(more);
        let output = quee(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let policy = artefact::read(&folder).unwrap();
        let prepared = prepare(&policy.recipe, None, None).unwrap();
        let engine = Device::open(policy.recipe.backend, &policy.recipe.gpu).unwrap().engine(policy.plan.clone());
        let mut executor = engine.executor().unwrap();
        let chosen = &prepared.splits.test[..48];
        let images = prepared.images(chosen).unwrap();
        let size = images.len() / chosen.len();
        let mut mixed = 0;
        for lambda in [0.0, 0.03, 0.3, 1.0, 3.0, f64::INFINITY] {
            let router = Router::new(&policy, lambda, None);
            let together = router.run(executor.as_mut(), &images).unwrap();
            let alone: Vec<_> =
                images.chunks_exact(size).flat_map(|picture| router.run(executor.as_mut(), picture).unwrap()).collect();
            assert_eq!(together, alone, "lambda {lambda}");
            assert!(together.iter().all(|routed| routed.node != ROOT));
            mixed += usize::from(together.iter().any(|routed| routed.node != together[0].node));
        }
        assert!(mixed > 0, "at some price pictures part ways");
        let last = policy.tree.paths().next_back().unwrap();
        let committed = Router::new(&policy, 0.0, Some(last)).run(executor.as_mut(), &images).unwrap();
        assert!(committed.iter().all(|routed| routed.node == last));
        let labels = prepared.data.labels_of(chosen);
        let right = committed.iter().zip(&labels).filter(|(routed, label)| routed.class == **label).count();
        assert!(right > 40, "{right} of 48 at the largest width and full depth");

        let run = folder.to_str().unwrap();
        let output = quee(&["bench", "routing", "--run", run, "--lambda", "0.3", "--pictures", "100", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["pictures"], report["statics"].as_array().unwrap().len()), (&100.into(), 2));
        assert!(report["routing_efficiency"].as_f64().unwrap() > 0.0);
    }
    let output = quee(&["bench", "routing", "--run", "/no/such/run", "--lambda", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("hint"), "{}", stderr(&output));
}
