// Parameters of the kernels that show what an adapter can reach: rounds of eight steps, and where the sums go.

struct Params {
    rounds: u32,
    out_at: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
