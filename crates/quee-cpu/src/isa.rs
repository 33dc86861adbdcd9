//! Instruction sets that kernels are written for, and how a function is compiled for each of them.

use std::fmt;

/// An instruction set that the integer kernels are written for.
///
/// Integer widths give the same bits on every instruction set; float matrix products may differ in the last bits, because
/// all but plain Rust have fused multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, for any processor.
    Portable,
    /// 64-bit ARM with NEON's products of four codes (`FEAT_DotProd`): what processors of phones, laptops and servers have since about 2018.
    NeonDot,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX2, FMA and AVX-VNNI: sums of four products of codes in vectors of 256 bits, on processors without AVX-512 too.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// The same with AMX for bytes: products of many rows in tiles of 16 by 64 codes. Server processors since 2023; Linux only.
    Amx,
}

impl Isa {
    /// The instruction sets that this machine has, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::NeonDot, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni, Self::Amx]
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// The fastest instruction set that this machine has, or the one that the environment asks for, see [`asked_for`](Self::asked_for).
    pub fn best() -> Self {
        let fastest = || Self::available().pop().unwrap_or(Self::Portable);
        Self::asked_for().ok().flatten().unwrap_or_else(fastest)
    }

    /// The instruction set that the environment variable `QUEE_ISA` names, for comparisons.
    ///
    /// # Errors
    /// When this machine has none of that name.
    pub fn asked_for() -> Result<Option<Self>, String> {
        let Some(name) = std::env::var_os("QUEE_ISA") else { return Ok(None) };
        let available = Self::available();
        match available.iter().find(|isa| name == *isa.to_string()) {
            Some(isa) => Ok(Some(*isa)),
            None => {
                let names: Vec<String> = available.iter().map(ToString::to_string).collect();
                let name = name.display();
                Err(format!(
                    "QUEE_ISA={name}: this processor has no such instruction set; hint: it has {}",
                    names.join(", ")
                ))
            }
        }
    }

    /// Whether kernels for AVX-512 run on it.
    pub fn has_avx512(self) -> bool {
        matches!(self, Self::Avx512Vnni | Self::Amx)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => {
                std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Vnni.is_available() && crate::avx512::amx::is_ready(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::Amx => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
        })
    }
}

/// Proof that this machine has an instruction set: kernels are reached only through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu(Isa);

impl Cpu {
    /// Checks that the machine has `isa`.
    ///
    /// # Panics
    /// When it has not.
    pub fn new(isa: Isa) -> Self {
        assert!(isa.is_available(), "this processor has no {isa}");
        Self(isa)
    }

    pub fn isa(self) -> Isa {
        self.0
    }
}

/// Compiles a function once for the baseline (which has NEON on ARM), once for AVX2 and once for AVX-512, and picks by the [`Cpu`] that it gets as first argument.
///
/// The body must be plain Rust without fused multiply-add, so that all give the same bits.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident(cpu $(, $arg:ident: $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(cpu: $crate::isa::Cpu $(, $arg: $ty)*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            match cpu.isa() {
                $crate::isa::Isa::Portable | $crate::isa::Isa::NeonDot => body($($arg),*),
                // SAFETY: a `Cpu` of these instruction sets exists only on a machine that has them.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 | $crate::isa::Isa::AvxVnni => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512Vnni | $crate::isa::Isa::Amx => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
pub(crate) fn every_cpu() -> Vec<Cpu> {
    Isa::available().into_iter().map(Cpu::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_there_and_best_is_available() {
        assert_eq!(Isa::available()[0], Isa::Portable);
        assert!(Isa::best().is_available());
        assert_eq!(Isa::available().last(), Some(&Isa::best()), "without QUEE_ISA");
    }
}
