// Operands of a product of codes (product.wgsl): four codes to a word, a chunk of 16 to a vector.

@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<u32>>;
