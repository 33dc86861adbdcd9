// Cuts windows out of pictures, zeros around them.
//
// x       f32 [B, channels, height, width]
// y       f32 [B, down * across, channels * kernel * kernel]: windows in reading order, inside a window channel by channel
//
// One invocation per value of y. Oracle: tests/kernels/unfold.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    channels: u32,
    height: u32,
    width: u32,
    down: u32,
    across: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    x_at: u32,
    y_at: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    if i >= p.count {
        return;
    }
    var rest = i;
    let column = rest % p.kernel;
    rest /= p.kernel;
    let line = rest % p.kernel;
    rest /= p.kernel;
    let channel = rest % p.channels;
    rest /= p.channels;
    let place = rest % (p.down * p.across);
    let sample = rest / (p.down * p.across);
    // Beyond the padding on the left, numbers wrap around and are larger than any picture.
    let row = place / p.across * p.stride + line - p.padding;
    let at = place % p.across * p.stride + column - p.padding;
    var v = 0.0;
    if row < p.height && at < p.width {
        v = x[p.x_at + ((sample * p.channels + channel) * p.height + row) * p.width + at];
    }
    y[p.y_at + i] = v;
}
