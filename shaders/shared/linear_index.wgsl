// Number of this invocation, in dispatches of two dimensions because one has too few workgroups for the largest tensors.
const WORKGROUP = 64u;

fn invocation(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return (group.y * groups.x + group.x) * WORKGROUP + lane;
}
