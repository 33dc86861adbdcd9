//! Element types, and what becomes a 32-bit float.

use std::sync::Arc;

use super::view::Walk;

/// Element type of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 64-bit float; converted.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float with 5 bits of exponent; converted.
    F16,
    /// 16-bit float with 8 bits of exponent; converted.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// Truth value, one byte.
    Bool,
    /// Complex number of two 16-bit floats.
    C32,
    /// Complex number of two 32-bit floats.
    C64,
    /// Complex number of two 64-bit floats.
    C128,
    /// 8-bit float, 4 bits of exponent.
    F8E4M3,
    /// 8-bit float, 5 bits of exponent.
    F8E5M2,
    /// 8-bit float, 4 bits of exponent, one zero.
    F8E4M3Fnuz,
    /// 8-bit float, 5 bits of exponent, one zero.
    F8E5M2Fnuz,
    /// 8-bit power of two.
    F8E8M0,
    /// PyTorch's quantized 8-bit signed integer.
    QI8,
    /// PyTorch's quantized 8-bit unsigned integer.
    QU8,
    /// PyTorch's quantized 32-bit signed integer.
    QI32,
    /// A float of less than 8 bits.
    SubByte,
}

/// Type, name in PyTorch and in messages, bytes, and PyTorch's name of a storage of it.
const TYPES: [(Dtype, &str, u64, &str); 25] = [
    (Dtype::F64, "float64", 8, "DoubleStorage"),
    (Dtype::F32, "float32", 4, "FloatStorage"),
    (Dtype::F16, "float16", 2, "HalfStorage"),
    (Dtype::BF16, "bfloat16", 2, "BFloat16Storage"),
    (Dtype::I64, "int64", 8, "LongStorage"),
    (Dtype::I32, "int32", 4, "IntStorage"),
    (Dtype::I16, "int16", 2, "ShortStorage"),
    (Dtype::I8, "int8", 1, "CharStorage"),
    (Dtype::U64, "uint64", 8, ""),
    (Dtype::U32, "uint32", 4, ""),
    (Dtype::U16, "uint16", 2, ""),
    (Dtype::U8, "uint8", 1, "ByteStorage"),
    (Dtype::Bool, "bool", 1, "BoolStorage"),
    (Dtype::C32, "complex32", 4, "ComplexHalfStorage"),
    (Dtype::C64, "complex64", 8, "ComplexFloatStorage"),
    (Dtype::C128, "complex128", 16, "ComplexDoubleStorage"),
    (Dtype::F8E4M3, "float8_e4m3fn", 1, ""),
    (Dtype::F8E5M2, "float8_e5m2", 1, ""),
    (Dtype::F8E4M3Fnuz, "float8_e4m3fnuz", 1, ""),
    (Dtype::F8E5M2Fnuz, "float8_e5m2fnuz", 1, ""),
    (Dtype::F8E8M0, "float8_e8m0fnu", 1, ""),
    (Dtype::QI8, "qint8", 1, "QInt8Storage"),
    (Dtype::QU8, "quint8", 1, "QUInt8Storage"),
    (Dtype::QI32, "qint32", 4, "QInt32Storage"),
    (Dtype::SubByte, "a float of less than 8 bits", 1, ""),
];

