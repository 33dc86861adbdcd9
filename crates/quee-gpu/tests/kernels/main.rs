//! Every kernel against a plain scalar twin: one file for each shader, named as the shader.

mod matmul_codes;
mod support;
