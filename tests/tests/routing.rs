//! A stored policy on batches: pictures that part ways are answered as each would be alone.

use std::path::PathBuf;

use quee::artefact;
use quee::backend::Device;
use quee::recipe::ExitTokens;
use quee::stages::prepare::prepare;
use quee::stages::route::Router;
use quee::stages::walk::Program;
use quee_policy::tree::ROOT;
use quee_tests::{DIGITS, QUICK, quee, stderr};

#[test]
fn pictures_that_part_ways_are_answered_as_alone() {
    let out = tempfile::tempdir().unwrap();
    let untimed = ["--set", "timing.measure=false"];
    for set in ["", "exits.cascade=true", "exits.tokens=class-and-mean"] {
        let more: Vec<&str> =
            if set.is_empty() { Vec::new() } else { untimed.into_iter().chain(["--set", set]).collect() };
        let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap()];
        args.extend(QUICK);
        args.extend(&more);
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

        // A run that measures times says how fast its policy is on batches.
        let summary: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("summary.json")).unwrap()).unwrap();
        let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
        assert_eq!(summary["routing"].is_object(), more.is_empty());
        assert_eq!(page.contains("Routing efficiency"), more.is_empty());
        if more.is_empty() {
            let routing = &summary["routing"];
            let tested = prepared.splits.test.len().min(512);
            assert_eq!(routing["pictures"].as_u64(), Some(tested as u64));
            let router = Router::new(&policy, routing["lambda"].as_f64().unwrap_or(f64::INFINITY), None);
            let setting = policy.settings.iter().find(|s| s.lambda == routing["lambda"].as_f64()).unwrap();
            assert_eq!(routing["committed"].as_bool(), Some(setting.commit.is_some()));
            if setting.commit.is_none() {
                let images = prepared.images(&prepared.splits.test[..tested]).unwrap();
                let labels = prepared.data.labels_of(&prepared.splits.test[..tested]);
                let found = router.run(executor.as_mut(), &images).unwrap();
                let right = found.iter().zip(&labels).filter(|(routed, label)| routed.class == **label).count();
                assert_eq!(routing["accuracy"].as_f64(), Some(right as f64 / tested as f64));
            }
            assert!(routing["statics"].as_array().unwrap().iter().any(|of| of["width"] == "float"));
        }

        let run = folder.to_str().unwrap();
        let output = quee(&["bench", "routing", "--run", run, "--lambda", "0.3", "--pictures", "100", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["pictures"], report["statics"][1]["width"].as_str()), (&100.into(), Some("w8a8")));
        assert!(report["routing_efficiency"].as_f64().unwrap() > 0.0);
    }
    let output = quee(&["bench", "routing", "--run", "/no/such/run", "--lambda", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("hint"), "{}", stderr(&output));
}

/// What an exit sees beside the class token is the mean of all tokens; the last one, the backbone's own classifier, does not.
#[test]
fn exits_may_see_the_mean_of_the_tokens() {
    let out = tempfile::tempdir().unwrap();
    let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--set", "exits.tokens=class-and-mean"];
    args.extend(QUICK);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let policy = artefact::read(&PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())).unwrap();
    let (recipe, dim) = (&policy.recipe, policy.backbone.feature_dim());
    let prepared = prepare(recipe, None, None).unwrap();
    let mut executor =
        Device::open(recipe.backend, &recipe.gpu).unwrap().engine(policy.plan.clone()).executor().unwrap();
    let images = prepared.images(&prepared.splits.test[..3]).unwrap();
    let program = Program::new(policy.backbone.as_ref(), recipe);
    let alone = Program { tokens: ExitTokens::Class, ..Program::new(policy.backbone.as_ref(), recipe) };
    let last = recipe.paths.segments.len() - 1;
    assert_eq!((program.exit_dim(0), program.exit_dim(last), alone.exit_dim(0)), (2 * dim, dim, dim));
    assert!(policy.heads.0.iter().enumerate().all(|(segment, head)| head.dim == program.exit_dim(segment)));

    let mut tokens = program.stem(executor.as_mut(), &images, recipe.quant.stem).unwrap();
    for segment in 0..=last {
        tokens = program.segment(executor.as_mut(), segment, recipe.quant.widths[0], &tokens).unwrap();
        let both = program.features(executor.as_mut(), segment, &tokens).unwrap();
        let own = alone.features(executor.as_mut(), segment, &tokens).unwrap();
        if segment == last {
            assert_eq!(both, own);
            continue;
        }
        let all = executor.read(&tokens).unwrap();
        let per_picture = all.len() / 3;
        for (picture, (both, own)) in both.chunks(2 * dim).zip(own.chunks(dim)).enumerate() {
            assert_eq!(&both[..dim], own);
            let tokens = &all[picture * per_picture..(picture + 1) * per_picture];
            for (feature, &mean) in both[dim..].iter().enumerate() {
                let sum: f32 = tokens.iter().skip(feature).step_by(dim).sum();
                let want = sum * dim as f32 / per_picture as f32;
                assert!((mean - want).abs() < 1e-4 * want.abs().max(1.0), "segment {segment}: {mean}, not {want}");
            }
        }
        assert!(policy.heads.0[segment].network.w2.chunks(2 * dim).all(|row| row[dim..].iter().any(|&w| w != 0.0)));
    }
}