impl Dtype {
    /// Name in PyTorch.
    pub fn name(self) -> &'static str {
        TYPES[self as usize].1
    }

    /// Bytes of an element.
    pub(super) fn size(self) -> u64 {
        TYPES[self as usize].2
    }

    /// Type of PyTorch's name, such as `float32`.
    pub(super) fn of_torch(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == name && row.0 != Self::SubByte).map(|row| row.0)
    }

    /// Type of the elements of PyTorch's storage class, such as `FloatStorage`.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        TYPES.iter().find(|row| !row.3.is_empty() && row.3 == class).map(|row| row.0)
    }

    /// Type in a safetensors header; `None` for one that is not known here.
    pub(super) fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as S;
        Some(match dtype {
            S::F64 => Self::F64,
            S::F32 => Self::F32,
            S::F16 => Self::F16,
            S::BF16 => Self::BF16,
            S::I64 => Self::I64,
            S::I32 => Self::I32,
            S::I16 => Self::I16,
            S::I8 => Self::I8,
            S::U64 => Self::U64,
            S::U32 => Self::U32,
            S::U16 => Self::U16,
            S::U8 => Self::U8,
            S::BOOL => Self::Bool,
            S::C64 => Self::C64,
            S::F8_E4M3 => Self::F8E4M3,
            S::F8_E5M2 => Self::F8E5M2,
            S::F8_E4M3FNUZ => Self::F8E4M3Fnuz,
            S::F8_E5M2FNUZ => Self::F8E5M2Fnuz,
            S::F8_E8M0 => Self::F8E8M0,
            S::F4 | S::F6_E2M3 | S::F6_E3M2 => Self::SubByte,
            _ => return None,
        })
    }

    /// Whether the elements can become 32-bit floats.
    pub fn converts(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Integers and truth values, the types of counters and index tables: no weights.
    pub fn is_integer(self) -> bool {
        use Dtype::*;
        matches!(self, I64 | I32 | I16 | I8 | U64 | U32 | U16 | U8 | Bool)
    }

    /// 32-bit floats of little-endian elements, in the order of a walk, or as they lie. 64-bit floats are rounded.
    ///
    /// # Panics
    /// When the type does not convert, or the walk leaves the bytes.
    pub(super) fn decode(self, bytes: &[u8], walk: Option<Walk>) -> Arc<[f32]> {
        match self {
            Self::F32 => gather(bytes, walk, f32::from_le_bytes),
            Self::F64 => gather(bytes, walk, |b| f64::from_le_bytes(b) as f32),
            Self::BF16 => gather(bytes, walk, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            Self::F16 => gather(bytes, walk, |b| half_to_f32(u16::from_le_bytes(b))),
            _ => panic!("{} does not convert", self.name()),
        }
    }
}

fn gather<const N: usize>(bytes: &[u8], walk: Option<Walk>, decode: impl Fn([u8; N]) -> f32) -> Arc<[f32]> {
    let (elements, _) = bytes.as_chunks::<N>();
    // Both iterators know their length, so that the floats are allocated once.
    match walk {
        None => elements.iter().map(|b| decode(*b)).collect(),
        Some(mut walk) => (0..walk.count).map(|_| decode(elements[walk.step()])).collect(),
    }
}

/// A 16-bit float (IEEE 754 binary16) as a 32-bit one, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    let magnitude = if half & 0x7c00 == 0x7c00 {
        // Infinity and NaN: all bits of the wider exponent are set.
        rest | 0x7f80_0000
    } else {
        // The exponents' biases differ by 127 − 15 = 112. The product is exact, for subnormal numbers as well.
        (f32::from_bits(rest) * f32::from_bits((127 + 112) << 23)).to_bits()
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_types() {
        for (i, row) in TYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
        }
    }

    #[test]
    fn every_half_is_what_its_bits_say() {
        for bits in 0..=u16::MAX {
            let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
            let magnitude = match exponent {
                0 => mantissa * 2f64.powi(-14),
                31 if bits & 1023 == 0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + mantissa) * 2f64.powi(exponent - 15),
            };
            let expected = if bits >> 15 == 1 { -magnitude } else { magnitude };
            let got = half_to_f32(bits);
            assert!(got.is_nan() && expected.is_nan() || f64::from(got).to_bits() == expected.to_bits(), "{bits:#06x}");
        }
    }

    #[test]
    fn wider_and_narrower_floats() {
        let bytes: Vec<u8> = [1.5f64, -2.0, 1e300].into_iter().flat_map(f64::to_le_bytes).collect();
        assert_eq!(&*Dtype::F64.decode(&bytes, None), [1.5, -2.0, f32::INFINITY]);
        assert_eq!(&*Dtype::BF16.decode(&[0x80, 0x3f, 0x40, 0xc0], None), [1.0, -3.0]);
    }
}
