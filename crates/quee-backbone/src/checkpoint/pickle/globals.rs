//! The functions and classes that a checkpoint may refer to. None of them is ever called: each stands for what it makes.

use crate::checkpoint::dtype::Dtype;

/// A function or class that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Global {
    /// A dictionary with a class of its own.
    Dict,
    /// A class, or a function that makes an object of it, whose objects are plain data of no use here.
    Inert,
    /// `torch.Size`, a tuple.
    Size,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: the element type is an argument.
    TypedTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that is trained.
    Parameter,
    /// `torch._tensor._rebuild_from_type_v2`: a tensor with attributes.
    WithAttributes,
    /// A storage of elements of one type.
    Storage(Dtype),
    /// A storage of bytes.
    Bytes,
    /// An element type.
    Dtype(Dtype),
}

/// Data that training scripts leave beside the weights: options (`argparse.Namespace`), numpy's numbers (the best
/// accuracy), paths, dates.
const INERT: &[&str] = &[
    "_codecs.encode",
    "argparse.Namespace",
    "types.SimpleNamespace",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
];

/// Looks a global up by module and name.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    // Names of Python 2, of numpy 2 and of Python 3.13.
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        "numpy._core.multiarray" => "numpy.core.multiarray",
        "pathlib._local" => "pathlib",
        other => other,
    };
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("torch", "Size") => Global::Size,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::WithAttributes,
        ("torch.storage" | "torch", "UntypedStorage") => Global::Bytes,
        ("torch" | "torch.cuda", class) if Dtype::of_storage(class).is_some() => {
            Global::Storage(Dtype::of_storage(class)?)
        }
        ("torch", dtype) if Dtype::of_torch(dtype).is_some() => Global::Dtype(Dtype::of_torch(dtype)?),
        _ if INERT.iter().any(|known| known.strip_suffix(name).and_then(|m| m.strip_suffix('.')) == Some(module)) => {
            Global::Inert
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_a_whole() {
        assert_eq!(find("argparse", "Namespace"), Some(Global::Inert));
        assert_eq!(find("torch", "HalfStorage"), Some(Global::Storage(Dtype::F16)));
        assert_eq!(find("torch", "bfloat16"), Some(Global::Dtype(Dtype::BF16)));
        assert_eq!(find("numpy._core.multiarray", "scalar"), Some(Global::Inert));
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("__builtin__", "exec"),
            ("argparse", "ArgumentParser"),
            ("argparse", ""),
            ("", "argparse.Namespace"),
            ("argparse.Namespace", ""),
            ("torch", ""),
            ("torch", "load"),
            ("torch.cuda", "float32"),
            ("collections", "OrderedDict.fromkeys"),
        ] {
            assert_eq!(find(module, name), None, "{module}.{name}");
        }
    }
}
