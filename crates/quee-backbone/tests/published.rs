//! Multiply-accumulates and parameters against published figures.

use quee_backbone::cost::BackboneCost;
use quee_backbone::presets;

/// Multiply-accumulates and parameters, both in millions, of a preset with 1,000 classes. Counted are linear layers per
/// token, both attention products, and the performer's products.
fn millions(name: &str) -> (f64, f64) {
    let preset = presets::find(name).unwrap();
    let cost = BackboneCost::count(&*preset.skeleton(1000)).unwrap();
    let parameters: usize = preset.tensors(1000).iter().map(|t| t.shape.iter().product::<usize>()).sum();
    (cost.macs() as f64 / 1e6, parameters as f64 / 1e6)
}

#[test]
fn presets_have_their_published_size() {
    for (name, macs, parameters) in [
        // T2T-ViT (arXiv 2101.11986): 1.1 and 4.8 G multiply-accumulates, 4.3 and 21.5 M parameters.
        ("t2t_vit_7", 1146.0, 4.3),
        ("t2t_vit_14", 4783.0, 21.5),
        // timm's benchmark tables.
        ("vit_tiny_patch16_224", 1260.0, 5.72),
        ("vit_small_patch16_224", 4610.0, 22.05),
        ("vit_base_patch16_224", 17_580.0, 86.57),
        ("deit_tiny_distilled_patch16_224", 1270.0, 5.91),
        ("mixer_s16_224", 3790.0, 18.53),
        ("mixer_b16_224", 12_620.0, 59.88),
    ] {
        let (counted, held) = millions(name);
        assert!((counted / macs - 1.0).abs() < 0.03, "{name}: {counted} M multiply-accumulates, expected {macs} M");
        assert!((held / parameters - 1.0).abs() < 0.01, "{name}: {held} M parameters, expected {parameters} M");
    }
}

#[test]
fn operations_read_every_parameter_once() {
    for preset in presets::all() {
        let backbone = preset.skeleton(10);
        let held: usize = backbone.params().iter().map(|param| param.shape.iter().product::<usize>()).sum();
        assert_eq!(BackboneCost::count(&*backbone).unwrap().parameters(), held as u64, "{}", preset.name);
    }
}
