//! Splits: disjoint, complete, stratified, reproducible, and refused where they are impossible.

use proptest::prelude::*;
use quee_data::{Dataset, Fractions, Limits, SplitError, SplitRequest, Splits, TestPart, draw_backbone_split};

fn request<'a>(labels: &'a [u16], backbone_train: &'a [usize], test: TestPart) -> SplitRequest<'a> {
    SplitRequest {
        labels,
        backbone_train,
        unused: &[],
        test,
        fractions: Fractions::default(),
        limits: Limits::default(),
        contiguous: false,
        seed: 7,
    }
}

/// Ten classes in blocks: the least random pool there is.
fn labels(pool: usize) -> Vec<u16> {
    (0..pool).map(|index| (index * 10 / pool) as u16).collect()
}

fn class_counts(labels: &[u16], indices: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; 1 + usize::from(labels.iter().copied().max().unwrap_or(0))];
    indices.iter().for_each(|&index| counts[usize::from(labels[index])] += 1);
    counts
}

#[test]
fn the_digits_divide_as_the_method_says() {
    let data = Dataset::digits().unwrap();
    let backbone = draw_backbone_split(&data.labels, 800, 360, 0).unwrap();
    let splits =
        Splits::draw(&SplitRequest { seed: 0, ..request(&data.labels, &backbone.train, TestPart::Drawn(360)) })
            .unwrap();
    let sizes = splits.parts().map(|(_, indices)| indices.len());
    assert_eq!(sizes, [800, 255, 223, 79, 80, 360]);
    assert_eq!(splits.backbone_train, backbone.train);
    assert_eq!(splits.test, backbone.test, "pretraining and experiment agree on the test pictures");
    for (part, indices) in splits.parts() {
        for count in class_counts(&data.labels, indices) {
            let expected = indices.len() as f64 / 10.0;
            assert!((count as f64 - expected).abs() <= 3.0, "{part}: {count} pictures of a class, {expected} expected");
        }
    }
}

#[test]
fn the_seed_alone_decides() {
    let labels = labels(500);
    let draw = |seed| Splits::draw(&SplitRequest { seed, ..request(&labels, &[3, 1], TestPart::Drawn(50)) }).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1).test, draw(2).test);
    assert_ne!(draw(1).fit, draw(2).fit);
    assert_ne!(draw_backbone_split(&labels, 9, 9, 1), draw_backbone_split(&labels, 9, 9, 2));
}

#[test]
fn contiguous_parts_are_blocks_in_order() {
    let labels = labels(100);
    let seen: Vec<usize> = (0..20).collect();
    let blocks =
        Splits::draw(&SplitRequest { contiguous: true, ..request(&labels, &seen, TestPart::Drawn(20)) }).unwrap();
    assert_eq!(blocks.exit_train, (20..44).collect::<Vec<_>>());
    assert_eq!(blocks.fit, (44..65).collect::<Vec<_>>());
    assert_eq!(blocks.cal_a, (65..73).collect::<Vec<_>>());
    assert_eq!(blocks.cal_b, (73..80).collect::<Vec<_>>());
    assert_eq!(blocks.test, (80..100).collect::<Vec<_>>());
}

#[test]
fn splits_survive_storage() {
    let labels = labels(200);
    let splits = Splits::draw(&request(&labels, &[], TestPart::Given((150..200).collect()))).unwrap();
    let text = serde_json::to_string(&splits).unwrap();
    assert_eq!(serde_json::from_str::<Splits>(&text).unwrap(), splits);
    assert!(splits.check(200).is_ok());
    assert!(matches!(splits.check(199), Err(SplitError::OutOfRange { index: 199, pool: 199, .. })));
}

#[test]
fn a_stored_split_with_a_picture_in_two_parts_is_refused() {
    let labels = labels(200);
    let mut splits = Splits::draw(&request(&labels, &[], TestPart::Drawn(20))).unwrap();
    let moved = splits.fit[0];
    splits.cal_b.push(moved);
    assert_eq!(splits.check(200), Err(SplitError::Overlap { index: moved, first: "fit", second: "cal-b" }));
}

