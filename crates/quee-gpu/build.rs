//! Turns `shaders/*.wgsl` into `kernels.rs`: joins each kernel with the shared files it names, lists its bindings, and has naga
//! validate it as written and once more for every variant, with the variant's constants filled in.
//!
//! What a kernel's header may say, one line each:
//!
//! - `// uses: math.wgsl rows.wgsl`: files of `shaders/shared/` that are put before it
//! - `// shared: KIB`: what the largest variant may take of shared memory, where that is more than every adapter has; the executor asks the
//!   adapter before it takes such a variant
//! - `// variant: NAME KEY=VALUE …`: override constants of a pipeline that the executor may ask for; a kernel without such a line has
//!   one variant, `main`, without constants
//!
//! `enable` lines may stand anywhere: they are moved to the front. A kernel with one runs on some adapters only, and may use more shared
//! memory and invocations than every adapter has.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage, StorageAccess};

/// Memory that the invocations of a workgroup share, and their number, which every adapter has.
const SHARED_BYTES: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;
/// The same of adapters that have matrix units.
const MATRIX_SHARED_BYTES: u32 = 48 << 10;
const MATRIX_INVOCATIONS: u32 = 512;

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../shaders");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "wgsl"))
        .collect();
    files.sort();
    let mut out = String::new();
    let mut names = Vec::new();
    for file in &files {
        let kernel = Kernel::read(&folder, file);
        kernel.write(&mut out);
        names.push(kernel.constant());
    }
    let list: String = names.iter().map(|name| format!("&{name}, ")).collect();
    writeln!(out, "/// Every kernel.\npub static ALL: &[&Source] = &[{list}];").expect("a string takes everything");
    let target = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("kernels.rs");
    fs::write(&target, out).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
}

struct Kernel {
    name: String,
    text: String,
    variants: Vec<(String, Vec<(String, f64)>)>,
    /// Bytes of shared memory of each variant.
    shared: Vec<u32>,
    /// Most bytes of shared memory that a variant may take.
    most_shared: u32,
    module: naga::Module,
    /// Whether it enables what not every adapter has.
    is_special: bool,
}

impl Kernel {
    fn read(folder: &Path, file: &Path) -> Self {
        let own = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let name = file.file_stem().expect("a file has a name").to_str().expect("names are ASCII").to_owned();
        let (mut text, mut variants, mut most_shared) = (String::new(), Vec::new(), SHARED_BYTES);
        for line in own.lines() {
            if let Some(list) = line.strip_prefix("// uses: ") {
                for part in list.split_whitespace() {
                    let path = folder.join("shared").join(part);
                    text += &fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    text.push('\n');
                }
            }
            if let Some(kib) = line.strip_prefix("// shared: ") {
                let kib: u32 = kib.parse().unwrap_or_else(|_| panic!("{}: {line} has no number", file.display()));
                most_shared = kib << 10;
            }
            if let Some(variant) = line.strip_prefix("// variant: ") {
                let mut words = variant.split_whitespace();
                let name = words.next().unwrap_or_else(|| panic!("{}: a variant without a name", file.display()));
                let constant = |word: &str| {
                    let (key, value) =
                        word.split_once('=').unwrap_or_else(|| panic!("{name}: {word} is not KEY=VALUE"));
                    (key.to_owned(), value.parse().unwrap_or_else(|_| panic!("{name}: {word} has no number")))
                };
                variants.push((name.to_owned(), words.map(constant).collect()));
            }
        }
        // Put first, as the language wants them.
        let (enables, rest): (Vec<&str>, Vec<&str>) = own.lines().partition(|line| line.starts_with("enable "));
        let is_special = !enables.is_empty();
        if is_special {
            most_shared = most_shared.max(MATRIX_SHARED_BYTES);
        }
        text = enables.into_iter().map(|line| format!("{line}\n")).collect::<String>() + &text;
        rest.into_iter().for_each(|line| {
            text += line;
            text.push('\n');
        });
        if variants.is_empty() {
            variants.push(("main".to_owned(), Vec::new()));
        }
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(&text, &file.display().to_string())));
        let mut kernel = Self { name, text, variants, shared: Vec::new(), most_shared, module, is_special };
        kernel.shared = kernel.validate(file);
        kernel
    }

    /// Checks every variant; the bytes of shared memory of each.
    fn validate(&self, file: &Path) -> Vec<u32> {
        let (capabilities, most_invocations) = match self.is_special {
            true => {
                let matrix = Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
                (matrix, MATRIX_INVOCATIONS)
            }
            false => (Capabilities::empty(), INVOCATIONS),
        };
        let check = |module: &naga::Module| {
            Validator::new(ValidationFlags::all(), capabilities)
                .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
                .subgroup_operations(naga::valid::SubgroupOperationSet::BASIC)
                .validate(module)
                .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(&self.text, &file.display().to_string())))
        };
        let info = check(&self.module);
        let mut all_shared = Vec::new();
        for (variant, constants) in &self.variants {
            let constants = constants.iter().cloned().collect();
            let entry = Some((ShaderStage::Compute, "main"));
            let (filled, _) = naga::back::pipeline_constants::process_overrides(&self.module, &info, entry, &constants)
                .unwrap_or_else(|e| panic!("{}, variant {variant}: {e}", file.display()));
            check(&filled);
            let entry = filled.entry_points.iter().find(|entry| entry.name == "main").expect("kernels have a main");
            let invocations: u32 = entry.workgroup_size.iter().product();
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(filled.to_ctx()).expect("a valid module has layouts");
            let shared: u32 = filled
                .global_variables
                .iter()
                .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
                .map(|(_, variable)| layouter[variable.ty].size)
                .sum();
            assert!(
                invocations <= most_invocations && shared <= self.most_shared,
                "{}, variant {variant}: {invocations} invocations, {shared} bytes shared",
                file.display()
            );
            all_shared.push(shared);
        }
        all_shared
    }

    fn constant(&self) -> String {
        self.name.to_uppercase()
    }

    /// Kinds of the bindings of group 0, which are numbered without a gap.
    fn bindings(&self) -> Vec<&'static str> {
        let mut found: Vec<(u32, &'static str)> = Vec::new();
        for (_, variable) in self.module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            let kind = match variable.space {
                AddressSpace::Uniform => "Uniform",
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => "ReadWrite",
                AddressSpace::Storage { .. } => "Read",
                space => panic!("{}: a binding in {space:?}", self.name),
            };
            found.push((binding.binding, kind));
        }
        found.sort_unstable();
        assert!(found.iter().enumerate().all(|(i, (at, _))| *at == i as u32), "{}: bindings {found:?}", self.name);
        found.into_iter().map(|(_, kind)| kind).collect()
    }

    fn write(&self, out: &mut String) {
        let bindings: String = self.bindings().iter().map(|kind| format!("Binding::{kind}, ")).collect();
        let variants: String = self
            .variants
            .iter()
            .zip(&self.shared)
            .map(|((name, constants), shared)| {
                let list: String = constants.iter().map(|(key, value)| format!("({key:?}, {value:?}), ")).collect();
                format!("    Variant {{ name: {name:?}, constants: &[{list}], shared: {shared} }},\n")
            })
            .collect();
        let (name, text, constant) = (&self.name, &self.text, self.constant());
        writeln!(
            out,
            "/// `shaders/{name}.wgsl`.\npub static {constant}: Source = Source {{\n  name: {name:?},\n  wgsl: {text:?},\n  bindings: \
             &[{bindings}],\n  variants: &[\n{variants}  ],\n}};"
        )
        .expect("a string takes everything");
    }
}
