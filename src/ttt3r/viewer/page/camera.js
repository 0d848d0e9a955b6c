// ------------------------------------------------------------------------------------- the camera

// OpenCV axes: x right, y down, z forward. `turn` and `lift` are angles about the world's -y axis.
const orbit = { target: [0, 0, 2], turn: 0, lift: 0.35, distance: 4, fov: 0.9 };

function eye() {
  const back = [
    -Math.sin(orbit.turn) * Math.cos(orbit.lift), -Math.sin(orbit.lift),
    -Math.cos(orbit.turn) * Math.cos(orbit.lift)];
  return plus(orbit.target, back, orbit.distance);
}

// Axes of what is looked with: right, down, forward; and where it is.
function viewpoint() {
  const pose = $("follow").checked && poseAt(state.frame);
  if (pose) {
    const column = (c) => [pose[3 + c], pose[7 + c], pose[11 + c]];
    const [right, down, forward, at] = [0, 1, 2, 3].map(column);
    return { right, down, forward, at: plus(at, forward, -0.08 * state.reach) };
  }
  const at = eye();
  const forward = unit(plus(orbit.target, at, -1));
  const right = unit(cross([0, 1, 0], forward));
  return { right, down: cross(forward, right), forward, at };
}

function projection(from) {
  const pose = $("follow").checked && poseAt(state.frame);
  const slope = pose ? 1.25 * pose[16] : Math.tan(orbit.fov / 2);
  const aspect = canvas.width / canvas.height;
  const near = 0.002 * state.reach, far = 60 * state.reach;
  const p = new Float32Array(16);
  p[0] = 1 / (slope * aspect); p[5] = 1 / slope;
  p[10] = (far + near) / (near - far); p[14] = (2 * far * near) / (near - far); p[11] = -1;
  const rows = [from.right, plus([0, 0, 0], from.down, -1), plus([0, 0, 0], from.forward, -1)];
  const v = new Float32Array(16);
  rows.forEach((row, r) => {
    for (let c = 0; c < 3; c++) v[c * 4 + r] = row[c];
    v[12 + r] = -dot(row, from.at);
  });
  v[15] = 1;
  return { matrix: multiply(p, v), pixels: canvas.height / 2 / slope };
}

function poseAt(frame) {
  let low = 0, high = state.poses.length - 1;
  if (high < 0) return null;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (state.poses[middle][0] <= frame) low = middle; else high = middle - 1;
  }
  return state.poses[low];
}

