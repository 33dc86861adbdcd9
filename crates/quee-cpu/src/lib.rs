//! CPU executor: integer kernels for AVX-512 VNNI, AVX2 and any other processor.