#[test]
fn impossible_splits_are_refused_with_a_hint() {
    let labels = labels(100);
    let all: Vec<usize> = (0..100).collect();
    let fractions = |exit_train, fit| Fractions { exit_train, fit, ..Fractions::default() };
    let cases = [
        (request(&labels, &[100], TestPart::Drawn(10)), "backbone-train holds picture 100, but the pool has 100"),
        (request(&labels, &[5, 5], TestPart::Drawn(10)), "picture 5 is in backbone-train and again in backbone-train"),
        (request(&labels, &[5], TestPart::Given(vec![5])), "picture 5 is in backbone-train and again in test"),
        (request(&labels, &[], TestPart::Given(vec![])), "no picture for test"),
        (request(&labels, &[], TestPart::Drawn(0)), "no picture for test"),
        (request(&labels, &all[..60], TestPart::Drawn(41)), "41 pictures wanted for test, 40 are available"),
        (request(&labels, &all[..60], TestPart::Drawn(40)), "no picture for exit-train (0 of the pool's 100"),
        (request(&labels, &all[..60], TestPart::Drawn(38)), "no picture for cal-a (2 of the pool's 100"),
        (request(&[], &[], TestPart::Drawn(1)), "1 pictures wanted for test, 0 are available"),
    ];
    let bad_fractions = [
        (fractions(0.5, 0.35), "add up to 1.1"),
        (fractions(-0.1, 0.35), "the share of exit-train is -0.1"),
        (fractions(f64::NAN, 0.35), "the share of exit-train is NaN"),
        (fractions(0.0, 0.35), "no picture for exit-train"),
    ];
    let bad_fractions = bad_fractions
        .map(|(fractions, part)| (SplitRequest { fractions, ..request(&labels, &[], TestPart::Drawn(10)) }, part));
    for (request, expected) in cases.into_iter().chain(bad_fractions) {
        let message = Splits::draw(&request).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("; hint: "), "`{message}` lacks `{expected}`");
    }
    assert!(matches!(draw_backbone_split(&labels, 91, 10, 0), Err(SplitError::TooMany { available: 90, .. })));
    assert!(matches!(draw_backbone_split(&labels, 0, 10, 0), Err(SplitError::Empty { part: "backbone-train", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every unseen picture is used exactly once, and each part has the classes in proportion: with C classes, a class
    /// of n pictures among N deviates from its share of a block by at most 1 + C·n/N.
    #[test]
    fn parts_are_a_stratified_partition(
        labels in prop::collection::vec(0u16..6, 120..400),
        seen in 0usize..40,
        test in 1usize..40,
        seed: u64,
    ) {
        let backbone = draw_backbone_split(&labels, seen.max(1), test, seed).unwrap();
        let known = if seen == 0 { &[][..] } else { &backbone.train };
        let request = SplitRequest { seed, ..request(&labels, known, TestPart::Drawn(test)) };
        let splits = Splits::draw(&request).unwrap();
        prop_assert_eq!(&splits.test, &backbone.test);

        let mut all: Vec<usize> = splits.parts().iter().flat_map(|(_, indices)| indices.to_vec()).collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());

        let rest: Vec<usize> =
            [&splits.exit_train, &splits.fit, &splits.cal_a, &splits.cal_b].into_iter().flatten().copied().collect();
        let whole = class_counts(&labels, &rest);
        for (part, indices) in &splits.parts()[1..5] {
            prop_assert!(indices.is_sorted());
            for (class, &count) in class_counts(&labels, indices).iter().enumerate() {
                let share = whole[class] as f64 / rest.len() as f64;
                let deviation = (count as f64 - share * indices.len() as f64).abs();
                prop_assert!(deviation <= 1.0 + 6.0 * share, "{} holds {} of class {}", part, count, class);
            }
        }
    }
}

#[test]
fn limits_draw_a_smaller_part_in_the_proportions_of_the_classes() {
    let labels = labels(1000);
    let seen: Vec<usize> = (0..100).collect();
    let whole = request(&labels, &seen, TestPart::Given((800..1000).collect()));
    let limits = Limits { train: 200, test: 50 };
    let drawn = Splits::draw(&SplitRequest { limits, ..whole.clone() }).unwrap();
    let all = Splits::draw(&whole).unwrap();
    assert_eq!((drawn.test.len(), drawn.backbone_train.len()), (50, 100));
    let trained: Vec<usize> =
        [&drawn.exit_train, &drawn.fit, &drawn.cal_a, &drawn.cal_b].into_iter().flatten().copied().collect();
    assert_eq!(trained.len(), 200);
    assert!(trained.iter().all(|index| (100..800).contains(index)));
    assert!(drawn.test.iter().all(|index| all.test.contains(index)));
    // 700 pictures of the classes 1 to 7; of the test part, those of classes 8 and 9.
    assert!(class_counts(&labels, &trained)[1..8].iter().all(|count| (27..=30).contains(count)));
    assert!(class_counts(&labels, &drawn.test)[8..].iter().all(|count| (24..=26).contains(count)));

    let first = Splits::draw(&SplitRequest { limits, contiguous: true, ..whole.clone() }).unwrap();
    assert_eq!(first.test, (800..850).collect::<Vec<_>>());
    assert_eq!(first.exit_train, (100..180).collect::<Vec<_>>());
    assert_eq!(first.cal_b.last(), Some(&299));

    let wide = Limits { train: 10_000, test: 10_000 };
    assert_eq!(
        Splits::draw(&SplitRequest { limits: wide, ..whole }).unwrap(),
        all,
        "limits beyond the data change nothing"
    );
}
