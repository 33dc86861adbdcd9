//! Every kernel against a plain scalar twin: one file for each shader, named as the shader.
//!
//! Each operation runs on all devices of [`support::Devices`]: with the kernels for software adapters and with those for discrete GPUs, without
//! and with small limits. All must give the same bits.

mod add;
mod attention_codes;
mod expand_codes;
mod gelu;
mod matmul_codes;
mod matmul_float;
mod mean_tokens;
mod pack_float;
mod performer;
mod rearrange;
mod rows_codes;
mod rows_float;
mod support;
mod unfold;
mod values_codes;
