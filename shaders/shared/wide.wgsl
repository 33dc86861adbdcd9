// Sixteen invocations for each row, sixteen rows for each workgroup: what the invocations of a row find out together.
// Invocation `lane` of the workgroup has place lane % 16 in row lane / 16. All invocations of a workgroup must call these functions.

const PLACES = 16u;
const WIDE_ROWS = 16u;

var<workgroup> sums: array<f32, 256>;
var<workgroup> extremes: array<vec2<f32>, 256>;
var<workgroup> counts: array<i32, 256>;

fn four_sums(at: u32) -> vec4<f32> {
    return vec4(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
}

// The sum of the sixteen partial sums of a row.
fn sum_places(lane: u32, partial: f32) -> f32 {
    // What was there before has been read.
    workgroupBarrier();
    sums[lane] = partial;
    workgroupBarrier();
    let at = lane / PLACES * PLACES;
    return total(Partial(four_sums(at), four_sums(at + 4u), four_sums(at + 8u), four_sums(at + 12u)));
}

// The largest of each component over a row.
fn max_places(lane: u32, partial: vec2<f32>) -> vec2<f32> {
    workgroupBarrier();
    extremes[lane] = partial;
    workgroupBarrier();
    var top = partial;
    for (var i = 0u; i < PLACES; i++) {
        top = max(top, extremes[lane / PLACES * PLACES + i]);
    }
    return top;
}

// The sum of integers over a row.
fn count_places(lane: u32, partial: i32) -> i32 {
    workgroupBarrier();
    counts[lane] = partial;
    workgroupBarrier();
    var count = 0;
    for (var i = 0u; i < PLACES; i++) {
        count += counts[lane / PLACES * PLACES + i];
    }
    return count;
}
